import { setTimeout as wait } from 'node:timers/promises';

import { afterAll, beforeAll, expect, it } from 'vitest';

import type { RedisEvents, RedisOptions } from '../../src/adapters/redis-client.ts';
import type { ClusterOptions } from '../../src/adapters/redis-cluster.ts';
import { slotOf } from '../../src/adapters/redis-slots.ts';
import { openRedisState, type RedisState } from '../../src/adapters/state-redis.ts';
import type { Hit } from '../../src/ports/limits.ts';
import { NeighbourError } from '../../src/ports/neighbour-error.ts';
import type { State } from '../../src/ports/state.ts';
import { stateSuite } from '../conformance/state-suite.ts';
import { startRedisCluster, type RedisClusterServers } from '../support/neighbours/redis-cluster.ts';
import { MASTER_NAME, startWatchedRedis, type WatchedRedis } from '../support/neighbours/redis-sentinels.ts';
import { LinkEvents } from '../support/redis-events.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import { PLAIN_REDIS } from '../support/redis-options.ts';

const HOUR = 3_600_000;
const TIMEOUT_MS = 1000;
/** What a call may take on top of its time on a machine that has other things to do. */
const SLACK_MS = 1000;

const common = {
  ...PLAIN_REDIS,
  timeoutMs: 2000,
} satisfies Partial<RedisOptions>;

function throughSentinels({ sentinels }: WatchedRedis): RedisOptions {
  return { ...common, address: { kind: 'sentinel', sentinels, master: MASTER_NAME, password: null } };
}

function throughSeeds({ nodes }: RedisClusterServers): ClusterOptions {
  return { ...common, seeds: nodes.slice(0, 2) };
}

function hit(key: string): Hit {
  return {
    limit: 'messages',
    key,
    algorithm: 'window',
    most: 1_000_000,
    periodMs: HOUR,
    cost: 1,
    enforced: true,
  };
}

/** Between two hits on a key. */
const PACE_MS = 5;

interface Flow {
  readonly counted: ReadonlyMap<string, number>;
  readonly failed: ReadonlyMap<string, number>;
  readonly slowestMs: number;
}

/** Hits that go on, some milliseconds apart, until `until` is settled; each key with what was said to be counted, and what failed. */
async function flow(state: State, keys: readonly string[], until: Promise<unknown>): Promise<Flow> {
  const stop = new AbortController();
  const end = (): void => stop.abort();
  until.then(end, end);
  const counted = new Map<string, number>();
  const failed = new Map<string, number>();
  const calls: Promise<void>[] = [];
  let slowestMs = 0;
  const one = async (key: string): Promise<void> => {
    const begin = performance.now();
    try {
      await state.hit([hit(key)]);
      counted.set(key, (counted.get(key) ?? 0) + 1);
    } catch (error) {
      if (!(error instanceof NeighbourError)) throw error;
      failed.set(key, (failed.get(key) ?? 0) + 1);
    }
    slowestMs = Math.max(slowestMs, performance.now() - begin);
  };
  while (!stop.signal.aborted) {
    calls.push(...keys.map(one));
    await wait(PACE_MS);
  }
  await Promise.all(calls);
  return { counted, failed, slowestMs };
}

/** Nothing twice: no counter has more than what was counted or may have been. */
async function expectNothingTwice(
  state: State,
  keys: readonly string[],
  { counted, failed }: Flow,
): Promise<void> {
  for (const key of keys) {
    const [counter] = await state.counters({ limit: 'messages', key, count: 1 });
    const said = counted.get(key) ?? 0;
    expect(counter?.used ?? 0).toBeLessThanOrEqual(said + (failed.get(key) ?? 0));
    // What an old master said and had not passed on is lost: milliseconds of it.
    expect(counter?.used ?? 0).toBeGreaterThan(said / 2);
  }
}

const suite = (open: (offset: () => number, events: RedisEvents) => Promise<RedisState>) => {
  return async () => {
    let offset = 0;
    const state = await open(() => offset, new LinkEvents());
    return {
      state,
      advance: (ms: number) => {
        offset += ms;
        return Promise.resolve();
      },
      close: async () => {
        await state[Symbol.asyncDispose]();
      },
    };
  };
};

