import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { JoinReader } from '../../../src/adapters/sqlite-joins.ts';
import { openDatabase } from '../../../src/adapters/sqlite-schema.ts';
import { TraceTable } from '../../../src/adapters/sqlite-traces.ts';
import type { TraceKeys } from '../../../src/ports/store.ts';

const NOW = 1_800_000_000_000;
const STRANGERS = 100;

let folder: string;
let database: DatabaseSync;
let table: TraceTable;
let reader: JoinReader;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-joins-'));
  database = await openDatabase(folder);
  table = new TraceTable(database);
  reader = new JoinReader(database);
});

afterEach(async () => {
  database.close();
  await rm(folder, { recursive: true });
});

function keys(differs: Partial<TraceKeys> = {}): TraceKeys {
  return { session: '192.0.2.1:25000', sender: 'a@example.org', instance: null, queueId: 'Q1', ...differs };
}

function openedByPolicyd(trace: string): void {
  table.add(trace, keys({ instance: trace, queueId: null }), NOW, false);
}

function strangers(count: number): void {
  for (let n = 0; n < count; n++) {
    expect(reader.read(keys({ queueId: `S${n}` }), NOW)).toEqual({ kind: 'unsure' });
    reader.asked(false);
  }
}

test('a trace that policyd opened is known at once, and is to be claimed', () => {
  openedByPolicyd('policyd');
  expect(reader.read(keys(), NOW)).toEqual({ kind: 'known', trace: 'policyd', claim: 1 });
});

test('one that is claimed is known by the queue id, and is not claimed again', () => {
  openedByPolicyd('policyd');
  table.claim(1, 'Q1');
  expect(reader.read(keys({ session: null }), NOW)).toEqual({ kind: 'known', trace: 'policyd', claim: null });
});

test('one whose claim is not in the file yet is not given to another message', () => {
  openedByPolicyd('policyd');
  reader.read(keys(), NOW);
  expect(reader.read(keys({ queueId: 'Q2' }), NOW)).toEqual({ kind: 'unsure' });
});

test('of so many claims the oldest are forgotten', () => {
  openedByPolicyd('first');
  reader.read(keys(), NOW);
  for (let n = 0; n < 1000; n++) {
    table.add(`t${n}`, keys({ session: `${n}`, queueId: null }), NOW, false);
    reader.read(keys({ session: `${n}` }), NOW);
  }
  expect(reader.read(keys({ queueId: 'Q2' }), NOW)).toMatchObject({ kind: 'known', claim: 1 });
});

test('after so many that nobody knew, messages that are not found are new', () => {
  strangers(STRANGERS - 1);
  expect(reader.read(keys(), NOW)).toEqual({ kind: 'unsure' });
  reader.asked(false);
  expect(reader.read(keys(), NOW)).toEqual({ kind: 'new' });
});

test.each([
  [
    'was read',
    (): void => {
      openedByPolicyd('policyd');
      reader.read(keys(), NOW);
    },
  ],
  ['only the one that writes knew of', (): void => reader.asked(true)],
])('until there is one that %s', (_, found) => {
  strangers(STRANGERS);
  expect(reader.read(keys({ queueId: 'Q2' }), NOW)).toEqual({ kind: 'new' });
  found();
  expect(reader.read(keys({ session: null, queueId: 'Q3' }), NOW)).toEqual({ kind: 'unsure' });
});
