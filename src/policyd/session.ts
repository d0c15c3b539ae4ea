import type { Socket } from 'node:net';

import type { Log } from '../runtime/telemetry.ts';
import type { Fault, PolicydMetrics } from './metrics.ts';
import type { Responder } from './responder.ts';
import { encodeReply, RequestDecoder, type Attributes, type PolicyAction } from './wire.ts';

/**
 * How long a request may take from its first byte to its last, and a reply may wait to be read: the patience of Postfix itself
 * (smtpd_policy_service_timeout). A connection between requests has no limit: closing it would cost Postfix a second, so
 * Postfix's own limits hold.
 */
export const PEER_DEADLINE_MS = 100_000;
/** A peer whose machine is gone without a word is noticed by probes. */
const KEEPALIVE_MS = 60_000;

export interface SessionTools {
  readonly responder: Responder;
  readonly metrics: PolicydMetrics;
  readonly log: Log;
}

/**
 * One connection of an smtpd process. Requests are answered in order, each exactly once: a reply too many would answer the next
 * request (attr_clnt.c). While an answer is awaited, or the peer does not read, nothing more is read.
 */
export class Session {
  readonly #socket: Socket;
  readonly #tools: SessionTools;
  readonly #decoder = new RequestDecoder();
  readonly #closed = Promise.withResolvers<void>();
  /** Complete requests; those from `#next` on wait for their turn. */
  #queue: readonly Attributes[] = [];
  #next = 0;
  /** For an answer, or for the peer to read. */
  #waiting = false;
  /** The connection ends when the queue is empty; `stop` lets a request that has begun arrive first. */
  #ending: 'stop' | 'now' | null = null;
  #ended = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(socket: Socket, tools: SessionTools) {
    this.#socket = socket;
    this.#tools = tools;
    // A peer that closes its side after asking still gets its answer.
    socket.allowHalfOpen = true;
    socket.setKeepAlive(true, KEEPALIVE_MS);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('end', () => this.#endOfInput());
    socket.on('drain', () => this.#drained());
    socket.on('error', (error) => tools.log.debug({ daemon: 'policyd', err: error }, 'connection broke'));
    socket.on('close', () => {
      this.#ended = true;
      this.#disarm();
      this.#closed.resolve();
    });
  }

  /** Resolves when the connection is gone. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Answers what was asked, then closes. */
  stop(): void {
    // The event loop polls once before the callback, so that a request which the kernel holds already is answered too.
    setImmediate(() => {
      this.#ending ??= 'stop';
      this.#work();
    });
  }

  /** Closes at once. Postfix asks again on a new connection, and refuses for now when there is none. */
  cut(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    if (this.#ended || this.#ending === 'now') return;
    const { requests, error } = this.#decoder.push(chunk);
    if (requests.length > 0) {
      if (!this.#waiting) this.#disarm();
      const left = this.#queue.slice(this.#next);
      this.#queue = left.length === 0 ? requests : [...left, ...requests];
      this.#next = 0;
    }
    if (error !== null) this.#fault(error);
    this.#work();
  }

  #endOfInput(): void {
    if (this.#decoder.midRequest && this.#ending !== 'now') this.#fault('cut-off');
    this.#ending = 'now';
    this.#work();
  }

  #work(): void {
    if (this.#waiting || this.#ended) return;
    // Postfix has one request under way, for which a cork would only cost; the replies to a peer that sends several at once leave together.
    const several = this.#queue.length - this.#next > 1;
    if (several) this.#socket.cork();
    while (!this.#waiting && !this.#ended) {
      const request = this.#queue[this.#next];
      if (request === undefined) {
        this.#rest();
        break;
      }
      this.#next++;
      this.#answer(request);
    }
    if (several) this.#socket.uncork();
  }

  #answer(request: Attributes): void {
    try {
      const action = this.#tools.responder.answer(request);
      if (action instanceof Promise) void this.#await(action);
      else this.#reply(action);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #await(answer: Promise<PolicyAction>): Promise<void> {
    this.#waiting = true;
    this.#socket.pause();
    try {
      const action = await answer;
      this.#waiting = false;
      this.#reply(action);
      this.#work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #reply(action: PolicyAction): void {
    if (this.#ended || this.#socket.write(encodeReply(action), 'latin1')) return;
    this.#waiting = true;
    this.#socket.pause();
    this.#arm('not-reading');
  }

  #drained(): void {
    if (this.#ended) return;
    this.#waiting = false;
    this.#disarm();
    this.#work();
  }

  /** Every complete request is answered. */
  #rest(): void {
    const { midRequest } = this.#decoder;
    if (this.#ending === 'now' || (this.#ending === 'stop' && !midRequest)) {
      this.#close();
      return;
    }
    if (midRequest) this.#arm('slow-request');
    if (this.#socket.isPaused()) this.#socket.resume();
  }

  /** After the replies have left. */
  #close(): void {
    this.#ended = true;
    this.#disarm();
    this.#arm('not-reading');
    this.#socket.destroySoon();
  }

  /** The peer broke the protocol: what it asked before is answered, and no more is read. Postfix takes a close for "ask again". */
  #fault(reason: Fault): void {
    this.#ending = 'now';
    this.#tools.metrics.fault(reason);
    this.#tools.log.warn({ daemon: 'policyd', reason }, 'connection closed without an answer');
  }

  /** SMTPD_POLICY_README: in case of trouble the server sends no reply and closes; Postfix then defers the mail. */
  #fail(error: unknown): void {
    this.#tools.metrics.fault('internal');
    this.#tools.log.error({ daemon: 'policyd', err: error }, 'request could not be answered');
    this.#close();
  }

  #arm(reason: 'slow-request' | 'not-reading'): void {
    this.#timer ??= setTimeout(() => {
      this.#fault(reason);
      this.#socket.destroy();
    }, PEER_DEADLINE_MS);
  }

  #disarm(): void {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#timer = null;
  }
}
