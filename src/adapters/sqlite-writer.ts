import type { Decision } from '../ports/store.ts';
import { messageOf, type Answer, type Ask, type Batch, type Note, type Written } from './sqlite-batch.ts';
import { decisionRow, type DecisionRow } from './sqlite-decisions.ts';
import { NotWritten } from './sqlite-thread.ts';

/** What becomes of what can't be written. The daemons go on: mail does not stop for the record. */
export interface WriterEvents {
  /** An attempt failed; the decisions stay queued and are tried again, ever more slowly. */
  readonly writeFailed: (error: Error, waiting: number) => void;
  /** Decisions that will never be written: the queue was full, or the decision itself can't be stored. */
  readonly lost: (decisions: number, why: string) => void;
  /** Traces and facts that other daemons will not find; the message goes on. */
  readonly tracesLost: (traces: number, why: string) => void;
}

/** Rows of one transaction (a decision and its recipients). */
const BATCH_ROWS = 500;
/** Decisions waiting; with the largest ones some tens of megabytes. */
export const MAX_WAITING = 5000;
/** Decisions are read by people. */
const FLUSH_MS = 200;
/** Another daemon may ask for the trace as soon as the client has sent its message: at the earliest a round trip after the answer. */
const NOTE_MS = 4;
const MAX_RETRY_MS = 30_000;
/** Other processes write too: attempts that are nothing to speak of. */
const BUSY_ATTEMPTS = 5;
/** So often the same decisions may end the thread that writes them. */
const BROKEN_ATTEMPTS = 3;

interface Pending {
  readonly ask: Ask;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

/** Writes one batch at a time. @throws {NotWritten} when nothing of it was written */
export interface BatchTarget {
  write(batch: Batch): Promise<Written>;
}

/** What one transaction takes from the queues. */
interface Turn {
  readonly notes: readonly Note[];
  readonly pending: readonly Pending[];
  readonly decisions: readonly DecisionRow[];
}

const NO_DECISIONS: readonly DecisionRow[] = [];

/**
 * Gathers what is to be written into batches: one transaction for many rows costs a fraction of one each. Notes and questions go first, in
 * transactions of their own; decisions wait until there are many, or a moment has passed.
 *
 * When writing fails for long, the queue fills up and newer decisions are lost and counted: the beginning of a trouble tells more.
 */
export class StoreWriter {
  readonly #target: BatchTarget;
  readonly #events: WriterEvents;
  readonly #written: () => void;
  #decisions: DecisionRow[] = [];
  #notes: Note[] = [];
  #pending: Pending[] = [];
  #overflow = 0;
  #retryMs = FLUSH_MS;
  #failing = false;
  #busy = 0;
  #broken = 0;
  /** The batch that is being written. Never rejects. */
  #underWay: Promise<Error | null> | null = null;
  #decisionsDue = false;
  #later: NodeJS.Timeout | null = null;
  #soon: NodeJS.Timeout | null = null;
  #hurry: NodeJS.Immediate | null = null;

  /** `written` is told of each transaction. */
  constructor(target: BatchTarget, events: WriterEvents, written: () => void) {
    this.#target = target;
    this.#events = events;
    this.#written = written;
  }

  /** Decisions not yet written. */
  get waiting(): number {
    return this.#decisions.length;
  }

  record(decision: Decision): void {
    const full = this.#decisions.length >= MAX_WAITING;
    if (full) this.#overflow++;
    else this.#decisions.push(decisionRow(decision));
    // A loss is told of in any case, also while a write hangs that nothing ends.
    if (full || this.#decisions.length < BATCH_ROWS || this.#failing) {
      this.#later ??= setTimeout(() => this.#decisionsAreDue(), this.#retryMs).unref();
    } else {
      this.#decisionsDue = true;
      this.#hurryUp();
    }
  }

  note(note: Note): void {
    if (this.#notes.length >= MAX_WAITING) {
      this.#events.tracesLost(1, `${MAX_WAITING} traces and facts are waiting to be written`);
      return;
    }
    this.#notes.push(note);
    this.#soon ??= setTimeout(() => this.#turn(), NOTE_MS).unref();
  }

  /** Resolves once it is written, and so visible to other processes. */
  ask(ask: Ask): Promise<Answer> {
    if (this.#pending.length >= MAX_WAITING) {
      return Promise.reject(new Error(`${MAX_WAITING} questions are waiting for the file`));
    }
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#pending.push({ ask, resolve, reject });
    this.#hurryUp();
    return promise;
  }

  /** Writes all that waits. @throws when it can't be written; decisions stay queued then */
  async flush(): Promise<void> {
    for (;;) {
      await this.#underWay;
      const turn = this.#next(true);
      if (turn === null) return;
      const error = await this.#send(turn);
      if (error !== null) throw error;
    }
  }

