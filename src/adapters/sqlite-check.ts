import { statSync } from 'node:fs';
import type { DatabaseSync } from 'node:sqlite';

import { first, inColumns, numberAt, textAt } from './sqlite-row.ts';
import { databasePath, openDatabaseReadOnly, unusable, type DatabaseSchema } from './sqlite-schema.ts';

/** More of them say nothing new. */
const FAULTS_LISTED = 10;

/** How one of our files is. */
export interface FileHealth {
  readonly path: string;
  /** What is wrong with it; empty: nothing. */
  readonly faults: readonly string[];
  /** Permissions. */
  readonly mode: number;
  /** null: it can't be read. */
  readonly contents: FileContents | null;
}

export interface FileContents {
  readonly version: number;
  /** Of the whole file, the free pages in it, and the log beside it. */
  readonly octets: number;
  readonly freeOctets: number;
  readonly logOctets: number;
  /** By table. */
  readonly rows: Readonly<Record<string, number>>;
}

/** Looks at all of a file, which others may write meanwhile. null: it is not there. */
export function checkFile(folder: string, schema: DatabaseSchema): FileHealth | null {
  const path = databasePath(folder, schema);
  let database: DatabaseSync | null = null;
  try {
    database = openDatabaseReadOnly(folder, schema);
    if (database === null) return null;
    const { mode } = statSync(path);
    const faults = faultsOf(database);
    return { path, mode: mode & 0o777, faults, contents: contentsOf(database, path, faults) };
  } catch (error) {
    const mode = statSync(path, { throwIfNoEntry: false })?.mode ?? 0;
    return { path, mode: mode & 0o777, faults: [unusable(path, error).message], contents: null };
  } finally {
    if (database?.isOpen === true) database.close();
  }
}

function faultsOf(database: DatabaseSync): string[] {
  const rows: readonly unknown[] = inColumns(
    database.prepare(`PRAGMA integrity_check(${FAULTS_LISTED})`),
  ).all();
  return rows.map((row) => textAt(first(row) ?? [], 0)).filter((text) => text !== 'ok');
}

function contentsOf(database: DatabaseSync, path: string, faults: string[]): FileContents {
  const number = (sql: string): number => numberAt(first(inColumns(database.prepare(sql)).get()) ?? [], 0);
  const rows: Record<string, number> = {};
  for (const table of tablesOf(database, "name <> 'size'")) {
    rows[table] = number(`SELECT count(*) FROM "${table}"`);
  }
  // Triggers keep the number of rows of those that grow.
  if (tablesOf(database, "name = 'size'").length > 0) {
    for (const [table, count] of Object.entries(rows)) {
      const noted = number(`SELECT coalesce((SELECT rows FROM size WHERE name = '${table}'), ${count})`);
      if (noted !== count) faults.push(`${table} has ${count} rows, and is noted to have ${noted}`);
    }
  }
  const pageSize = number('PRAGMA page_size');
  return {
    version: number('PRAGMA user_version'),
    octets: number('PRAGMA page_count') * pageSize,
    freeOctets: number('PRAGMA freelist_count') * pageSize,
    logOctets: statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0,
    rows,
  };
}

function tablesOf(database: DatabaseSync, condition: string): string[] {
  const rows: readonly unknown[] = inColumns(
    database.prepare(
      `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND ${condition} ORDER BY name`,
    ),
  ).all();
  return rows.map((row) => textAt(first(row) ?? [], 0));
}
