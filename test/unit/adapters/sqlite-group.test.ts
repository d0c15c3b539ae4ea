import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { expect, test } from 'vitest';

import { WriteGroup } from '../../../src/adapters/sqlite-group.ts';

function table(): DatabaseSync {
  const database = new DatabaseSync(':memory:');
  database.exec('CREATE TABLE word (text TEXT UNIQUE NOT NULL) STRICT');
  return database;
}

function words(database: DatabaseSync): unknown[] {
  return database
    .prepare('SELECT text FROM word ORDER BY rowid')
    .all()
    .map((row) => row['text']);
}

async function atOnce(work: () => void): Promise<void> {
  work();
  await Promise.resolve();
}

function groupOf(database: DatabaseSync): { group: WriteGroup; commits: () => number } {
  let commits = 0;
  const group = new WriteGroup(database, {
    whenFree: atOnce,
    committed: () => (commits += 1),
    explained: (error) => new Error('not written', { cause: error }),
  });
  return { group, commits: () => commits };
}

test('what comes in one turn is one transaction, and each caller has its own result', async () => {
  const database = table();
  const { group, commits } = groupOf(database);
  const insert = database.prepare('INSERT INTO word VALUES (?)');
  const results = ['a', 'b', 'c'].map((word) => group.add(() => insert.run(word).lastInsertRowid));
  expect(words(database)).toEqual([]);
  expect(await Promise.all(results)).toEqual([1, 2, 3]);
  expect(words(database)).toEqual(['a', 'b', 'c']);
  expect(commits()).toBe(1);
});

test('one that fails is told so, and takes none of the others with it', async () => {
  const database = table();
  const { group } = groupOf(database);
  const insert = database.prepare('INSERT INTO word VALUES (?)');
  const results = await Promise.allSettled(
    ['a', 'a', 'b'].map((word) => group.add(() => void insert.run(word))),
  );
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  expect(words(database)).toEqual(['a', 'b']);
  expect(database.isTransaction).toBe(false);
});

test('flush writes what has not had its turn', async () => {
  const database = table();
  const { group } = groupOf(database);
  const insert = database.prepare('INSERT INTO word VALUES (?)');
  const result = group.add(() => void insert.run('a'));
  await group.flush();
  expect(words(database)).toEqual(['a']);
  await result;
  await group.flush();
});

test('what one turn reads is of one moment, and its own writes are seen after it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'postern-group-'));
  const path = join(folder, 'words.sqlite');
  const [mine, others] = [new DatabaseSync(path), new DatabaseSync(path)];
  mine.exec('PRAGMA journal_mode = WAL; CREATE TABLE word (text TEXT)');
  const { group } = groupOf(mine);
  expect(group.read(() => words(mine))).toEqual([]);
  others.exec("INSERT INTO word VALUES ('theirs')");
  expect(group.read(() => words(mine))).toEqual([]);
  await group.add(() => mine.exec("INSERT INTO word VALUES ('mine')"));
  expect(group.read(() => words(mine))).toEqual(['theirs', 'mine']);
  await new Promise((resolve) => setImmediate(resolve));
  expect(mine.isTransaction).toBe(false);
  mine.close();
  others.close();
  await rm(folder, { recursive: true });
});

test('a lock that is not to be had is told to all at once', async () => {
  const database = table();
  let attempts = 0;
  const busy = Object.assign(new Error('database is locked'), { errcode: 5 });
  const group = new WriteGroup(database, {
    whenFree: () => {
      attempts += 1;
      return Promise.reject(busy);
    },
    committed: () => {},
    explained: (error) => new Error('not written', { cause: error }),
  });
  const results = await Promise.allSettled([1, 2, 3].map((n) => group.add(() => n)));
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
  expect(attempts).toBe(1);
});
