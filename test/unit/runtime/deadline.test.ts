import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { withinDeadline } from '../../../src/runtime/deadline.ts';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

test('an answer in time is the answer, and leaves no timer', async () => {
  expect(await withinDeadline(Promise.resolve(7), 100, 'the store')).toBe(7);
  expect(vi.getTimerCount()).toBe(0);
});

test('an answer that is there comes back at once', () => {
  const answer: number | Promise<number> = 7;
  expect(withinDeadline(answer, 100, 'the store')).toBe(7);
  expect(vi.getTimerCount()).toBe(0);
});

test('a failure is passed on, and leaves no timer', async () => {
  await expect(withinDeadline(Promise.reject(new Error('disk full')), 100, 'the store')).rejects.toThrow(
    'disk full',
  );
  expect(vi.getTimerCount()).toBe(0);
});

test('without an answer it ends at the deadline and not before; a late failure goes nowhere', async () => {
  const work = Promise.withResolvers<number>();
  const seen = vi.fn<(error: unknown) => void>();
  const ended = withinDeadline(work.promise, 100, 'the store').catch(seen);
  await vi.advanceTimersByTimeAsync(99);
  expect(seen).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(seen).toHaveBeenCalledWith(new Error('the store did not answer within 100 ms'));
  work.reject(new Error('too late'));
  await ended;
});
