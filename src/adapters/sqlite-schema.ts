import { existsSync } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';

import { NeighbourError } from '../ports/neighbour-error.ts';

/** The file can't be opened, or not be used any more; says what, where, and how to mend it. */
export class StoreUnusable extends NeighbourError {
  constructor(path: string, why: string, options?: ErrorOptions) {
    super(`cannot use the store ${path}: ${why}`, options);
    this.name = 'StoreUnusable';
  }
}

/** What one of our files is made of. */
export interface DatabaseSchema {
  readonly file: string;
  /** PRAGMA application_id: tells our files from other programs', and from each other. */
  readonly applicationId: number;
  /** Step n brings a file from schema version n to n + 1. Steps are never changed, only added. */
  readonly migrations: readonly string[];
  /** Memory for pages of the file, KiB. */
  readonly cacheKib: number;
  /** Octets. A change of one row writes the whole page that holds it. */
  readonly pageSize: 1024 | 4096;
  /** Whether free pages can be given back to the disk (PRAGMA incremental_vacuum). */
  readonly shrinks: boolean;
}

export function databasePath(folder: string, schema: DatabaseSchema = STORE_SCHEMA): string {
  return join(folder, schema.file);
}

/** The longest a statement may block the event loop for another process's lock; whoever needs longer waits without blocking. */
const BUSY_TIMEOUT_MS = 10;
/** At open nothing else runs yet, and another process may be converting the file. */
const OPEN_TIMEOUT_MS = 5000;
/** Checkpoints are made in a thread of their own; a write makes one itself only when that falls this far behind. */
const LATE_CHECKPOINT_OCTETS = 2 ** 26;
/** Without that thread, a write makes one when there is this much: some milliseconds. */
const SMALL_CHECKPOINT_OCTETS = 2 ** 20;

