import { describe, expect, it } from 'vitest';

import { BrokeOff, NeighbourPool, type PoolOptions } from '../../../src/adapters/neighbour-pool.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';

const DOWN = new NeighbourError('down');

interface Rig {
  readonly pool: NeighbourPool<string>;
  /** `name:up` and `name:down`, as they were told. */
  readonly told: string[];
  /** Milliseconds pass. */
  readonly pass: (ms: number) => void;
}

function rig(members: readonly string[], values: Partial<PoolOptions> = {}): Rig {
  let now = 0;
  const told: string[] = [];
  const changed = (place: number, works: boolean): void =>
    void told.push(`${members[place]}:${works ? 'up' : 'down'}`);
  const options = { perMember: 1, waiting: 10, changed, ...values };
  const pool = new NeighbourPool(members, options, { now: () => now, elapsed: () => now });
  return { pool, told, pass: (ms) => void (now += ms) };
}

function never(): AbortSignal {
  return new AbortController().signal;
}

/** Holds its member until told to end. */
function held(pool: NeighbourPool<string>): {
  readonly member: Promise<string>;
  readonly end: () => void;
  readonly fail: (error: Error) => void;
  readonly result: Promise<string>;
} {
  const asked = Promise.withResolvers<string>();
  const ended = Promise.withResolvers<string>();
  const result = pool.run((member) => {
    asked.resolve(member);
    return ended.promise;
  }, never());
  return { member: asked.promise, end: () => ended.resolve('done'), fail: ended.reject, result };
}

/** Asks once; with the members that were asked. */
async function ask(
  pool: NeighbourPool<string>,
  failing: readonly string[] = [],
): Promise<{ asked: string[]; error: unknown }> {
  const asked: string[] = [];
  const work = (member: string): Promise<string> => {
    asked.push(member);
    return failing.includes(member) ? Promise.reject(DOWN) : Promise.resolve(member);
  };
  const error = await pool.run(work, never()).then(
    () => null,
    (reason: unknown) => reason,
  );
  return { asked, error };
}

describe('whom a pool asks', () => {
  it('is each in turn, when all have nothing to do', async () => {
    const { pool } = rig(['a', 'b', 'c']);
    const asked = [await ask(pool), await ask(pool), await ask(pool), await ask(pool)];
    expect(asked.map((each) => each.asked)).toEqual([['a'], ['b'], ['c'], ['a']]);
  });

  it('is the one with the least to do', async () => {
    const { pool } = rig(['a', 'b'], { perMember: 3 });
    const busy = [held(pool), held(pool), held(pool)];
    expect(await Promise.all(busy.map(({ member }) => member))).toEqual(['a', 'b', 'a']);
    expect((await ask(pool)).asked).toEqual(['b']);
    expect((await ask(pool)).asked).toEqual(['b']);
    for (const { end } of busy) end();
    await Promise.all(busy.map(({ result }) => result));
  });

  it('is the next one when one fails, and each once', async () => {
    const { pool, told } = rig(['a', 'b', 'c']);
    expect(await ask(pool, ['a', 'b'])).toEqual({ asked: ['a', 'b', 'c'], error: null });
    expect(told).toEqual(['a:down', 'b:down']);
    const all = await ask(pool, ['a', 'b', 'c']);
    expect(all.asked.toSorted()).toEqual(['a', 'b', 'c']);
    expect(all.error).toMatchObject({ message: 'all 3 failed, the last one', cause: DOWN });
  });

  it('is nobody else when one broke off in the middle, and that one rests', async () => {
    const { pool, told } = rig(['a', 'b']);
    const asked: string[] = [];
    const error = new BrokeOff('half of it was given');
    const work = (member: string): Promise<never> => {
      asked.push(member);
      return Promise.reject(error);
    };
    await expect(pool.run(work, never())).rejects.toBe(error);
    expect(asked).toEqual(['a']);
    expect(told).toEqual(['a:down']);
    expect((await ask(pool)).asked).toEqual(['b']);
    expect((await ask(pool)).asked).toEqual(['b']);
  });

  it('is nobody else when there is one, whose own error it gives', async () => {
    const { pool } = rig(['a']);
    expect(await ask(pool, ['a'])).toEqual({ asked: ['a'], error: DOWN });
    expect(await ask(pool, [])).toEqual({ asked: ['a'], error: null });
  });

  it('is not one that failed, until its rest is over, twice as long each time', async () => {
    const { pool, told, pass } = rig(['a', 'b']);
    await ask(pool, ['a']);
    for (let i = 0; i < 3; i++) expect((await ask(pool)).asked).toEqual(['b']);
    pass(999);
    expect((await ask(pool)).asked).toEqual(['b']);
    pass(1);
    expect((await ask(pool, ['a'])).asked).toEqual(['a', 'b']);
    pass(1999);
    expect((await ask(pool)).asked).toEqual(['b']);
    pass(1);
    expect((await ask(pool)).asked).toEqual(['a']);
    expect(told).toEqual(['a:down', 'a:up']);
  });

  it('rests half a minute at most', async () => {
    const { pool, pass } = rig(['a', 'b']);
    for (let i = 0; i < 20; i++) {
      await ask(pool, ['a']);
      pass(30_000);
    }
    expect((await ask(pool)).asked).toEqual(['a']);
  });

  it('is one that rests when all do', async () => {
    const { pool } = rig(['a', 'b']);
    await ask(pool, ['a', 'b']);
    expect((await ask(pool)).error).toBeNull();
  });

  it('is not changed by an error that is not the member’s', async () => {
    const { pool, told } = rig(['a', 'b']);
    const broken = new TypeError('the spool file is gone');
    await expect(pool.run(() => Promise.reject(broken), never())).rejects.toBe(broken);
    expect(told).toEqual([]);
  });

  it('is nobody once the signal has aborted, and that is nobody’s failure', async () => {
    const { pool, told } = rig(['a', 'b']);
    await expect(pool.run(() => Promise.resolve(1), AbortSignal.abort())).rejects.toThrow(NeighbourError);
    const controller = new AbortController();
    const asked: string[] = [];
    const run = pool.run((member) => {
      asked.push(member);
      controller.abort();
      return Promise.reject(DOWN);
    }, controller.signal);
    await expect(run).rejects.toBe(DOWN);
    expect([asked, told]).toEqual([['a'], []]);
  });
});

