import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { first, inColumns, numberAt } from './sqlite-row.ts';
import { TALLY_AGE_MS } from './state-order.ts';

/** Rows of one table, which know when they are worthless. Each removal takes no more than `count` rows and says how many went. */
export interface Sweepable {
  /** Rows there are. */
  size(): number;
  removeWorthless(now: number, count: number): number;
  /** Removes what would be worthless first. */
  removeOldest(count: number): number;
}

/** The tables of a state file that grow with what comes from outside. */
export function sweepables(database: DatabaseSync): readonly Sweepable[] {
  return [
    ordered(database, { table: 'counter', key: 'limit_name, key', by: 'expires' }),
    ordered(database, { table: 'triplet', key: 'digest', by: 'expires' }),
    ordered(database, { table: 'client', key: 'network', by: 'expires' }),
    ordered(database, { table: 'correspondent', key: 'digest', by: 'expires' }),
    { ...ordered(database, { table: 'reservation', key: 'id', by: 'until' }), size: reservations(database) },
    ordered(database, { table: 'full_mailbox', key: 'mailbox', by: 'expires' }),
    ordered(database, { table: 'tally', key: 'subject, hour, name', by: 'hour', keptMs: TALLY_AGE_MS }),
    // What was set without an end is never removed by itself.
    ordered(database, { table: 'standing', key: 'login', by: 'until' }),
    sightings(database),
  ];
}

interface Ordered {
  readonly table: string;
  readonly key: string;
  /** The column, with an index, that tells when a row is worthless; `keptMs` after it. */
  readonly by: string;
  readonly keptMs?: number;
}

function ordered(database: DatabaseSync, { table, key, by, keptMs = 0 }: Ordered): Sweepable {
  const removal = (condition: string): StatementSync =>
    database.prepare(`
      DELETE FROM ${table} WHERE (${key}) IN (SELECT ${key} FROM ${table} WHERE ${condition} ORDER BY ${by} LIMIT ?)`);
  const worthless = removal(`${by} <= ?`);
  const oldest = removal(`${by} IS NOT NULL`);
  return {
    size: sizeOf(database, table),
    removeWorthless: (now, count) => Number(worthless.run(now - keptMs, count).changes),
    removeOldest: (count) => Number(oldest.run(count).changes),
  };
}

/** There are no more sums than mailboxes with mail in flight, so they can be added up. */
function reservations(database: DatabaseSync): () => number {
  const statement = inColumns(database.prepare('SELECT total(reservations) FROM mailbox_load'));
  return () => numberAt(first(statement.get()) ?? [], 0);
}

/** Sightings go with their subject. */
function sightings(database: DatabaseSync): Sweepable {
  const firstSubject = inColumns(
    database.prepare('SELECT id FROM sighting_subject WHERE expires <= ? ORDER BY expires LIMIT 1'),
  );
  const removeValues = database.prepare(`
    DELETE FROM sighting WHERE subject = ?1 AND digest IN (SELECT digest FROM sighting WHERE subject = ?1 LIMIT ?2)`);
  const removeSubject = database.prepare('DELETE FROM sighting_subject WHERE id = ?');
  const remove = (before: number, count: number): number => {
    let removed = 0;
    // A subject may have no values left: it counts, so that this ends.
    while (removed < count) {
      const row = first(firstSubject.get(before));
      if (row === null) break;
      const id = numberAt(row, 0);
      removed += Number(removeValues.run(id, count - removed).changes);
      if (removed < count) removed += Number(removeSubject.run(id).changes);
    }
    return removed;
  };
  return {
    size: sizeOf(database, 'sighting'),
    removeWorthless: remove,
    removeOldest: (count) => remove(Number.MAX_SAFE_INTEGER, count),
  };
}

function sizeOf(database: DatabaseSync, table: string): () => number {
  const statement = inColumns(database.prepare('SELECT rows FROM size WHERE name = ?'));
  return () => numberAt(first(statement.get(table)) ?? [], 0);
}
