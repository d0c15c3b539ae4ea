import type { Socket } from 'node:net';

/** Open connections of a listener, and those that wait, unread, until somebody serves them. */
export class Connections {
  readonly #max: number;
  readonly #open = new Set<Socket>();
  readonly #waiting = new Set<Socket>();
  #take: ((socket: Socket) => void) | null = null;

  constructor(max: number) {
    this.#max = max;
  }

  get open(): ReadonlySet<Socket> {
    return this.#open;
  }

  /** A newcomer, paused. */
  add(socket: Socket): void {
    if (this.#take === null) this.#hold(socket);
    else this.#take(socket);
  }

  /** Called once, or `handOver`. `onRefused` may write one last line; the socket is ended afterwards. */
  serve(onConnection: (socket: Socket) => void, onRefused: (socket: Socket) => void = () => {}): void {
    this.#begin((socket) => {
      if (this.#open.size >= this.#max) {
        socket.on('error', () => socket.destroy());
        onRefused(socket);
        socket.end(() => socket.destroy());
        return;
      }
      this.#open.add(socket);
      // A reset must not end the process, whoever serves the socket; it is followed by 'close'.
      socket.on('error', () => socket.destroy());
      socket.once('close', () => this.#open.delete(socket));
      onConnection(socket);
      socket.resume();
    });
  }

  /** All connections are somebody else's from now on, paused as they are; none is counted here. */
  handOver(take: (socket: Socket) => void): void {
    this.#begin(take);
  }

  destroy(): void {
    for (const socket of this.#open) socket.destroy();
    for (const socket of this.#waiting) socket.destroy();
  }

  #begin(take: (socket: Socket) => void): void {
    this.#take = take;
    for (const socket of this.#waiting) take(socket);
    this.#waiting.clear();
  }

  #hold(socket: Socket): void {
    if (this.#waiting.size >= this.#max) {
      socket.destroy();
      return;
    }
    this.#waiting.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#waiting.delete(socket));
  }
}
