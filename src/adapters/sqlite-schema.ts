import { existsSync } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';

/** The store can't be opened; says what, where, and how to mend it. */
export class StoreUnusable extends Error {
  constructor(path: string, why: string, options?: ErrorOptions) {
    super(`cannot use the store ${path}: ${why}`, options);
    this.name = 'StoreUnusable';
  }
}

const FILE = 'postern.sqlite';

export function databasePath(folder: string): string {
  return join(folder, FILE);
}

/** `PSTN`: tells our files from other programs' (PRAGMA application_id). */
const APPLICATION_ID = 0x5053_544e;

/** The longest a statement may block the event loop for another process's lock; whoever needs longer waits without blocking. */
const BUSY_TIMEOUT_MS = 10;
/** At open nothing else runs yet, and another process may be converting the file. */
const OPEN_TIMEOUT_MS = 5000;
/** Checkpoints are made in a thread of their own; a write makes one itself only when that falls this far behind (16 MiB). */
const LATE_CHECKPOINT_PAGES = 4096;
/** Without that thread, a write that reaches this many pages makes one: 1 MiB, some milliseconds. */
const SMALL_CHECKPOINT_PAGES = 250;

/**
 * Step n brings a file from schema version n to n + 1. Steps are never changed, only added.
 *
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
];

/** Opens the file in `folder`, made when missing, for reading and writing. @throws {StoreUnusable} */
export async function openDatabase(folder: string): Promise<DatabaseSync> {
  const path = databasePath(folder);
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
      return prepared(path);
    } catch (error) {
      // Turning WAL on and converting need the file alone: three daemons that start at once take turns.
      if (!isBusy(error) || performance.now() > deadline) throw unusable(path, error);
      await delay(20);
    }
  }
}

/** For when there is no thread that makes checkpoints. */
export function checkpointInWrites(database: DatabaseSync): void {
  database.exec(`PRAGMA wal_autocheckpoint = ${SMALL_CHECKPOINT_PAGES}`);
}

/** Opens the file in `folder` for reading while others write; null when there is none. @throws {StoreUnusable} */
export function openDatabaseReadOnly(folder: string): DatabaseSync | null {
  const path = databasePath(folder);
  if (!existsSync(path)) return null;
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(path, { readOnly: true, timeout: OPEN_TIMEOUT_MS });
    const version = versionOf(database, path);
    if (version === 0) {
      database.close();
      return null; // a daemon has just made the file, nothing is in it
    }
    if (version < MIGRATIONS.length) {
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

function prepared(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
  try {
    if (textPragma(database, 'journal_mode') !== 'wal') database.exec('PRAGMA journal_mode = WAL');
    // With WAL, NORMAL can't corrupt the file; a power cut may take the last moments of history.
    database.exec(
      `PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${LATE_CHECKPOINT_PAGES}; PRAGMA cache_size = -8192`,
    );
    if (versionOf(database, path) < MIGRATIONS.length) migrate(database, path);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function migrate(database: DatabaseSync, path: string): void {
  database.exec('BEGIN IMMEDIATE');
  try {
    // Read again: another process may have been first.
    for (const step of MIGRATIONS.slice(versionOf(database, path))) database.exec(step);
    database.exec(
      `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length}; COMMIT`,
    );
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

function versionOf(database: DatabaseSync, path: string): number {
  const version = numberPragma(database, 'user_version');
  const application = numberPragma(database, 'application_id');
  const isNew = version === 0 && application === 0 && numberPragma(database, 'schema_version') === 0;
  if (!isNew && application !== APPLICATION_ID) {
    throw new StoreUnusable(path, 'it belongs to another program; name another state folder');
  }
  if (version > MIGRATIONS.length) {
    throw new StoreUnusable(
      path,
      `it has schema version ${version}, this version of Postern knows ${MIGRATIONS.length}; use the newer version, or another state folder`,
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

function unusable(path: string, error: unknown): StoreUnusable {
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
