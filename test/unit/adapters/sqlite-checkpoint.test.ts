import { mkdtemp, open as openFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { Checkpointer } from '../../../src/adapters/sqlite-checkpoint.ts';

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-checkpoint-'));
  path = join(folder, 'a.sqlite');
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

test('what was written comes into the file without this thread doing it', async () => {
  const database = new DatabaseSync(path);
  database.exec('PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)');
  database.prepare('INSERT INTO t VALUES (?)').run('x'.repeat(100_000));
  const before = (await stat(path)).size;
  await using checkpointer = new Checkpointer(path, (error) => {
    throw error;
  });
  checkpointer.wanted();
  checkpointer.wanted();
  await expect
    .poll(async () => (await stat(path)).size, { timeout: 15_000 })
    .toBeGreaterThan(before + 100_000);
  database.close();
});

test('the log does not grow while there is no pause in what is written', async () => {
  const database = new DatabaseSync(path, { timeout: 1000 });
  database.exec('PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)');
  database.exec('PRAGMA synchronous = NORMAL');
  const insert = database.prepare('INSERT INTO t VALUES (?)');
  await using checkpointer = new Checkpointer(path, (error) => {
    throw error;
  });
  const log = `${path}-wal`;
  // It is begun anew in place: its checkpoint sequence number, at 12, goes up (https://sqlite.org/fileformat2.html#walformat).
  const begun = async (): Promise<number> => {
    const file = await openFile(log);
    const { buffer } = await file.read(Buffer.alloc(16), 0, 16, 0);
    await file.close();
    return buffer.readUInt32BE(12);
  };
  insert.run('x'.repeat(9_000_000));
  const first = await begun();
  const until = performance.now() + 15_000;
  while ((await begun()) === first && performance.now() < until) {
    for (let turn = 0; turn < 20; turn++) insert.run('y'.repeat(3000));
    checkpointer.wanted();
    await nextTurn();
  }
  expect(await begun()).toBeGreaterThan(first);
  database.close();
});

test('a failure is told once', async () => {
  const failed = Promise.withResolvers<Error>();
  let told = 0;
  await using checkpointer = new Checkpointer(join(folder, 'missing/a.sqlite'), (error) => {
    told++;
    failed.resolve(error);
  });
  checkpointer.wanted();
  expect((await failed.promise).message).toContain('unable to open database file');
  checkpointer.wanted();
  await checkpointer[Symbol.asyncDispose]();
  expect(told).toBe(1);
});

test('a store that is closed at once never starts the thread', async () => {
  const checkpointer = new Checkpointer(join(folder, 'missing/a.sqlite'), (error) => {
    throw error;
  });
  checkpointer.wanted();
  await checkpointer[Symbol.asyncDispose]();
  checkpointer.wanted();
  expect(process.getActiveResourcesInfo()).not.toContain('MessagePort');
});
