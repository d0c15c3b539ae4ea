import fc from 'fast-check';
import { expect, test } from 'vitest';

import { DAY, fresh, HOUR, MINUTE, SECOND, type Given } from './given.ts';
import { hitOn, hitOnce, hitTimes } from './hits.ts';

/** The periods of a window are counted from its first hit on. */
export function windowTests(given: Given): void {
  test('so much and no more', async () => {
    const hit = hitOn({ most: 3 });
    const { state } = given();
    expect(await hitOnce(state, hit)).toEqual({ within: true, used: 1, retryMs: 0, first: false });
    expect(await hitOnce(state, hit)).toMatchObject({ within: true, used: 2 });
    expect(await hitOnce(state, hit)).toMatchObject({ within: true, used: 3 });
    expect(await hitOnce(state, hit)).toMatchObject({ within: false, used: 3 });
    expect(await hitOnce(state, hit)).toMatchObject({ within: false, used: 3 });
  });

  test('keys and limits stay apart', async () => {
    const { state } = given();
    const hit = hitOn({ most: 1 });
    expect(await hitTimes(state, hit, 2)).toEqual([true, false]);
    expect(await hitTimes(state, { ...hit, key: fresh('other') }, 2)).toEqual([true, false]);
    expect(await hitTimes(state, { ...hit, limit: 'recipients' }, 2)).toEqual([true, false]);
  });

  test('keys may hold any character', async () => {
    const { state } = given();
    for (const odd of [
      "'; DROP TABLE counter --",
      '{x}:*[a-z]?',
      'a|b|c',
      'ü@пример',
      ' ',
      'x'.repeat(300),
    ]) {
      const hit = hitOn({ most: 1, key: `${fresh('odd')}${odd}` });
      expect(await hitTimes(state, hit, 2)).toEqual([true, false]);
      expect(await state.counters({ key: hit.key, count: 5 })).toHaveLength(1);
    }
  });

  test('the period before counts for the share of it that still lies within', async () => {
    const { state, advance } = given();
    const hit = hitOn({ most: 100 });
    expect(await hitOnce(state, { ...hit, cost: 100 })).toMatchObject({ within: true, used: 100 });
    await advance(HOUR + 15 * MINUTE + SECOND);
    // A little less than 75 of the 100 count still, and what is begun counts whole.
    expect(await hitOnce(state, { ...hit, cost: 26 })).toMatchObject({ within: false, used: 75 });
    expect(await hitOnce(state, { ...hit, cost: 20 })).toMatchObject({ within: true, used: 95 });
    await advance(30 * MINUTE);
    expect(await hitOnce(state, { ...hit, cost: 56 })).toMatchObject({ within: false, used: 45 });
    expect(await hitOnce(state, { ...hit, cost: 55 })).toMatchObject({ within: true, used: 100 });
  });

  test('after two periods nothing counts any more', async () => {
    const { state, advance } = given();
    const hit = hitOn({ most: 5, cost: 5 });
    expect(await hitTimes(state, hit, 2)).toEqual([true, false]);
    await advance(2 * HOUR);
    expect(await hitOnce(state, hit)).toMatchObject({ within: true, used: 5 });
  });

  test('retryMs is when there is room, and not before', async () => {
    const { state, advance } = given();
    const hit = hitOn({ most: 10 });
    await hitOnce(state, { ...hit, cost: 10 });
    await advance(10 * MINUTE);
    const { retryMs } = await hitOnce(state, { ...hit, cost: 5 });
    // The rest of this period, and half of the next one.
    expect(retryMs).toBeGreaterThan(79 * MINUTE);
    expect(retryMs).toBeLessThanOrEqual(80 * MINUTE);
    await advance(retryMs - 5 * SECOND);
    const later = await hitOnce(state, { ...hit, cost: 5 });
    expect(later.within).toBe(false);
    expect(later.retryMs).toBeGreaterThan(0);
    expect(later.retryMs).toBeLessThanOrEqual(5 * SECOND);
    await advance(later.retryMs);
    expect(await hitOnce(state, { ...hit, cost: 5 })).toMatchObject({ within: true, retryMs: 0 });
  });

  test('what is more than the limit never has room, and is told to come back after a period', async () => {
    const { state } = given();
    expect(await hitOnce(state, hitOn({ cost: 11 }))).toMatchObject({
      within: false,
      used: 0,
      retryMs: HOUR,
    });
    expect(await hitOnce(state, hitOn({ cost: 1, most: 0 }))).toMatchObject({ within: false, retryMs: HOUR });
  });

  test('a cost of nothing has room as long as no more than the limit is used', async () => {
    const { state } = given();
    const hit = hitOn({ most: 2 });
    await hitOnce(state, { ...hit, cost: 2 });
    expect(await hitOnce(state, { ...hit, cost: 0 })).toMatchObject({ within: true, used: 2 });
  });

  test('octets: large counts stay exact', async () => {
    const { state } = given();
    const hit = hitOn({ limit: 'octets', most: 2 ** 42, cost: 2 ** 42 - 1 });
    expect(await hitOnce(state, hit)).toMatchObject({ within: true, used: 2 ** 42 - 1 });
    expect(await hitOnce(state, { ...hit, cost: 2 })).toMatchObject({ within: false, used: 2 ** 42 - 1 });
    expect(await hitOnce(state, { ...hit, cost: 1 })).toMatchObject({ within: true, used: 2 ** 42 });
  });

  test('a limit that is changed counts on with what was used', async () => {
    const { state } = given();
    const hit = hitOn({ most: 10, cost: 8 });
    await hitOnce(state, hit);
    expect(await hitOnce(state, { ...hit, periodMs: DAY, cost: 3 })).toMatchObject({
      within: false,
      used: 8,
    });
    expect(await hitOnce(state, { ...hit, periodMs: DAY, cost: 2 })).toMatchObject({
      within: true,
      used: 10,
    });
    expect(await hitOnce(state, { ...hit, most: 30, periodMs: DAY })).toMatchObject({
      within: true,
      used: 18,
    });
    expect(
      await hitOnce(state, { ...hit, algorithm: 'bucket', most: 20, periodMs: DAY, cost: 3 }),
    ).toMatchObject({ within: false, used: 18 });
  });

  test('many at once: exactly so many', async () => {
    const { state } = given();
    const hit = hitOn({ most: 100 });
    const results = await Promise.all(Array.from({ length: 200 }, () => hitOnce(state, hit)));
    expect(results.filter(({ within }) => within)).toHaveLength(100);
    expect(Math.max(...results.map(({ used }) => used))).toBe(100);
  });

  test('agrees with a count by hand', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 20 }),
        fc.array(
          fc.record({
            waitMinutes: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 150 })),
            cost: fc.integer({ min: 0, max: 8 }),
            enforced: fc.boolean(),
          }),
          { minLength: 1, maxLength: 25 },
        ),
        async (most, steps) => {
          const { state, advance } = given();
          const key = fresh('model');
          const model = new WindowByHand(HOUR);
          for (const { waitMinutes, cost, enforced } of steps) {
            await advance(waitMinutes * MINUTE);
            model.time += waitMinutes * MINUTE;
            const result = await hitOnce(state, hitOn({ key, most, cost, enforced }));
            const before = model.used();
            // Time that passes by itself makes the use a little smaller than the model's.
            const close = Math.abs(before + cost - most) < 0.05 && before % 1 !== 0;
            expect(close || result.within === before + cost <= most).toBe(true);
            const counted = result.within || !enforced;
            if (counted) model.hits.push({ time: model.time, cost });
            expect(Math.abs(result.used - model.used())).toBeLessThan(1.05);
            expect(Number.isInteger(result.used)).toBe(true);
            expect(result.retryMs > 0).toBe(!result.within);
            expect(result.retryMs).toBeLessThanOrEqual(2 * HOUR);
          }
        },
      ),
      { numRuns: 40 },
    );
  });
}

