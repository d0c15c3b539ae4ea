import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';

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

function groupOf(database: DatabaseSync): { group: WriteGroup; commits: () => number } {
  let commits = 0;
  const group = new WriteGroup(database, {
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

/** Two connections to one file, the second of which can keep the lock from the group. */
async function shared(): Promise<
  AsyncDisposable & { readonly group: WriteGroup; readonly mine: DatabaseSync; readonly others: DatabaseSync }
> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-group-'));
  const path = join(folder, 'words.sqlite');
  const [mine, others] = [new DatabaseSync(path, { timeout: 1 }), new DatabaseSync(path)];
  mine.exec('PRAGMA journal_mode = WAL; CREATE TABLE word (text TEXT UNIQUE)');
  return {
    group: groupOf(mine).group,
    mine,
    others,
    async [Symbol.asyncDispose]() {
      mine.close();
      others.close();
      await rm(folder, { recursive: true });
    },
  };
}

test('a lock that is not to be had is told to each in his time, and to the file nothing', async () => {
  await using file = await shared();
  file.others.exec('BEGIN IMMEDIATE');
  const insert = file.mine.prepare('INSERT INTO word VALUES (?)');
  let ran = 0;
  const begin = performance.now();
  const waits: number[] = [];
  // New ones all the time, as mail comes.
  const results = await Promise.allSettled(
    Array.from({ length: 40 }, async (_, n) => {
      await delay(10 * n);
      const asked = performance.now();
      await file.group
        .add(() => {
          ran += 1;
          insert.run(`word ${n}`);
        })
        .finally(() => waits.push(performance.now() - asked));
    }),
  );
  for (const result of results) {
    expect(result).toMatchObject({ status: 'rejected', reason: { cause: { errcode: 5 } } });
  }
  expect(ran).toBe(0);
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(1000);
  // Each waited by itself, not for those before it.
  expect(performance.now() - begin).toBeLessThan(5000);
  file.others.exec('COMMIT');
  await file.group.add(() => insert.run('after'));
  expect(words(file.mine)).toEqual(['after']);
});

test('what came while the lock was held is written when it is free, in its order', async () => {
  await using file = await shared();
  file.others.exec('BEGIN IMMEDIATE');
  const insert = file.mine.prepare('INSERT INTO word VALUES (?)');
  const early = file.group.add(() => insert.run('early'));
  await nextTurn();
  const late = Promise.allSettled(['early', 'late'].map((word) => file.group.add(() => insert.run(word))));
  const flushed = file.group.flush();
  file.others.exec('COMMIT');
  await early;
  expect((await late).map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
  await flushed;
  expect(words(file.mine)).toEqual(['early', 'late']);
});
