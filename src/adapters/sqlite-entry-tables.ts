import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';

import { STANDINGS } from '../ports/accounts.ts';
import type { EntryKind, EntryOf } from '../ports/state-entries.ts';
import { worthless } from './limit-arithmetic.ts';
import { standingOf } from './sqlite-accounts.ts';
import { first, inColumns, nullOr, numberAt, textAt, type Row } from './sqlite-row.ts';

/** The values of a key, from which on a listing goes. */
export type Place = readonly SQLInputValue[];

/** Entries of one kind in the file. */
interface EntryTable<K extends EntryKind> {
  /** At most `count`, in the order of their keys. */
  page(
    from: Place | null,
    count: number,
  ): { readonly entries: readonly EntryOf<K>[]; readonly next: Place | null };
  find(entry: EntryOf<K>): EntryOf<K> | null;
  write(entry: EntryOf<K>): void;
  remove(entry: EntryOf<K>): void;
}

export type EntryTables = { readonly [K in EntryKind]: EntryTable<K> };

export function entryTables(database: DatabaseSync): EntryTables {
  return {
    counter: plain(database, COUNTER),
    triplet: plain(database, TRIPLET),
    network: plain(database, NETWORK),
    correspondent: plain(database, CORRESPONDENT),
    reservation: plain(database, RESERVATION),
    'full-mailbox': plain(database, FULL_MAILBOX),
    sighting: sightings(database),
    tally: tallies(database),
    standing: plain(database, STANDING),
  };
}

/** A table with a row for each entry. */
interface Plain<K extends EntryKind> {
  readonly table: string;
  /** Texts, which an index has in this order. */
  readonly key: readonly string[];
  readonly others: readonly string[];
  readonly keyOf: (entry: EntryOf<K>) => readonly string[];
  readonly othersOf: (entry: EntryOf<K>) => Place;
  /** Columns as they are above. */
  readonly read: (row: Row) => EntryOf<K>;
}

const COUNTER: Plain<'counter'> = {
  table: 'counter',
  key: ['limit_name', 'key'],
  others: ['algorithm', 'most', 'period', 'start', 'current', 'previous', 'over_since', 'time', 'expires'],
  keyOf: ({ limit, key }) => [limit, key],
  othersOf: (entry) => [
    entry.algorithm === 'bucket' ? 1 : 0,
    entry.most,
    entry.periodMs,
    entry.start,
    entry.current,
    entry.previous,
    entry.overSince,
    entry.time,
    Math.ceil(worthless(entry)),
  ],
  read: (row) => ({
    entry: 'counter',
    limit: textAt(row, 0),
    key: textAt(row, 1),
    algorithm: numberAt(row, 2) === 0 ? 'window' : 'bucket',
    most: numberAt(row, 3),
    periodMs: numberAt(row, 4),
    start: numberAt(row, 5),
    current: numberAt(row, 6),
    previous: numberAt(row, 7),
    overSince: nullOr(numberAt, row, 8),
    time: numberAt(row, 9),
  }),
};

const TRIPLET: Plain<'triplet'> = {
  table: 'triplet',
  key: ['digest'],
  others: ['first', 'passed', 'expires'],
  keyOf: ({ name }) => [name],
  othersOf: ({ since, until }) => [since ?? 0, since === null ? 1 : 0, until],
  read: (row) => ({
    entry: 'triplet',
    name: textAt(row, 0),
    since: numberAt(row, 2) === 1 ? null : numberAt(row, 1),
    until: numberAt(row, 3),
  }),
};

const NETWORK: Plain<'network'> = {
  table: 'client',
  key: ['network'],
  others: ['passes', 'expires'],
  keyOf: ({ network }) => [network],
  othersOf: ({ passes, until }) => [passes, until],
  read: (row) => ({
    entry: 'network',
    network: textAt(row, 0),
    passes: numberAt(row, 1),
    until: numberAt(row, 2),
  }),
};

const CORRESPONDENT: Plain<'correspondent'> = {
  table: 'correspondent',
  key: ['digest'],
  others: ['expires'],
  keyOf: ({ name }) => [name],
  othersOf: ({ until }) => [until],
  read: (row) => ({ entry: 'correspondent', name: textAt(row, 0), until: numberAt(row, 1) }),
};

