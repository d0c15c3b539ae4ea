import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { DecisionWriter, MAX_WAITING } from '../../../src/adapters/sqlite-writer.ts';
import type { Decision } from '../../../src/ports/store.ts';
import { decision } from '../../support/decisions.ts';

/** As node:sqlite reports what SQLite reports. */
function sqliteError(errcode: number): Error {
  return Object.assign(new Error(`SQLite says ${errcode}`), { code: 'ERR_SQLITE_ERROR', errcode });
}

const SQLITE_BUSY = 5;
const SQLITE_FULL = 13;
const SQLITE_CONSTRAINT_NOTNULL = 19 | (5 << 8);

interface Given {
  readonly writer: DecisionWriter;
  readonly batches: (readonly Decision[])[];
  readonly failures: number[];
  readonly losses: [number, string][];
  /** Thrown by the next writes. */
  fault: ((batch: readonly Decision[]) => Error | null) | null;
}

function given(): Given {
  const it: Given = {
    batches: [],
    failures: [],
    losses: [],
    fault: null,
    writer: new DecisionWriter(
      (batch) => {
        const error = it.fault?.(batch) ?? null;
        if (error !== null) throw error;
        it.batches.push(batch);
      },
      {
        writeFailed: (_error, waiting) => it.failures.push(waiting),
        lost: (count, why) => it.losses.push([count, why]),
      },
    ),
  };
  return it;
}

function add({ writer }: Given, count: number, differs: Partial<Decision> = {}): void {
  for (let index = 0; index < count; index++) writer.add(decision(differs));
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('batches', () => {
  test('a few decisions are written together after a moment', () => {
    const it = given();
    add(it, 3);
    vi.advanceTimersByTime(199);
    expect(it.batches).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(it.batches.map((batch) => batch.length)).toEqual([3]);
  });

  test('many are written sooner, never more rows than one transaction shall hold, and in order', () => {
    const it = given();
    for (let index = 0; index < 250; index++)
      it.writer.add(decision({ trace: `${index}`, recipients: ['a@b'] }));
    vi.advanceTimersByTime(1);
    vi.runAllTimers();
    expect(it.batches.map((batch) => batch.length)).toEqual([50, 50, 50, 50, 50]);
    expect(it.batches.flat().map((one) => one.trace)).toEqual(Array.from({ length: 250 }, (_, n) => `${n}`));
  });

  test('one with more recipients than that goes alone', () => {
    const it = given();
    const crowd = Array.from({ length: 1000 }, (_, index) => `u${index}@example.org`);
    add(it, 1);
    add(it, 1, { recipients: crowd });
    add(it, 1);
    vi.runAllTimers();
    expect(it.batches.map((batch) => batch.length)).toEqual([1, 1, 1]);
  });

  test('flush writes all of it now', async () => {
    vi.useRealTimers();
    const it = given();
    add(it, 120, { recipients: [] });
    await it.writer.flush();
    expect(it.batches.map((batch) => batch.length)).toEqual([100, 20]);
    expect(it.writer.close()).toBe(0);
  });
});

describe('faults', () => {
  test('what could not be written stays queued and is tried ever more slowly', () => {
    const it = given();
    it.fault = () => sqliteError(SQLITE_FULL);
    add(it, 2);
    const times: number[] = [];
    for (let ms = 0; ms < 200_000; ms += 100) {
      const before = it.failures.length;
      vi.advanceTimersByTime(100);
      if (it.failures.length > before) times.push(ms + 100);
    }
    expect(times).toEqual([
      200, 600, 1400, 3000, 6200, 12_600, 25_400, 51_000, 81_000, 111_000, 141_000, 171_000,
    ]);
    it.fault = null;
    vi.advanceTimersByTime(30_000);
    expect(it.batches.map((batch) => batch.length)).toEqual([2]);
    expect(it.losses).toEqual([]);
    add(it, 1);
    vi.advanceTimersByTime(200);
    expect(it.batches).toHaveLength(2);
  });

  test("another process's lock is not worth a word, unless it lasts", () => {
    const it = given();
    it.fault = () => sqliteError(SQLITE_BUSY);
    add(it, 1);
    vi.advanceTimersByTime(2000);
    expect(it.failures).toEqual([]);
    vi.advanceTimersByTime(200);
    expect(it.failures).toEqual([1]);
  });

  test('one that can not be stored does not take the others with it', () => {
    const it = given();
    it.fault = (batch) =>
      batch.some((one) => one.trace === 'bad') ? sqliteError(SQLITE_CONSTRAINT_NOTNULL) : null;
    add(it, 2);
    add(it, 1, { trace: 'bad' });
    add(it, 2);
    vi.advanceTimersByTime(200);
    expect(it.batches.flat()).toHaveLength(4);
    expect(it.losses).toEqual([[1, `SQLite says ${SQLITE_CONSTRAINT_NOTNULL}`]]);
    expect(it.failures).toEqual([]);
  });

  test('a fault of the file among them keeps what is left, once', () => {
    const it = given();
    it.fault = (batch) => {
      if (batch.length > 1) return sqliteError(SQLITE_CONSTRAINT_NOTNULL);
      return batch[0]?.trace === 'third' ? sqliteError(SQLITE_FULL) : null;
    };
    for (const trace of ['first', 'second', 'third', 'fourth']) add(it, 1, { trace });
    vi.advanceTimersByTime(200);
    expect(it.failures).toEqual([2]);
    it.fault = null;
    vi.advanceTimersByTime(400);
    expect(it.batches.flat().map((one) => one.trace)).toEqual(['first', 'second', 'third', 'fourth']);
  });

  test('the queue has an end: newer decisions are lost and counted', () => {
    const it = given();
    it.fault = () => sqliteError(SQLITE_FULL);
    add(it, 1);
    vi.advanceTimersByTime(200);
    add(it, MAX_WAITING - 1);
    expect(it.writer.waiting).toBe(MAX_WAITING);
    vi.advanceTimersByTime(400);
    expect(it.losses).toEqual([]);
    add(it, 3);
    expect(it.writer.waiting).toBe(MAX_WAITING);
    vi.advanceTimersByTime(800);
    expect(it.losses).toEqual([[3, `${MAX_WAITING} decisions are waiting to be written`]]);
  });

  test('flush tells that it could not, and close says how many stay unwritten', async () => {
    const it = given();
    it.fault = () => sqliteError(SQLITE_FULL);
    add(it, 7);
    await expect(it.writer.flush()).rejects.toThrow('SQLite says 13');
    expect(it.writer.close()).toBe(7);
    vi.advanceTimersByTime(60_000);
    expect(it.failures).toEqual([]);
  });
});
