import fc from 'fast-check';
import { expect, test } from 'vitest';

import type { Claim, ClaimResult } from '../../../src/ports/quota.ts';
import type { State } from '../../../src/ports/state.ts';
import { DAY, fresh, HOUR, MINUTE, SECOND, type Given } from './given.ts';

function claim(differs: Partial<Claim> = {}): Claim {
  return { mailbox: fresh('bob'), bytes: 10, used: 0, limit: 100, grace: 0, ...differs };
}

async function granted(state: State, trace: string, one: Claim, holdMs = HOUR): Promise<boolean> {
  const [result, ...more] = await state.reserve(trace, [one], holdMs);
  expect(more).toEqual([]);
  if (result === undefined) throw new Error('no result');
  return result.granted;
}

export function reservationTests(given: Given): void {
  test('mail in flight counts as used', async () => {
    const { state } = given();
    const want = claim({ bytes: 40 });
    expect(await state.reserve(fresh('t'), [want], HOUR)).toEqual([{ granted: true, inFlight: 0 }]);
    expect(await state.reserve(fresh('t'), [want], HOUR)).toEqual([{ granted: true, inFlight: 40 }]);
    expect(await state.reserve(fresh('t'), [want], HOUR)).toEqual([{ granted: false, inFlight: 80 }]);
    expect(await granted(state, fresh('t'), { ...want, bytes: 20 })).toBe(true);
    expect(await granted(state, fresh('t'), claim({ bytes: 40 }))).toBe(true);
  });

  const rule: readonly [Partial<Claim>, boolean][] = [
    [{ used: 90, bytes: 10 }, true],
    [{ used: 90, bytes: 11 }, false],
    [{ used: 90, bytes: 15, grace: 5 }, true],
    [{ used: 90, bytes: 16, grace: 5 }, false],
    [{ used: 99, bytes: 6, grace: 5 }, true],
    [{ used: 100, bytes: 0, grace: 5 }, false],
    [{ used: 200, bytes: 1, grace: 500 }, false],
    [{ used: 200, bytes: 999, limit: null }, true],
    [{ limit: 2 ** 45, used: 2 ** 45 - 10, bytes: 10 }, true],
    [{ limit: 2 ** 45, used: 2 ** 45 - 10, bytes: 11 }, false],
  ];

  test.for(rule)('by the rule that Dovecot has: %o is granted: %s', async ([differs, wanted]) => {
    expect(await granted(given().state, fresh('t'), claim(differs))).toBe(wanted);
  });

  test('without a limit it is held all the same', async () => {
    const { state } = given();
    const want = claim({ limit: null, bytes: 500 });
    expect(await state.reserve(fresh('t'), [want], HOUR)).toEqual([{ granted: true, inFlight: 0 }]);
    expect(await state.reserve(fresh('t'), [{ ...want, limit: 100, bytes: 1 }], HOUR)).toEqual([
      { granted: false, inFlight: 500 },
    ]);
  });

  test('each claim for itself, in one step', async () => {
    const { state } = given();
    const [one, two, three] = [claim(), claim({ used: 100 }), claim({ bytes: 100 })];
    expect(await state.reserve(fresh('t'), [one, two, three], HOUR)).toEqual([
      { granted: true, inFlight: 0 },
      { granted: false, inFlight: 0 },
      { granted: true, inFlight: 0 },
    ]);
    expect(await state.reservations(two.mailbox)).toEqual([]);
    expect(await state.reservations(three.mailbox)).toHaveLength(1);
    expect(await state.reserve(fresh('t'), [], HOUR)).toEqual([]);
  });

  test('the real size takes the place of the announced one', async () => {
    const { state } = given();
    const trace = fresh('t');
    const want = claim({ bytes: 10 });
    expect(await granted(state, trace, want)).toBe(true);
    expect(await state.reserve(trace, [{ ...want, bytes: 90 }], HOUR)).toEqual([
      { granted: true, inFlight: 0 },
    ]);
    expect(await granted(state, fresh('t'), { ...want, bytes: 11 })).toBe(false);
    expect(await granted(state, trace, { ...want, bytes: 5 })).toBe(true);
    expect(await granted(state, fresh('t'), { ...want, bytes: 95 })).toBe(true);
  });

  test('when there is no room for the real size, the earlier claim stays', async () => {
    const { state } = given();
    const trace = fresh('t');
    const want = claim({ bytes: 30 });
    await granted(state, trace, want);
    await granted(state, fresh('t'), { ...want, bytes: 60 });
    expect(await state.reserve(trace, [{ ...want, bytes: 41 }], HOUR)).toEqual([
      { granted: false, inFlight: 60 },
    ]);
    const held = await state.reservations(want.mailbox);
    expect(held.map(({ bytes }) => bytes).toSorted((a, b) => a - b)).toEqual([30, 60]);
    expect(await granted(state, fresh('t'), { ...want, bytes: 11 })).toBe(false);
  });

  test('lapse by themselves', async () => {
    const { state, advance } = given();
    const want = claim({ bytes: 100 });
    const trace = fresh('t');
    await granted(state, trace, want, 10 * MINUTE);
    const [held] = await state.reservations(want.mailbox);
    expect(held).toMatchObject({ trace, mailbox: want.mailbox, bytes: 100 });
    await advance(9 * MINUTE);
    expect(await granted(state, fresh('t'), want)).toBe(false);
    await advance(MINUTE + SECOND);
    expect(await state.reservations(want.mailbox)).toEqual([]);
    expect(await granted(state, fresh('t'), want)).toBe(true);
  });

  test('a claim that is made again holds for longer', async () => {
    const { state, advance } = given();
    const want = claim({ bytes: 100 });
    const trace = fresh('t');
    await granted(state, trace, want, 10 * MINUTE);
    await advance(8 * MINUTE);
    await granted(state, trace, want, 10 * MINUTE);
    await advance(8 * MINUTE);
    expect(await granted(state, fresh('t'), want)).toBe(false);
  });

  test('what has arrived lingers for a moment, that mailbox’s alone', async () => {
    const { state, advance } = given();
    const trace = fresh('t');
    const [one, two] = [claim({ bytes: 100 }), claim({ bytes: 100 })];
    await state.reserve(trace, [one, two], HOUR);
    await state.settle(trace, one.mailbox, MINUTE);
    expect(await granted(state, fresh('t'), one)).toBe(false);
    await advance(MINUTE + SECOND);
    expect(await granted(state, fresh('t'), one)).toBe(true);
    expect(await granted(state, fresh('t'), two)).toBe(false);
  });

  test('everything of a message at once', async () => {
    const { state } = given();
    const trace = fresh('t');
    const [one, two] = [claim({ bytes: 100 }), claim({ bytes: 100 })];
    const other = fresh('t');
    await state.reserve(trace, [one, two], HOUR);
    await state.reserve(other, [{ ...one, limit: null }], HOUR);
    await state.settle(trace, null, 0);
    expect((await state.reservations(one.mailbox)).map((held) => held.trace)).toEqual([other]);
    expect(await state.reservations(two.mailbox)).toEqual([]);
  });

  test('to linger never holds anything for longer than it was held', async () => {
    const { state, advance } = given();
    const trace = fresh('t');
    const want = claim({ bytes: 100 });
    await granted(state, trace, want, MINUTE);
    await state.settle(trace, want.mailbox, HOUR);
    await state.settle(trace, null, HOUR);
    await advance(MINUTE + SECOND);
    expect(await granted(state, fresh('t'), want)).toBe(true);
  });

  test('nothing comes of what nobody knows', async () => {
    const { state } = given();
    await state.settle(fresh('t'), null, SECOND);
    await state.settle(fresh('t'), fresh('bob'), SECOND);
    expect(await state.reservations(fresh('bob'))).toEqual([]);
  });

  test('a hundred at once into room for one', async () => {
    const { state } = given();
    const want = claim({ bytes: 10_000_000, used: 85_000_000, limit: 100_000_000 });
    const answers = await Promise.all(Array.from({ length: 100 }, () => granted(state, fresh('t'), want)));
    expect(answers.filter(Boolean)).toHaveLength(1);
  });

  const step = fc.oneof(
    fc.record({
      what: fc.constant('reserve' as const),
      trace: fc.nat({ max: 3 }),
      boxes: fc.uniqueArray(fc.nat({ max: 2 }), { maxLength: 3 }),
      bytes: fc.nat({ max: 60 }),
      used: fc.nat({ max: 110 }),
      limit: fc.constantFrom(100, 100, null),
      grace: fc.constantFrom(0, 10),
      holdMinutes: fc.integer({ min: 1, max: 30 }),
    }),
    fc.record({
      what: fc.constant('settle' as const),
      trace: fc.nat({ max: 3 }),
      box: fc.constantFrom(0, 1, 2, null),
      lingerMinutes: fc.nat({ max: 5 }),
    }),
    fc.record({ what: fc.constant('wait' as const), minutes: fc.integer({ min: 1, max: 20 }) }),
  );

  test('agree with a list kept by hand', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const { state, advance } = given();
        const traces = Array.from({ length: 4 }, () => fresh('t'));
        const boxes = Array.from({ length: 3 }, () => fresh('box'));
        // Half a minute keeps what lapses away from the moments of asking, for time that goes by itself.
        let now = 30 * SECOND;
        let held: { trace: string; mailbox: string; bytes: number; until: number }[] = [];
        const answers: { answer: readonly ClaimResult[]; expected: readonly ClaimResult[] }[] = [];
        const alive = (): typeof held => held.filter(({ until }) => until > now);
        for (const one of steps) {
          if (one.what === 'wait') {
            now += one.minutes * MINUTE;
            await advance(one.minutes * MINUTE);
          } else if (one.what === 'settle') {
            const trace = traces[one.trace] ?? '';
            const mailbox = one.box === null ? null : (boxes[one.box] ?? '');
            await state.settle(trace, mailbox, one.lingerMinutes * MINUTE + SECOND);
            const until = now + one.lingerMinutes * MINUTE + SECOND;
            held = held.map((each) =>
              each.trace === trace && (mailbox === null || each.mailbox === mailbox)
                ? { ...each, until: Math.min(each.until, until) }
                : each,
            );
          } else {
            const trace = traces[one.trace] ?? '';
            const { bytes, used, limit, grace } = one;
            const claims = one.boxes.map((box) => ({ mailbox: boxes[box] ?? '', bytes, used, limit, grace }));
            const expected = claims.map(({ mailbox }) => {
              const inFlight = alive()
                .filter((each) => each.mailbox === mailbox && each.trace !== trace)
                .reduce((sum, each) => sum + each.bytes, 0);
              const full =
                limit !== null && (used + inFlight >= limit || used + inFlight + bytes > limit + grace);
              if (!full) {
                held = held.filter((each) => each.mailbox !== mailbox || each.trace !== trace);
                held.push({ trace, mailbox, bytes, until: now + one.holdMinutes * MINUTE + SECOND });
              }
              return { granted: !full, inFlight };
            });
            const answer = await state.reserve(trace, claims, one.holdMinutes * MINUTE + SECOND);
            answers.push({ answer, expected });
          }
        }
        expect(answers.map(({ answer }) => answer)).toEqual(answers.map(({ expected }) => expected));
        for (const mailbox of boxes) {
          const wanted = alive().filter((each) => each.mailbox === mailbox);
          const listed = await state.reservations(mailbox);
          const short = (all: typeof listed): string[] =>
            all.map(({ trace, bytes }) => `${trace} ${bytes}`).toSorted();
          expect(short(listed)).toEqual(short(wanted));
        }
      }),
      { numRuns: 60 },
    );
  });
}

export function fullTests(given: Given): void {
  test('since when, without a break', async () => {
    const { state, advance } = given();
    const mailbox = fresh('bob');
    expect(await state.noteFull(mailbox, false)).toBeNull();
    const since = await state.noteFull(mailbox, true);
    expect(since).toEqual(expect.any(Number));
    await advance(3 * DAY);
    expect(await state.noteFull(mailbox, true)).toBe(since);
    expect(await state.noteFull(fresh('carol'), true)).toBeGreaterThan(since ?? Infinity);
    expect(await state.noteFull(mailbox, false)).toBeNull();
    expect(await state.noteFull(mailbox, true)).toBeGreaterThanOrEqual((since ?? Infinity) + 3 * DAY);
  });
}