const RESERVATION: Plain<'reservation'> = {
  table: 'reservation',
  key: ['trace', 'mailbox'],
  others: ['bytes', 'until'],
  keyOf: ({ trace, mailbox }) => [trace, mailbox],
  othersOf: ({ bytes, until }) => [bytes, until],
  read: (row) => ({
    entry: 'reservation',
    trace: textAt(row, 0),
    mailbox: textAt(row, 1),
    bytes: numberAt(row, 2),
    until: numberAt(row, 3),
  }),
};

const FULL_MAILBOX: Plain<'full-mailbox'> = {
  table: 'full_mailbox',
  key: ['mailbox'],
  others: ['since', 'expires'],
  keyOf: ({ mailbox }) => [mailbox],
  othersOf: ({ since, until }) => [since, until],
  read: (row) => ({
    entry: 'full-mailbox',
    mailbox: textAt(row, 0),
    since: numberAt(row, 1),
    until: numberAt(row, 2),
  }),
};

const STANDING: Plain<'standing'> = {
  table: 'standing',
  key: ['login'],
  others: ['rank', 'why', 'by_operator', 'since', 'until'],
  keyOf: ({ login }) => [login],
  othersOf: ({ kind, why, by, since, until }) => [
    STANDINGS.indexOf(kind),
    why,
    by === 'operator' ? 1 : 0,
    since,
    until,
  ],
  read: (row) => ({ entry: 'standing', ...standingOf(row) }),
};

function plain<K extends EntryKind>(database: DatabaseSync, shape: Plain<K>): EntryTable<K> {
  const { table, key, others, keyOf, othersOf, read } = shape;
  const columns = [...key, ...others];
  const places = columns.map(() => '?').join(', ');
  const names = key.join(', ');
  const least = key.map(() => '?').join(', ');
  const equal = key.map((column) => `${column} = ?`).join(' AND ');
  const select = `SELECT ${columns.join(', ')} FROM ${table}`;
  const page = inColumns(
    database.prepare(`${select} WHERE (${names}) >= (${least}) ORDER BY ${names} LIMIT ?`),
  );
  const find = inColumns(database.prepare(`${select} WHERE ${equal}`));
  // In place of REPLACE, which the triggers that count rows don't see.
  const write = database.prepare(`
    INSERT INTO ${table} (${columns.join(', ')}) VALUES (${places})
    ON CONFLICT (${names}) DO UPDATE SET ${others.map((column) => `${column} = excluded.${column}`).join(', ')}`);
  const remove = database.prepare(`DELETE FROM ${table} WHERE ${equal}`);
  return {
    page(from, count) {
      const entries = allOf(page, from ?? key.map(() => ''), count).map(read);
      const last = entries.at(-1);
      return { entries, next: last === undefined || entries.length < count ? null : after(keyOf(last)) };
    },
    find(entry) {
      const row = first(find.get(...keyOf(entry)));
      return row === null ? null : read(row);
    },
    write: (entry) => void write.run(...keyOf(entry), ...othersOf(entry)),
    remove: (entry) => void remove.run(...keyOf(entry)),
  };
}

