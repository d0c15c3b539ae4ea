import type { Socket } from 'node:net';

import type { SocketAddress } from '../config/values.ts';
import { printable } from '../mail/reply.ts';
import { ReplyDecoder, ReplyError, type UpstreamReply } from './reply-decoder.ts';
import { dial, secure, type UpstreamTls } from './upstream-dial.ts';
import { UpstreamError } from './upstream-error.ts';

export interface UpstreamOptions {
  readonly address: SocketAddress;
  /** The longest that one reply, or room for more octets to send, may take; milliseconds. */
  readonly timeoutMs: number;
  /** Our name in LHLO. */
  readonly hostname: string;
  /** null: the connection is not encrypted. */
  readonly tls: UpstreamTls | null;
}

/** How long a connection that was told QUIT may stay. */
const QUIT_MS = 5000;

interface Waiting {
  readonly resolve: (reply: UpstreamReply) => void;
  readonly reject: (error: UpstreamError) => void;
}

/**
 * One connection to Dovecot's LMTP. It ends at the first thing that is not as it should be, and is not usable from then on: whatever
 * is awaited is rejected, and nothing of it is taken for an answer.
 */
export class UpstreamConnection {
  #socket: Socket;
  readonly #decoder = new ReplyDecoder();
  readonly #waiting: Waiting[] = [];
  #patience: number;
  #timer: NodeJS.Timeout | null = null;
  #failed: UpstreamError | null = null;
  #drained: PromiseWithResolvers<void> | null = null;
  #capabilities: ReadonlySet<string> = new Set();
  #onEnd: () => void = () => {};

