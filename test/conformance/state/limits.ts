import { expect, test } from 'vitest';

import type { HitResult } from '../../../src/ports/limits.ts';
import { fresh, HOUR, MINUTE, SECOND, type Given } from './given.ts';
import { hitOn, hitOnce, hitTimes } from './hits.ts';

export function severalTests(given: Given): void {
  test('no hits, no results', async () => {
    expect(await given().state.hit([])).toEqual([]);
    await given().state.refund([]);
  });

  test('whoever is refused does not use up his other limits', async () => {
    const { state } = given();
    const wide = hitOn({ limit: 'wide', most: 10 });
    const narrow = hitOn({ limit: 'narrow', most: 1, algorithm: 'bucket' });
    await state.hit([wide, narrow]);
    const [first, second] = await state.hit([wide, narrow]);
    expect(first).toEqual({ within: true, used: 1, retryMs: 0, first: false });
    expect(second).toMatchObject({ within: false, used: 1, first: true });
    expect(await hitOnce(state, wide)).toMatchObject({ used: 2 });
  });

  test('limits that only warn count in any case, and are in nobody’s way', async () => {
    const { state } = given();
    const warns = hitOn({ limit: 'warns', most: 1, enforced: false });
    const enforced = hitOn({ limit: 'enforced', most: 2 });
    const seen: (readonly HitResult[])[] = [];
    for (let time = 0; time < 4; time++) seen.push(await state.hit([warns, enforced]));
    expect(seen.map((results) => results.map(({ within, used }) => [within, used]))).toEqual([
      [
        [true, 1],
        [true, 1],
      ],
      [
        [false, 2],
        [true, 2],
      ],
      [
        [false, 3],
        [false, 2],
      ],
      [
        [false, 4],
        [false, 2],
      ],
    ]);
  });

  test('results come in the order of the hits', async () => {
    const { state } = given();
    const hits = Array.from({ length: 20 }, (_, index) => hitOn({ cost: index, most: 100 }));
    const results = await state.hit(hits);
    expect(results.map(({ used }) => used)).toEqual(hits.map(({ cost }) => cost));
  });

  test('one counter may be hit twice in one step', async () => {
    const { state } = given();
    const hit = hitOn({ most: 2 });
    expect((await state.hit([hit, hit])).map(({ within, used }) => [within, used])).toEqual([
      [true, 1],
      [true, 2],
    ]);
    const other = hitOn({ most: 3, cost: 2 });
    expect((await state.hit([other, other])).map(({ within }) => within)).toEqual([true, false]);
    expect(await hitOnce(state, { ...other, cost: 3 })).toMatchObject({ within: true, used: 3 });
  });

  test('all or none, however many come at once', async () => {
    const { state } = given();
    const shared = hitOn({ limit: 'shared', most: 50 });
    const answers = await Promise.all(
      Array.from({ length: 120 }, () => state.hit([hitOn({ limit: 'own', most: 1 }), shared])),
    );
    expect(answers.filter((results) => results.every(({ within }) => within))).toHaveLength(50);
    expect(await hitOnce(state, { ...shared, most: 51 })).toMatchObject({ within: true, used: 51 });
  });

  test('what is given back can be used again', async () => {
    const { state } = given();
    for (const algorithm of ['window', 'bucket'] as const) {
      const hit = hitOn({ algorithm, most: 5, cost: 3 });
      expect(await hitOnce(state, hit)).toMatchObject({ within: true });
      await state.refund([hit]);
      expect(await hitOnce(state, { ...hit, cost: 5 })).toMatchObject({ within: true, used: 5 });
    }
  });

  test('never below nothing, and nothing comes of what was never counted', async () => {
    const { state } = given();
    for (const algorithm of ['window', 'bucket'] as const) {
      const hit = hitOn({ algorithm, most: 5 });
      await state.refund([hit]);
      expect(await state.counters({ key: hit.key, count: 5 })).toEqual([]);
      await hitOnce(state, hit);
      await state.refund([hit, hit, { ...hit, cost: 4 }]);
      expect(await hitOnce(state, { ...hit, cost: 5 })).toMatchObject({ within: true, used: 5 });
      expect(await hitOnce(state, hit)).toMatchObject({ within: false });
    }
  });

  test('what was counted in the period before is given back there', async () => {
    const { state, advance } = given();
    const hit = hitOn({ most: 10 });
    await hitOnce(state, { ...hit, cost: 10 });
    await advance(HOUR + SECOND);
    expect(await hitOnce(state, hit)).toMatchObject({ within: false });
    await state.refund([{ ...hit, cost: 10 }]);
    expect(await hitOnce(state, { ...hit, cost: 10 })).toMatchObject({ within: true, used: 10 });
  });
}

