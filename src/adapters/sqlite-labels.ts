import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { z } from 'zod';

import { LABEL_KINDS, type Decision, type Label } from '../ports/store.ts';

/** Labels of one user that are kept: whoever may file mail may make as many as he has messages. The oldest go first. */
export const LABELS_PER_USER = 10_000;
/** After so many labels of a user the surplus is removed: to find it takes a look at all of his. */
export const TRIM_EVERY = 100;
/** Users whose labels are counted at a time. */
const COUNTED_USERS = 1000;

const labelRow = z.object({
  message: z.string(),
  user: z.string(),
  label: z.enum(LABEL_KINDS),
  time: z.number(),
});

/** Writes what users say of messages. */
export class LabelTable {
  readonly #put: StatementSync;
  readonly #trim: StatementSync;
  readonly #expire: StatementSync;
  /** Labels since the surplus of a user was removed. */
  readonly #since = new Map<string, number>();

  constructor(database: DatabaseSync) {
    this.#put = database.prepare(`
      INSERT INTO label (message, user, label, time) VALUES (?1, ?2, ?3, ?4)
      ON CONFLICT (message, user) DO UPDATE SET label = ?3, time = ?4 WHERE time <= ?4`);
    this.#trim = database.prepare(`
      DELETE FROM label WHERE user = ?1 AND time <= (
        SELECT time FROM label WHERE user = ?1 ORDER BY time DESC LIMIT 1 OFFSET ${LABELS_PER_USER})`);
    this.#expire = database.prepare(
      'DELETE FROM label WHERE (message, user) IN (SELECT message, user FROM label WHERE time < ? LIMIT ?)',
    );
  }

  write({ message, user, label, time }: Label): void {
    this.#put.run(message, user, label, time);
    const since = (this.#since.get(user) ?? 0) + 1;
    if (since < TRIM_EVERY) {
      if (this.#since.size >= COUNTED_USERS) this.#since.clear();
      this.#since.set(user, since);
      return;
    }
    this.#since.delete(user);
    this.#trim.run(user);
  }

  /** Removes at most `limit`; says whether there may be more. */
  expire(before: number, limit: number): boolean {
    return Number(this.#expire.run(before, limit).changes) === limit;
  }
}

/** The decisions, with what users said of their messages. */
export function withLabels(database: DatabaseSync, decisions: Decision[]): Decision[] {
  if (decisions.length === 0 || database.prepare('SELECT 1 FROM label LIMIT 1').get() === undefined) {
    return decisions;
  }
  const of = database.prepare(
    'SELECT message, user, label, time FROM label WHERE message IN (?, ?) ORDER BY time',
  );
  return decisions.map((decision) => {
    // A user may have spoken of the message by its trace, and by its Message-ID: the last word stands.
    const last = new Map<string, Label>();
    for (const row of of.all(decision.trace, decision.messageId ?? decision.trace)) {
      const label = labelRow.parse(row);
      last.set(label.user, label);
    }
    return last.size === 0 ? decision : { ...decision, labels: [...last.values()] };
  });
}
