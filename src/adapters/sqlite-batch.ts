import type { DatabaseSync } from 'node:sqlite';

import type { Label, TraceId, TraceKeys } from '../ports/store.ts';
import { DecisionTable, type DecisionRow } from './sqlite-decisions.ts';
import { LabelTable } from './sqlite-labels.ts';
import { isHopeless } from './sqlite-schema.ts';
import { TraceTable } from './sqlite-traces.ts';

/** A new message's trace, which nobody waits for. */
export interface OpenedTrace {
  readonly trace: TraceId;
  readonly keys: TraceKeys;
  readonly now: number;
}

/** Something that is written and answered. */
export type Ask =
  | { readonly kind: 'open'; readonly keys: TraceKeys; readonly fresh: TraceId; readonly now: number }
  | { readonly kind: 'join'; readonly keys: TraceKeys; readonly fresh: TraceId; readonly now: number }
  | {
      readonly kind: 'keep';
      readonly trace: TraceId;
      readonly queueId: string;
      readonly direction: string;
      readonly outcomes: string;
      readonly now: number;
    }
  | { readonly kind: 'label'; readonly label: Label }
  | {
      readonly kind: 'expire';
      readonly decisionsBefore: number;
      readonly tracesBefore: number;
      readonly factsBefore: number;
      readonly limit: number;
      readonly now: number;
    };

/** What came of an `Ask`. */
export type Answer =
  | { readonly kind: 'trace'; readonly trace: TraceId }
  | { readonly kind: 'done' }
  | { readonly kind: 'expired'; readonly decisions: number; readonly more: boolean }
  | { readonly kind: 'failed'; readonly why: string };

/** What is written in one transaction. */
export interface Batch {
  readonly traces: readonly OpenedTrace[];
  readonly decisions: readonly DecisionRow[];
  readonly asks: readonly Ask[];
}

export interface Written {
  /** In the order of the asks. */
  readonly answers: readonly Answer[];
  /** Why single traces and decisions can never be written. */
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
  #oneByOne({ traces, decisions, asks }: Batch): Written {
    const hopeless: string[] = [];
    const parts: Batch[] = [
      ...traces.map((trace) => ({ traces: [trace], decisions: [], asks: [] })),
      ...decisions.map((decision) => ({ traces: [], decisions: [decision], asks: [] })),
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
        const outcome = attempt({ traces: [], decisions: [], asks: [ask] });
        return typeof outcome === 'string'
          ? { kind: 'failed', why: outcome }
          : (outcome[0] ?? { kind: 'failed', why: 'no answer' });
      });
      return { answers, hopeless };
    });
  }

  #together({ traces, decisions, asks }: Batch): Answer[] {
    return this.#transaction(() => {
      for (const { trace, keys, now } of traces) this.#traces.add(trace, keys, now);
      for (const decision of decisions) this.#decisions.write(decision);
      return asks.map((ask) => this.#answer(ask));
    });
  }

  #answer(ask: Ask): Answer {
    switch (ask.kind) {
      case 'open':
        return { kind: 'trace', trace: this.#traces.open(ask.keys, ask.fresh, ask.now) };
      case 'join':
        return { kind: 'trace', trace: this.#traces.join(ask.keys, ask.fresh, ask.now) };
      case 'keep':
        this.#traces.keepFacts(ask.trace, ask.queueId, ask.direction, ask.outcomes, ask.now);
        return { kind: 'done' };
      case 'label':
        this.#labels.write(ask.label);
        return { kind: 'done' };
      case 'expire': {
        const decisions = this.#decisions.expire(ask.decisionsBefore, ask.limit);
        const labels = this.#labels.expire(ask.decisionsBefore, ask.limit);
        const others = this.#traces.expire(ask.tracesBefore, ask.factsBefore, ask.limit, ask.now);
        return { kind: 'expired', decisions, more: others || labels || decisions === ask.limit };
      }
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
