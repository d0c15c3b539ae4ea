import { expect, test } from 'vitest';

import { LookupCache, type LookResult } from '../../../src/adapters/lookup-cache.ts';

const NEVER = new AbortController().signal;

interface Bench {
  readonly cache: LookupCache<string>;
  readonly asked: string[];
  readonly results: LookResult[];
  answer: (key: string) => Promise<string | null>;
  now: number;
}

function bench(entries = 100): Bench {
  const asked: string[] = [];
  const results: LookResult[] = [];
  const options = { ttlMs: 100, negativeMs: 30, staleMs: 1000, entries };
  const clock = { now: () => made.now, elapsed: () => made.now };
  const load = (key: string): Promise<string | null> => {
    asked.push(key);
    return made.answer(key);
  };
  const made: Bench = {
    cache: new LookupCache(options, clock, load, (result) => results.push(result)),
    asked,
    results,
    answer: (key) => Promise.resolve(`${key} at ${made.now}`),
    now: 0,
  };
  return made;
}

test('an answer is used for its time and no longer; one that says nothing, for less', async () => {
  const b = bench();
  expect(await b.cache.get('a', NEVER)).toBe('a at 0');
  b.now = 100;
  expect(await b.cache.get('a', NEVER)).toBe('a at 0');
  b.now = 101;
  expect(await b.cache.get('a', NEVER)).toBe('a at 101');
  b.answer = () => Promise.resolve(null);
  expect(await b.cache.get('b', NEVER)).toBeNull();
  b.now = 131;
  expect(await b.cache.get('b', NEVER)).toBeNull();
  b.answer = () => Promise.resolve('made meanwhile');
  b.now = 132;
  expect(await b.cache.get('b', NEVER)).toBe('made meanwhile');
  expect(b.asked).toEqual(['a', 'a', 'b', 'b']);
  expect(b.results).toEqual(['asked', 'cache', 'asked', 'asked', 'cache', 'asked']);
});

test('many at once are one question; who gives up does not end it for the others', async () => {
  const b = bench();
  const open = Promise.withResolvers<string>();
  b.answer = () => open.promise;
  const impatient = new AbortController();
  const all = [b.cache.get('a', NEVER), b.cache.get('a', NEVER)];
  const gone = b.cache.get('a', impatient.signal);
  impatient.abort();
  await expect(gone).rejects.toThrow('given up');
  open.resolve('x');
  expect(await Promise.all(all)).toEqual(['x', 'x']);
  expect(b.asked).toEqual(['a']);
});

test('an old answer stands in while no new one can be had, until it is too old', async () => {
  const b = bench();
  await b.cache.get('a', NEVER);
  b.answer = () => Promise.resolve(null);
  await b.cache.get('none', NEVER);
  b.answer = () => Promise.reject(new Error('away'));
  b.now = 101;
  expect(await b.cache.get('a', NEVER)).toBe('a at 0');
  expect(await b.cache.get('none', NEVER)).toBeNull();
  await expect(b.cache.get('new', NEVER)).rejects.toThrow('away');
  b.now = 1030;
  expect(await b.cache.get('none', NEVER)).toBeNull();
  b.now = 1031;
  await expect(b.cache.get('none', NEVER)).rejects.toThrow('away');
  b.now = 1100;
  expect(await b.cache.get('a', NEVER)).toBe('a at 0');
  b.now = 1101;
  await expect(b.cache.get('a', NEVER)).rejects.toThrow('away');
  expect(b.results).toEqual([
    'asked',
    'asked',
    'stale',
    'stale',
    'failed',
    'stale',
    'failed',
    'stale',
    'failed',
  ]);
});

test('no more are remembered than allowed', async () => {
  const b = bench(2);
  for (const key of ['a', 'b', 'c', 'c', 'b', 'a']) await b.cache.get(key, NEVER);
  expect(b.asked).toEqual(['a', 'b', 'c', 'a']);
});