  private constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket;
    this.#patience = timeoutMs;
    // Three small replies in a row would wait for a delayed ACK each.
    socket.setNoDelay(true);
    this.#listen(socket);
  }

  #listen(socket: Socket): void {
    socket.on('data', (piece) => this.#receive(piece));
    socket.on('drain', () => this.#drained?.resolve());
    socket.on('error', (error) =>
      this.#fail(new UpstreamError('lost', `connection lost: ${error.message}`, { cause: error })),
    );
    socket.on('end', () => this.#fail(new UpstreamError('lost', 'connection closed')));
    socket.on('close', () => this.#fail(new UpstreamError('lost', 'connection closed')));
  }

  /**
   * Connects, takes the greeting and introduces itself, all within the time for one reply: Postfix waits for all of it together.
   * `signal` ends that, and nothing later. @throws {UpstreamError}
   */
  static async open(options: UpstreamOptions, signal: AbortSignal): Promise<UpstreamConnection> {
    const { address, timeoutMs, hostname, tls } = options;
    const begun = performance.now();
    const left = (): number => Math.max(1, timeoutMs - (performance.now() - begun));
    const socket = await dial(address, timeoutMs, signal);
    const connection = new UpstreamConnection(socket, left());
    const giveUp = (): void => connection.destroy();
    signal.addEventListener('abort', giveUp);
    try {
      const greeting = await connection.expect();
      if (greeting.code !== 220) throw unwilling('greeting', greeting);
      connection.setPatience(left());
      await connection.#introduce(hostname);
      if (tls !== null) {
        connection.setPatience(left());
        await connection.#startTls(address, tls, left, signal);
        // RFC 3207 §4.2: what was said before counts for nothing.
        await connection.#introduce(hostname);
      }
      connection.setPatience(timeoutMs);
      return connection;
    } catch (error) {
      connection.destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  async #introduce(hostname: string): Promise<void> {
    const lhlo = await this.command(`LHLO ${hostname}`);
    if (lhlo.code !== 250) throw unwilling('LHLO', lhlo);
    // The first line is the server's name. RFC 5321 §4.1.1.1; keywords in any case, §2.4.
    this.#capabilities = new Set(lhlo.lines.slice(1).map((line) => (line.split(' ')[0] ?? '').toUpperCase()));
  }

  async #startTls(
    address: SocketAddress,
    tls: UpstreamTls,
    left: () => number,
    signal: AbortSignal,
  ): Promise<void> {
    if (!this.#capabilities.has('STARTTLS'))
      throw new UpstreamError('tls', 'the server does not offer STARTTLS');
    const reply = await this.command('STARTTLS');
    if (reply.code !== 220) throw unwilling('STARTTLS', reply, 'tls');
    // What came in the clear behind the reply is not the server's word (RFC 3207 §6).
    if (this.#decoder.pending)
      throw new UpstreamError('tls', 'the server went on in the clear after STARTTLS');
    const plain = this.#socket;
    plain.removeAllListeners('data').removeAllListeners('drain');
    this.#socket = await secure(plain, address, tls, left(), signal);
    this.#listen(this.#socket);
  }

  /** Keywords of the reply to LHLO, in upper case. */
  get capabilities(): ReadonlySet<string> {
    return this.#capabilities;
  }

  get usable(): boolean {
    return this.#failed === null;
  }

  /** What is to happen when it is not usable any more; at once when that is so already. */
  onEnd(listener: () => void): void {
    this.#onEnd = listener;
    if (this.#failed !== null) listener();
  }

  /** How long to wait from now on; milliseconds. */
  setPatience(ms: number): void {
    this.#patience = ms;
  }

  /** Lines written until `uncork` leave in one segment. */
  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  /** Sends a command (without CRLF); the reply. @throws {UpstreamError} */
  command(line: string): Promise<UpstreamReply> {
    const reply = this.expect();
    if (this.#failed === null) this.#socket.write(`${line}\r\n`, 'latin1');
    return reply;
  }

  /**
   * Sends commands; one reply for each. In one segment where the server takes that (RFC 2920 §3.1), otherwise each when the one before
   * is answered. A reply that nobody awaits may fail without harm.
   */
  pipeline(lines: readonly string[]): Promise<UpstreamReply>[] {
    const replies: Promise<UpstreamReply>[] = [];
    if (this.#capabilities.has('PIPELINING')) {
      this.#socket.cork();
      for (const line of lines) replies.push(this.command(line));
      this.#socket.uncork();
    } else {
      let before: Promise<unknown> = Promise.resolve();
      for (const line of lines) {
        const reply = before.then(() => this.command(line));
        before = reply;
        replies.push(reply);
      }
    }
    for (const reply of replies) reply.catch(() => {});
    return replies;
  }

  /** The next reply, for what was sent before. @throws {UpstreamError} */
  expect(): Promise<UpstreamReply> {
    const { promise, resolve, reject } = Promise.withResolvers<UpstreamReply>();
    if (this.#failed !== null) {
      reject(this.#failed);
      return promise;
    }
    this.#waiting.push({ resolve, reject });
    if (this.#waiting.length === 1) this.#arm();
    return promise;
  }

  /**
   * Sends octets of a message. A promise is to be awaited before the next: what is held by `cork` goes then, and more is held
   * afterwards. @throws {UpstreamError}
   */
  send(octets: Uint8Array): Promise<void> | undefined {
    if (this.#failed !== null) throw this.#failed;
    if (this.#socket.write(octets)) return undefined;
    return this.#drain();
  }

  /** Sends the end of a message; how fast that goes, the reply tells. @throws {UpstreamError} */
  sendLast(text: string): void {
    if (this.#failed !== null) throw this.#failed;
    this.#socket.write(text, 'latin1');
  }

  /** Ends it at once. A message that is half sent is not taken by the other side, for want of its dot. */
  destroy(): void {
    this.#fail(new UpstreamError('lost', 'connection given up'));
  }

  /** Ends it in the protocol's words; the answer is not waited for. */
  quit(): void {
    if (this.#failed !== null) return;
    this.#socket.end('QUIT\r\n');
    this.#settle(new UpstreamError('lost', 'connection ended'));
    // The other side ends it as well; one that doesn't shall not keep it open.
    this.#socket.setTimeout(QUIT_MS, () => this.#socket.destroy());
  }

  async #drain(): Promise<void> {
    const corked = this.#socket.writableCorked > 0;
    if (corked) this.#socket.uncork();
    if (this.#socket.writableNeedDrain) {
      this.#drained = Promise.withResolvers<void>();
      this.#arm();
      try {
        await this.#drained.promise;
      } finally {
        this.#drained = null;
        this.#arm();
      }
    }
    if (corked) this.#socket.cork();
  }

  #receive(piece: Buffer): void {
    if (this.#failed !== null) return;
    try {
      const replies = this.#decoder.push(piece);
      // One too many may be the first as well as the last: then none of them can be given to anybody. 421 comes unasked by right
      // (RFC 5321 §3.8), and is the last word.
      const surplus = replies[this.#waiting.length];
      if (surplus !== undefined && surplus.code !== 421) {
        throw new ReplyError(`a reply that nobody asked for: ${surplus.code}`);
      }
      for (const reply of replies) {
        const waiting = this.#waiting.shift();
        if (waiting === undefined) break;
        waiting.resolve(reply);
      }
      if (surplus !== undefined) {
        this.#fail(new UpstreamError('lost', 'the server closes the connection'));
        return;
      }
      this.#arm();
    } catch (error) {
      if (!(error instanceof ReplyError)) throw error;
      this.#fail(new UpstreamError('protocol', error.message, { cause: error }));
    }
  }

  /** The clock runs while a reply or room to send is awaited, and starts anew with each. */
  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#failed !== null || (this.#waiting.length === 0 && this.#drained === null)) return;
    this.#timer = setTimeout(() => {
      this.#fail(new UpstreamError('timeout', `nothing within ${this.#patience} ms`));
    }, this.#patience);
  }

  #fail(error: UpstreamError): void {
    if (this.#failed !== null) return;
    this.#socket.destroy();
    this.#settle(error);
  }

  #settle(error: UpstreamError): void {
    this.#failed = error;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#drained?.reject(error);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    this.#onEnd();
  }
}

function unwilling(
  step: string,
  reply: UpstreamReply,
  failure: 'protocol' | 'tls' = 'protocol',
): UpstreamError {
  const text = printable(reply.lines[0] ?? '', 200);
  return new UpstreamError(failure, `${step} answered with ${reply.code} ${text}`);
}
