import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';

import type { TraceId, TraceKeys } from '../ports/store.ts';
import { Parts } from './sqlite-parts.ts';
import { PART_BITS } from './sqlite-schema.ts';
import { CLAIM_AGE_MS, TRACE_AGE_MS } from './trace-ages.ts';

/** A row that is so far ahead was written while the clock was wrong. */
const AHEAD_MS = 86_400_000;

/** A trace that is known, by the number of its row. */
export interface FoundTrace {
  readonly id: number;
  readonly trace: TraceId;
  readonly claimed: boolean;
}

/** Which trace a message has. */
export class TraceLookup {
  readonly #parts: Parts;
  readonly #byQueueId: StatementSync;
  readonly #byInstance: StatementSync;
  readonly #unclaimed: StatementSync;
  readonly #newest: StatementSync;

  constructor(database: DatabaseSync) {
    this.#parts = new Parts(database, 'trace');
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
    const newestPart = `(SELECT max(id) >> ${PART_BITS} FROM trace)`;
    this.#newest = database.prepare(`
      SELECT id, trace, claimed FROM (
        SELECT id, trace, claimed FROM trace
        WHERE queue_id = ?1 AND time >= ?2 AND (session IS NULL OR ?3 IS NULL OR session = ?3)
        ORDER BY id DESC LIMIT 1)
      UNION ALL
      SELECT id, trace, claimed FROM (
        SELECT id, trace, claimed FROM trace INDEXED BY trace_unclaimed
        WHERE id >> ${PART_BITS} IN (${newestPart}, ${newestPart} - 1) AND session = ?3 AND sender = ?4 AND claimed = 0
          AND time >= ?5 AND (queue_id IS NULL OR ?1 IS NULL OR queue_id = ?1)
        ORDER BY id DESC LIMIT 1)
      LIMIT 1`);
  }

  /** Of the message that policyd knows by `instance`. */
  byInstance({ session, sender, instance }: TraceKeys, now: number): FoundTrace | null {
    if (instance === null) return null;
    const since = now - CLAIM_AGE_MS;
    const row = this.#parts.newest(since, (part) =>
      this.#byInstance.get(part, session, sender, since, instance),
    );
    return row === null ? null : foundTrace(row);
  }

  byQueueId({ queueId, session, instance }: TraceKeys, now: number): FoundTrace | null {
    if (queueId === null) return null;
    const row = this.#byQueueId.get(queueId, now - TRACE_AGE_MS, session, instance);
    return row === undefined ? null : foundTrace(row);
  }

  /** The one of the message's queue id; else the newest of its session and sender that no message has claimed. */
  ofMessage(keys: TraceKeys, now: number): FoundTrace | null {
    const { session, sender, queueId } = keys;
    const named = this.byQueueId({ ...keys, instance: null }, now);
    if (named !== null || session === null) return named;
    const since = now - CLAIM_AGE_MS;
    const row = this.#parts.newest(since, (part) =>
      this.#unclaimed.get(part, session, sender, since, queueId),
    );
    return row === null ? null : foundTrace(row);
  }

  /** As `ofMessage`, in one statement (its locks cost more than it does), but not among traces that thousands came after. */
  amongNewest({ queueId, session, sender }: TraceKeys, now: number): FoundTrace | null {
    const row = this.#newest.get(queueId, now - TRACE_AGE_MS, session, sender, now - CLAIM_AGE_MS);
    return row === undefined ? null : foundTrace(row);
  }
}

/** Traces and kept facts, for writing. A transaction is the caller's, so no other process comes between a question and its answer. */
export class TraceTable {
  readonly #lookup: TraceLookup;
  readonly #add: StatementSync;
  readonly #nameless: StatementSync;
  readonly #name: StatementSync;
  readonly #claim: StatementSync;
  readonly #keep: StatementSync;
  readonly #expireTraces: StatementSync;
  readonly #expireFacts: StatementSync;

  constructor(database: DatabaseSync) {
    this.#lookup = new TraceLookup(database);
    this.#add = database.prepare(
      'INSERT INTO trace (trace, time, session, sender, instance, queue_id, claimed) VALUES (?, ?, ?, ?, ?, ?, ?)',
    );
    this.#nameless = database.prepare(`
      SELECT id, trace, claimed FROM trace WHERE trace = ? AND claimed = 1 AND queue_id IS NULL LIMIT 1`);
    this.#name = database.prepare('UPDATE trace SET queue_id = ?2 WHERE id = ?1 AND queue_id IS NULL');
    this.#claim = database.prepare(
      'UPDATE trace SET claimed = 1, queue_id = coalesce(queue_id, ?2) WHERE id = ?1',
    );
    this.#keep = database.prepare(
      'INSERT INTO facts (trace, queue_id, time, direction, outcomes) VALUES (?, ?, ?, ?, ?)',
    );
    // In the order they came, which needs no index.
    this.#expireTraces = database.prepare(`
      DELETE FROM trace WHERE id IN (
        SELECT id FROM (SELECT id, time FROM trace ORDER BY id LIMIT ?1) WHERE time < ?2 OR time > ?3)`);
    this.#expireFacts = database.prepare(`
      DELETE FROM facts WHERE id IN (
        SELECT id FROM (SELECT id, time FROM facts ORDER BY id LIMIT ?1) WHERE time < ?2 OR time > ?3)`);
  }

  /** Notes the trace of a message that is new. */
  add(
    trace: TraceId,
    { session, sender, instance, queueId }: TraceKeys,
    now: number,
    claimed: boolean,
  ): void {
    this.#add.run(trace, now, session, sender, instance, queueId, claimed ? 1 : 0);
  }

  /** The message of that queue id has taken the trace for its own. */
  claim(id: number, queueId: string | null): void {
    this.#claim.run(id, queueId);
  }

  /** The trace of a message that may not be new: policyd was started again meanwhile, or has forgotten it. */
  open(keys: TraceKeys, fresh: TraceId, now: number): TraceId {
    const named = this.#lookup.byQueueId(keys, now);
    if (named !== null) return named.trace;
    const known = this.#lookup.byInstance(keys, now);
    if (known === null) {
      this.add(fresh, keys, now, false);
      return fresh;
    }
    if (keys.queueId !== null) this.#name.run(known.id, keys.queueId);
    return known.trace;
  }

  join(keys: TraceKeys, fresh: TraceId, now: number): TraceId {
    const found = this.#lookup.ofMessage(keys, now);
    if (found !== null) {
      if (!found.claimed) this.claim(found.id, keys.queueId);
      return found.trace;
    }
    // Joined before its queue id was known.
    const nameless = this.#nameless.get(fresh);
    if (nameless === undefined) this.add(fresh, { ...keys, instance: null }, now, true);
    else if (keys.queueId !== null) this.#name.run(foundTrace(nameless).id, keys.queueId);
    return fresh;
  }

  keepFacts(trace: TraceId, queueId: string, direction: string, outcomes: string, now: number): void {
    this.#keep.run(trace, queueId, now, direction, outcomes);
  }

  /** Removes at most `limit` of each; says whether there may be more. */
  expire(tracesBefore: number, factsBefore: number, limit: number, now: number): boolean {
    const traces = this.#expireTraces.run(limit, tracesBefore, now + AHEAD_MS).changes;
    const facts = this.#expireFacts.run(limit, factsBefore, now + AHEAD_MS).changes;
    return Number(traces) === limit || Number(facts) === limit;
  }
}

function foundTrace({ id, trace, claimed }: Record<string, SQLOutputValue>): FoundTrace {
  return { id: Number(id), trace: String(trace), claimed: claimed === 1 };
}
