import { expect, test } from 'vitest';

import type { GreylistTimes, Triplet } from '../../../src/ports/greylist.ts';
import { DAY, fresh, HOUR, MINUTE, SECOND, type Given, type StateUnderTest } from './given.ts';

const TIMES: GreylistTimes = {
  delayMs: 5 * MINUTE,
  windowMs: 2 * DAY,
  ageMs: 30 * DAY,
  clientPasses: 3,
};

function triplet(differs: Partial<Triplet> = {}): Triplet {
  return { network: fresh('network'), sender: 'ada@example.com', recipient: 'bob@example.org', ...differs };
}

async function pass(given: StateUnderTest, who: Triplet, times = TIMES): Promise<void> {
  expect(await given.state.greylist(who, times)).toMatchObject({ kind: 'wait', first: true });
  await given.advance(times.delayMs);
  expect(await given.state.greylist(who, times)).toMatchObject({ kind: 'passed' });
}

export function greylistTests(given: Given): void {
  test('waits, passes, and is known', async () => {
    const { state, advance } = given();
    const who = triplet();
    expect(await state.greylist(who, TIMES)).toEqual({ kind: 'wait', first: true, remainingMs: 5 * MINUTE });
    await advance(6 * MINUTE);
    const answer = await state.greylist(who, TIMES);
    if (answer.kind !== 'passed') throw new Error(`passed, not ${answer.kind}`);
    expect(answer.waitedMs).toBeGreaterThanOrEqual(6 * MINUTE);
    expect(answer.waitedMs).toBeLessThan(6 * MINUTE + 10 * SECOND);
    expect(await state.greylist(who, TIMES)).toEqual({ kind: 'known' });
    expect(await state.greylist(who, TIMES)).toEqual({ kind: 'known' });
  });

  test('retries within the delay wait on, and do not start it anew', async () => {
    const { state, advance } = given();
    const who = triplet();
    await state.greylist(who, TIMES);
    for (let minute = 1; minute < 5; minute++) {
      await advance(MINUTE);
      const answer = await state.greylist(who, TIMES);
      if (answer.kind !== 'wait') throw new Error(`wait, not ${answer.kind}`);
      expect(answer.first).toBe(false);
      expect(answer.remainingMs).toBeLessThanOrEqual((5 - minute) * MINUTE);
      expect(answer.remainingMs).toBeGreaterThan((5 - minute) * MINUTE - 10 * SECOND);
    }
    await advance(MINUTE);
    expect(await state.greylist(who, TIMES)).toMatchObject({ kind: 'passed' });
  });

  test('network, sender and recipient each make another triplet', async () => {
    const { state, advance } = given();
    const who = triplet({ sender: '' });
    await pass(given(), who);
    await advance(MINUTE);
    for (const differs of [
      { network: fresh('n') },
      { sender: 'x@example.com' },
      { recipient: 'c@example.org' },
    ]) {
      expect(await state.greylist({ ...who, ...differs }, TIMES)).toMatchObject({
        kind: 'wait',
        first: true,
      });
    }
    // No part flows into the next.
    const joined = { network: who.network, sender: 'a', recipient: 'bc' };
    await state.greylist(joined, TIMES);
    expect(await state.greylist({ ...joined, sender: 'ab', recipient: 'c' }, TIMES)).toMatchObject({
      first: true,
    });
  });

  test('a retry after the window is a first attempt', async () => {
    const { state, advance } = given();
    const who = triplet();
    await state.greylist(who, TIMES);
    await advance(2 * DAY + MINUTE);
    expect(await state.greylist(who, TIMES)).toMatchObject({ kind: 'wait', first: true });
    await advance(2 * DAY - MINUTE);
    expect(await state.greylist(who, TIMES)).toMatchObject({ kind: 'passed' });
  });

  test('one that passed is remembered from its last message on', async () => {
    const { state, advance } = given();
    const who = triplet();
    await pass(given(), who);
    await advance(29 * DAY);
    expect(await state.greylist(who, TIMES)).toEqual({ kind: 'known' });
    await advance(29 * DAY);
    expect(await state.greylist(who, TIMES)).toEqual({ kind: 'known' });
    await advance(30 * DAY + HOUR);
    expect(await state.greylist(who, TIMES)).toMatchObject({ kind: 'wait', first: true });
  });

  test('a network that passed often enough is known, with any sender', async () => {
    const { state, advance } = given();
    const { network } = triplet();
    await pass(given(), triplet({ network, sender: 'a@example.com' }));
    await pass(given(), triplet({ network, sender: 'b@example.com' }));
    // One triplet counts once.
    expect(await state.greylist(triplet({ network, sender: 'b@example.com' }), TIMES)).toEqual({
      kind: 'known',
    });
    await pass(given(), triplet({ network, sender: 'c@example.com' }));
    expect(await state.greylist(triplet({ network, sender: 'd@example.com' }), TIMES)).toEqual({
      kind: 'client',
    });
    expect(await state.greylist(triplet({ sender: 'd@example.com' }), TIMES)).toMatchObject({ kind: 'wait' });
    // It is remembered from its last message on, too.
    await advance(29 * DAY);
    expect(await state.greylist(triplet({ network, sender: 'e@example.com' }), TIMES)).toEqual({
      kind: 'client',
    });
    await advance(29 * DAY);
    expect(await state.greylist(triplet({ network, sender: 'f@example.com' }), TIMES)).toEqual({
      kind: 'client',
    });
    await advance(30 * DAY + HOUR);
    expect(await state.greylist(triplet({ network, sender: 'g@example.com' }), TIMES)).toMatchObject({
      first: true,
    });
  });

  test('no network is known when none shall be', async () => {
    const { state } = given();
    const { network } = triplet();
    const never = { ...TIMES, clientPasses: 0 };
    for (const sender of ['a', 'b', 'c', 'd']) await pass(given(), triplet({ network, sender }), never);
    expect(await state.greylist(triplet({ network, sender: 'e' }), never)).toMatchObject({ kind: 'wait' });
  });

  test('of many at once, one is the first attempt, and later one the pass', async () => {
    const { state, advance } = given();
    const who = triplet();
    const many = (): Promise<readonly string[]> =>
      Promise.all(
        Array.from({ length: 20 }, async () => {
          const answer = await state.greylist(who, TIMES);
          return answer.kind === 'wait' && answer.first ? 'first' : answer.kind;
        }),
      );
    expect((await many()).toSorted()).toEqual(['first', ...Array<string>(19).fill('wait')]);
    await advance(5 * MINUTE);
    expect((await many()).toSorted()).toEqual([...Array<string>(19).fill('known'), 'passed']);
  });
}

