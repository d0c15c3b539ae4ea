import { expect, test } from 'vitest';

import { DISTINCT_LIMIT, type Sighting, type Standing, type Tally } from '../../../src/ports/accounts.ts';
import { DAY, fresh, HOUR, MINUTE, SECOND, type Given } from './given.ts';

function seen(subject: string, value: string, kind = 'recipient'): Sighting {
  return { kind, subject, value, windowMs: DAY };
}

export function sightingTests(given: Given): void {
  test('fresh once, and how many are different', async () => {
    const { state } = given();
    const ada = fresh('ada');
    expect(await state.seen([seen(ada, 'x')])).toEqual([{ fresh: true, distinct: 1 }]);
    expect(await state.seen([seen(ada, 'x')])).toEqual([{ fresh: false, distinct: 1 }]);
    expect(await state.seen([seen(ada, 'y')])).toEqual([{ fresh: true, distinct: 2 }]);
    expect(await state.seen([seen(ada, 'x')])).toEqual([{ fresh: false, distinct: 2 }]);
  });

  test('kinds and subjects stay apart', async () => {
    const { state } = given();
    const ada = fresh('ada');
    await state.seen([seen(ada, 'x')]);
    expect(await state.seen([seen(fresh('eve'), 'x'), seen(ada, 'x', 'login-network')])).toEqual([
      { fresh: true, distinct: 1 },
      { fresh: true, distinct: 1 },
    ]);
  });

  test('several in their order, in one step', async () => {
    const { state } = given();
    const ada = fresh('ada');
    const values = ['x', 'y', 'x', 'z'];
    expect(await state.seen(values.map((value) => seen(ada, value)))).toEqual([
      { fresh: true, distinct: 1 },
      { fresh: true, distinct: 2 },
      { fresh: false, distinct: 2 },
      { fresh: true, distinct: 3 },
    ]);
    expect(await state.seen([])).toEqual([]);
  });

  test('a value counts for the window after it was last seen', async () => {
    const { state, advance } = given();
    const ada = fresh('ada');
    await state.seen([seen(ada, 'x'), seen(ada, 'y')]);
    await advance(20 * HOUR);
    expect(await state.seen([seen(ada, 'x')])).toEqual([{ fresh: false, distinct: 2 }]);
    await advance(5 * HOUR);
    expect(await state.seen([seen(ada, 'x')])).toEqual([{ fresh: false, distinct: 1 }]);
    expect(await state.seen([seen(ada, 'y')])).toEqual([{ fresh: true, distinct: 2 }]);
    await advance(2 * DAY);
    expect(await state.seen([seen(ada, 'x')])).toEqual([{ fresh: true, distinct: 1 }]);
  });

  test('no more than so many are kept, the oldest go first', async () => {
    const { state, advance } = given();
    const ada = fresh('ada');
    const note = async (from: number, count: number): Promise<number | undefined> => {
      const results = await state.seen(
        Array.from({ length: count }, (_, index) => seen(ada, `value-${from + index}`)),
      );
      return results.at(-1)?.distinct;
    };
    expect(await note(0, 1)).toBe(1);
    await advance(MINUTE + SECOND);
    expect(await note(1, DISTINCT_LIMIT - 1)).toBe(DISTINCT_LIMIT);
    await advance(MINUTE + SECOND);
    expect(await note(DISTINCT_LIMIT, 1)).toBe(DISTINCT_LIMIT);
    expect(await state.seen([seen(ada, 'value-0')])).toEqual([{ fresh: true, distinct: DISTINCT_LIMIT }]);
    expect(await state.seen([seen(ada, `value-${DISTINCT_LIMIT}`)])).toEqual([
      { fresh: false, distinct: DISTINCT_LIMIT },
    ]);
  });

  test('of many at once, one is fresh', async () => {
    const { state } = given();
    const ada = fresh('ada');
    const answers = await Promise.all(Array.from({ length: 30 }, () => state.seen([seen(ada, 'x')])));
    expect(answers.flat().filter((one) => one.fresh)).toHaveLength(1);
  });
}

