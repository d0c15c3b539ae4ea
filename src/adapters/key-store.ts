import { constants, type Stats } from 'node:fs';
import { link, lstat, mkdir, open, readdir, stat, unlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';

import { DOMAINS_LIMIT, KEY_NAME } from './key-folder.ts';

/**
 * The folder of keys as those who keep it see it: FOLDER/DOMAIN/SELECTOR.ROLE. The role is the ending of the name, and the time of last change is
 * since when: there is no other record of it that could differ from the files.
 *
 * `next`: prepared. `private`: signs. `old`: signed once, still published for what waits in queues. `retired`: the private key is gone, the text
 * of its record is left until that is gone too.
 */
export const ROLES = ['next', 'private', 'old', 'retired'] as const;
export type Role = (typeof ROLES)[number];

/** Files of one domain that are looked at. */
export const FILES_LIMIT = 256;

/** What a write that was broken off has left is removed after this long. */
const LEFTOVER_MS = 3_600_000;
const LEFTOVER = /^\..+\.tmp$/;

export interface StoredKey {
  readonly domain: string;
  readonly selector: string;
  readonly role: Role;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly path: string;
  /** A regular file: what is linked to from elsewhere is not ours to move. */
  readonly own: boolean;
}

/** The domains that have a folder, sorted. @throws {Error} with what is wrong, for people */
export async function listDomains(folder: string): Promise<readonly string[]> {
  const entries = await told(folder, () => readdir(folder, { withFileTypes: true }));
  const names = entries
    .filter((entry) => !entry.isFile() && KEY_NAME.test(entry.name))
    .map(({ name }) => name);
  if (names.length > DOMAINS_LIMIT) throw new Error(`${folder} has more than ${DOMAINS_LIMIT} domains`);
  return names.toSorted();
}

/** The keys of one domain, oldest first; none when it has no folder. @throws {Error} with what is wrong, for people */
export async function listKeys(folder: string, domain: string): Promise<readonly StoredKey[]> {
  const path = join(folder, domain);
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw new Error(`${path} can't be read: ${codeOf(error)}`, { cause: error });
  }
  if (names.length > FILES_LIMIT) throw new Error(`${path} has more than ${FILES_LIMIT} files`);
  const keys: StoredKey[] = [];
  for (const name of names) {
    const dot = name.lastIndexOf('.');
    const selector = name.slice(0, dot);
    const role = ROLES.find((known) => known === name.slice(dot + 1));
    if (dot === -1 || role === undefined || !KEY_NAME.test(selector)) continue;
    const file = join(path, name);
    const own = (await told(file, () => lstat(file))).isFile();
    const { mtimeMs } = await told(file, () => stat(file));
    keys.push({ domain: domain.toLowerCase(), selector, role, since: mtimeMs, path: file, own });
  }
  return keys.toSorted((a, b) => a.since - b.since || (a.selector < b.selector ? -1 : 1));
}

/** Writes a key that does not sign yet, and gives its path. Never overwrites. @throws {Error} with what is wrong, for people */
export async function storeNext(
  folder: string,
  { domain, selector }: { readonly domain: string; readonly selector: string },
  pem: string,
): Promise<string> {
  const place = join(folder, domain);
  return told(place, async () => {
    const owner = await stat(folder);
    await makeFolder(place, owner);
    await writeNew(place, `${selector}.next`, pem, owner);
    return join(place, `${selector}.next`);
  });
}

/**
 * Signs with a key from now on, and with others no more. What signs is there at every moment; broken off in between, the same again ends it: a key
 * that is `next` and `private` at once is one on its way.
 */
export async function promote(key: StoredKey, others: readonly StoredKey[], now: number): Promise<void> {
  const path = pathAs(key, 'private');
  await told(key.path, async () => {
    if (!(await sameFile(key.path, path))) {
      await utimes(key.path, now / 1000, now / 1000);
      await link(key.path, path);
      await syncFolder(key);
    }
    for (const other of others) await demote(other, now);
    await unlink(key.path);
    await syncFolder(key);
  });
}

