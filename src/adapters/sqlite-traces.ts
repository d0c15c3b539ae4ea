import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { z } from 'zod';

import type { KeptFacts, TraceId, TraceKeys } from '../ports/store.ts';
import { json, outcomeList } from './sqlite-outcomes.ts';

/** How old an unclaimed trace may be to be taken for this message: longer than any SMTP client takes from RCPT to the final dot. */
const CLAIM_AGE_MS = 3_600_000;
/** Deliveries are retried for 5 days (Postfix maximal_queue_lifetime); after that a queue id may name another message. */
export const TRACE_AGE_MS = 6 * 86_400_000;
/** A message that was held up for longer is better checked again, with the lists of that day. */
export const FACTS_AGE_MS = 86_400_000;

const traceRow = z.object({ id: z.number(), trace: z.string(), claimed: z.number() });
const factsRow = z.object({ direction: z.enum(['in', 'out']), outcomes: json(outcomeList) });

/** Traces and kept facts: small rows, read and written one at a time while a message waits. Every statement is a transaction of its own. */
export class TraceTable {
  readonly #open: StatementSync;
  readonly #byQueueId: StatementSync;
  readonly #unclaimed: StatementSync;
  readonly #claim: StatementSync;
  readonly #insert: StatementSync;
  readonly #keep: StatementSync;
  readonly #kept: StatementSync;
  readonly #expireTraces: StatementSync;
  readonly #expireFacts: StatementSync;

  constructor(database: DatabaseSync) {
    this.#open = database.prepare(`
      INSERT INTO trace (trace, time, session, sender, instance, queue_id, claimed) VALUES (?, ?, ?, ?, ?, ?, 0)
      ON CONFLICT (instance) DO UPDATE SET queue_id = coalesce(excluded.queue_id, queue_id)
      RETURNING id, trace, claimed`);
    // The session keeps short queue ids apart, which Postfix uses again soon.
    this.#byQueueId = database.prepare(`
      SELECT id, trace, claimed FROM trace
      WHERE queue_id = ?1 AND time >= ?2 AND (session IS NULL OR ?3 IS NULL OR session = ?3)
      ORDER BY id DESC LIMIT 1`);
    this.#unclaimed = database.prepare(`
      SELECT id, trace, claimed FROM trace
      WHERE session = ?1 AND sender = ?2 AND claimed = 0 AND time >= ?3
        AND (queue_id IS NULL OR ?4 IS NULL OR queue_id = ?4)
      ORDER BY id DESC LIMIT 1`);
    this.#claim = database.prepare(`
      UPDATE trace SET claimed = 1, queue_id = coalesce(queue_id, ?2) WHERE id = ?1 AND claimed = 0`);
    this.#insert = database.prepare(`
      INSERT INTO trace (trace, time, session, sender, instance, queue_id, claimed) VALUES (?, ?, ?, ?, NULL, ?, 1)
      ON CONFLICT (trace) DO UPDATE SET claimed = 1, queue_id = coalesce(excluded.queue_id, queue_id)`);
    this.#keep = database.prepare(
      'INSERT OR REPLACE INTO facts (trace, queue_id, time, direction, outcomes) VALUES (?, ?, ?, ?, ?)',
    );
    this.#kept = database.prepare(
      'SELECT direction, outcomes FROM facts WHERE trace = ? AND queue_id = ? AND time >= ?',
    );
    this.#expireTraces = database.prepare(
      'DELETE FROM trace WHERE id IN (SELECT id FROM trace WHERE time < ? LIMIT ?)',
    );
    this.#expireFacts = database.prepare(
      'DELETE FROM facts WHERE (trace, queue_id) IN (SELECT trace, queue_id FROM facts WHERE time < ? LIMIT ?)',
    );
  }

  open(keys: TraceKeys, fresh: TraceId, now: number): TraceId {
    const { session, sender, instance, queueId } = keys;
    return traceRow.parse(this.#open.get(fresh, now, session, sender, instance, queueId)).trace;
  }

  join(keys: TraceKeys, fresh: TraceId, now: number): TraceId {
    const { session, sender, queueId } = keys;
    if (queueId !== null) {
      const found = this.#byQueueId.get(queueId, now - TRACE_AGE_MS, session);
      if (found !== undefined) {
        const row = traceRow.parse(found);
        if (row.claimed === 0) this.#claim.run(row.id, queueId);
        return row.trace;
      }
    }
    if (session !== null) {
      // Between finding and claiming, another process may claim it; then the next one is looked for.
      for (;;) {
        const found = this.#unclaimed.get(session, sender, now - CLAIM_AGE_MS, queueId);
        if (found === undefined) break;
        const row = traceRow.parse(found);
        if (this.#claim.run(row.id, queueId).changes === 1) return row.trace;
      }
    }
    this.#insert.run(fresh, now, session, sender, queueId);
    return fresh;
  }

  keepFacts(trace: TraceId, queueId: string, facts: KeptFacts, now: number): void {
    this.#keep.run(trace, queueId, now, facts.direction, JSON.stringify(facts.outcomes));
  }

  keptFacts(trace: TraceId, queueId: string, now: number): KeptFacts | null {
    const row = this.#kept.get(trace, queueId, now - FACTS_AGE_MS);
    return row === undefined ? null : factsRow.parse(row);
  }

  /** Removes at most `limit` of each; says whether there may be more. */
  expire(tracesBefore: number, factsBefore: number, limit: number): boolean {
    const traces = this.#expireTraces.run(tracesBefore, limit).changes;
    const facts = this.#expireFacts.run(factsBefore, limit).changes;
    return Number(traces) === limit || Number(facts) === limit;
  }
}
