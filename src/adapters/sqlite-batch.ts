import type { DatabaseSync } from 'node:sqlite';

import type { Label, TraceId, TraceKeys } from '../ports/store.ts';
import { DecisionTable, type DecisionRow } from './sqlite-decisions.ts';
import { LabelTable } from './sqlite-labels.ts';
import { isHopeless } from './sqlite-schema.ts';
import { TraceTable } from './sqlite-traces.ts';

/** Something that is written, and that nobody waits for. */
export type Note =
  /** The trace of a message that is new; `claimed`: no other daemon is to take it for its own. */
  | {
      readonly kind: 'trace';
      readonly trace: TraceId;
      readonly keys: TraceKeys;
      readonly claimed: boolean;
      readonly now: number;
    }
  | { readonly kind: 'claim'; readonly id: number; readonly queueId: string | null }
  | {
      readonly kind: 'facts';
      readonly trace: TraceId;
      readonly queueId: string;
      readonly direction: string;
      readonly outcomes: string;
      readonly now: number;
    };

/** Something that is written and answered. */
export type Ask =
  | { readonly kind: 'open'; readonly keys: TraceKeys; readonly fresh: TraceId; readonly now: number }
  | { readonly kind: 'join'; readonly keys: TraceKeys; readonly fresh: TraceId; readonly now: number }
  | { readonly kind: 'label'; readonly label: Label }
  | {
      readonly kind: 'expire';
      readonly decisionsBefore: number;
      readonly tracesBefore: number;
      readonly factsBefore: number;
      readonly limit: number;
      readonly now: number;
    }
  /** The oldest decisions, whatever their age, go; at most `limit`. */
  | { readonly kind: 'trim'; readonly limit: number }
  /** Free pages go back to the disk, at most so many. */
  | { readonly kind: 'shrink'; readonly pages: number };

/** What came of an `Ask`. */
export type Answer =
  | { readonly kind: 'trace'; readonly trace: TraceId }
  | { readonly kind: 'done' }
  | { readonly kind: 'expired'; readonly decisions: number; readonly more: boolean }
  | { readonly kind: 'failed'; readonly why: string };

/** What is written in one transaction. */
export interface Batch {
  readonly notes: readonly Note[];
  readonly decisions: readonly DecisionRow[];
  readonly asks: readonly Ask[];
}

export interface Written {
  /** In the order of the asks. */
  readonly answers: readonly Answer[];
  /** Why single notes and decisions can never be written. */
  readonly hopeless: readonly string[];
}

/** Writes batches: one transaction for many rows costs a fraction of one each. */
export class BatchWriter {
  readonly #database: DatabaseSync;
  readonly #traces: TraceTable;
  readonly #decisions: DecisionTable;
  readonly #labels: LabelTable;

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#traces = new TraceTable(database);
    this.#decisions = new DecisionTable(database);
    this.#labels = new LabelTable(database);
  }

  /** Writes all of it. @throws when nothing of it could be written, and may be at another time */
  write(batch: Batch): Written {
    try {
      return { answers: this.#together(batch), hopeless: [] };
    } catch (error) {
      if (!isHopeless(error)) throw error;
      return this.#oneByOne(batch);
    }
  }

  /** One of them can't be stored at all; the others must not suffer for it. */
  #oneByOne({ notes, decisions, asks }: Batch): Written {
    const hopeless: string[] = [];
    const parts: Batch[] = [
      ...notes.map((note) => ({ notes: [note], decisions: [], asks: [] })),
      ...decisions.map((decision) => ({ notes: [], decisions: [decision], asks: [] })),
    ];
    const attempt = (part: Batch): readonly Answer[] | string => {
      try {
        return this.#together(part);
      } catch (error) {
        if (!isHopeless(error)) throw error;
        return messageOf(error);
      }
    };
    return this.#transaction(() => {
      for (const part of parts) {
        const outcome = attempt(part);
        if (typeof outcome === 'string') hopeless.push(outcome);
      }
      const answers = asks.map((ask): Answer => {
        const outcome = attempt({ notes: [], decisions: [], asks: [ask] });
        return typeof outcome === 'string'
          ? { kind: 'failed', why: outcome }
          : (outcome[0] ?? { kind: 'failed', why: 'no answer' });
      });
      return { answers, hopeless };
    });
  }

  #together({ notes, decisions, asks }: Batch): Answer[] {
    return this.#transaction(() => {
      for (const note of notes) this.#write(note);
      for (const decision of decisions) this.#decisions.write(decision);
      return asks.map((ask) => this.#answer(ask));
    });
  }

  #write(note: Note): void {
    switch (note.kind) {
      case 'trace':
        this.#traces.add(note.trace, note.keys, note.now, note.claimed);
        break;
      case 'claim':
        this.#traces.claim(note.id, note.queueId);
        break;
      case 'facts':
        this.#traces.keepFacts(note.trace, note.queueId, note.direction, note.outcomes, note.now);
    }
  }

  #answer(ask: Ask): Answer {
    switch (ask.kind) {
      case 'open':
        return { kind: 'trace', trace: this.#traces.open(ask.keys, ask.fresh, ask.now) };
      case 'join':
        return { kind: 'trace', trace: this.#traces.join(ask.keys, ask.fresh, ask.now) };
      case 'label':
        this.#labels.write(ask.label);
        return { kind: 'done' };
      case 'expire': {
        const decisions = this.#decisions.expire(ask.decisionsBefore, ask.limit);
        const labels = this.#labels.expire(ask.decisionsBefore, ask.limit);
        const others = this.#traces.expire(ask.tracesBefore, ask.factsBefore, ask.limit, ask.now);
        return { kind: 'expired', decisions, more: others || labels || decisions === ask.limit };
      }
      case 'trim': {
        const { decisions, oldest } = this.#decisions.removeOldest(ask.limit);
        const labels = this.#labels.expire(oldest, ask.limit);
        return { kind: 'expired', decisions, more: labels || decisions === ask.limit };
      }
      case 'shrink':
        this.#database.exec(`PRAGMA incremental_vacuum(${ask.pages})`);
        return { kind: 'done' };
    }
  }

  /** A transaction, or a part of the one under way that is undone by itself. */
  #transaction<T>(work: () => T): T {
    const inner = this.#database.isTransaction;
    this.#database.exec(inner ? 'SAVEPOINT one' : 'BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec(inner ? 'RELEASE one' : 'COMMIT');
      return result;
    } catch (error) {
      // Some errors have ended the transaction already.
      if (this.#database.isTransaction) {
        this.#database.exec(inner ? 'ROLLBACK TO one; RELEASE one' : 'ROLLBACK');
      }
      throw error;
    }
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'something that is no error was thrown';
}
