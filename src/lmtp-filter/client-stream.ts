import type { Socket } from 'node:net';

/** Octets taken from the socket ahead of whoever reads them. So many are enough to notice that the client left. */
const AHEAD = 64 * 1024;
/** Octets of replies the client has not read yet, from which on nothing more is read from it. */
const UNREAD_REPLIES = 64 * 1024;
/** Replies to a group of commands leave together, but none waits longer than this for those after it. */
export const HOLD_MS = 1000;

export type Read =
  { readonly kind: 'piece'; readonly piece: Buffer } | { readonly kind: 'gone' | 'silent' | 'given-up' };

/** Postfix's end: pieces in, replies out, and whether it is still there. */
export class ClientStream {
  readonly #socket: Socket;
  readonly #pieces: Buffer[] = [];
  #ahead = 0;
  #gone = false;
  #reading: ((read: Read) => void) | null = null;
  #held = '';
  #holding: NodeJS.Timeout | null = null;
  #flushing = false;
  #givenUp = false;
  #ended = false;
  #onGone: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (piece: Buffer) => this.#receive(piece));
    socket.on('timeout', () => this.#hand({ kind: 'silent' }));
    // A client that ends its side has left: Postfix does nothing of the kind before it has its last reply.
    socket.on('end', () => this.#leave());
    socket.on('error', () => this.#leave());
    socket.on('close', () => this.#leave());
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Called once, when the client leaves. */
  onGone(listener: () => void): void {
    this.#onGone = listener;
  }

  /** The next piece; what was said before is sent first. `silent`: nothing came for that long, or our replies are not read. */
  read(timeoutMs: number): Promise<Read> {
    this.flush();
    const piece = this.#pieces.shift();
    if (piece !== undefined) {
      this.#ahead -= piece.length;
      if (this.#socket.isPaused() && this.#ahead < AHEAD) this.#socket.resume();
      return Promise.resolve({ kind: 'piece', piece });
    }
    if (this.#gone) return Promise.resolve({ kind: 'gone' });
    if (this.#givenUp) return Promise.resolve({ kind: 'given-up' });
    const { promise, resolve } = Promise.withResolvers<Read>();
    this.#reading = resolve;
    this.#socket.setTimeout(timeoutMs);
    return promise;
  }

  /** Nothing more is read but what is here already. */
  giveUp(): void {
    this.#givenUp = true;
    this.#hand({ kind: 'given-up' });
  }

  /** Says something, to be sent with what is said next. */
  say(text: string): void {
    this.#held += text;
    this.#holding ??= setTimeout(() => this.flush(), HOLD_MS);
  }

  /** Sends what was said, and what is said before this turn of the event loop ends. false: the client is not there any more. */
  flushSoon(): boolean {
    if (this.#gone) return false;
    if (!this.#flushing) {
      this.#flushing = true;
      setImmediate(() => {
        this.#flushing = false;
        this.flush();
      });
    }
    return true;
  }

  /** Sends what was said. */
  flush(): void {
    if (this.#holding !== null) clearTimeout(this.#holding);
    this.#holding = null;
    const text = this.#held;
    this.#held = '';
    if (this.#gone) return;
    if (text !== '') this.#socket.write(text, 'latin1');
    if (this.#socket.writableLength > UNREAD_REPLIES) this.#waitForReader();
  }

  /**
   * Sends what was said, and ends; resolves when the connection is gone. The client's side is read to its end and thrown away: to close
   * over unread octets is to reset, which may take our last reply with it.
   */
  async end(patienceMs: number): Promise<void> {
    this.flush();
    this.#ended = true;
    this.#pieces.length = 0;
    this.#socket.setTimeout(0);
    if (this.#socket.closed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.once('close', resolve);
    const timer = setTimeout(() => this.#socket.destroy(), patienceMs);
    this.#socket.end();
    this.#socket.resume();
    await promise;
    clearTimeout(timer);
  }

  #receive(piece: Buffer): void {
    if (this.#ended) return;
    if (this.#reading !== null) {
      this.#hand({ kind: 'piece', piece });
      return;
    }
    this.#pieces.push(piece);
    this.#ahead += piece.length;
    if (this.#ahead >= AHEAD) this.#socket.pause();
  }

  #hand(read: Read): void {
    const reading = this.#reading;
    this.#reading = null;
    reading?.(read);
  }

  #waitForReader(): void {
    if (this.#socket.isPaused()) return;
    this.#socket.pause();
    this.#socket.once('drain', () => this.#socket.resume());
  }

  #leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    if (this.#holding !== null) clearTimeout(this.#holding);
    this.#holding = null;
    this.#hand({ kind: 'gone' });
    this.#onGone();
  }
}