export function correspondentTests(given: Given): void {
  test('whom our users wrote to may answer at once, to them alone', async () => {
    const { state } = given();
    const local = `${fresh('bob')}@example.org`;
    await state.correspond([{ local, remote: 'ada@example.com' }], DAY);
    expect(await state.greylist(triplet({ recipient: local }), TIMES)).toEqual({ kind: 'correspondent' });
    expect(await state.greylist(triplet({ recipient: 'carol@example.org' }), TIMES)).toMatchObject({
      kind: 'wait',
    });
    expect(
      await state.greylist(triplet({ recipient: local, sender: 'eve@example.com' }), TIMES),
    ).toMatchObject({
      kind: 'wait',
    });
  });

  test('for so long after the last time', async () => {
    const { state, advance } = given();
    const local = `${fresh('bob')}@example.org`;
    const pair = { local, remote: 'ada@example.com' };
    await state.correspond([pair, { local, remote: 'x@example.com' }], 10 * DAY);
    await advance(8 * DAY);
    await state.correspond([pair], 10 * DAY);
    await advance(9 * DAY);
    expect(await state.greylist(triplet({ recipient: local }), TIMES)).toEqual({ kind: 'correspondent' });
    expect(await state.greylist(triplet({ recipient: local, sender: 'x@example.com' }), TIMES)).toMatchObject(
      {
        kind: 'wait',
      },
    );
    await advance(DAY + HOUR);
    expect(await state.greylist(triplet({ recipient: local }), TIMES)).toMatchObject({ kind: 'wait' });
  });

  test('none at all', async () => {
    await expect(given().state.correspond([], DAY)).resolves.toBeUndefined();
  });
}
