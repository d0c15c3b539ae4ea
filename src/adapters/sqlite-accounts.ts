import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { STANDINGS, type Standing, type Tally } from '../ports/accounts.ts';
import { first, inColumns, nullOr, numberAt, textAt, type Row } from './sqlite-row.ts';
import { bounded } from './state-keys.ts';

/** What subjects did, hour by hour, and what logins may still do. Whoever calls a method that writes has begun a transaction. */
export class AccountTable {
  readonly #add: StatementSync;
  readonly #tallies: StatementSync;
  readonly #standing: StatementSync;
  readonly #standings: StatementSync;
  readonly #set: StatementSync;
  readonly #forget: StatementSync;

  constructor(database: DatabaseSync) {
    this.#add = database.prepare(`
      INSERT INTO tally (subject, hour, name, count) VALUES (?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET count = count + excluded.count`);
    this.#tallies = inColumns(
      database.prepare('SELECT hour, name, count FROM tally WHERE subject = ? AND hour >= ? ORDER BY hour'),
    );
    const columns = 'login, rank, why, by_operator, since, until';
    this.#standing = inColumns(
      database.prepare(`SELECT ${columns} FROM standing WHERE login = ? AND (until IS NULL OR until > ?)`),
    );
    this.#standings = inColumns(
      database.prepare(
        `SELECT ${columns} FROM standing WHERE until IS NULL OR until > ? ORDER BY since DESC, login`,
      ),
    );
    this.#set = database.prepare(`
      INSERT INTO standing (${columns}) VALUES (?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET rank = excluded.rank, why = excluded.why, by_operator = excluded.by_operator,
        since = excluded.since, until = excluded.until`);
    this.#forget = database.prepare('DELETE FROM standing WHERE login = ?');
  }

  tally(entries: readonly Tally[]): void {
    for (const { subject, hour, counts } of entries) {
      for (const [name, count] of Object.entries(counts)) this.#add.run(bounded(subject), hour, name, count);
    }
  }

  tallies(subject: string, since: number): readonly Tally[] {
    const hours = new Map<number, Record<string, number>>();
    const rows: readonly unknown[] = this.#tallies.all(bounded(subject), since);
    for (const each of rows) {
      const row = first(each) ?? [];
      const hour = numberAt(row, 0);
      const counts = hours.get(hour) ?? {};
      counts[textAt(row, 1)] = numberAt(row, 2);
      hours.set(hour, counts);
    }
    return Array.from(hours, ([hour, counts]) => ({ subject, hour, counts }));
  }

  standing(login: string, now: number): Standing | null {
    const row = first(this.#standing.get(login, now));
    return row === null ? null : standingOf(row);
  }

  standings(now: number): readonly Standing[] {
    const rows: readonly unknown[] = this.#standings.all(now);
    return rows.map((row) => standingOf(first(row) ?? []));
  }

  set({ login, kind, why, by, since, until }: Standing): void {
    if (kind === 'free') this.#forget.run(login);
    else this.#set.run(login, STANDINGS.indexOf(kind), why, by === 'operator' ? 1 : 0, since, until);
  }

  raise(standing: Standing, now: number): boolean {
    const kind = this.standing(standing.login, now)?.kind ?? 'free';
    if (STANDINGS.indexOf(standing.kind) <= STANDINGS.indexOf(kind)) return false;
    this.set(standing);
    return true;
  }
}

/** `row`: login, rank, why, by_operator, since, until. */
export function standingOf(row: Row): Standing {
  const rank = numberAt(row, 1);
  const kind = STANDINGS[rank];
  if (kind === undefined) throw new RangeError(`there is no standing of rank ${rank}`);
  return {
    login: textAt(row, 0),
    kind,
    why: textAt(row, 2),
    by: numberAt(row, 3) === 1 ? 'operator' : 'postern',
    since: numberAt(row, 4),
    until: nullOr(numberAt, row, 5),
  };
}