/** Keeps every hit, and adds them up each time. */
class WindowByHand {
  readonly periodMs: number;
  readonly hits: { readonly time: number; readonly cost: number }[] = [];
  time = 0;
  #start: number | null = null;

  constructor(periodMs: number) {
    this.periodMs = periodMs;
  }

  used(): number {
    const { periodMs } = this;
    // Periods begin with the first hit that costs something; with nothing in this period and the one before they begin anew.
    const hits = this.hits.filter(({ time, cost }) => cost > 0 && time >= (this.#start ?? 0));
    const [first] = hits;
    if (first === undefined) {
      this.#start = null;
      // Those of before must not give the next period its begin.
      this.hits.length = 0;
      return 0;
    }
    this.#start ??= first.time;
    if (this.time >= this.#lastPeriod(hits) + 2 * periodMs) {
      this.#start = this.time;
      return 0;
    }
    const now = this.#start + Math.floor((this.time - this.#start) / periodMs) * periodMs;
    const sum = (from: number): number =>
      hits.reduce((all, { time, cost }) => (time >= from && time < from + periodMs ? all + cost : all), 0);
    return sum(now) + sum(now - periodMs) * (1 - (this.time - now) / periodMs);
  }

  #lastPeriod(hits: readonly { readonly time: number }[]): number {
    const start = this.#start ?? 0;
    const last = hits.at(-1)?.time ?? start;
    return start + Math.floor((last - start) / this.periodMs) * this.periodMs;
  }
}