export function tallyTests(given: Given): void {
  const START = 1_795_251_600_000;

  test('counts add up, hour by hour, the oldest first', async () => {
    const { state } = given();
    const subject = fresh('ada');
    await state.tally([
      { subject, hour: START + HOUR, counts: { sent: 1 } },
      { subject, hour: START, counts: { sent: 2, 'new-recipients': 5 } },
      { subject: fresh('eve'), hour: START, counts: { sent: 9 } },
    ]);
    await state.tally([{ subject, hour: START, counts: { sent: 3, refused: 1 } }]);
    const both: Tally[] = [
      { subject, hour: START, counts: { sent: 5, 'new-recipients': 5, refused: 1 } },
      { subject, hour: START + HOUR, counts: { sent: 1 } },
    ];
    expect(await state.tallies(subject, 0)).toEqual(both);
    expect(await state.tallies(subject, START)).toEqual(both);
    expect(await state.tallies(subject, START + 1)).toEqual(both.slice(1));
    expect(await state.tallies(fresh('nobody'), 0)).toEqual([]);
    await state.tally([]);
  });

  test('many at once are all counted', async () => {
    const { state } = given();
    const subject = fresh('ada');
    await Promise.all(
      Array.from({ length: 50 }, () => state.tally([{ subject, hour: START, counts: { sent: 2 } }])),
    );
    expect(await state.tallies(subject, 0)).toEqual([{ subject, hour: START, counts: { sent: 100 } }]);
  });
}

function standing(login: string, differs: Partial<Standing> = {}): Standing {
  return {
    login,
    kind: 'slow',
    why: '40 recipients in a minute, usually 3',
    by: 'postern',
    since: 1_795_251_600_000,
    until: null,
    ...differs,
  };
}

export function standingTests(given: Given): void {
  test('is told as it was set, and forgotten with `free`', async () => {
    const { state } = given();
    const login = fresh('ada');
    expect(await state.standing(login)).toBeNull();
    await state.setStanding(standing(login));
    expect(await state.standing(login)).toEqual(standing(login));
    const blocked = standing(login, { kind: 'block', by: 'operator', why: 'ü "quoted"', since: 5 });
    await state.setStanding(blocked);
    expect(await state.standing(login)).toEqual(blocked);
    await state.setStanding(standing(login, { kind: 'observe' }));
    expect((await state.standing(login))?.kind).toBe('observe');
    await state.setStanding(standing(login, { kind: 'free' }));
    expect(await state.standing(login)).toBeNull();
    await state.setStanding(standing(login, { kind: 'free' }));
  });

  test('is raised only by what is more severe', async () => {
    const { state } = given();
    const login = fresh('ada');
    expect(await state.raiseStanding(standing(login, { kind: 'free' }))).toBe(false);
    expect(await state.raiseStanding(standing(login))).toBe(true);
    expect(await state.raiseStanding(standing(login, { why: 'again' }))).toBe(false);
    expect(await state.raiseStanding(standing(login, { kind: 'observe' }))).toBe(false);
    expect(await state.standing(login)).toEqual(standing(login));
    expect(await state.raiseStanding(standing(login, { kind: 'hold' }))).toBe(true);
    expect((await state.standing(login))?.kind).toBe('hold');
  });

  test('one of many that notice at once raises it', async () => {
    const { state } = given();
    const login = fresh('ada');
    const raised = await Promise.all(
      Array.from({ length: 20 }, () => state.raiseStanding(standing(login, { kind: 'hold' }))),
    );
    expect(raised.filter(Boolean)).toHaveLength(1);
  });

  test('lapses by itself, and may then be raised from nothing', async () => {
    const { state, advance } = given();
    const login = fresh('ada');
    // Whatever time the state has: it is what a mailbox that is full now is full since.
    const now = (await state.noteFull(fresh('clock'), true)) ?? 0;
    const block = standing(login, { kind: 'block', until: now + HOUR });
    await state.setStanding(block);
    expect(await state.standing(login)).toEqual(block);
    await advance(HOUR + SECOND);
    expect(await state.standing(login)).toBeNull();
    expect((await state.standings()).map((one) => one.login)).not.toContain(login);
    expect(await state.raiseStanding(standing(login, { kind: 'observe', until: null }))).toBe(true);
    expect((await state.standing(login))?.kind).toBe('observe');
  });

  test('all of them', async () => {
    const { state } = given();
    const [one, two] = [standing(fresh('ada')), standing(fresh('bob'), { kind: 'block', until: 9e15 })];
    await state.setStanding(one);
    await state.setStanding(two);
    const all = await state.standings();
    expect(all).toContainEqual(one);
    expect(all).toContainEqual(two);
  });
}