async function demote(key: StoredKey, now: number): Promise<void> {
  const path = pathAs(key, 'old');
  if (!(await sameFile(key.path, path))) {
    await utimes(key.path, now / 1000, now / 1000);
    await link(key.path, path);
  }
  await unlink(key.path);
  await syncFolder(key);
}

/** Deletes a private key and keeps the text of its record. */
export async function retire(key: StoredKey, recordText: string): Promise<void> {
  await told(key.path, async () => {
    const path = pathAs(key, 'retired');
    const folder = folderOf(key);
    const owner = await stat(key.path);
    try {
      await writeNew(folder, `${key.selector}.retired`, `${recordText}\n`, owner);
    } catch (error) {
      // Broken off the last time, after this and before the next line.
      if (codeOf(error) !== 'EEXIST') throw error;
    }
    await unlink(key.path);
    await syncFolder({ path });
  });
}

/** Deletes what was left of a key whose record is gone. */
export async function forget(key: StoredKey): Promise<void> {
  await told(key.path, async () => {
    await unlink(key.path);
    await syncFolder(key);
  });
}

/** Removes what writes that were broken off have left: it may be a private key. */
export async function sweep(folder: string, domain: string, now: number): Promise<void> {
  const path = join(folder, domain);
  await told(path, async () => {
    for (const name of (await readdir(path)).filter((entry) => LEFTOVER.test(entry))) {
      const file = join(path, name);
      const { mtimeMs } = await lstat(file);
      if (now - mtimeMs > LEFTOVER_MS) await unlink(file);
    }
  });
}

/** RFC 6376 §8.4: nobody but its owner may read a private key; the owner is that of the folder, whoever runs this. */
async function writeNew(folder: string, name: string, text: string, owner: Stats): Promise<void> {
  const temporary = join(folder, `.${name}.${process.pid}.tmp`);
  try {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
    await using file = await open(temporary, flags, 0o600);
    if (owner.uid !== process.getuid?.() || owner.gid !== process.getgid?.()) {
      await file.chown(owner.uid, owner.gid);
    }
    await file.writeFile(text);
    await file.sync();
    // In place of rename(2): it fails when the name is taken.
    await link(temporary, join(folder, name));
  } finally {
    await unlink(temporary).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error;
    });
  }
  await syncFolder({ path: join(folder, name) });
}

async function makeFolder(path: string, owner: Stats): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return;
    throw error;
  }
  await using folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  if (owner.uid !== process.getuid?.() || owner.gid !== process.getgid?.()) {
    await folder.chown(owner.uid, owner.gid);
  }
  await folder.sync();
}

/** Both names are there, of one file. */
async function sameFile(one: string, other: string): Promise<boolean> {
  try {
    const [a, b] = [await lstat(one), await lstat(other)];
    return a.ino === b.ino && a.dev === b.dev;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** A name in a folder is on disk only when the folder is. */
async function syncFolder({ path }: { readonly path: string }): Promise<void> {
  await using folder = await open(folderOf({ path }), constants.O_RDONLY | constants.O_DIRECTORY);
  await folder.sync();
}

function folderOf({ path }: { readonly path: string }): string {
  return join(path, '..');
}

function pathAs(key: StoredKey, role: Role): string {
  return join(folderOf(key), `${key.selector}.${role}`);
}

/** @throws {Error} whose message names the file and what was wrong with it */
async function told<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Error(`${path}: ${wordsOf(error)}`, { cause: error });
  }
}

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'it is not there',
  EEXIST: 'a file of that name is there already',
  EACCES: 'the user of this process may not do that',
  EPERM: 'the user of this process may not do that',
  ENOSPC: 'the disk is full',
  EROFS: 'the file system is read-only',
};

function wordsOf(error: unknown): string {
  const code = codeOf(error);
  return WORDS[code] ?? (error instanceof Error ? error.message : code);
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
