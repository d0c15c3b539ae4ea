import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { Batch, Note, Written } from '../../../src/adapters/sqlite-batch.ts';
import { NotWritten } from '../../../src/adapters/sqlite-thread.ts';
import { MAX_WAITING, StoreWriter } from '../../../src/adapters/sqlite-writer.ts';
import type { Decision } from '../../../src/ports/store.ts';
import { decision } from '../../support/decisions.ts';

interface Given {
  readonly writer: StoreWriter;
  readonly batches: Batch[];
  readonly failures: number[];
  readonly losses: [number, string][];
  readonly traceLosses: [number, string][];
  /** How the next writes go; by default all is well. */
  write: (batch: Batch) => Promise<Written>;
}

function well({ asks }: Batch): Promise<Written> {
  return Promise.resolve({ answers: asks.map(() => ({ kind: 'done' as const })), hopeless: [] });
}

function given(): Given {
  const it: Given = {
    batches: [],
    failures: [],
    losses: [],
    traceLosses: [],
    write: well,
    writer: new StoreWriter(
      {
        write: async (batch) => {
          const written = await it.write(batch);
          it.batches.push(batch);
          return written;
        },
      },
      {
        writeFailed: (_error, waiting) => it.failures.push(waiting),
        lost: (count, why) => it.losses.push([count, why]),
        tracesLost: (count, why) => it.traceLosses.push([count, why]),
      },
      () => {},
    ),
  };
  return it;
}

function fails(because: NotWritten['because']): () => Promise<never> {
  return () => Promise.reject(new NotWritten(`it ${because}`, because));
}

function add({ writer }: Given, count: number, differs: Partial<Decision> = {}): void {
  for (let index = 0; index < count; index++) writer.record(decision(differs));
}

const KEYS = { session: 's', sender: 'a', instance: 'i', queueId: null };
const JOIN = { kind: 'join', keys: KEYS, fresh: 't', now: 1 } as const;

function opened(trace: string): Note {
  return { kind: 'trace', trace, keys: KEYS, claimed: false, now: 1 };
}