  /** Stops the timers; returns how many decisions were never written. */
  close(): number {
    if (this.#later !== null) clearTimeout(this.#later);
    if (this.#soon !== null) clearTimeout(this.#soon);
    if (this.#hurry !== null) clearImmediate(this.#hurry);
    return this.#decisions.length + this.#overflow;
  }

  #hurryUp(): void {
    if (this.#underWay === null) this.#hurry ??= setImmediate(() => this.#turn());
  }

  #decisionsAreDue(): void {
    this.#later = null;
    this.#decisionsDue = true;
    this.#reportOverflow();
    this.#turn();
  }

  #turn(): void {
    this.#soon = null;
    this.#hurry = null;
    if (this.#underWay !== null) return;
    const turn = this.#next(this.#decisionsDue);
    if (turn !== null) void this.#send(turn);
  }

  #next(decisionsDue: boolean): Turn | null {
    if (this.#notes.length > 0 || this.#pending.length > 0) {
      const turn = { notes: this.#notes, pending: this.#pending, decisions: NO_DECISIONS };
      this.#notes = [];
      this.#pending = [];
      return turn;
    }
    if (!decisionsDue || this.#decisions.length === 0) return null;
    return { notes: [], pending: [], decisions: this.#decisionBatch() };
  }

  #decisionBatch(): readonly DecisionRow[] {
    let rows = 0;
    let count = 0;
    for (const { crowd } of this.#decisions) {
      rows += 1 + crowd.length;
      if (count > 0 && rows > BATCH_ROWS) break;
      count++;
    }
    return this.#decisions.slice(0, count);
  }

  #send(turn: Turn): Promise<Error | null> {
    const underWay = this.#attempt(turn);
    this.#underWay = underWay;
    return underWay;
  }

  async #attempt(turn: Turn): Promise<Error | null> {
    const { notes, pending, decisions } = turn;
    let failure: Error | null = null;
    try {
      const written = await this.#target.write({ notes, decisions, asks: pending.map(({ ask }) => ask) });
      this.#done(turn, written);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(messageOf(error));
      this.#failed(turn, failure);
    }
    this.#underWay = null;
    this.#goOn();
    return failure;
  }

  #done({ notes, pending, decisions }: Turn, { answers, hopeless }: Written): void {
    const [why] = hopeless;
    if (why !== undefined && decisions.length > 0) this.#events.lost(hopeless.length, why);
    if (why !== undefined && notes.length > 0) this.#events.tracesLost(hopeless.length, why);
    for (const [index, { resolve, reject }] of pending.entries()) {
      const answer = answers[index] ?? { kind: 'failed', why: 'no answer' };
      if (answer.kind === 'failed') reject(new Error(answer.why));
      else resolve(answer);
    }
    if (decisions.length > 0) {
      this.#decisions.splice(0, decisions.length);
      this.#failing = false;
      this.#busy = 0;
      this.#broken = 0;
      this.#retryMs = FLUSH_MS;
    }
    this.#written();
  }

  #failed({ notes, pending, decisions }: Turn, error: Error): void {
    for (const { reject } of pending) reject(error);
    const because = error instanceof NotWritten ? error.because : 'failed';
    if (because === 'busy' && this.#notes.length + notes.length <= MAX_WAITING)
      this.#notes = [...notes, ...this.#notes];
    else if (notes.length > 0) this.#events.tracesLost(notes.length, error.message);
    if (decisions.length === 0) return;
    this.#failing = true;
    if (because === 'broken' && ++this.#broken >= BROKEN_ATTEMPTS) {
      this.#decisions.splice(0, decisions.length);
      this.#broken = 0;
      this.#events.lost(decisions.length, error.message);
      return;
    }
    if (because === 'busy' && ++this.#busy <= BUSY_ATTEMPTS) return;
    this.#events.writeFailed(error, this.#decisions.length);
    this.#retryMs = Math.min(this.#retryMs * 2, MAX_RETRY_MS);
  }

  /** After a batch: what has come meanwhile. */
  #goOn(): void {
    if (this.#pending.length > 0) this.#hurryUp();
    else if (this.#notes.length > 0) this.#soon ??= setTimeout(() => this.#turn(), NOTE_MS).unref();
    this.#decisionsDue = this.#decisions.length >= BATCH_ROWS && !this.#failing;
    if (this.#decisionsDue) this.#hurryUp();
    else if (this.#decisions.length > 0)
      this.#later ??= setTimeout(() => this.#decisionsAreDue(), this.#retryMs).unref();
  }

  #reportOverflow(): void {
    if (this.#overflow === 0) return;
    const lost = this.#overflow;
    this.#overflow = 0;
    this.#events.lost(lost, `${MAX_WAITING} decisions are waiting to be written`);
  }
}
