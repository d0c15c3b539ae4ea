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
  return { group: new WriteGroup(database, atOnce, () => (commits += 1)), commits: () => commits };
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
