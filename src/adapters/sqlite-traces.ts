import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from 'node:sqlite';

import type { TraceId, TraceKeys } from '../ports/store.ts';
import { PART_BITS } from './sqlite-schema.ts';

/** How old an unclaimed trace may be to be taken for this message: longer than any SMTP client takes from RCPT to the final dot. */
const CLAIM_AGE_MS = 3_600_000;
/** Deliveries are retried for 5 days (Postfix maximal_queue_lifetime); after that a queue id may name another message. */
export const TRACE_AGE_MS = 6 * 86_400_000;
/** A message that was held up for longer is better checked again, with the lists of that day. */
export const FACTS_AGE_MS = 86_400_000;
/** A row that is so far ahead was written while the clock was wrong. */
const AHEAD_MS = 86_400_000;

interface Found {
  readonly id: SQLInputValue;
  readonly trace: string;
  readonly claimed: boolean;
}

/** Traces and kept facts, for writing. A transaction is the caller's, so no other process comes between a question and its answer. */
export class TraceTable {
  readonly #add: StatementSync;
  readonly #ends: StatementSync;
  readonly #firstOfPart: StatementSync;
  readonly #byQueueId: StatementSync;
  readonly #byInstance: StatementSync;
  readonly #unclaimed: StatementSync;
  readonly #nameless: StatementSync;
  readonly #name: StatementSync;
  readonly #claim: StatementSync;
  readonly #keep: StatementSync;
  readonly #expireTraces: StatementSync;
  readonly #expireFacts: StatementSync;

