import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { openSqliteStore } from '../../../src/adapters/store-sqlite.ts';
import type { Store } from '../../../src/ports/store.ts';
import { FULL_DECISION, FakeClock, MORNING } from '../../support/decisions.ts';

const MIB = 2 ** 20;

let folder: string;
let store: Store & AsyncDisposable;
let recorded: number;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-size-'));
  recorded = 0;
  store = await open();
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function fails(...what: readonly unknown[]): never {
  throw new Error(what.map(String).join(' '));
}

function open(): Promise<Store & AsyncDisposable> {
  return openSqliteStore(folder, new FakeClock(), { writeFailed: fails, lost: fails, tracesLost: fails });
}

/** Octets of the file, once all of it is there. */
async function fileSize(): Promise<number> {
  await store[Symbol.asyncDispose]();
  const { size } = await stat(join(folder, 'postern.sqlite'));
  store = await open();
  return size;
}

/** Decisions of a kilobyte or so, a second apart. */
async function record(count: number): Promise<void> {
  const why = 'x'.repeat(500);
  for (let number = 0; number < count; number++) {
    store.record({ ...FULL_DECISION, why, time: MORNING + 1000 * recorded, trace: `trace-${recorded}` });
    recorded++;
    if (number % 1000 === 999) await store.flush();
  }
  await store.flush();
}

/** How many are left, and whether these are the newest. */
async function left(): Promise<number> {
  const decisions = await store.history({ limit: recorded });
  const newest = Array.from(decisions, (_, index) => `trace-${recorded - 1 - index}`);
  expect(decisions.map(({ trace }) => trace)).toEqual(newest);
  return decisions.length;
}

test('nothing goes while there is room', async () => {
  await record(100);
  const { octets, decisions } = await store.trim(16 * MIB);
  expect(decisions).toBe(0);
  expect(octets).toBeGreaterThan(100 * 1000);
  expect(octets).toBeLessThan(MIB);
  expect(await left()).toBe(100);
  // Exactly as much as there is, and one octet less.
  expect(await store.trim(octets ?? 0)).toEqual({ octets, decisions: 0 });
  const less = await store.trim((octets ?? 0) - 1);
  expect(less.decisions).toBeGreaterThan(0);
});

test('of too much the oldest go, and the file gets smaller', async () => {
  await record(9000);
  const before = await fileSize();
  expect(before).toBeGreaterThan(12 * MIB);
  const { octets, decisions } = await store.trim(4 * MIB);
  expect(octets).toBeLessThanOrEqual(4 * MIB);
  // No more than there had to.
  expect(octets).toBeGreaterThan(3 * MIB);
  expect(await left()).toBe(9000 - decisions);
  expect(await fileSize()).toBeLessThan(before - 4 * MIB);
});

test('a file that grows all the time stays at its limit', async () => {
  const sizes: number[] = [];
  for (let round = 0; round < 6; round++) {
    await record(2000);
    const { octets } = await store.trim(3 * MIB);
    expect(octets).toBeLessThanOrEqual(3 * MIB);
    sizes.push(await fileSize());
  }
  // What comes between two times is on top.
  expect(Math.max(...sizes)).toBeLessThan(8 * MIB);
  expect(await left()).toBeGreaterThan(1000);
});

test('labels go with what they are about; what messages under way need stays', async () => {
  await record(500);
  await store.label({ message: 'trace-0', user: 'ada', label: 'spam', time: MORNING });
  await store.label({ message: 'trace-499', user: 'ada', label: 'ham', time: MORNING + 499_000 });
  const keys = { session: '192.0.2.1:25', sender: 'a@example.com', instance: null, queueId: 'Q' };
  expect(await store.joinTrace(keys, 'fresh')).toBe('fresh');
  store.keepFacts('fresh', 'Q', { direction: 'in', outcomes: [] });
  await store.trim(400_000);
  const [newest] = await store.history({ limit: 1 });
  expect(newest?.labels).toMatchObject([{ label: 'ham' }]);
  // Less than the file takes with nothing in it: this ends.
  expect((await store.trim(1)).decisions).toBeGreaterThan(0);
  expect(await left()).toBe(0);
  expect(await store.trim(1)).toMatchObject({ decisions: 0 });
  expect(await store.joinTrace(keys, 'other')).toBe('fresh');
  expect(await store.keptFacts('fresh', 'Q')).toEqual({ direction: 'in', outcomes: [] });
});

test('messages go on meanwhile', async () => {
  await record(6000);
  const over = new AbortController();
  const trimming = store.trim(MIB).finally(() => over.abort());
  let joined = 0;
  while (!over.signal.aborted) {
    const keys = {
      session: `192.0.2.1:${joined}`,
      sender: 'a@example.com',
      instance: null,
      queueId: `Q${joined}`,
    };
    await store.joinTrace(keys, `fresh-${joined}`);
    joined++;
  }
  // One with each step, at least.
  const { decisions } = await trimming;
  expect(joined).toBeGreaterThan(decisions / 200 / 2);
});
