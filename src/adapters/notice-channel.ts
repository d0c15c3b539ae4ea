import type { Notice } from '../ports/notifier.ts';

/** Hands one notice over. Rejects when it can't; ends when `signal` aborts. */
export type Deliver = (notice: Notice, signal: AbortSignal) => Promise<void>;

/** It won't be taken later either. */
export class NoticeRefused extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'NoticeRefused';
  }
}

export interface ChannelEvents {
  sent(notice: Notice): void;
  /** Not sent, and not tried again. */
  lost(notice: Notice, why: string): void;
  /** To be tried again after `waitMs`. */
  delayed(notice: Notice, why: string, waitMs: number): void;
}

/** Milliseconds; rejects when the signal aborts. */
export type Wait = (ms: number, signal: AbortSignal) => Promise<void>;

/** Notices that wait; more are lost. */
export const QUEUE_LIMIT = 500;
/** A notice that could not be sent for so long is old news. */
export const GIVE_UP_MS = 3_600_000;
const FIRST_WAIT_MS = 5000;
const LONGEST_WAIT_MS = 300_000;
/** How long the notices that wait may take when the process stops. */
const STOP_MS = 2000;

interface Waiting {
  readonly notice: Notice;
  readonly since: number;
}

/** One way of telling: notices leave one after another, in order; when that fails, later again, with growing pauses. */
export class NoticeChannel implements AsyncDisposable {
  readonly #deliver: () => Deliver;
  readonly #timeoutMs: () => number;
  readonly #events: ChannelEvents;
  readonly #elapsed: () => number;
  readonly #wait: Wait;
  readonly #queue: Waiting[] = [];
  readonly #stopping = new AbortController();
  readonly #cut = new AbortController();
  #work: Promise<void> | null = null;
  #failures = 0;

  /** @param elapsed milliseconds on a clock that never goes back */
  constructor(
    deliver: () => Deliver,
    timeoutMs: () => number,
    events: ChannelEvents,
    elapsed: () => number,
    wait: Wait,
  ) {
    this.#deliver = deliver;
    this.#timeoutMs = timeoutMs;
    this.#events = events;
    this.#elapsed = elapsed;
    this.#wait = wait;
  }

  push(notice: Notice): void {
    if (this.#stopping.signal.aborted) return this.#events.lost(notice, 'the process stops');
    if (this.#queue.length >= QUEUE_LIMIT)
      return this.#events.lost(notice, `${QUEUE_LIMIT} notices wait already`);
    this.#queue.push({ notice, since: this.#elapsed() });
    this.#work ??= this.#run();
  }

  /** Tries what waits once more, for a moment; the rest is lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new Error('the process stops'));
    const timer = setTimeout(() => this.#cut.abort(new Error('the process stops')), STOP_MS);
    try {
      await this.#work;
    } finally {
      clearTimeout(timer);
    }
  }

  async #run(): Promise<void> {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const settled = await this.#attempt(next);
      if (settled) this.#queue.shift();
    }
    this.#work = null;
  }

  /** Whether the notice needs nothing more. */
  async #attempt({ notice, since }: Waiting): Promise<boolean> {
    try {
      const signal = AbortSignal.any([AbortSignal.timeout(this.#timeoutMs()), this.#cut.signal]);
      await withSignal(this.#deliver()(notice, signal), signal);
      this.#failures = 0;
      this.#events.sent(notice);
      return true;
    } catch (error) {
      const why = causes(error);
      const stopping = this.#stopping.signal.aborted;
      if (error instanceof NoticeRefused || stopping || this.#elapsed() - since >= GIVE_UP_MS) {
        this.#events.lost(notice, why);
        return true;
      }
      const pause = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, LONGEST_WAIT_MS);
      this.#failures += 1;
      this.#events.delayed(notice, why, pause);
      await this.#pause(pause);
      return false;
    }
  }

  /** Ends early when the process stops. */
  async #pause(ms: number): Promise<void> {
    const { signal } = this.#stopping;
    try {
      await this.#wait(ms, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/** Whoever delivers may ignore the signal; the channel does not wait for that. */
async function withSignal(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const ended = Promise.withResolvers<never>();
  const end = (): void => ended.reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
  signal.addEventListener('abort', end, { once: true });
  try {
    await Promise.race([work, ended.promise]);
  } finally {
    signal.removeEventListener('abort', end);
  }
}

/** An error with what caused it, on one line. */
function causes(error: unknown): string {
  const texts: string[] = [];
  for (let link = error; link instanceof Error && texts.length < 4; link = link.cause)
    texts.push(link.message);
  return texts.length === 0 ? 'something that is no error was thrown' : texts.join(': ');
}