/**
 * Address columns hold `addressKey`: the domain first, so that one index serves whole addresses and domains.
 */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE trace (
    id INTEGER PRIMARY KEY,
    trace TEXT NOT NULL UNIQUE,
    time INTEGER NOT NULL,
    session TEXT,
    sender TEXT NOT NULL,
    instance TEXT UNIQUE,
    queue_id TEXT,
    claimed INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX trace_time ON trace (time);
  CREATE INDEX trace_queue_id ON trace (queue_id) WHERE queue_id IS NOT NULL;
  CREATE INDEX trace_unclaimed ON trace (session, sender) WHERE claimed = 0;

  CREATE TABLE facts (
    trace TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    time INTEGER NOT NULL,
    direction TEXT NOT NULL,
    outcomes TEXT NOT NULL,
    PRIMARY KEY (trace, queue_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX facts_time ON facts (time);

  CREATE TABLE decision (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    trace TEXT NOT NULL,
    daemon TEXT NOT NULL,
    stage TEXT NOT NULL,
    direction TEXT NOT NULL,
    queue_id TEXT,
    client TEXT NOT NULL,
    helo TEXT,
    login TEXT,
    sender TEXT NOT NULL,
    sender_key TEXT NOT NULL,
    recipients TEXT NOT NULL,
    message_id TEXT,
    size INTEGER,
    verdict TEXT NOT NULL,
    rule TEXT NOT NULL,
    why TEXT NOT NULL,
    score REAL,
    tagged INTEGER NOT NULL,
    reply TEXT NOT NULL,
    shadow TEXT NOT NULL,
    outcomes TEXT NOT NULL,
    elapsed REAL NOT NULL
  ) STRICT;
  CREATE INDEX decision_time ON decision (time);
  CREATE INDEX decision_trace ON decision (trace);
  CREATE INDEX decision_queue_id ON decision (queue_id) WHERE queue_id IS NOT NULL;
  CREATE INDEX decision_client ON decision (client, time);
  CREATE INDEX decision_sender ON decision (sender_key, time);
  CREATE INDEX decision_verdict ON decision (verdict, time);
  CREATE INDEX decision_rule ON decision (rule, time);

  CREATE TABLE decision_recipient (
    recipient_key TEXT NOT NULL,
    decision INTEGER NOT NULL,
    PRIMARY KEY (recipient_key, decision)
  ) STRICT, WITHOUT ROWID;
  `,
  // An index of all rows takes each new entry on a page of its own. Those that begin with the part (4096 rows in a row) take them all on the
  // few pages of the last part, which are written once for many; a question then looks into each part, newest first.
  `
  CREATE TABLE trace_2 (
    id INTEGER PRIMARY KEY,
    trace TEXT NOT NULL,
    time INTEGER NOT NULL,
    session TEXT,
    sender TEXT NOT NULL,
    instance TEXT,
    queue_id TEXT,
    claimed INTEGER NOT NULL
  ) STRICT;
  INSERT INTO trace_2 SELECT id, trace, time, session, sender, instance, queue_id, claimed FROM trace;
  DROP TABLE trace;
  ALTER TABLE trace_2 RENAME TO trace;
  CREATE INDEX trace_queue_id ON trace (queue_id) WHERE queue_id IS NOT NULL;
  CREATE INDEX trace_unclaimed ON trace (id >> 12, session, sender) WHERE claimed = 0;
  CREATE INDEX trace_nameless ON trace (trace) WHERE claimed = 1 AND queue_id IS NULL;

  ALTER TABLE decision ADD COLUMN recipient_key TEXT;
  DROP INDEX decision_trace;
  DROP INDEX decision_queue_id;
  DROP INDEX decision_client;
  DROP INDEX decision_sender;
  DROP INDEX decision_verdict;
  DROP INDEX decision_rule;
  CREATE INDEX decision_trace ON decision (id >> 12, trace, time);
  CREATE INDEX decision_queue_id ON decision (id >> 12, queue_id, time) WHERE queue_id IS NOT NULL;
  CREATE INDEX decision_client ON decision (id >> 12, client, time);
  CREATE INDEX decision_sender ON decision (id >> 12, sender_key, time);
  CREATE INDEX decision_recipient_key ON decision (id >> 12, recipient_key, time) WHERE recipient_key IS NOT NULL;
  CREATE INDEX decision_verdict ON decision (verdict, time) WHERE verdict <> 'accept';
  CREATE INDEX decision_rule ON decision (rule, time) WHERE rule <> 'default';

  -- Of decisions with several recipients; a single one stands in the decision itself.
  CREATE TABLE decision_recipient_2 (
    part INTEGER NOT NULL,
    recipient_key TEXT NOT NULL,
    decision INTEGER NOT NULL,
    PRIMARY KEY (part, recipient_key, decision)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO decision_recipient_2 SELECT decision >> 12, recipient_key, decision FROM decision_recipient;
  DROP TABLE decision_recipient;
  ALTER TABLE decision_recipient_2 RENAME TO decision_recipient;
  `,
  `
  CREATE INDEX decision_backscatter ON decision (time)
    WHERE daemon = 'lmtp-filter' AND (reply GLOB '5*' OR reply GLOB '452[- ]4.2.2*');
  `,
  `
  CREATE TABLE label (
    message TEXT NOT NULL,
    user TEXT NOT NULL,
    label TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (message, user)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX label_user ON label (user, time);
  CREATE INDEX label_time ON label (time);
  `,
  // In parts, as the traces.
  `
  CREATE TABLE facts_2 (
    id INTEGER PRIMARY KEY,
    trace TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    time INTEGER NOT NULL,
    direction TEXT NOT NULL,
    outcomes TEXT NOT NULL
  ) STRICT;
  INSERT INTO facts_2 (trace, queue_id, time, direction, outcomes)
    SELECT trace, queue_id, time, direction, outcomes FROM facts ORDER BY time;
  DROP TABLE facts;
  ALTER TABLE facts_2 RENAME TO facts;
  CREATE INDEX facts_trace ON facts (id >> 12, trace);
  `,
];

/** Rows with the same `id >> PART_BITS` are one part; the indexes of the schema say the same. */
export const PART_BITS = 12;

/** Traces, kept facts and decisions; `PSTN`. */
export const STORE_SCHEMA: DatabaseSchema = {
  file: 'postern.sqlite',
  applicationId: 0x5053_544e,
  migrations: MIGRATIONS,
  cacheKib: 8192,
  pageSize: 4096,
  shrinks: true,
};

/** Opens the file in `folder`, made when missing, for reading and writing. @throws {StoreUnusable} */
export async function openDatabase(folder: string, schema = STORE_SCHEMA): Promise<DatabaseSync> {
  const path = databasePath(folder, schema);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // SQLite would make it readable by all; its -wal and -shm files take over the mode of this one.
    await (await open(path, 'a', 0o600)).close();
  } catch (error) {
    throw new StoreUnusable(path, `${messageOf(error)}; the state folder must be writable for this user`, {
      cause: error,
    });
  }
  const deadline = performance.now() + OPEN_TIMEOUT_MS;
  for (;;) {
    try {
      return prepared(path, schema);
    } catch (error) {
      // Turning WAL on and converting need the file alone: three daemons that start at once take turns.
      if (!isBusy(error) || performance.now() > deadline) throw unusable(path, error);
      await delay(20);
    }
  }
}

/** What holds for each connection that writes. */
export function tune(database: DatabaseSync, { cacheKib, pageSize } = STORE_SCHEMA): void {
  // With WAL, NORMAL can't corrupt the file; a power cut may take the last moments of history.
  database.exec(
    `PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${LATE_CHECKPOINT_OCTETS / pageSize}; PRAGMA cache_size = -${cacheKib}`,
  );
}

/** For when there is no thread that makes checkpoints. */
export function checkpointInWrites(database: DatabaseSync, { pageSize } = STORE_SCHEMA): void {
  database.exec(`PRAGMA wal_autocheckpoint = ${SMALL_CHECKPOINT_OCTETS / pageSize}`);
}

/** Opens the file in `folder` for reading while others write; null when there is none. @throws {StoreUnusable} */
export function openDatabaseReadOnly(folder: string, schema = STORE_SCHEMA): DatabaseSync | null {
  const path = databasePath(folder, schema);
  if (!existsSync(path)) return null;
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(path, { readOnly: true, timeout: OPEN_TIMEOUT_MS });
    const version = versionOf(database, path, schema);
    if (version === 0) {
      database.close();
      return null; // a daemon has just made the file, nothing is in it
    }
    if (version < schema.migrations.length) {
      throw new StoreUnusable(path, 'an older version wrote it; start the daemons once, they convert it');
    }
    return database;
  } catch (error) {
    if (database?.isOpen === true) database.close();
    throw unusable(path, error);
  }
}

/** SQLITE_BUSY, SQLITE_LOCKED: another connection holds the lock; trying again later helps. */
export function isBusy(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === 5 || code === 6;
}

/**
 * Whether the statement itself can't be carried out, whatever the state of the file: SQLITE_TOOBIG, SQLITE_CONSTRAINT,
 * SQLITE_MISMATCH, SQLITE_RANGE, or a value that can't be bound.
 */
export function isHopeless(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === null || code === 18 || code === 19 || code === 20 || code === 25;
}

/** The primary result code; null when it is no error of SQLite's. */
function sqliteCode(error: unknown): number | null {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return null;
  return error.errcode & 0xff;
}

function prepared(path: string, schema: DatabaseSchema): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
  try {
    // These have an effect only before anything is in the file, WAL's mark included.
    database.exec(`PRAGMA page_size = ${schema.pageSize}`);
    if (schema.shrinks) database.exec('PRAGMA auto_vacuum = INCREMENTAL');
    if (textPragma(database, 'journal_mode') !== 'wal') database.exec('PRAGMA journal_mode = WAL');
    tune(database, schema);
    if (versionOf(database, path, schema) < schema.migrations.length) migrate(database, path, schema);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function migrate(database: DatabaseSync, path: string, schema: DatabaseSchema): void {
  const { migrations, applicationId } = schema;
  database.exec('BEGIN IMMEDIATE');
  try {
    // Read again: another process may have been first.
    for (const step of migrations.slice(versionOf(database, path, schema))) database.exec(step);
    database.exec(
      `PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${migrations.length}; COMMIT`,
    );
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

function versionOf(database: DatabaseSync, path: string, schema: DatabaseSchema): number {
  const { applicationId, migrations } = schema;
  const version = numberPragma(database, 'user_version');
  const application = numberPragma(database, 'application_id');
  const isNew = version === 0 && application === 0 && numberPragma(database, 'schema_version') === 0;
  if (!isNew && application !== applicationId) {
    throw new StoreUnusable(path, 'it belongs to another program; name another state folder');
  }
  if (version > migrations.length) {
    throw new StoreUnusable(
      path,
      `it has schema version ${version}, this version of Postern knows ${migrations.length}; use the newer version, or another state folder`,
    );
  }
  return version;
}

function numberPragma(database: DatabaseSync, name: string): number {
  return Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
}

function textPragma(database: DatabaseSync, name: string): string {
  return String(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
}

/** The error of SQLite's, with where it was and what helps. */
export function unusable(path: string, error: unknown): StoreUnusable {
  if (error instanceof StoreUnusable) return error;
  return new StoreUnusable(path, `${messageOf(error)}${adviceFor(error)}`, { cause: error });
}

function adviceFor(error: unknown): string {
  const code = sqliteCode(error);
  // SQLITE_CORRUPT, SQLITE_NOTADB
  if (code === 11 || code === 26) return '; move the file away, a new one is made at the next start';
  // SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN
  if (code === 3 || code === 8 || code === 14) return '; file and folder must be writable for this user';
  // SQLITE_IOERR, SQLITE_FULL
  if (code === 10 || code === 13) return '; is the disk full?';
  return isBusy(error) ? '; another program keeps it locked' : '';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown error';
}
