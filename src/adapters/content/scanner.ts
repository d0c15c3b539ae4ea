import { performance } from 'node:perf_hooks';

import type { ContentAnswer, ContentQuestion, ContentScanner } from '../../ports/content-scanner.ts';
import { NeighbourError } from '../../ports/neighbour-error.ts';
import { ScanThread, type ScanTask } from './thread.ts';

/** Threads at once; each is started when there is a message for it. */
const THREAD_LIMIT = 2;
/** Messages that wait for a thread. */
export const WAITING_LIMIT = 1000;
/**
 * Messages with more octets are for one thread alone, one after the other: their text takes several times their size, the memory of a thread does not
 * shrink, and what is small must not wait for them.
 */
export const LARGE = 1024 * 1024;
/** The longest that a thread may look into one message. Ten MiB of text and a thousand words take less than one second. */
const SCAN_LIMIT_MS = 10_000;

/** Told of what happens; for metrics and log. */
export interface ContentScannerEvents {
  scanned(elapsedMs: number): void;
  /** A thread was ended, or ended by itself; the next message gets a new one. */
  threadLost(why: string): void;
}

export interface ContentScannerOptions {
  readonly threads?: number;
  readonly scanLimitMs?: number;
}

/** A place for one thread. */
interface Desk {
  thread: ScanThread | null;
  /** Whether it is for large messages too. */
  readonly large: boolean;
}

interface Waiting {
  readonly large: boolean;
  readonly turn: PromiseWithResolvers<Desk>;
}

/** Looks into messages in threads of its own. Without a message it has none. */
export class ThreadedContentScanner implements ContentScanner, AsyncDisposable {
  readonly #events: ContentScannerEvents;
  readonly #scanLimitMs: number;
  /** The one that was used last is used next: a second thread is started only when it is needed. */
  readonly #free: Desk[];
  readonly #desks: readonly Desk[];
  readonly #queue: Waiting[] = [];
  #closed = false;

  constructor(events: ContentScannerEvents, options: ContentScannerOptions = {}) {
    this.#events = events;
    this.#scanLimitMs = options.scanLimitMs ?? SCAN_LIMIT_MS;
    this.#desks = Array.from({ length: options.threads ?? THREAD_LIMIT }, (_, index) => ({
      thread: null,
      large: index === 0,
    }));
    this.#free = [...this.#desks];
  }

  async scan(question: ContentQuestion, signal: AbortSignal): Promise<ContentAnswer> {
    const large = question.bodyOctets > LARGE;
    const desk = await this.#desk(large, signal);
    // Who gives up does not end the thread: it is done soon, and has a limit of its own.
    const scanned = this.#scanAt(desk, question, signal).finally(() => this.#leave(desk));
    return await untilAborted(scanned, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const { turn } of this.#queue.splice(0))
      turn.reject(new NeighbourError('the content scanner is closed'));
    await Promise.all(this.#desks.flatMap(({ thread }) => (thread === null ? [] : [thread.end()])));
  }

  async #scanAt(desk: Desk, question: ContentQuestion, signal: AbortSignal): Promise<ContentAnswer> {
    if (desk.thread?.ended !== false) desk.thread = new ScanThread();
    const { thread } = desk;
    const task = await taskOf(question, (octets) => thread.room(octets), signal);
    if (this.#closed) throw new NeighbourError('the content scanner is closed');
    const begun = performance.now();
    const timer = setTimeout(() => void thread.end(), this.#scanLimitMs);
    try {
      const answer = await thread.scan(question.rules, task);
      this.#events.scanned(performance.now() - begun);
      return answer;
    } catch (error) {
      const late = performance.now() - begun >= this.#scanLimitMs;
      const why = late ? `not done within ${this.#scanLimitMs} ms` : messageOf(error);
      if (thread.ended && !this.#closed) this.#events.threadLost(why);
      throw new NeighbourError(`the content could not be looked at: ${why}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  async #desk(large: boolean, signal: AbortSignal): Promise<Desk> {
    signal.throwIfAborted();
    if (this.#closed) throw new NeighbourError('the content scanner is closed');
    const at = this.#free.findLastIndex((desk) => desk.large || !large);
    const [free] = at === -1 ? [] : this.#free.splice(at, 1);
    if (free !== undefined) return free;
    if (this.#queue.length >= WAITING_LIMIT) {
      throw new NeighbourError(`more than ${WAITING_LIMIT} messages wait to be looked at`);
    }
    const turn = Promise.withResolvers<Desk>();
    const waiting = { large, turn };
    this.#queue.push(waiting);
    const giveUp = (): void => {
      const place = this.#queue.indexOf(waiting);
      if (place !== -1) this.#queue.splice(place, 1);
      turn.reject(signal.reason);
    };
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      return await turn.promise;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  /** The desk goes to whoever waited longest and may have it. */
  #leave(desk: Desk): void {
    const at = this.#queue.findIndex(({ large }) => desk.large || !large);
    const [next] = at === -1 ? [] : this.#queue.splice(at, 1);
    if (next === undefined) this.#free.push(desk);
    else next.turn.resolve(desk);
  }
}

/** One buffer with all that is looked at. It is filled when a thread is there for it, and then is that thread's. */
async function taskOf(
  question: ContentQuestion,
  room: (octets: number) => ArrayBuffer,
  signal: AbortSignal,
): Promise<ScanTask> {
  const { headers, body, bodyOctets, wanted } = question;
  const section = Buffer.from(`${headers.serialize()}\r\n`, 'latin1');
  const message = room(section.length + bodyOctets);
  const octets = new Uint8Array(message, 0, section.length + bodyOctets);
  octets.set(section);
  let at = section.length;
  for await (const chunk of body.chunks()) {
    signal.throwIfAborted();
    const part = chunk.subarray(0, octets.length - at);
    octets.set(part, at);
    at += part.length;
    if (at >= octets.length) break;
  }
  return { message, octets: at, headerOctets: section.length, wanted };
}

async function untilAborted<T>(value: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const giveUp = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    return await Promise.race([value, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
