import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { makeKey } from '../../../src/adapters/key-maker.ts';
import {
  FILES_LIMIT,
  forget,
  listDomains,
  listKeys,
  promote,
  retire,
  storeNext,
  sweep,
  type StoredKey,
} from '../../../src/adapters/key-store.ts';
import { readSigningKey } from '../../../src/config/keys.ts';

const DOMAIN = 'olimpus.example';
const NOW = Date.UTC(2026, 10, 21);

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-key-store-'));
  await chmod(folder, 0o700);
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function put(name: string, since = NOW): Promise<void> {
  const path = join(folder, DOMAIN, name);
  await mkdir(join(folder, DOMAIN), { recursive: true });
  await writeFile(path, `key ${name}`, { mode: 0o600 });
  await utimes(path, since / 1000, since / 1000);
}

function place(name: string): string {
  return join(folder, DOMAIN, name);
}

async function names(): Promise<readonly string[]> {
  return (await readdir(join(folder, DOMAIN))).toSorted();
}

async function key(selector: string, role: StoredKey['role']): Promise<StoredKey> {
  const found = (await listKeys(folder, DOMAIN)).find(
    (one) => one.selector === selector && one.role === role,
  );
  if (found === undefined) throw new Error(`no ${selector}.${role}`);
  return found;
}

test.for(['rsa', 'ed25519'] as const)(
  'a new %s key can be used, and only its owner may read it',
  async (kind) => {
    const path = await storeNext(folder, { domain: DOMAIN, selector: 's1' }, await makeKey(kind, 2048));
    expect(await names()).toEqual(['s1.next']);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder, DOMAIN))).mode & 0o777).toBe(0o700);
    expect(await readSigningKey(path)).toMatchObject({ ok: true, algorithm: `${kind}-sha256`, note: null });
  },
);

test.skipIf(process.getuid?.() !== 0)(
  'folder and key belong to whom the folder of keys belongs',
  async () => {
    const { chown } = await import('node:fs/promises');
    await chown(folder, 4321, 4322);
    const path = await storeNext(folder, { domain: DOMAIN, selector: 's1' }, 'text');
    for (const one of [path, join(folder, DOMAIN)])
      expect(await stat(one)).toMatchObject({ uid: 4321, gid: 4322 });
  },
);

test('a key is never overwritten', async () => {
  await put('s1.next');
  await expect(storeNext(folder, { domain: DOMAIN, selector: 's1' }, 'other')).rejects.toThrow(
    'a file of that name is there already',
  );
  expect(await readFile(join(folder, DOMAIN, 's1.next'), 'utf8')).toBe('key s1.next');
  expect(await names()).toEqual(['s1.next']);
});

test('what is there: roles by name, since when by the time of last change, oldest first', async () => {
  await put('b.private', NOW - 2000);
  await put('a.next', NOW - 1000);
  for (const name of ['c.txt', '.d.next.1.tmp', 'private', '-e.private']) await put(name);
  expect(
    (await listKeys(folder, DOMAIN)).map(({ selector, role, since, own }) => [selector, role, since, own]),
  ).toEqual([
    ['b', 'private', NOW - 2000, true],
    ['a', 'next', NOW - 1000, true],
  ]);
  expect(await listDomains(folder)).toEqual([DOMAIN]);
  expect(await listKeys(folder, 'hades.example')).toEqual([]);
});

test('too many files, and what is no folder', async () => {
  await mkdir(join(folder, DOMAIN));
  await Promise.all(Array.from({ length: FILES_LIMIT }, (_, index) => put(`s${index}.next`)));
  expect(await listKeys(folder, DOMAIN)).toHaveLength(FILES_LIMIT);
  await put('more.next');
  await expect(listKeys(folder, DOMAIN)).rejects.toThrow('more than 256 files');
  await expect(listDomains(join(folder, 'none'))).rejects.toThrow('it is not there');
});

test('a key that signs from now on, and one that does no more', async () => {
  await put('new.next', NOW - 5000);
  await put('old.private', NOW - 9000);
  await promote(await key('new', 'next'), [await key('old', 'private')], NOW);
  expect(await names()).toEqual(['new.private', 'old.old']);
  expect(await readFile(join(folder, DOMAIN, 'new.private'), 'utf8')).toBe('key new.next');
  for (const one of await listKeys(folder, DOMAIN)) expect(one.since).toBe(NOW);
});

test('broken off anywhere on its way, the same again ends it', async () => {
  const stops: readonly (() => Promise<void>)[] = [
    () => link(place('new.next'), place('new.private')),
    () => link(place('old.private'), place('old.old')),
    () => rm(place('old.private')),
  ];
  for (let count = 0; count <= stops.length; count++) {
    await rm(join(folder, DOMAIN), { recursive: true, force: true });
    await put('new.next', NOW - 5000);
    await put('old.private', NOW - 9000);
    for (const stop of stops.slice(0, count)) await stop();
    const others = (await listKeys(folder, DOMAIN)).filter(
      ({ selector, role }) => selector === 'old' && role === 'private',
    );
    await promote(await key('new', 'next'), others, NOW);
    expect(await names()).toEqual(['new.private', 'old.old']);
  }
});

test('another key of that name stays', async () => {
  await put('s.next');
  await put('s.private');
  await expect(promote(await key('s', 'next'), [], NOW)).rejects.toThrow(
    'a file of that name is there already',
  );
  expect(await names()).toEqual(['s.next', 's.private']);
});

test('a retired key leaves its record, and then nothing', async () => {
  await put('s.old');
  await retire(await key('s', 'old'), 'v=DKIM1; p=AAAA');
  expect(await names()).toEqual(['s.retired']);
  expect(await readFile(join(folder, DOMAIN, 's.retired'), 'utf8')).toBe('v=DKIM1; p=AAAA\n');
  await put('s.old');
  await retire(await key('s', 'old'), 'v=DKIM1; p=AAAA');
  expect(await names()).toEqual(['s.retired']);
  await forget(await key('s', 'retired'));
  expect(await names()).toEqual([]);
});

test('what a write left is swept away an hour later', async () => {
  await put('.s.next.99.tmp', NOW - 3_600_001);
  await put('.t.next.99.tmp', NOW - 3_600_000);
  await put('u.next', NOW - 9_000_000);
  await sweep(folder, DOMAIN, NOW);
  expect(await names()).toEqual(['.t.next.99.tmp', 'u.next']);
});

test('a link to elsewhere is shown as what is not ours', async () => {
  await put('real');
  await symlink(join(folder, DOMAIN, 'real'), join(folder, DOMAIN, 's.private'));
  expect(await listKeys(folder, DOMAIN)).toMatchObject([{ selector: 's', own: false }]);
});