  constructor(database: DatabaseSync) {
    this.#add = database.prepare(
      'INSERT INTO trace (trace, time, session, sender, instance, queue_id, claimed) VALUES (?, ?, ?, ?, ?, ?, ?)',
    );
    this.#ends = database.prepare(
      'SELECT (SELECT min(id) FROM trace) AS first, (SELECT max(id) FROM trace) AS last',
    );
    this.#firstOfPart = database.prepare('SELECT time FROM trace WHERE id >= ? ORDER BY id LIMIT 1');
    // The session and the instance keep short queue ids apart, which Postfix uses again soon.
    this.#byQueueId = database.prepare(`
      SELECT id, trace, claimed FROM trace
      WHERE queue_id = ?1 AND time >= ?2 AND (session IS NULL OR ?3 IS NULL OR session = ?3)
        AND (instance IS NULL OR ?4 IS NULL OR instance = ?4)
      ORDER BY id DESC LIMIT 1`);
    const inPart = `
      SELECT id, trace, claimed FROM trace INDEXED BY trace_unclaimed
      WHERE id >> ${PART_BITS} = ?1 AND session IS ?2 AND sender = ?3 AND claimed = 0 AND time >= ?4`;
    this.#byInstance = database.prepare(`${inPart} AND instance = ?5 ORDER BY id DESC LIMIT 1`);
    this.#unclaimed = database.prepare(`
      ${inPart} AND (queue_id IS NULL OR ?5 IS NULL OR queue_id = ?5) ORDER BY id DESC LIMIT 1`);
    this.#nameless = database.prepare(`
      SELECT id, trace, claimed FROM trace WHERE trace = ? AND claimed = 1 AND queue_id IS NULL LIMIT 1`);
    this.#name = database.prepare('UPDATE trace SET queue_id = ?2 WHERE id = ?1 AND queue_id IS NULL');
    this.#claim = database.prepare(
      'UPDATE trace SET claimed = 1, queue_id = coalesce(queue_id, ?2) WHERE id = ?1',
    );
    this.#keep = database.prepare(
      'INSERT OR REPLACE INTO facts (trace, queue_id, time, direction, outcomes) VALUES (?, ?, ?, ?, ?)',
    );
    // In the order they came, which needs no index.
    this.#expireTraces = database.prepare(`
      DELETE FROM trace WHERE id IN (
        SELECT id FROM (SELECT id, time FROM trace ORDER BY id LIMIT ?1) WHERE time < ?2 OR time > ?3)`);
    this.#expireFacts = database.prepare(
      'DELETE FROM facts WHERE (trace, queue_id) IN (SELECT trace, queue_id FROM facts WHERE time < ? LIMIT ?)',
    );
  }

  /** Notes the trace of a message that is new. */
  add(trace: TraceId, { session, sender, instance, queueId }: TraceKeys, now: number): void {
    this.#add.run(trace, now, session, sender, instance, queueId, 0);
  }

  /** The trace of a message that may not be new: policyd was started again meanwhile, or has forgotten it. */
  open(keys: TraceKeys, fresh: TraceId, now: number): TraceId {
    const { session, sender, instance, queueId } = keys;
    const named = queueId === null ? null : this.#named(queueId, session, instance, now);
    if (named !== null) return named.trace;
    const since = now - CLAIM_AGE_MS;
    const known =
      instance === null
        ? null
        : this.#newest(since, (part) => this.#byInstance.get(part, session, sender, since, instance));
    if (known === null) {
      this.add(fresh, keys, now);
      return fresh;
    }
    if (queueId !== null) this.#name.run(known.id, queueId);
    return known.trace;
  }

  join(keys: TraceKeys, fresh: TraceId, now: number): TraceId {
    const { session, sender, queueId } = keys;
    const found =
      (queueId === null ? null : this.#named(queueId, session, null, now)) ??
      (session === null ? null : this.#claimable(session, sender, queueId, now));
    if (found !== null) {
      if (!found.claimed) this.#claim.run(found.id, queueId);
      return found.trace;
    }
    // Joined before its queue id was known.
    const nameless = this.#nameless.get(fresh);
    if (nameless === undefined) this.#add.run(fresh, now, session, sender, null, queueId, 1);
    else if (queueId !== null) this.#name.run(foundRow(nameless).id, queueId);
    return fresh;
  }

  keepFacts(trace: TraceId, queueId: string, direction: string, outcomes: string, now: number): void {
    this.#keep.run(trace, queueId, now, direction, outcomes);
  }

  /** Removes at most `limit` of each; says whether there may be more. */
  expire(tracesBefore: number, factsBefore: number, limit: number, now: number): boolean {
    const traces = this.#expireTraces.run(limit, tracesBefore, now + AHEAD_MS).changes;
    const facts = this.#expireFacts.run(factsBefore, limit).changes;
    return Number(traces) === limit || Number(facts) === limit;
  }

  #named(queueId: string, session: string | null, instance: string | null, now: number): Found | null {
    const row = this.#byQueueId.get(queueId, now - TRACE_AGE_MS, session, instance);
    return row === undefined ? null : foundRow(row);
  }

  #claimable(session: string, sender: string, queueId: string | null, now: number): Found | null {
    const since = now - CLAIM_AGE_MS;
    return this.#newest(since, (part) => this.#unclaimed.get(part, session, sender, since, queueId));
  }

  /** Looks into one part after another, the newest first, as long as they may hold rows from `since` on. */
  #newest(since: number, look: (part: number) => Record<string, SQLOutputValue> | undefined): Found | null {
    const { first, last } = this.#ends.get() ?? {};
    if (typeof first !== 'number' || typeof last !== 'number') return null;
    const lowest = Math.floor(first / 2 ** PART_BITS);
    for (let part = Math.floor(last / 2 ** PART_BITS); part >= lowest; part--) {
      const row = look(part);
      if (row !== undefined) return foundRow(row);
      const oldest = this.#firstOfPart.get(part * 2 ** PART_BITS)?.['time'];
      if (typeof oldest !== 'number' || oldest < since) return null;
    }
    return null;
  }
}

function foundRow({ id, trace, claimed }: Record<string, SQLOutputValue>): Found {
  return { id: id ?? null, trace: String(trace), claimed: claimed === 1 };
}