/** An excess lasts until a hit finds no more than half of the limit in use: what goes on at the limit is one excess, not many. */
export function excessTests(given: Given): void {
  for (const algorithm of ['window', 'bucket'] as const) {
    test(`${algorithm}: is told once, and again only when half of it was free in between`, async () => {
      const { state, advance } = given();
      const hit = hitOn({ algorithm, most: 10 });
      expect(await hitOnce(state, { ...hit, cost: 10 })).toMatchObject({ within: true, first: false });
      expect(await hitOnce(state, hit)).toMatchObject({ within: false, first: true });
      expect(await hitOnce(state, hit)).toMatchObject({ within: false, first: false });
      await advance(algorithm === 'window' ? HOUR + 12 * MINUTE + SECOND : 12 * MINUTE + SECOND);
      expect(await hitOnce(state, { ...hit, cost: 2 })).toMatchObject({ within: true, first: false });
      expect(await hitOnce(state, hit)).toMatchObject({ within: false, first: false });
      await advance(3 * HOUR);
      expect(await hitOnce(state, { ...hit, cost: 10 })).toMatchObject({ within: true, first: false });
      expect(await hitOnce(state, hit)).toMatchObject({ within: false, first: true });
    });
  }

  test('also of limits that only warn', async () => {
    const { state } = given();
    const hit = hitOn({ most: 1, enforced: false });
    const firsts: boolean[] = [];
    for (let time = 0; time < 4; time++) firsts.push((await hitOnce(state, hit)).first);
    expect(firsts).toEqual([false, true, false, false]);
  });

  test('one of many that come at once is the first', async () => {
    const { state } = given();
    const hit = hitOn({ most: 5 });
    const results = await Promise.all(Array.from({ length: 40 }, () => hitOnce(state, hit)));
    expect(results.filter(({ first }) => first)).toHaveLength(1);
  });
}

export function counterTests(given: Given): void {
  test('everything of a counter is told', async () => {
    const { state } = given();
    const hit = hitOn({ limit: fresh('limit'), algorithm: 'bucket', most: 7, cost: 3 });
    await hitOnce(state, hit);
    const [counter, ...more] = await state.counters({ limit: hit.limit, count: 5 });
    expect(more).toEqual([]);
    expect(counter?.time).toBeGreaterThan(1_577_836_800_000); // the year 2020
    expect(counter).toMatchObject({
      limit: hit.limit,
      key: hit.key,
      algorithm: 'bucket',
      most: 7,
      periodMs: HOUR,
      used: 3,
      overSince: null,
    });
  });

  test('the fullest first, by share of the limit, and no more than asked for', async () => {
    const { state } = given();
    const limit = fresh('limit');
    for (const [key, cost, most] of [
      ['half', 50, 100],
      ['full', 3, 3],
      ['hardly', 1, 1000],
    ] as const) {
      await hitOnce(state, hitOn({ limit, key, cost, most }));
    }
    const keys = (await state.counters({ limit, count: 9 })).map(({ key }) => key);
    expect(keys).toEqual(['full', 'half', 'hardly']);
    expect((await state.counters({ limit, count: 2 })).map(({ key }) => key)).toEqual(['full', 'half']);
    expect((await state.counters({ limit, key: 'half', count: 9 })).map(({ used }) => used)).toEqual([50]);
  });

  test('those that are over, since when, and no longer', async () => {
    const { state, advance } = given();
    const limit = fresh('limit');
    const over = hitOn({ limit, key: 'over', most: 1 });
    await hitOnce(state, hitOn({ limit, key: 'within' }));
    await hitTimes(state, over, 2);
    const [counter, ...more] = await state.counters({ limit, overOnly: true, count: 9 });
    expect(more).toEqual([]);
    expect(counter?.key).toBe('over');
    expect(counter?.overSince).toBeGreaterThanOrEqual(counter?.time ?? Infinity);
    await advance(3 * HOUR);
    expect(await state.counters({ limit, overOnly: true, count: 9 })).toEqual([]);
  });

  test('what is back to nothing is not told of', async () => {
    const { state, advance } = given();
    const limit = fresh('limit');
    await hitOnce(state, hitOn({ limit, algorithm: 'bucket', cost: 5 }));
    await hitOnce(state, hitOn({ limit, cost: 5 }));
    expect(await state.counters({ limit, count: 9 })).toHaveLength(2);
    await advance(31 * MINUTE);
    expect(await state.counters({ limit, count: 9 })).toHaveLength(1);
    await advance(2 * HOUR);
    expect(await state.counters({ limit, count: 9 })).toEqual([]);
  });

  test('forgetting: one key, one limit, and how many', async () => {
    const { state } = given();
    const limit = fresh('limit');
    const other = fresh('limit');
    const key = fresh('key');
    for (const hit of [
      hitOn({ limit, key }),
      hitOn({ limit }),
      hitOn({ limit }),
      hitOn({ limit: other, key }),
    ]) {
      await hitOnce(state, { ...hit, cost: 10 });
    }
    expect(await state.resetCounters({ limit, key })).toBe(1);
    expect(await hitOnce(state, hitOn({ limit, key }))).toMatchObject({ within: true, used: 1 });
    expect(await state.resetCounters({ limit })).toBe(3);
    expect(await state.counters({ limit, count: 9 })).toEqual([]);
    expect(await state.resetCounters({ key })).toBe(1);
    expect(await state.resetCounters({ limit: fresh('none') })).toBe(0);
  });
}
