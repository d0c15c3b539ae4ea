import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';

import { PART_BITS } from './sqlite-schema.ts';

type Row = Record<string, SQLOutputValue>;

/** The parts of a table whose rows are in the order of their time. */
export class Parts {
  readonly #ends: StatementSync;
  readonly #firstOfPart: StatementSync;

  constructor(database: DatabaseSync, table: 'trace' | 'facts') {
    this.#ends = database.prepare(
      `SELECT (SELECT min(id) FROM ${table}) AS first, (SELECT max(id) FROM ${table}) AS last`,
    );
    this.#firstOfPart = database.prepare(`SELECT time FROM ${table} WHERE id >= ? ORDER BY id LIMIT 1`);
  }

  /** Looks into one part after another, the newest first, as long as they may hold rows from `since` on. */
  newest(since: number, look: (part: number) => Row | undefined): Row | null {
    const { first, last } = this.#ends.get() ?? {};
    if (typeof first !== 'number' || typeof last !== 'number') return null;
    const lowest = Math.floor(first / 2 ** PART_BITS);
    for (let part = Math.floor(last / 2 ** PART_BITS); part >= lowest; part--) {
      const row = look(part);
      if (row !== undefined) return row;
      const oldest = this.#firstOfPart.get(part * 2 ** PART_BITS)?.['time'];
      if (typeof oldest !== 'number' || oldest < since) return null;
    }
    return null;
  }
}