function sizes({ batches }: Given): number[] {
  return batches.map(({ decisions }) => decisions.length);
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('batches', () => {
  test('a few decisions are written together after a moment', async () => {
    const it = given();
    add(it, 3);
    await vi.advanceTimersByTimeAsync(199);
    expect(it.batches).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(sizes(it)).toEqual([3]);
  });

  test('many are written sooner, never more rows than one transaction shall hold, and in order', async () => {
    const it = given();
    for (let index = 0; index < 1250; index++) {
      it.writer.record(decision({ trace: `${index}`, recipients: ['a@b'] }));
    }
    await vi.advanceTimersByTimeAsync(1);
    expect(sizes(it)).toEqual([500, 500]);
    await vi.advanceTimersByTimeAsync(200);
    expect(sizes(it)).toEqual([500, 500, 250]);
    const traces = it.batches.flatMap(({ decisions }) => decisions.map(({ values }) => values[1]));
    expect(traces).toEqual(Array.from({ length: 1250 }, (_, n) => `${n}`));
  });

  test('one with more recipients than that goes alone', async () => {
    const it = given();
    const crowd = Array.from({ length: 1000 }, (_, index) => `u${index}@example.org`);
    add(it, 1);
    add(it, 1, { recipients: crowd });
    add(it, 1);
    await it.writer.flush();
    expect(sizes(it)).toEqual([1, 1, 1]);
  });

  test('traces and questions do not wait for decisions', async () => {
    const it = given();
    add(it, 3);
    it.writer.note(opened('t'));
    await vi.advanceTimersByTimeAsync(4);
    expect(it.batches).toMatchObject([{ notes: [{ trace: 't' }], decisions: [] }]);
    const answer = it.writer.ask(JOIN);
    it.writer.note(opened('u'));
    await vi.advanceTimersByTimeAsync(0);
    expect(await answer).toEqual({ kind: 'done' });
    expect(it.batches[1]).toMatchObject({ notes: [{ trace: 'u' }], asks: [JOIN], decisions: [] });
  });

  test('one batch at a time; what comes meanwhile goes together', async () => {
    const it = given();
    const slow = Promise.withResolvers<void>();
    it.write = async (batch) => {
      await slow.promise;
      return well(batch);
    };
    const first = it.writer.ask(JOIN);
    await vi.advanceTimersByTimeAsync(1);
    const others = [it.writer.ask(JOIN), it.writer.ask(JOIN)];
    await vi.advanceTimersByTimeAsync(100);
    expect(it.batches).toEqual([]);
    slow.resolve();
    await vi.advanceTimersByTimeAsync(1);
    await Promise.all([first, ...others]);
    expect(it.batches.map(({ asks }) => asks.length)).toEqual([1, 2]);
  });

  test('flush writes all of it now', async () => {
    const it = given();
    add(it, 620, { recipients: [] });
    it.writer.note(opened('t'));
    await it.writer.flush();
    expect(sizes(it)).toEqual([0, 500, 120]);
    expect(it.writer.close()).toBe(0);
  });
});

describe('faults', () => {
  test('what could not be written stays queued and is tried ever more slowly', async () => {
    const it = given();
    it.write = fails('failed');
    add(it, 2);
    const times: number[] = [];
    for (let ms = 0; ms < 200_000; ms += 100) {
      const before = it.failures.length;
      await vi.advanceTimersByTimeAsync(100);
      if (it.failures.length > before) times.push(ms + 100);
    }
    expect(times).toEqual([
      200, 600, 1400, 3000, 6200, 12_600, 25_400, 51_000, 81_000, 111_000, 141_000, 171_000,
    ]);
    it.write = well;
    await vi.advanceTimersByTimeAsync(30_000);
    expect(sizes(it)).toEqual([2]);
    expect(it.losses).toEqual([]);
    add(it, 1);
    await vi.advanceTimersByTimeAsync(200);
    expect(sizes(it)).toEqual([2, 1]);
  });

  test("another process's lock is not worth a word, unless it lasts", async () => {
    const it = given();
    it.write = fails('busy');
    add(it, 1);
    await vi.advanceTimersByTimeAsync(1000);
    expect(it.failures).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    expect(it.failures).toEqual([1]);
  });

  test('those that can not be stored are counted, the others are not written twice', async () => {
    const it = given();
    it.write = () => Promise.resolve({ answers: [], hopeless: ['NOT NULL constraint failed'] });
    add(it, 5);
    await vi.advanceTimersByTimeAsync(200);
    expect(it.losses).toEqual([[1, 'NOT NULL constraint failed']]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sizes(it)).toEqual([5]);
  });

  test('decisions that end the thread three times are given up, and those behind them are written', async () => {
    const it = given();
    it.write = fails('broken');
    add(it, 501, { recipients: [] });
    await vi.advanceTimersByTimeAsync(1);
    it.write = (batch) => (batch.decisions.length === 500 ? fails('broken')() : well(batch));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(it.losses).toEqual([[500, 'it broken']]);
    expect(sizes(it)).toEqual([1]);
  });

  test('a question that fails is told so, a trace is counted, and neither is tried again', async () => {
    const it = given();
    it.write = fails('failed');
    it.writer.note(opened('t'));
    const answer = it.writer.ask(JOIN).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(await answer).toMatchObject({ message: 'it failed' });
    expect(it.traceLosses).toEqual([[1, 'it failed']]);
    it.write = well;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(it.batches).toEqual([]);
  });

  test('traces and facts wait for the lock of another process as long as there is room', async () => {
    const it = given();
    it.write = fails('busy');
    it.writer.note(opened('t'));
    await vi.advanceTimersByTimeAsync(50);
    it.writer.note(opened('u'));
    await vi.advanceTimersByTimeAsync(50);
    it.write = well;
    await vi.advanceTimersByTimeAsync(10);
    expect(it.batches).toMatchObject([{ notes: [{ trace: 't' }, { trace: 'u' }] }]);
    expect(it.traceLosses).toEqual([]);
  });

  test('when there is no room for more, those that could not be written are lost', async () => {
    const it = given();
    const slow = Promise.withResolvers<void>();
    it.write = () => slow.promise.then(fails('busy'));
    it.writer.note(opened('t'));
    await vi.advanceTimersByTimeAsync(10);
    for (let n = 0; n < MAX_WAITING; n++) it.writer.note(opened('u'));
    slow.resolve();
    await vi.advanceTimersByTimeAsync(0);
    expect(it.traceLosses).toEqual([[1, 'it busy']]);
  });

  test('a question that can not be answered by itself is told why', async () => {
    const it = given();
    it.write = () => Promise.resolve({ answers: [{ kind: 'failed', why: 'too big' }], hopeless: [] });
    const answer = it.writer.ask(JOIN).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(1);
    expect(await answer).toMatchObject({ message: 'too big' });
  });

  test('the queues have an end: newer decisions and traces are lost and counted', async () => {
    const it = given();
    it.write = fails('failed');
    add(it, 1);
    await vi.advanceTimersByTimeAsync(200);
    add(it, MAX_WAITING - 1);
    expect(it.writer.waiting).toBe(MAX_WAITING);
    await vi.advanceTimersByTimeAsync(400);
    expect(it.losses).toEqual([]);
    add(it, 3);
    expect(it.writer.waiting).toBe(MAX_WAITING);
    await vi.advanceTimersByTimeAsync(800);
    expect(it.losses).toEqual([[3, `${MAX_WAITING} decisions are waiting to be written`]]);
    for (let n = 0; n < MAX_WAITING; n++) it.writer.note(opened('t'));
    expect(it.traceLosses).toEqual([]);
    it.writer.note(opened('t'));
    expect(it.traceLosses).toEqual([[1, `${MAX_WAITING} traces and facts are waiting to be written`]]);
  });

  test('while a write hangs, the queues fill up to their limits, and what is lost is told of', async () => {
    const it = given();
    const hung = Promise.withResolvers<Written>();
    it.write = () => hung.promise;
    add(it, 500);
    await vi.advanceTimersByTimeAsync(1000);
    add(it, MAX_WAITING - 500);
    const asked = Array.from({ length: MAX_WAITING }, () => it.writer.ask(JOIN));
    await vi.advanceTimersByTimeAsync(1000);
    expect(it.losses).toEqual([]);
    add(it, 3);
    await expect(it.writer.ask(JOIN)).rejects.toThrow('5000 questions are waiting for the file');
    await vi.advanceTimersByTimeAsync(200);
    expect(it.losses).toEqual([[3, '5000 decisions are waiting to be written']]);
    expect(it.writer.waiting).toBe(MAX_WAITING);
    it.write = well;
    hung.resolve({ answers: [], hopeless: [] });
    await vi.advanceTimersByTimeAsync(200);
    expect(await Promise.all(asked)).toHaveLength(MAX_WAITING);
    await it.writer.flush();
    expect(it.writer.waiting).toBe(0);
    expect(sizes(it).reduce((sum, size) => sum + size, 0)).toBe(MAX_WAITING);
    expect(it.writer.close()).toBe(0);
  });

  test('flush tells that it could not, and close says how many stay unwritten', async () => {
    const it = given();
    it.write = fails('failed');
    add(it, 7);
    await expect(it.writer.flush()).rejects.toThrow('it failed');
    expect(it.writer.close()).toBe(7);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(it.batches).toEqual([]);
  });
});
