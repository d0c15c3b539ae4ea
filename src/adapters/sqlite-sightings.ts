import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { DISTINCT_LIMIT, type Sighting, type SightingResult } from '../ports/accounts.ts';
import { first, inColumns, numberAt } from './sqlite-row.ts';
import { bounded, digestOf } from './state-keys.ts';

/** When a value is seen again is written down this much later at most, or after this share of its window. */
const LATE_MS = 60_000;
const LATE_SHARE = 1 / 64;
/** A subject is kept for longer than its last value, by this share of the window. */
const SLACK_SHARE = 1 / 8;
/** Lapsed values of one subject that one sighting removes: what removes them all at once takes milliseconds. */
const LAPSED_AT_ONCE = 20;

/** Values that subjects were seen with. A kind has one window. Whoever calls `see` has begun a transaction. */
export class SightingTable {
  readonly #subject: StatementSync;
  readonly #newSubject: StatementSync;
  readonly #setCount: StatementSync;
  readonly #setExpiry: StatementSync;
  readonly #lapsed: StatementSync;
  readonly #removeOldest: StatementSync;
  readonly #find: StatementSync;
  readonly #put: StatementSync;

  constructor(database: DatabaseSync) {
    this.#subject = inColumns(
      database.prepare('SELECT id, sightings, expires FROM sighting_subject WHERE kind = ? AND subject = ?'),
    );
    this.#newSubject = inColumns(
      database.prepare(
        'INSERT INTO sighting_subject (kind, subject, sightings, expires) VALUES (?, ?, 0, ?) RETURNING id',
      ),
    );
    this.#setCount = database.prepare('UPDATE sighting_subject SET sightings = ? WHERE id = ?');
    this.#setExpiry = database.prepare('UPDATE sighting_subject SET expires = ? WHERE id = ?');
    this.#lapsed = inColumns(
      database.prepare('SELECT count(*) FROM sighting WHERE subject = ? AND time <= ?'),
    );
    this.#removeOldest = database.prepare(`
      DELETE FROM sighting WHERE (subject, digest) IN (
        SELECT subject, digest FROM sighting WHERE subject = ? ORDER BY time LIMIT ?)`);
    this.#find = inColumns(database.prepare('SELECT time FROM sighting WHERE subject = ? AND digest = ?'));
    this.#put = database.prepare(`
      INSERT INTO sighting (subject, digest, time) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET time = excluded.time`);
  }

  see({ kind, subject: name, value, windowMs }: Sighting, now: number): SightingResult {
    const subject = bounded(name);
    const row = first(this.#subject.get(kind, subject));
    const expires = now + windowMs;
    const id = numberAt(row ?? first(this.#newSubject.get(kind, subject, expires)) ?? [], 0);
    const before = row === null ? 0 : numberAt(row, 1);
    const known = row === null ? expires : numberAt(row, 2);
    let count = before;
    let lapsed = numberAt(first(this.#lapsed.get(id, now - windowMs)) ?? [], 0);
    if (lapsed > 0) {
      const removed = Number(this.#removeOldest.run(id, Math.min(lapsed, LAPSED_AT_ONCE)).changes);
      count -= removed;
      lapsed -= removed;
    }
    const digest = digestOf(value);
    const found = first(this.#find.get(id, digest));
    const time = found === null ? null : numberAt(found, 0);
    const fresh = time === null || time <= now - windowMs;
    if (time === null) count++;
    else if (fresh) lapsed--;
    if (fresh || now - time > Math.min(LATE_MS, windowMs * LATE_SHARE)) this.#put.run(id, digest, now);
    if (count > DISTINCT_LIMIT) {
      const removed = Number(this.#removeOldest.run(id, count - DISTINCT_LIMIT).changes);
      count -= removed;
      lapsed = Math.max(0, lapsed - removed);
    }
    if (count !== before) this.#setCount.run(count, id);
    // Later than needed, so that its place in the order of expiry moves seldom.
    if (known < expires) this.#setExpiry.run(expires + Math.ceil(windowMs * SLACK_SHARE), id);
    return { fresh, distinct: count - lapsed };
  }
}
