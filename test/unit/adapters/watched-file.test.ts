import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { readAliases, readMailboxes } from '../../../src/adapters/directory-tables.ts';
import { WatchedFile } from '../../../src/adapters/watched-file.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-watched-'));
});

afterAll(() => rm(folder, { recursive: true }));

test('the largest file, and one octet more', async () => {
  const path = join(folder, 'file');
  const watched = new WatchedFile(path, (text) => Promise.resolve(text.length), 100);
  await writeFile(path, 'x'.repeat(100));
  expect(await watched.load()).toBe(100);
  await writeFile(path, 'x'.repeat(101));
  await expect(watched.load()).rejects.toThrow(
    expect.objectContaining({ cause: new Error('it has more than 100 octets') }),
  );
  expect(watched.content).toBe(100);
});

function entries(count: number): string {
  return 'k v\n'.repeat(count);
}

test('as many entries as a file may have, and one more', async () => {
  expect((await readAliases(entries(5000), 5000)).aliases.size).toBe(1);
  await expect(readAliases(entries(5001), 5000)).rejects.toThrow('it has more than 5000 entries');
  expect((await readMailboxes(entries(5000), 5000)).mailboxes.size).toBe(1);
  await expect(readMailboxes(entries(5001), 5000)).rejects.toThrow('it has more than 5000 entries');
});
