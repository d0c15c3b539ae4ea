import type { Socket } from 'node:net';

import { noteBuffer } from '../runtime/buffer-garbage.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { Fault, MilterMetrics } from './metrics.ts';
import { PROGRESS, TEMPFAIL } from './responses.ts';
import type { Session } from './session.ts';
import { ProtocolError, type Command } from './command.ts';
import { CommandDecoder } from './wire.ts';

/** Silence after which a connection is given up: libmilter's default (smfi_settimeout), far above every timeout of Postfix. */
const IDLE_MS = 7_210_000;
/** How long a peer may leave an answer unread; Postfix waits for it in read(). */
const UNREAD_MS = 60_000;
/** How long the last bytes may take to leave. */
const CLOSING_MS = 1000;
/** SMFIR_PROGRESS is sent this often; Postfix waits 300 s for the next packet (milter_content_timeout). */
export const PROGRESS_MS = 20_000;
/** Commands that are read ahead while the end of a message is judged. There are none but ABORT and QUIT from an MTA in its right mind. */
const LOOK_AHEAD = 16;
const GIVES_UP: ReadonlySet<Command['kind']> = new Set(['abort', 'quit', 'quit-nc']);

export interface ConnectionTools {
  readonly metrics: MilterMetrics;
  readonly log: Log;
}

/**
 * The socket of one session: commands are handed over one by one and answered in order, and nothing is read that could not be
 * kept or answered.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #session: Session;
  readonly #tools: ConnectionTools;
  readonly #decoder = new CommandDecoder();
  readonly #closed = Promise.withResolvers<void>();
  /** `storing`: a piece of the body is on its way to the spool file. `judging`: the end of a message is awaited. */
  #busy: 'storing' | 'judging' | null = null;
  /** What was read while judging. */
  #ahead: Command[] = [];
  /** Whether an answer waits to be read by the peer. */
  #unread = false;
  /** Nothing is read or answered any more. */
  #ended = false;
  #closing: NodeJS.Timeout | undefined;

  constructor(socket: Socket, session: Session, tools: ConnectionTools) {
    this.#socket = socket;
    this.#session = session;
    this.#tools = tools;
    socket.setTimeout(IDLE_MS);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#drained());
    socket.on('timeout', () => this.#timedOut());
    socket.on('error', (error) => tools.log.debug({ daemon: 'milter', err: error }, 'connection broke'));
    socket.on('close', () => this.#gone());
  }

  /** Resolves when the connection is gone. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /**
   * Ends the connection now. An open message is answered with a temporary failure; an MTA that is not waiting for an answer takes it
   * for the one to its next event.
   */
  cut(): void {
    if (this.#ended) return;
    if (this.#session.messageOpen) {
      this.#tools.metrics.fault('cut-off');
      this.#socket.write(TEMPFAIL);
    }
    this.#close();
  }

  #read(chunk: Buffer): void {
    if (this.#ended) return;
    noteBuffer(chunk.length);
    this.#decoder.push(chunk);
    if (this.#busy === null) this.#work();
    else this.#lookAhead();
  }

  #work(): void {
    try {
      while (!this.#ended && this.#busy === null && !this.#unread) {
        const command = this.#ahead.shift() ?? this.#decoder.next();
        if (command === null) break;
        this.#perform(command);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#flow();
  }

  /** Reads on while the end of a message is judged, to learn whether it is still wanted. */
  #lookAhead(): void {
    try {
      while (this.#ahead.length < LOOK_AHEAD) {
        const command = this.#decoder.next();
        if (command === null) break;
        // Next in line, so it is this message that is given up: its verdict would be read as the answer to something else.
        if (this.#ahead.length === 0 && GIVES_UP.has(command.kind)) this.#session.abort();
        this.#ahead.push(command);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#flow();
  }

  #perform(command: Command): void {
    if (command.kind === 'quit') {
      this.#close();
      return;
    }
    const reply = this.#session.handle(command);
    if (reply instanceof Promise) {
      void this.#await(reply, command.kind === 'end-of-message' ? 'judging' : 'storing');
    } else if (reply !== null) {
      this.#send(reply);
    }
  }

  async #await(reply: Promise<Buffer | null>, busy: 'storing' | 'judging'): Promise<void> {
    this.#busy = busy;
    if (busy === 'judging') this.#lookAhead();
    const progress = busy === 'judging' ? setInterval(() => this.#send(PROGRESS), PROGRESS_MS) : null;
    try {
      const bytes = await reply;
      if (bytes !== null) this.#send(bytes);
    } catch (error) {
      this.#fail(error);
    } finally {
      if (progress !== null) clearInterval(progress);
    }
    this.#busy = null;
    this.#work();
  }

  #send(bytes: Buffer): void {
    if (this.#ended || this.#socket.write(bytes)) return;
    this.#unread = true;
    this.#socket.setTimeout(UNREAD_MS);
  }

  #drained(): void {
    if (this.#ended) return;
    this.#unread = false;
    this.#socket.setTimeout(IDLE_MS);
    this.#work();
  }

  /** Back-pressure: no more is read than can be dealt with. */
  #flow(): void {
    const full = this.#busy === 'storing' || (this.#busy === 'judging' && this.#ahead.length > 0);
    const wanted = this.#ended || !(full || this.#unread);
    if (wanted === this.#socket.isPaused()) {
      if (wanted) this.#socket.resume();
      else this.#socket.pause();
    }
  }

  #timedOut(): void {
    if (!this.#ended) this.#giveUp(this.#unread ? 'not-reading' : 'idle', 'nothing happened for too long');
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    if (error instanceof ProtocolError) {
      this.#giveUp(error.kind, error.message);
      return;
    }
    this.#tools.metrics.fault('internal');
    this.#tools.log.error({ daemon: 'milter', err: error }, 'event could not be handled');
    if (this.#session.messageOpen) this.#socket.write(TEMPFAIL);
    this.#close();
  }

  #giveUp(reason: Fault, detail: string): void {
    this.#tools.metrics.fault(reason);
    this.#tools.log.warn({ daemon: 'milter', reason, detail }, 'connection given up');
    this.#close();
  }

  /** After what was written has left. */
  #close(): void {
    this.#ended = true;
    this.#session.abort();
    this.#closing = setTimeout(() => this.#socket.destroy(), CLOSING_MS);
    this.#socket.destroySoon();
  }

  #gone(): void {
    if (!this.#ended && this.#session.messageOpen) {
      this.#tools.metrics.fault('lost');
      this.#tools.log.info({ daemon: 'milter' }, 'connection lost in the middle of a message');
    }
    this.#ended = true;
    clearTimeout(this.#closing);
    this.#session.abort();
    this.#closed.resolve();
  }
}
