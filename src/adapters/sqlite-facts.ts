import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { z } from 'zod';

import type { KeptFacts, TraceId } from '../ports/store.ts';
import { Parts } from './sqlite-parts.ts';
import { PART_BITS } from './sqlite-schema.ts';
import { json, outcomeList } from './sqlite-outcomes.ts';

const factsRow = z.object({ direction: z.enum(['in', 'out']), outcomes: json(outcomeList) });

/** Reads what the milter kept. */
export class FactsReader {
  readonly #parts: Parts;
  readonly #kept: StatementSync;

  constructor(database: DatabaseSync) {
    this.#parts = new Parts(database, 'facts');
    this.#kept = database.prepare(
      `SELECT direction, outcomes FROM facts
       WHERE id >> ${PART_BITS} = ?1 AND trace = ?2 AND queue_id = ?3 AND time >= ?4 ORDER BY id DESC LIMIT 1`,
    );
  }

  read(trace: TraceId, queueId: string, since: number): KeptFacts | null {
    const row = this.#parts.newest(since, (part) => this.#kept.get(part, trace, queueId, since));
    return row === null ? null : factsRow.parse(row);
  }
}
