import { randomUUID } from 'node:crypto';
import { link, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';

import { openDatabaseReadOnly, StoreUnusable, unusable, type DatabaseSchema } from './sqlite-schema.ts';

/** Pages that are copied in one go: all of them, so that what others write meanwhile does not make it begin anew. */
const ALL_PAGES = 2 ** 31 - 1;

export interface Backup {
  readonly octets: number;
}

/**
 * Writes a copy of our file in `folder` to `target`: whole, as of one moment, whoever writes meanwhile; readable by this user alone. It has its name
 * once all of it is on the disk and was read again.
 *
 * @returns null when there is nothing to copy
 * @throws {StoreUnusable} also when `target` is there already
 */
export async function backUp(folder: string, schema: DatabaseSchema, target: string): Promise<Backup | null> {
  const source = openDatabaseReadOnly(folder, schema);
  if (source === null) return null;
  const part = join(dirname(target), `.${basename(target)}.${randomUUID()}`);
  try {
    await taken(target);
    // SQLite would make it readable by all.
    await (await open(part, 'wx', 0o600)).close();
    await backup(source, part, { rate: ALL_PAGES });
    verify(part);
    await synced(part);
    const { size } = await stat(part);
    await nameIt(part, target);
    await synced(dirname(target));
    return { octets: size };
  } catch (error) {
    throw unusable(target, error);
  } finally {
    source.close();
    for (const end of ['', '-journal', '-wal', '-shm']) await rm(`${part}${end}`, { force: true });
  }
}

/** @throws {StoreUnusable} when there is such a file */
async function taken(target: string): Promise<void> {
  try {
    await stat(target);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw error;
  }
  throw exists(target);
}

/** Gives it its name, which nobody else has taken meanwhile. */
async function nameIt(part: string, target: string): Promise<void> {
  try {
    // Unlike rename, it replaces nothing.
    await link(part, target);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') throw exists(target);
    // A file system without hard links: the name is taken first, and then replaced.
    await takeName(target);
    await rename(part, target);
  }
}

async function takeName(target: string): Promise<void> {
  try {
    await (await open(target, 'wx', 0o600)).close();
  } catch (error) {
    throw codeOf(error) === 'EEXIST' ? exists(target) : error;
  }
}

function exists(target: string): StoreUnusable {
  return new StoreUnusable(target, 'it is there already; name another file, nothing is overwritten');
}

/** Reads all of it, and makes it one that needs no files beside it. */
function verify(path: string): void {
  const database = new DatabaseSync(path);
  try {
    database.exec('PRAGMA journal_mode = DELETE');
    const said = Object.values(database.prepare('PRAGMA quick_check(1)').get() ?? {})[0];
    if (said !== 'ok') throw new Error(`the copy is damaged: ${String(said)}`);
  } finally {
    database.close();
  }
}

async function synced(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
