import { setImmediate as nextTurn } from 'node:timers/promises';

import type { Decision } from '../ports/store.ts';
import { isBusy, isHopeless } from './sqlite-schema.ts';

/** What becomes of decisions that can't be written. The daemons go on: mail does not stop for the record. */
export interface WriterEvents {
  /** An attempt failed; the decisions stay queued and are tried again, ever more slowly. */
  readonly writeFailed: (error: Error, waiting: number) => void;
  /** Decisions that will never be written: the queue was full, or the decision itself can't be stored. */
  readonly lost: (decisions: number, why: string) => void;
}

/** Rows of one transaction (a decision and its recipients): a few milliseconds of the event loop. */
const BATCH_ROWS = 100;
/** Decisions waiting; with the largest ones some tens of megabytes. */
export const MAX_WAITING = 5000;
const FLUSH_MS = 200;
const MAX_RETRY_MS = 30_000;
/** Other processes write too: attempts that are nothing to speak of. */
const BUSY_ATTEMPTS = 10;

/**
 * Gathers decisions and writes them in batches: one transaction for many costs a fraction of one each.
 *
 * When writing fails for long, the queue fills up and newer decisions are lost and counted: the beginning of a trouble tells more.
 */
export class DecisionWriter {
  readonly #write: (decisions: readonly Decision[]) => void;
  readonly #events: WriterEvents;
  readonly #waiting: Decision[] = [];
  #overflow = 0;
  #retryMs = FLUSH_MS;
  #failing = false;
  #busy = 0;
  #timer: NodeJS.Timeout | null = null;
  #hurry: NodeJS.Immediate | null = null;

  constructor(write: (decisions: readonly Decision[]) => void, events: WriterEvents) {
    this.#write = write;
    this.#events = events;
  }

  /** Decisions not yet written. */
  get waiting(): number {
    return this.#waiting.length;
  }

  add(decision: Decision): void {
    if (this.#waiting.length >= MAX_WAITING) this.#overflow++;
    else this.#waiting.push(decision);
    if (this.#waiting.length >= BATCH_ROWS && !this.#failing)
      this.#hurry ??= setImmediate(() => this.#turn());
    else this.#timer ??= setTimeout(() => this.#turn(), this.#retryMs).unref();
  }

  /** Writes all that waits. @throws when it can't be written; it stays queued then */
  async flush(): Promise<void> {
    while (this.#waiting.length > 0) {
      this.#writeBatch();
      await nextTurn();
    }
  }

  /** Stops the timers; returns how many decisions were never written. */
  close(): number {
    this.#stopTimers();
    return this.#waiting.length + this.#overflow;
  }

  #turn(): void {
    this.#stopTimers();
    this.#reportOverflow();
    if (this.#waiting.length === 0) return;
    try {
      this.#writeBatch();
      this.#failing = false;
      this.#busy = 0;
      this.#retryMs = FLUSH_MS;
      if (this.#waiting.length > 0) this.#hurry = setImmediate(() => this.#turn());
    } catch (error) {
      this.#failing = true;
      if (!isBusy(error) || ++this.#busy > BUSY_ATTEMPTS) {
        this.#events.writeFailed(asError(error), this.#waiting.length);
        this.#retryMs = Math.min(this.#retryMs * 2, MAX_RETRY_MS);
      }
      this.#timer = setTimeout(() => this.#turn(), this.#retryMs).unref();
    }
  }

  #writeBatch(): void {
    const batch = this.#nextBatch();
    try {
      this.#write(batch);
    } catch (error) {
      if (!isHopeless(error)) throw error;
      this.#writeOneByOne(batch);
    }
    this.#waiting.splice(0, batch.length);
  }

  /** One of them can't be stored at all; the others must not suffer for it. */
  #writeOneByOne(batch: readonly Decision[]): void {
    let done = 0;
    try {
      for (const decision of batch) {
        try {
          this.#write([decision]);
        } catch (error) {
          if (!isHopeless(error)) throw error;
          this.#events.lost(1, asError(error).message);
        }
        done++;
      }
    } catch (error) {
      this.#waiting.splice(0, done);
      throw error;
    }
  }

  #nextBatch(): readonly Decision[] {
    let rows = 0;
    let count = 0;
    for (const decision of this.#waiting) {
      rows += 1 + decision.recipients.length;
      if (count > 0 && rows > BATCH_ROWS) break;
      count++;
    }
    return this.#waiting.slice(0, count);
  }

  #reportOverflow(): void {
    if (this.#overflow === 0) return;
    const lost = this.#overflow;
    this.#overflow = 0;
    this.#events.lost(lost, `${MAX_WAITING} decisions are waiting to be written`);
  }

  #stopTimers(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#hurry !== null) clearImmediate(this.#hurry);
    this.#timer = null;
    this.#hurry = null;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('something that is no error was thrown');
}
