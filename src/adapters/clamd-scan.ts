import type { Socket } from 'node:net';

import { NeighbourError } from '../ports/neighbour-error.ts';
import type { VirusAnswer, VirusScan } from '../ports/virus-scanner.ts';
import { ANSWER_LIMIT, chunkHead, END_OF_STREAM, INSTREAM, readScanAnswer } from './clamd-wire.ts';

/** What became of the connection: it gave its answer, it failed, or it was not wanted any more. */
export type ScanEnd =
  { readonly kind: 'answered' | 'dropped' } | { readonly kind: 'broke'; readonly error: unknown };

/**
 * One message on its way to a clamd. Before a connection is there the one piece that was given is kept; afterwards nothing is, and
 * whoever gives waits for the kernel to take it.
 */
export class ClamdScan implements VirusScan {
  readonly #result = Promise.withResolvers<VirusAnswer>();
  /** Kept when the scan is with a server, or over. */
  readonly #taken = Promise.withResolvers<void>();
  readonly #over = new AbortController();
  readonly #given: AbortSignal;
  #patienceMs: number;
  #waiting: readonly Uint8Array[] = [];
  #socket: Socket | null = null;
  #complete = false;
  #broken = false;
  #octets = 0;
  #settled = false;

  constructor(patienceMs: number, signal: AbortSignal) {
    this.#patienceMs = patienceMs;
    this.#given = signal;
    // Whoever asked hears of it in `end`; a scan that nobody ends must not bring the process down.
    this.#result.promise.catch(() => {});
    signal.addEventListener('abort', this.#abort, { once: true });
    if (signal.aborted) this.#abort();
  }

  /** Aborts when the scan is over, however it ended. */
  get signal(): AbortSignal {
    return this.#over.signal;
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** That the connection was given, whether it took them or not. */
  get octets(): number {
    return this.#octets;
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    // A chunk of no octets would end the stream.
    if (this.#settled || this.#broken || chunk.length === 0) return undefined;
    if (this.#socket === null) {
      this.#waiting = [...this.#waiting, chunk];
      return this.#patiently(this.#taken.promise);
    }
    this.#octets += chunk.length;
    return send(this.#socket, chunk) ? undefined : this.#patiently(drained(this.#socket));
  }

  async end(): Promise<VirusAnswer> {
    this.#complete = true;
    if (!this.#broken) this.#socket?.write(END_OF_STREAM);
    await this.#patiently(this.#result.promise);
    return await this.#result.promise;
  }

  answer(answer: VirusAnswer): void {
    this.#settle(() => this.#result.resolve(answer));
  }

  fail(error: unknown): void {
    this.#settle(() => this.#result.reject(error));
  }

  /** Sends what there is and what comes over this connection. When that breaks, the caller says what it means. Never rejects. */
  async use(socket: Socket): Promise<ScanEnd> {
    if (this.#settled) {
      socket.destroy();
      return { kind: 'dropped' };
    }
    const answer = answerOf(socket, this.#over.signal);
    this.#socket = socket;
    socket.write(INSTREAM);
    for (const chunk of this.#waiting) {
      this.#octets += chunk.length;
      send(socket, chunk);
    }
    this.#waiting = [];
    if (this.#complete) socket.write(END_OF_STREAM);
    this.#taken.resolve();
    try {
      const text = await answer;
      if (text === null) return { kind: 'dropped' };
      const read = readScanAnswer(text);
      // Whoever says so has not seen all of it.
      if (read.kind === 'clean' && !this.#complete) {
        throw new NeighbourError('said that the message is clean before its end');
      }
      this.answer(read);
      return { kind: 'answered' };
    } catch (error) {
      this.#broken = true;
      return { kind: 'broke', error };
    } finally {
      socket.destroy();
    }
  }

  readonly #abort = (): void => {
    this.fail(new NeighbourError('given up', { cause: this.#given.reason }));
  };

  #settle(settle: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    settle();
    this.#waiting = [];
    this.#taken.resolve();
    this.#given.removeEventListener('abort', this.#abort);
    this.#over.abort(new NeighbourError('the scan is over'));
  }

  /** Waits as long as there is patience left; then the answer is that there is none. Never rejects. */
  async #patiently(awaited: Promise<unknown>): Promise<void> {
    const begun = performance.now();
    const late = setTimeout(() => {
      this.#settle(() => this.#result.resolve({ kind: 'timeout' }));
    }, this.#patienceMs);
    try {
      await Promise.race([awaited, this.#result.promise]);
    } catch {
      // Told by `end`, which awaits the result itself.
    } finally {
      clearTimeout(late);
      this.#patienceMs = Math.max(0, this.#patienceMs - (performance.now() - begun));
    }
  }
}

/** One chunk in one write; false: the socket's buffer is full. */
function send(socket: Socket, chunk: Uint8Array): boolean {
  socket.cork();
  socket.write(chunkHead(chunk.length));
  const room = socket.write(chunk);
  socket.uncork();
  return room;
}

/** All up to the NUL, which may come before everything was sent; null when `over` aborts first. */
function answerOf(socket: Socket, over: AbortSignal): Promise<string | null> {
  return new Promise((resolve, reject) => {
    let text = '';
    over.addEventListener('abort', () => resolve(null), { once: true });
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\0');
      if (end !== -1) resolve(text.slice(0, end));
      else if (text.length > ANSWER_LIMIT) {
        reject(new NeighbourError(`the answer is longer than ${ANSWER_LIMIT} octets`));
      }
    });
    const closed = (): void => reject(new NeighbourError('closed the connection without an answer'));
    socket.on('end', closed);
    socket.on('close', closed);
    socket.on('error', reject);
  });
}

/** Room in the socket's buffer again, or no socket any more. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed || !socket.writableNeedDrain) {
      resolve();
      return;
    }
    const done = (): void => {
      socket.off('drain', done);
      socket.off('close', done);
      resolve();
    };
    socket.once('drain', done);
    socket.once('close', done);
  });
}
