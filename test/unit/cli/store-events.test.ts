import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { expireRegularly } from '../../../src/cli/store-events.ts';
import type { Store, Trimmed } from '../../../src/ports/store.ts';
import { metric } from '../../support/metric.ts';

const MINUTE = 60_000;
const SETTINGS = { history_age: 30 * 24 * 60 * MINUTE, history_max_size: 1000 };

let lines: unknown[];
const log = pino(
  { level: 'info', base: null, timestamp: false },
  { write: (line: string) => lines.push(JSON.parse(line)) },
);

beforeEach(() => {
  lines = [];
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** A store that removes as it is told, and fails when that is an error. */
function storeThat(trim: () => Trimmed | Error): Pick<Store, 'expire' | 'trim'> & { asked: number[] } {
  const asked: number[] = [];
  return {
    asked,
    expire: () => Promise.resolve(0),
    trim: (octets) => {
      asked.push(octets);
      const trimmed = trim();
      return trimmed instanceof Error ? Promise.reject(trimmed) : Promise.resolve(trimmed);
    },
  };
}

test('looks at the size at once and every minute; tells of what went once an hour, and counts all of it', async () => {
  const store = storeThat(() => ({ octets: 900, decisions: 7 }));
  const registry = new Registry();
  using _ = expireRegularly(store, () => SETTINGS, { log, registry });
  await vi.advanceTimersByTimeAsync(0);
  expect(lines).toMatchObject([{ level: 40, decisions: 7, octets: 1000 }]);
  await vi.advanceTimersByTimeAsync(59 * MINUTE);
  expect(lines).toHaveLength(1);
  expect(store.asked).toEqual(Array.from({ length: 60 }, () => 1000));
  await vi.advanceTimersByTimeAsync(2 * MINUTE);
  expect(lines).toHaveLength(2);
  expect(lines[1]).toMatchObject({
    msg: 'history_max_size reached, the oldest history removed',
    decisions: 420,
  });
  expect(await metric(registry, 'postern_history_removed_total', { why: 'size' })).toBe(62 * 7);
  expect(await metric(registry, 'postern_history_removed_total', { why: 'age' })).toBe(0);
  expect(await metric(registry, 'postern_history_octets')).toBe(900);
});

test('a store that has no size, and nothing that went: not a word', async () => {
  const registry = new Registry();
  using _ = expireRegularly(
    storeThat(() => ({ octets: null, decisions: 0 })),
    () => SETTINGS,
    { log, registry },
  );
  await vi.advanceTimersByTimeAsync(3 * 60 * MINUTE);
  expect(lines).toEqual([]);
  expect(await metric(registry, 'postern_history_octets')).toBe(0);
});

test('what fails is told, and tried again', async () => {
  let broken = true;
  const store = storeThat(() => (broken ? new Error('no disk') : { octets: 1, decisions: 0 }));
  using _ = expireRegularly(store, () => SETTINGS, { log, registry: new Registry() });
  await vi.advanceTimersByTimeAsync(0);
  expect(lines).toMatchObject([
    { msg: 'too much history could not be removed', err: { message: 'no disk' } },
  ]);
  broken = false;
  await vi.advanceTimersByTimeAsync(MINUTE);
  expect(store.asked).toHaveLength(2);
  expect(lines).toHaveLength(1);
});

test('one look at a time, and none after the end', async () => {
  const slow = Promise.withResolvers<Trimmed>();
  let asked = 0;
  const store: Pick<Store, 'expire' | 'trim'> = {
    expire: () => Promise.resolve(0),
    trim: () => {
      asked++;
      return slow.promise;
    },
  };
  const regularly = expireRegularly(store, () => SETTINGS, { log, registry: new Registry() });
  await vi.advanceTimersByTimeAsync(5 * MINUTE);
  expect(asked).toBe(1);
  slow.resolve({ octets: 1, decisions: 0 });
  await vi.advanceTimersByTimeAsync(MINUTE);
  expect(asked).toBe(2);
  regularly[Symbol.dispose]();
  await vi.advanceTimersByTimeAsync(5 * MINUTE);
  expect(asked).toBe(2);
});
