import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Batch } from '../../../src/adapters/sqlite-batch.ts';
import { decisionRow } from '../../../src/adapters/sqlite-decisions.ts';
import { openDatabase } from '../../../src/adapters/sqlite-schema.ts';
import { NotWritten, WriterThread } from '../../../src/adapters/sqlite-thread.ts';
import { decision } from '../../support/decisions.ts';

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-thread-'));
  path = join(folder, 'postern.sqlite');
  (await openDatabase(folder)).close();
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

function batch(differs: Partial<Batch> = {}): Batch {
  return { notes: [], asks: [], decisions: [decisionRow(decision())], ...differs };
}

function written(): unknown {
  using database = new DatabaseSync(path);
  return database.prepare('SELECT count(*) AS n FROM decision').get()?.['n'];
}

async function refusal(writing: Promise<unknown>): Promise<NotWritten> {
  const error: unknown = await writing.catch((caught: unknown) => caught);
  if (!(error instanceof NotWritten)) throw new Error('it was written');
  return error;
}

test('a batch is there for all when it is said to be', async () => {
  await using thread = new WriterThread(path);
  const keys = { session: null, sender: '', instance: null, queueId: 'Q1' };
  const question = { kind: 'join', keys, fresh: 'fresh', now: 1 } as const;
  expect(await thread.write(batch({ asks: [question] }))).toEqual({
    answers: [{ kind: 'trace', trace: 'fresh' }],
    hopeless: [],
  });
  expect(written()).toBe(1);
});

test('one that can not be stored is named, and takes none of the others with it', async () => {
  await using thread = new WriterThread(path);
  const bad = decisionRow(decision({ elapsed: Number.NaN }));
  const good = decisionRow(decision());
  const { hopeless } = await thread.write(batch({ decisions: [good, bad, good] }));
  expect(hopeless).toEqual([expect.stringContaining('NOT NULL constraint failed')]);
  expect(written()).toBe(2);
});

test("another process's lock is told apart", async () => {
  await using thread = new WriterThread(path);
  const holder = new DatabaseSync(path);
  holder.exec('BEGIN IMMEDIATE');
  expect(await refusal(thread.write(batch()))).toMatchObject({
    because: 'busy',
    message: 'database is locked',
  });
  holder.close();
  await thread.write(batch());
  expect(written()).toBe(1);
});

test('a thread that ends over its work is started again with the next', async () => {
  await using thread = new WriterThread(path);
  await rm(path);
  const why = await refusal(thread.write(batch()));
  expect(why).toMatchObject({ because: 'broken' });
  expect(why.message).toContain('the thread that writes ended: ');
  (await openDatabase(folder)).close();
  await thread.write(batch());
  expect(written()).toBe(1);
});

test('the end closes the file', async () => {
  const thread = new WriterThread(path);
  await thread.write(batch());
  await thread[Symbol.asyncDispose]();
  expect(await readdir(folder)).toEqual(['postern.sqlite']);
  // One that never wrote has nothing to close.
  await new WriterThread(path)[Symbol.asyncDispose]();
});