describeWithNeighbours('Redis that Sentinels watch', () => {
  let redis: WatchedRedis;
  beforeAll(async () => {
    redis = await startWatchedRedis();
  });
  afterAll(async () => {
    await redis[Symbol.asyncDispose]();
  });

  stateSuite(
    'through Sentinels',
    suite((offset, events) =>
      openRedisState({ ...throughSentinels(redis), prefix: 'suite:', offset }, events),
    ),
  );

  it('says why when no Sentinel is there, and when none knows the name', async () => {
    for (const [address, why] of [
      [{ sentinels: [{ host: '127.0.0.1', port: 1 }], master: MASTER_NAME }, /All sentinels are unreachable/],
      [{ sentinels: redis.sentinels, master: 'nobody' }, /All sentinels are unreachable/],
    ] as const) {
      const events = new LinkEvents();
      const begin = performance.now();
      await using state = await openRedisState(
        { ...common, address: { kind: 'sentinel', password: null, ...address } },
        events,
      );
      expect(performance.now() - begin).toBeLessThan(1000 + SLACK_MS);
      await expect(state.ping()).rejects.toSatisfy(
        (error: Error) => error.cause instanceof Error && why.test(error.cause.message),
      );
      expect(events.told).toEqual([expect.stringMatching(/^down: /)]);
    }
  });

  it('goes on at the replica when the master dies; nothing is counted twice', async () => {
    const events = new LinkEvents();
    await using state = await openRedisState({ ...throughSentinels(redis), timeoutMs: TIMEOUT_MS }, events);
    const keys = ['ada', 'bob'];
    await state.hit(keys.map(hit));
    const back = events.next('up', 2);
    const flowing = flow(
      state,
      keys,
      back.then(() => wait(200)),
    );
    await redis.master.kill();
    await back;
    const seen = await flowing;
    expect(await redis.masterPort()).toBe(redis.replica.port);
    expect(seen.slowestMs).toBeLessThan(TIMEOUT_MS + SLACK_MS);
    expect(seen.failed.size).toBe(2);
    await state.refund(keys.map(hit));
    await expectNothingTwice(state, keys, seen);
    // The old master comes back as a replica; nobody writes to it.
    await redis.master.restart();
    await expect
      .poll(() => redis.master.command('ROLE'), { timeout: 20_000 })
      .toContain(`${redis.replica.port}`);
    await state.hit([hit('eve')]);
    expect(await state.counters({ key: 'eve', limit: 'messages', count: 1 })).toMatchObject([{ used: 1 }]);
  });
});

