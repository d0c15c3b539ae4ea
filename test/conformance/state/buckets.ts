import fc from 'fast-check';
import { expect, test } from 'vitest';

import { DAY, fresh, HOUR, MINUTE, SECOND, type Given } from './given.ts';
import { hitOn, hitOnce, hitTimes } from './hits.ts';

export function bucketTests(given: Given): void {
  test('holds so much, and is refilled evenly', async () => {
    const { state, advance } = given();
    const hit = hitOn({ algorithm: 'bucket', most: 6 });
    expect(await hitTimes(state, hit, 7)).toEqual([true, true, true, true, true, true, false]);
    await advance(10 * MINUTE);
    expect(await hitTimes(state, hit, 2)).toEqual([true, false]);
    await advance(25 * MINUTE);
    expect(await hitTimes(state, hit, 3)).toEqual([true, true, false]);
    await advance(5 * MINUTE);
    // Half a token was left over.
    expect(await hitTimes(state, hit, 2)).toEqual([true, false]);
  });

  test('never holds more than its size', async () => {
    const { state, advance } = given();
    const hit = hitOn({ algorithm: 'bucket', most: 4 });
    await hitOnce(state, hit);
    await advance(10 * DAY);
    expect(await hitTimes(state, hit, 5)).toEqual([true, true, true, true, false]);
  });

  test('retryMs is when there is room, and not before', async () => {
    const { state, advance } = given();
    const hit = hitOn({ algorithm: 'bucket', most: 7 });
    await hitOnce(state, { ...hit, cost: 7 });
    const { retryMs } = await hitOnce(state, { ...hit, cost: 3 });
    expect(retryMs).toBeGreaterThan((HOUR * 3) / 7 - 5 * SECOND);
    expect(retryMs).toBeLessThanOrEqual(Math.ceil((HOUR * 3) / 7));
    await advance(retryMs - 5 * SECOND);
    const later = await hitOnce(state, { ...hit, cost: 3 });
    expect(later.within).toBe(false);
    await advance(later.retryMs);
    expect(await hitOnce(state, { ...hit, cost: 3 })).toMatchObject({ within: true, retryMs: 0 });
  });

  test('what is more than the bucket holds never has room', async () => {
    const { state } = given();
    const hit = hitOn({ algorithm: 'bucket', cost: 11 });
    expect(await hitOnce(state, hit)).toMatchObject({ within: false, used: 0, retryMs: HOUR });
  });

  test('one that only warns may be overdrawn, and takes the longer to fill', async () => {
    const { state, advance } = given();
    const hit = hitOn({ algorithm: 'bucket', most: 2, enforced: false });
    expect(await hitTimes(state, hit, 4)).toEqual([true, true, false, false]);
    await advance(HOUR + SECOND);
    expect(await hitTimes(state, hit, 1)).toEqual([false]);
    await advance(HOUR + SECOND);
    expect(await hitTimes(state, hit, 1)).toEqual([true]);
  });

  test('agrees with one filled by hand', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 20 }),
        fc.array(
          fc.record({
            waitMinutes: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 90 })),
            cost: fc.integer({ min: 0, max: 8 }),
            enforced: fc.boolean(),
          }),
          { minLength: 1, maxLength: 25 },
        ),
        async (most, steps) => {
          const { state, advance } = given();
          const key = fresh('model');
          let usedBy60 = 0; // in sixtieths: what `most` in an hour makes in a minute
          for (const { waitMinutes, cost, enforced } of steps) {
            await advance(waitMinutes * MINUTE);
            usedBy60 = Math.max(0, usedBy60 - waitMinutes * most);
            const result = await hitOnce(state, hitOn({ algorithm: 'bucket', key, most, cost, enforced }));
            const room = most * 60 - usedBy60 - cost * 60;
            // As above, for what is nearly there.
            expect((room < 0 && room > -3) || result.within === room >= 0).toBe(true);
            if (result.within || !enforced) usedBy60 += cost * 60;
            expect(Math.abs(result.used - usedBy60 / 60)).toBeLessThan(1.05);
            expect(Number.isInteger(result.used)).toBe(true);
            expect(result.retryMs > 0).toBe(!result.within);
          }
        },
      ),
      { numRuns: 40 },
    );
  });
}
