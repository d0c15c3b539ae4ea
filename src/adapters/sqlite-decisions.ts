import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';

import type { Decision } from '../ports/store.ts';
import { PART_BITS } from './sqlite-schema.ts';

/** Columns of a decision as the reader wants them; `sender_key` and `recipient_key` are for looking up. */
export const DECISION_COLUMNS =
  'time, trace, daemon, stage, direction, queue_id, client, helo, login, sender, recipients, message_id, size, verdict, rule, why, score, tagged, reply, shadow, outcomes, elapsed';
const WRITTEN = `${DECISION_COLUMNS}, sender_key, recipient_key`;
const WIDTH = WRITTEN.split(',').length;

/** A decision on its way to the thread that writes: plain values only, which cost little to hand over. */
export interface DecisionRow {
  readonly values: SQLInputValue[];
  /** Keys of several recipients; a single one is among the values. */
  readonly crowd: readonly string[];
}

const EMPTY = '[]';

export function decisionRow(decision: Decision): DecisionRow {
  const { recipients, shadow } = decision;
  const [first] = recipients;
  const single = first !== undefined && recipients.length === 1;
  return {
    values: [
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
      first === undefined ? EMPTY : JSON.stringify(recipients),
      decision.messageId,
      decision.size,
      decision.verdict,
      decision.rule,
      decision.why,
      decision.score,
      decision.tagged ? 1 : 0,
      decision.reply,
      shadow.length === 0 ? EMPTY : JSON.stringify(shadow),
      outcomesText(decision.outcomes),
      decision.elapsed,
      addressKey(decision.sender),
      single ? addressKey(first) : null,
    ],
    crowd: single ? [] : recipients.map(addressKey),
  };
}

/** Decisions and the index of their recipients, for writing. A transaction is the caller's. */
export class DecisionTable {
  readonly #insert: StatementSync;
  readonly #insertRecipient: StatementSync;
  readonly #expireRecipients: StatementSync;
  readonly #expire: StatementSync;
  readonly #oldest: StatementSync;

  constructor(database: DatabaseSync) {
    const places = Array.from({ length: WIDTH }, () => '?').join(', ');
    this.#insert = database.prepare(`INSERT INTO decision (${WRITTEN}) VALUES (${places})`);
    this.#insertRecipient = database.prepare(
      `INSERT OR IGNORE INTO decision_recipient (part, recipient_key, decision) VALUES (?1 >> ${PART_BITS}, ?2, ?1)`,
    );
    const oldest = 'SELECT id FROM decision WHERE time < ? ORDER BY time, id LIMIT ?';
    this.#expireRecipients = database.prepare(
      `DELETE FROM decision_recipient WHERE (part, recipient_key, decision) IN (
         SELECT r.part, r.recipient_key, r.decision FROM decision_recipient AS r
         WHERE r.part IN (SELECT id >> ${PART_BITS} FROM (${oldest})) AND r.decision IN (${oldest}))`,
    );
    this.#expire = database.prepare(`DELETE FROM decision WHERE id IN (${oldest})`);
    this.#oldest = database.prepare('SELECT time FROM decision ORDER BY time LIMIT 1');
  }

  write({ values, crowd }: DecisionRow): void {
    const { lastInsertRowid } = this.#insert.run(...values);
    for (const recipient of crowd) this.#insertRecipient.run(lastInsertRowid, recipient);
  }

  /** Removes the oldest that are older than `before`, at most `limit`; returns how many went. */
  expire(before: number, limit: number): number {
    this.#expireRecipients.run(before, limit, before, limit);
    return Number(this.#expire.run(before, limit).changes);
  }

  /** Removes the oldest; returns how many went, and the time of the oldest that is left, 0: there is none. */
  removeOldest(limit: number): { readonly decisions: number; readonly oldest: number } {
    const decisions = this.expire(Number.MAX_SAFE_INTEGER, limit);
    const oldest = this.#oldest.get()?.['time'];
    return { decisions, oldest: typeof oldest === 'number' ? oldest : 0 };
  }
}

/**
 * `domain@local` in lower case: `example.org@bob` for Bob@example.org, `@root` for root, empty for the null path. No local part holds
 * what would make two addresses the same key, since the domain ends at the first `@`.
 */
export function addressKey(address: string): string {
  const at = address.lastIndexOf('@');
  if (at !== -1) return `${address.slice(at + 1)}@${address.slice(0, at)}`.toLowerCase();
  return address === '' ? '' : `@${address.toLowerCase()}`;
}

/** The scanner's header fields are left out: its report quotes the body, and bodies are not kept. What decides (score, rules) stays. */
function outcomesText(outcomes: Decision['outcomes']): string {
  if (outcomes.length === 0) return EMPTY;
  return JSON.stringify(outcomes.some(quotes) ? outcomes.map(unquoted) : outcomes);
}

type Outcome = Decision['outcomes'][number];

function quotes(outcome: Outcome): boolean {
  return outcome.kind === 'found' && outcome.findings.some(({ scan }) => scan !== undefined);
}

function unquoted(outcome: Outcome): Outcome {
  if (outcome.kind === 'unavailable') return outcome;
  const findings = outcome.findings.map((finding) =>
    finding.scan === undefined ? finding : { ...finding, scan: { ...finding.scan, fields: [] } },
  );
  return { ...outcome, findings };
}
