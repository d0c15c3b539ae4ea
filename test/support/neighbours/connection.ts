import { once } from 'node:events';
import { type Socket, connect } from 'node:net';
import { DEFAULT_DEADLINE_MS, withDeadline } from './deadline.ts';

export type Endpoint =
  | {
      readonly port: number;
      readonly host?: string;
      /** Which of this machine's addresses the connection comes from, such as 127.0.0.2. */
      readonly localAddress?: string;
    }
  | { readonly path: string };

const CRLF = Buffer.from('\r\n');

/** A client's connection read by lines and by counted bytes, with a deadline on every read. */
export class Connection implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #name: string;
  readonly #deadlineMs: number;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  private constructor(socket: Socket, name: string, deadlineMs: number) {
    this.#socket = socket;
    this.#name = name;
    this.#deadlineMs = deadlineMs;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    socket.on('error', (error) => {
      this.#failure = error;
    });
    socket.on('close', () => {
      this.#ended = true;
      this.#wake?.();
    });
    socket.on('end', () => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  static async open(endpoint: Endpoint, deadlineMs = DEFAULT_DEADLINE_MS): Promise<Connection> {
    const name = 'path' in endpoint ? endpoint.path : `${endpoint.host ?? '127.0.0.1'}:${endpoint.port}`;
    const socket = connect('path' in endpoint ? endpoint : { host: '127.0.0.1', ...endpoint });
    try {
      await withDeadline(once(socket, 'connect'), deadlineMs, `a connection to ${name}`);
    } catch (error) {
      socket.destroy();
      throw new Error(`cannot connect to ${name}`, { cause: error });
    }
    return new Connection(socket, name, deadlineMs);
  }

  /** Strings are sent as UTF-8, line ends as they are. */
  write(data: string | Uint8Array): void {
    if (!this.#ended) this.#socket.write(data);
  }

  /** Says that nothing more will be sent; what comes back can still be read. */
  endWriting(): void {
    this.#socket.end();
  }

  /** The bytes of one line without its CRLF. */
  async readLine(deadlineMs = this.#deadlineMs): Promise<Buffer> {
    await this.#until(() => this.#received.includes(CRLF), 'a line', deadlineMs);
    const end = this.#received.indexOf(CRLF);
    const line = this.#received.subarray(0, end);
    this.#received = this.#received.subarray(end + CRLF.length);
    return line;
  }

  async readExactly(length: number): Promise<Buffer> {
    await this.#until(() => this.#received.length >= length, `${length} bytes`, this.#deadlineMs);
    const bytes = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  /** Everything up to the other side's end. */
  async readToEnd(): Promise<Buffer> {
    await this.#until(() => this.#ended, 'the end', this.#deadlineMs);
    const bytes = this.#received;
    this.#received = Buffer.alloc(0);
    return bytes;
  }

  /** Whether a whole line is there to be read without waiting. */
  get hasLine(): boolean {
    return this.#received.includes(CRLF);
  }

  /** Resolves when a whole line is there, and never fails: a read tells what went wrong. */
  async lineArrived(signal: AbortSignal): Promise<void> {
    const aborted = once(signal, 'abort').then(() => undefined);
    while (!this.hasLine && !this.#ended && !signal.aborted) {
      await Promise.race([this.#nextEvent(), aborted]);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.closed) return;
    const closed = once(this.#socket, 'close');
    this.#socket.destroy();
    await closed;
  }

  async #until(satisfied: () => boolean, what: string, deadlineMs: number): Promise<void> {
    const wait = async () => {
      while (!satisfied()) {
        if (this.#ended) {
          throw new Error(`${this.#name} closed the connection while ${what} was awaited`, {
            cause: this.#failure,
          });
        }
        await this.#nextEvent();
      }
    };
    await withDeadline(
      wait(),
      deadlineMs,
      `${what} from ${this.#name}`,
      () => `received so far: ${JSON.stringify(this.#received.toString('latin1').slice(-500))}`,
    );
  }

  #nextEvent(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }
}
