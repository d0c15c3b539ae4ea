import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { z } from 'zod';

import type { KeptFacts, TraceId } from '../ports/store.ts';
import { json, outcomeList } from './sqlite-outcomes.ts';

const factsRow = z.object({ direction: z.enum(['in', 'out']), outcomes: json(outcomeList) });

/** Reads what the milter kept. */
export class FactsReader {
  readonly #kept: StatementSync;

  constructor(database: DatabaseSync) {
    this.#kept = database.prepare(
      'SELECT direction, outcomes FROM facts WHERE trace = ? AND queue_id = ? AND time >= ?',
    );
  }

  read(trace: TraceId, queueId: string, since: number): KeptFacts | null {
    const row = this.#kept.get(trace, queueId, since);
    return row === undefined ? null : factsRow.parse(row);
  }
}