describeWithNeighbours('a Redis Cluster', () => {
  let redis: RedisClusterServers;
  beforeAll(async () => {
    redis = await startRedisCluster();
  });
  afterAll(async () => {
    await redis[Symbol.asyncDispose]();
  });

  stateSuite(
    'in a Cluster',
    suite((offset, events) => openRedisState({ ...throughSeeds(redis), prefix: 'suite:', offset }, events)),
  );

  it('knows slots as Redis does', async () => {
    const [node] = redis.masters;
    for (const key of ['123456789', 'postern:limit:{ada}messages', 'a{}b', '{}{a}', 'x{', 'é{ü}', '{a}{b}']) {
      expect([`${slotOf(key)}`]).toEqual(await node?.command('CLUSTER', 'KEYSLOT', key));
    }
  });

  it('gives back what was counted when another slot refuses, however many come at once', async () => {
    await using state = await openRedisState({ ...throughSeeds(redis), prefix: 'refuse:' }, new LinkEvents());
    const shared = { ...hit('all'), most: 30 };
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) => state.hit([hit(`one${index}`), shared])),
    );
    const through = answers.filter((results) => results.every(({ within }) => within));
    expect(through).toHaveLength(30);
    const counters = await state.counters({ count: 1000 });
    expect(counters.reduce((sum, { used }) => sum + used, 0)).toBe(60);
  });

  it('follows a slot that moves, while it moves and after', async () => {
    const [from, to] = redis.masters;
    if (from === undefined || to === undefined) throw new Error('no nodes');
    await using state = await openRedisState({ ...throughSeeds(redis), prefix: 'move:' }, new LinkEvents());
    const key = Array.from({ length: 1000 }, (_, index) => `key${index}`).find(
      (each) => slotOf(`{${each}}`) < 5000,
    );
    if (key === undefined) throw new Error('no key');
    const slot = `${slotOf(`{${key}}`)}`;
    await state.hit([hit(key)]);
    const [[fromId = ''], [toId = '']] = await Promise.all([
      from.command('CLUSTER', 'MYID'),
      to.command('CLUSTER', 'MYID'),
    ]);
    await to.command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId);
    await from.command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId);
    await from.command(
      'MIGRATE',
      to.host,
      `${to.port}`,
      '',
      '0',
      '1000',
      'KEYS',
      `move:limit:{${key}}messages`,
    );
    expect(await state.hit([hit(key)])).toMatchObject([{ used: 2 }]);
    for (const node of [to, from]) await node.command('CLUSTER', 'SETSLOT', slot, 'NODE', toId);
    expect(await state.hit([hit(key)])).toMatchObject([{ used: 3 }]);
    expect(await state.hit([hit(key)])).toMatchObject([{ used: 4 }]);
  });

  it.each([
    ['dies', (server: RedisClusterServers['masters'][number]) => server.kill()],
    ['hangs', (server: RedisClusterServers['masters'][number]) => Promise.resolve(server.freeze())],
  ])('a master that %s: the other slots are served meanwhile, its replica takes over', async (how, away) => {
    const index = how === 'dies' ? 1 : 2;
    const [lost, heir, healthy] = [redis.masters[index], redis.replicas[index], redis.masters[0]];
    if (lost === undefined || heir === undefined || healthy === undefined) throw new Error('no nodes');
    const events = new LinkEvents();
    await using state = await openRedisState(
      { ...throughSeeds(redis), timeoutMs: TIMEOUT_MS, prefix: `${how}:` },
      events,
    );
    const names = Array.from({ length: 1000 }, (_, number) => `key${number}`);
    const third = 16_384 / 3;
    const atLost = names.find((key) => Math.floor(slotOf(`{${key}}`) / third) === index) ?? '';
    const atOther =
      names.find(
        (key) => Math.floor((slotOf(`{${key}}`) - 5000) / third) !== index && slotOf(`{${key}}`) < 4900,
      ) ?? '';
    await state.hit([hit(atLost), hit(atOther)]);
    const back = events.next('up', 2);
    const flowing = flow(
      state,
      [atLost, atOther],
      back.then(() => wait(200)),
    );
    await away(lost);
    await back;
    const seen = await flowing;
    expect(await redis.portOf(healthy, `{${atLost}}`)).toBe(heir.port);
    expect(seen.slowestMs).toBeLessThan(TIMEOUT_MS + SLACK_MS);
    expect(seen.failed.get(atLost)).toBeGreaterThan(0);
    expect(seen.failed.get(atOther)).toBeUndefined();
    await state.refund([hit(atLost), hit(atOther)]);
    await expectNothingTwice(state, [atLost, atOther], seen);
    if (how === 'hangs') lost.thaw();
  });

  it('fails each call in time, and says why, when no node is there', async () => {
    const events = new LinkEvents();
    await using state = await openRedisState({ ...common, seeds: [{ host: '127.0.0.1', port: 1 }] }, events);
    await expect(state.hit([hit('ada')])).rejects.toMatchObject({
      cause: { message: 'no connection: connect ECONNREFUSED 127.0.0.1:1' },
    });
    await expect(state.counters({ count: 1 })).rejects.toBeInstanceOf(NeighbourError);
    await expect(state.ping()).rejects.toBeInstanceOf(NeighbourError);
    expect(events.told).toEqual(['down: connect ECONNREFUSED 127.0.0.1:1']);
  });
});
