import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';

import { z } from 'zod';

import type { Decision, HistoryFilter } from '../ports/store.ts';
import { json, outcomeList } from './sqlite-outcomes.ts';

const verdictKind = z.enum(['accept', 'junk', 'quarantine', 'defer', 'reject', 'discard']);

const shadow = z.object({ rule: z.string(), kind: verdictKind });

const decisionRow = z
  .object({
    trace: z.string(),
    time: z.number(),
    daemon: z.enum(['policyd', 'milter', 'lmtp-filter']),
    stage: z.string(),
    direction: z.enum(['in', 'out']),
    queue_id: z.string().nullable(),
    client: z.string(),
    helo: z.string().nullable(),
    login: z.string().nullable(),
    sender: z.string(),
    recipients: json(z.array(z.string())),
    message_id: z.string().nullable(),
    size: z.number().nullable(),
    verdict: verdictKind,
    rule: z.string(),
    why: z.string(),
    score: z.number().nullable(),
    tagged: z.literal([0, 1]).transform((bit) => bit === 1),
    reply: z.string(),
    shadow: json(z.array(shadow)),
    outcomes: json(outcomeList),
    elapsed: z.number(),
  })
  .transform(({ queue_id: queueId, message_id: messageId, ...same }): Decision => ({
    ...same,
    queueId,
    messageId,
  }));

const expiredRow = z.object({ id: z.number(), recipients: json(z.array(z.string())) });

const COLUMNS =
  'time, trace, daemon, stage, direction, queue_id, client, helo, login, sender, recipients, message_id, size, verdict, rule, why, score, tagged, reply, shadow, outcomes, elapsed';

/** Decisions and the index of their recipients. */
export class DecisionTable {
  readonly #database: DatabaseSync;
  readonly #insert: StatementSync;
  readonly #insertRecipient: StatementSync;
  readonly #expired: StatementSync;
  readonly #delete: StatementSync;
  readonly #deleteRecipient: StatementSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
    const places = COLUMNS.split(',')
      .map(() => '?')
      .join(', ');
    this.#insert = database.prepare(`INSERT INTO decision (${COLUMNS}, sender_key) VALUES (${places}, ?)`);
    this.#insertRecipient = database.prepare(
      'INSERT OR IGNORE INTO decision_recipient (recipient_key, decision) VALUES (?, ?)',
    );
    this.#expired = database.prepare(
      'SELECT id, recipients FROM decision WHERE time < ? ORDER BY time LIMIT ?',
    );
    this.#delete = database.prepare('DELETE FROM decision WHERE id = ?');
    this.#deleteRecipient = database.prepare(
      'DELETE FROM decision_recipient WHERE recipient_key = ? AND decision = ?',
    );
  }

  /** Writes all of them, or none. */
  write(decisions: readonly Decision[]): void {
    this.#together(() => {
      for (const decision of decisions) this.#writeOne(decision);
    });
  }

  /** Removes the oldest that are older than `before`, at most `limit`; returns how many went. */
  expire(before: number, limit: number): number {
    return this.#together(() => {
      let removed = 0;
      for (const row of this.#expired.all(before, limit)) {
        const { id, recipients } = expiredRow.parse(row);
        for (const recipient of recipients) this.#deleteRecipient.run(addressKey(recipient), id);
        removed += Number(this.#delete.run(id).changes);
      }
      return removed;
    });
  }

  #writeOne(decision: Decision): void {
    const { lastInsertRowid } = this.#insert.run(
      decision.time,
      decision.trace,
      decision.daemon,
      decision.stage,
      decision.direction,
      decision.queueId,
      decision.client,
      decision.helo,
      decision.login,
      decision.sender,
      JSON.stringify(decision.recipients),
      decision.messageId,
      decision.size,
      decision.verdict,
      decision.rule,
      decision.why,
      decision.score,
      decision.tagged ? 1 : 0,
      decision.reply,
      JSON.stringify(decision.shadow),
      outcomesText(decision.outcomes),
      decision.elapsed,
      addressKey(decision.sender),
    );
    for (const recipient of decision.recipients) {
      this.#insertRecipient.run(addressKey(recipient), lastInsertRowid);
    }
  }

  #together<T>(work: () => T): T {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      // Some errors have ended the transaction already.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
  }
}

/** Newest first. */
export function selectHistory(database: DatabaseSync, filter: HistoryFilter): Decision[] {
  const conditions: string[] = [];
  const values: SQLInputValue[] = [];
  const where = (condition: string, ...of: SQLInputValue[]): void => {
    conditions.push(condition);
    values.push(...of);
  };
  if (filter.trace !== undefined) where('trace = ?', filter.trace);
  if (filter.queueId !== undefined) where('queue_id = ?', filter.queueId);
  if (filter.client !== undefined) where('client = ?', filter.client);
  if (filter.daemon !== undefined) where('daemon = ?', filter.daemon);
  if (filter.verdict !== undefined) where('verdict = ?', filter.verdict);
  if (filter.since !== undefined) where('time >= ?', filter.since);
  if (filter.until !== undefined) where('time < ?', filter.until);
  if (filter.rule !== undefined) {
    if (!filter.rule.endsWith('*')) where('rule = ?', filter.rule);
    else where(...prefixRange('rule', filter.rule.slice(0, -1)));
  }
  if (filter.sender !== undefined) where(...addressCondition('sender_key', filter.sender));
  if (filter.recipient !== undefined) {
    const [condition, ...of] = addressCondition('recipient_key', filter.recipient);
    where(`id IN (SELECT decision FROM decision_recipient WHERE ${condition})`, ...of);
  }
  const all = conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`;
  // Chosen by small columns first: sorting whole rows would read the facts of every decision that fits.
  const statement = database.prepare(
    `SELECT ${COLUMNS} FROM decision
     WHERE id IN (SELECT id FROM decision ${all} ORDER BY time DESC, id DESC LIMIT ?)
     ORDER BY time DESC, id DESC`,
  );
  return statement.all(...values, filter.limit).map((row) => decisionRow.parse(row));
}

/**
 * `domain@local` in lower case: `example.org@bob` for Bob@example.org, `@root` for root, empty for the null path. No local part holds
 * what would make two addresses the same key, since the domain ends at the first `@`.
 */
function addressKey(address: string): string {
  const at = address.lastIndexOf('@');
  const key = at === -1 ? address : `${address.slice(at + 1)}@${address.slice(0, at)}`;
  if (key === '') return '';
  return at === -1 ? `@${key.toLowerCase()}` : key.toLowerCase();
}

function addressCondition(column: string, wanted: string): [string, ...string[]] {
  if (wanted.startsWith('@')) return prefixRange(column, `${wanted.slice(1).toLowerCase()}@`);
  return [`${column} = ?`, addressKey(wanted)];
}

/** All texts that start with `prefix`; unlike LIKE and GLOB it has no special characters and uses the index. */
function prefixRange(column: string, prefix: string): [string, ...string[]] {
  return [`${column} >= ? AND ${column} < ?`, prefix, `${prefix}\u{10ffff}`];
}

/**
 * The scanner's header fields are left out: its report quotes the body, and bodies are not kept. What decides (score, rules) stays.
 */
function outcomesText(outcomes: Decision['outcomes']): string {
  return JSON.stringify(outcomes, (key, value: unknown) => (key === 'fields' ? [] : value));
}
