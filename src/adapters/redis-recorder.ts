import { randomBytes } from 'node:crypto';

import { NeighbourError } from '../ports/neighbour-error.ts';
import type { Decision } from '../ports/store.ts';
import { picked } from './redis-calls.ts';
import { decisionText } from './redis-decision-text.ts';
import { shardOf, type RecordText, type RedisHistory } from './redis-history.ts';
import { termsOf } from './redis-history-terms.ts';
import type { WriterEvents } from './sqlite-writer.ts';

/** Decisions that are written together, and their octets: about two milliseconds of Redis. */
const BATCH = 200;
const BATCH_OCTETS = 524_288;
/** Decisions waiting; with the largest ones some tens of megabytes. */
export const MAX_WAITING = 5000;
/** Decisions are read by people. */
const FLUSH_MS = 200;
const MAX_RETRY_MS = 30_000;
/** So often the same decisions may be refused: those behind them must not wait for ever. */
const HOPELESS_ATTEMPTS = 3;
/** Of a script that failed: the keys hold something else, or it has no right to them. What passes has words of its own, such as OOM, LOADING and READONLY. */
const HOPELESS = /^(?:ERR|WRONGTYPE|NOPERM) /;

/** Decisions that are one call. */
type Group = readonly RecordText[];

/** Decisions on their way, with the number that makes a second attempt known as one. */
interface Batch {
  readonly serial: number;
  readonly size: number;
  /** Those that Redis has not confirmed. */
  groups: readonly Group[];
  /** Attempts that Redis answered with an error which does not pass by itself. */
  hopeless: number;
}

/**
 * Gathers decisions and writes one batch after another. What could not be written is tried again, as the same batch, so that nothing is recorded
 * twice; newer decisions wait, and when they are too many, the newest are lost and counted.
 */
export class RedisRecorder {
  readonly #history: RedisHistory;
  readonly #events: Pick<WriterEvents, 'writeFailed' | 'lost'>;
  readonly #host: string;
  readonly #writer = randomBytes(9).toString('base64url');
  #recorded = 0;
  #batches = 0;
  #waiting: RecordText[] = [];
  #batch: Batch | null = null;
  #underWay: Promise<Error | null> | null = null;
  #overflow = 0;
  #retryMs = FLUSH_MS;
  #failing = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(history: RedisHistory, host: string, events: Pick<WriterEvents, 'writeFailed' | 'lost'>) {
    this.#history = history;
    this.#host = host;
    this.#events = events;
  }

  record(decision: Decision): void {
    if (this.#unwritten >= MAX_WAITING) this.#overflow++;
    else {
      this.#waiting.push({
        shard: shardOf(decision.trace),
        time: decision.time,
        text: decisionText(decision, this.#host, (this.#recorded += 1)),
        terms: termsOf(decision),
      });
    }
    if (this.#waiting.length >= BATCH && !this.#failing) this.#turn();
    else this.#later();
  }

  /** Does not wait any longer for the next attempt. */
  tryAgain(): void {
    if (!this.#failing) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#retryMs = FLUSH_MS;
    this.#turn();
  }

  /** Writes all that waits. @throws when it can't be written; it stays queued then */
  async flush(): Promise<void> {
    for (;;) {
      await this.#underWay;
      const error = await this.#send();
      if (error !== null) throw error;
      if (this.#unwritten === 0) return;
    }
  }

  /** Stops the timer; returns how many decisions were never written, as far as known. */
  close(): number {
    if (this.#timer !== null) clearTimeout(this.#timer);
    return this.#unwritten + this.#overflow;
  }

  get #unwritten(): number {
    return this.#waiting.length + (this.#batch?.size ?? 0);
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#tellOverflow();
      this.#turn();
    }, this.#retryMs).unref();
  }

  #turn(): void {
    void this.#send();
  }

  /** Writes one batch, if none is being written. Never rejects. */
  #send(): Promise<Error | null> {
    if (this.#underWay !== null) return this.#underWay;
    this.#batch ??= this.#next();
    const batch = this.#batch;
    if (batch === null) return Promise.resolve(null);
    const underWay = this.#attempt(batch).finally(() => {
      this.#underWay = null;
      if (this.#waiting.length >= BATCH && !this.#failing) this.#turn();
      else if (this.#unwritten > 0) this.#later();
    });
    this.#underWay = underWay;
    return underWay;
  }

  #next(): Batch | null {
    let count = 0;
    for (let octets = 0; count < Math.min(BATCH, this.#waiting.length) && octets < BATCH_OCTETS; count++) {
      octets += this.#waiting[count]?.text.length ?? 0;
    }
    if (count === 0) return null;
    const records = this.#waiting.splice(0, count);
    const groups = this.#history.groups(records).map((group) => picked(records, group));
    return { serial: (this.#batches += 1), size: count, groups, hopeless: 0 };
  }

  async #attempt(batch: Batch): Promise<Error | null> {
    const { groups, serial } = batch;
    const ends = await Promise.allSettled(
      groups.map((group) => this.#history.write(group, this.#writer, serial)),
    );
    batch.groups = groups.filter((_, index) => ends[index]?.status === 'rejected');
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed === undefined) {
      this.#done();
      return null;
    }
    const error = errorOf(failed.reason);
    if (isHopeless(failed.reason)) {
      batch.hopeless++;
      if (batch.hopeless === HOPELESS_ATTEMPTS) {
        this.#done();
        const lost = batch.groups.reduce((sum, group) => sum + group.length, 0);
        this.#events.lost(lost, error.message);
        return error;
      }
      // What can be written is, by itself.
      batch.groups = batch.groups.flatMap((group) => [...Map.groupBy(group, ({ shard }) => shard).values()]);
    }
    this.#failing = true;
    this.#retryMs = Math.min(this.#retryMs * 2, MAX_RETRY_MS);
    this.#events.writeFailed(error, this.#unwritten);
    return error;
  }

  #done(): void {
    this.#batch = null;
    this.#failing = false;
    this.#retryMs = FLUSH_MS;
  }

  #tellOverflow(): void {
    if (this.#overflow === 0) return;
    const lost = this.#overflow;
    this.#overflow = 0;
    this.#events.lost(lost, `${MAX_WAITING} decisions are waiting to be written`);
  }
}

function isHopeless(reason: unknown): boolean {
  return reason instanceof Error && reason.cause instanceof Error && HOPELESS.test(reason.cause.message);
}

/** With why, in one line. */
export function errorOf(reason: unknown): Error {
  if (reason instanceof NeighbourError && reason.cause instanceof Error) {
    return new Error(`${reason.message}: ${reason.cause.message}`, { cause: reason });
  }
  return reason instanceof Error ? reason : new Error('failed without a word');
}