/** Values, of which a subject has many. */
function sightings(database: DatabaseSync): EntryTable<'sighting'> {
  const select = `
    SELECT v.subject, s.kind, s.subject, v.digest, v.time, s.expires
    FROM sighting AS v CROSS JOIN sighting_subject AS s ON s.id = v.subject`;
  const page = inColumns(
    database.prepare(`${select} WHERE (v.subject, v.digest) >= (?, ?) ORDER BY v.subject, v.digest LIMIT ?`),
  );
  const subject = inColumns(
    database.prepare('SELECT id, expires FROM sighting_subject WHERE kind = ? AND subject = ?'),
  );
  const time = inColumns(database.prepare('SELECT time FROM sighting WHERE subject = ? AND digest = ?'));
  const newSubject = inColumns(
    database.prepare(
      'INSERT INTO sighting_subject (kind, subject, sightings, expires) VALUES (?, ?, 0, ?) RETURNING id',
    ),
  );
  const setExpiry = database.prepare('UPDATE sighting_subject SET expires = ? WHERE id = ?');
  const write = database.prepare(`
    INSERT INTO sighting (subject, digest, time) VALUES (?, ?, ?)
    ON CONFLICT (subject, digest) DO UPDATE SET time = excluded.time`);
  const remove = database.prepare('DELETE FROM sighting WHERE subject = ? AND digest = ?');
  const count = database.prepare('UPDATE sighting_subject SET sightings = sightings + ? WHERE id = ?');
  const removeEmpty = database.prepare('DELETE FROM sighting_subject WHERE id = ? AND sightings = 0');
  const timeOf = (id: number, name: string): number | null => {
    const row = first(time.get(id, name));
    return row === null ? null : numberAt(row, 0);
  };
  return {
    page(from, most) {
      const rows = allOf(page, from ?? [0, ''], most);
      const last = rows.at(-1);
      return {
        entries: rows.map((row) => ({
          entry: 'sighting',
          set: textAt(row, 1),
          subject: textAt(row, 2),
          name: textAt(row, 3),
          time: numberAt(row, 4),
          until: numberAt(row, 5),
        })),
        next:
          last === undefined || rows.length < most ? null : [numberAt(last, 0), ...after([textAt(last, 3)])],
      };
    },
    find({ set, subject: of, name }) {
      const row = first(subject.get(set, of));
      const seen = row === null ? null : timeOf(numberAt(row, 0), name);
      if (row === null || seen === null) return null;
      return { entry: 'sighting', set, subject: of, name, time: seen, until: numberAt(row, 1) };
    },
    write({ set, subject: of, name, time: seen, until }) {
      const row = first(subject.get(set, of));
      const id = numberAt(row ?? first(newSubject.get(set, of, until)) ?? [], 0);
      const known = timeOf(id, name);
      write.run(id, name, seen);
      if (row !== null && numberAt(row, 1) < until) setExpiry.run(until, id);
      if (known === null) count.run(1, id);
    },
    remove({ set, subject: of, name }) {
      const row = first(subject.get(set, of));
      if (row === null) return;
      const id = numberAt(row, 0);
      count.run(-Number(remove.run(id, name).changes), id);
      removeEmpty.run(id);
    },
  };
}

/** Hours, each with a row for each count. */
function tallies(database: DatabaseSync): EntryTable<'tally'> {
  const page = inColumns(
    database.prepare(`
      SELECT subject, hour FROM tally WHERE (subject, hour) >= (?, ?)
      GROUP BY subject, hour ORDER BY subject, hour LIMIT ?`),
  );
  const counts = inColumns(database.prepare('SELECT name, count FROM tally WHERE subject = ? AND hour = ?'));
  const write = database.prepare('INSERT INTO tally (subject, hour, name, count) VALUES (?, ?, ?, ?)');
  const remove = database.prepare('DELETE FROM tally WHERE subject = ? AND hour = ?');
  const read = (subject: string, hour: number): EntryOf<'tally'> => {
    const rows = allOf(counts, [subject, hour]);
    const named = rows.map((row): [string, number] => [textAt(row, 0), numberAt(row, 1)]);
    return { entry: 'tally', subject, hour, counts: Object.fromEntries(named) };
  };
  return {
    page(from, count) {
      const entries = allOf(page, from ?? ['', -Number.MAX_SAFE_INTEGER], count).map((row) =>
        read(textAt(row, 0), numberAt(row, 1)),
      );
      const last = entries.at(-1);
      return {
        entries,
        next: last === undefined || entries.length < count ? null : [last.subject, last.hour + 1],
      };
    },
    find({ subject, hour }) {
      const found = read(subject, hour);
      return Object.keys(found.counts).length === 0 ? null : found;
    },
    write({ subject, hour, counts: named }) {
      remove.run(subject, hour);
      for (const [name, count] of Object.entries(named)) write.run(subject, hour, name, count);
    },
    remove: ({ subject, hour }) => void remove.run(subject, hour),
  };
}

function allOf(statement: StatementSync, values: Place, ...more: readonly number[]): readonly Row[] {
  const rows: readonly unknown[] = statement.all(...values, ...more);
  return rows.map((row) => first(row) ?? []);
}

/** The least key above this one. */
function after(key: readonly string[]): readonly string[] {
  return key.map((text, place) => (place === key.length - 1 ? `${text}\0` : text));
}
