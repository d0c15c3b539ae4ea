import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { setTimeout as wait } from 'node:timers/promises';

import { NeighbourError } from '../ports/neighbour-error.ts';
import { QuestionRefused } from './connection-pool.ts';
import { ROW_LIMIT, type SourceEvents } from './directory-source.ts';
import type { SqlAnswer, SqlDatabase } from './sql-source.ts';

/** Somebody writes: tried again after these. SQLite itself would wait with the event loop. */
const BUSY_WAITS_MS = [5, 20, 50, 100];
const SQLITE_BUSY = 5;

/** A file of SQLite that another program writes. Each question is one look by an index, far below a millisecond. */
export class SqliteDatabase implements SqlDatabase {
  readonly #path: string;
  readonly #events: SourceEvents;
  #open: { readonly database: DatabaseSync; readonly statements: Map<string, StatementSync> } | null = null;
  #state: 'unknown' | 'up' | 'down' = 'unknown';

  constructor(path: string, events: SourceEvents) {
    this.#path = path;
    this.#events = events;
  }

  placeholder(): string {
    return '?';
  }

  async ask(text: string, values: readonly string[]): Promise<SqlAnswer> {
    for (const waitMs of [...BUSY_WAITS_MS, null]) {
      try {
        const answer = this.#ask(text, values);
        if (this.#state !== 'up') this.#events.up();
        this.#state = 'up';
        return answer;
      } catch (error) {
        if (waitMs === null || !isBusy(error)) throw this.#failed(error);
      }
      await wait(waitMs);
    }
    throw new NeighbourError('it is busy');
  }

  [Symbol.dispose](): void {
    this.#close();
  }

  #ask(text: string, values: readonly string[]): SqlAnswer {
    this.#open ??= {
      database: new DatabaseSync(this.#path, { readOnly: true, timeout: 0 }),
      statements: new Map(),
    };
    let statement = this.#open.statements.get(text);
    if (statement === undefined) {
      statement = this.#open.database.prepare(text);
      statement.setReturnArrays(true);
      statement.setReadBigInts(true);
      this.#open.statements.set(text, statement);
    }
    const rows: unknown[][] = [];
    for (const row of statement.iterate(...values)) {
      if (rows.length > ROW_LIMIT) throw new QuestionRefused(`more than ${ROW_LIMIT} rows for one key`);
      if (Array.isArray(row)) rows.push(row);
    }
    return { columns: statement.columns().map(({ name }) => name), rows };
  }

  /** The next question opens the file again: it may have been replaced. */
  #failed(error: unknown): NeighbourError {
    if (error instanceof NeighbourError) return error;
    this.#close();
    const why = error instanceof Error ? error.message : 'it failed';
    if (this.#state !== 'down') this.#events.down(why);
    this.#state = 'down';
    return new NeighbourError(why);
  }

  #close(): void {
    this.#open?.database.close();
    this.#open = null;
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY;
}