describe('waiting for a pool', () => {
  it('lasts until there is room, first come first served', async () => {
    const { pool } = rig(['a']);
    const first = held(pool);
    const order: number[] = [];
    const later = [1, 2].map((number) => pool.run(() => Promise.resolve(order.push(number)), never()));
    first.end();
    await Promise.all(later);
    expect(order).toEqual([1, 2]);
  });

  it('is for one that works, not for one that rests', async () => {
    const { pool } = rig(['a', 'b']);
    await ask(pool, ['a']);
    const first = held(pool);
    expect(await first.member).toBe('b');
    const second = ask(pool);
    first.end();
    expect((await second).asked).toEqual(['b']);
  });

  it('ends for all when the last one that worked fails: those that rest are asked again', async () => {
    const { pool } = rig(['a', 'b'], { perMember: 2 });
    await ask(pool, ['a']);
    const busy = [held(pool), held(pool)];
    expect(await Promise.all(busy.map(({ member }) => member))).toEqual(['b', 'b']);
    const waiting = [held(pool), held(pool)];
    busy[0]?.fail(DOWN);
    // Nobody has ended: both found room at once.
    expect((await Promise.all(waiting.map(({ member }) => member))).length).toBe(2);
    busy[1]?.end();
    for (const { end } of waiting) end();
    await Promise.allSettled([...busy, ...waiting].map(({ result }) => result));
  });

  it('is given up with the signal, and leaves the place to others', async () => {
    const { pool } = rig(['a'], { waiting: 2 });
    const first = held(pool);
    const controller = new AbortController();
    const given = pool.run(() => Promise.resolve('never'), controller.signal);
    const other = pool.run(() => Promise.resolve('mine'), never());
    controller.abort(new Error('deadline'));
    await expect(given).rejects.toMatchObject({
      message: 'given up while waiting for its turn',
      cause: new Error('deadline'),
    });
    first.end();
    expect(await other).toBe('mine');
  });

  it('is for no more than so many', async () => {
    const { pool } = rig(['a'], { waiting: 2 });
    const first = held(pool);
    const waiting = [1, 2].map(() => pool.run(() => Promise.resolve(1), never()));
    await expect(pool.run(() => Promise.resolve(1), never())).rejects.toThrow(
      '1 requests are under way and 2 wait already',
    );
    first.end();
    expect(await Promise.all(waiting)).toEqual([1, 1]);
  });
});

describe('a probe', () => {
  it('asks all of them, busy or resting, and says who works', async () => {
    const { pool, told } = rig(['a', 'b', 'c']);
    const busy = held(pool);
    const asked: string[] = [];
    await pool.probe((member) => {
      asked.push(member);
      return member === 'b' ? Promise.reject(DOWN) : Promise.resolve();
    });
    expect([asked, told]).toEqual([['a', 'b', 'c'], ['b:down']]);
    await pool.probe(() => Promise.resolve());
    expect(told).toEqual(['b:down', 'b:up']);
    busy.end();
    await busy.result;
  });

  it('fails when none answers', async () => {
    await expect(rig(['a', 'b']).pool.probe(() => Promise.reject(DOWN))).rejects.toBe(DOWN);
    await expect(rig(['a']).pool.probe(() => Promise.reject(new Error('x')))).rejects.toMatchObject({
      name: 'NeighbourError',
      cause: new Error('x'),
    });
  });
});
