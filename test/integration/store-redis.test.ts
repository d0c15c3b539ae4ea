import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import type { RedisOptions } from '../../src/adapters/redis-client.ts';
import type { ClusterOptions } from '../../src/adapters/redis-cluster.ts';
import { PART_DECISIONS, SHARDS, shardOf } from '../../src/adapters/redis-history.ts';
import { MAX_WAITING } from '../../src/adapters/redis-recorder.ts';
import { LABELS_PER_USER } from '../../src/adapters/sqlite-labels.ts';
import { MAX_UNDER_WAY, openRedisStore, type RedisStoreOptions } from '../../src/adapters/store-redis.ts';
import type { Decision, Store } from '../../src/ports/store.ts';
import { storeSuite, type StoreUnderTest } from '../conformance/store-suite.ts';
import { decision, FakeClock, MORNING } from '../support/decisions.ts';
import { startRedisCluster, type RedisClusterServers } from '../support/neighbours/redis-cluster.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { StoreEvents } from '../support/store-events.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import { PLAIN_REDIS } from '../support/redis-options.ts';

const TIMEOUT_MS = 250;
/** What a call may take on top of its time on a machine that has other things to do. */
const SLACK_MS = 1000;
const AMPLE_MS = 5000;

const common = {
  ...PLAIN_REDIS,
  timeoutMs: AMPLE_MS,
} satisfies Omit<RedisOptions, 'address'>;

function at(server: RedisServer, differs: Partial<RedisOptions> = {}): RedisOptions {
  return { ...common, address: { kind: 'tcp', host: server.host, port: server.port }, ...differs };
}

function open(
  redis: RedisOptions | ClusterOptions,
  events: StoreEvents,
  differs: Partial<RedisStoreOptions> = {},
  clock = new FakeClock(),
): Promise<Store & AsyncDisposable> {
  return openRedisStore({ redis, host: '', most: 100_000, keepMs: 7_200_000, ...differs }, clock, events);
}

let prefixes = 0;

/** Two daemons on one Redis, in a part of it that nobody had before. */
function suite(redis: () => RedisOptions | ClusterOptions): () => Promise<StoreUnderTest> {
  return async () => {
    const options = { ...redis(), prefix: `suite${(prefixes += 1)}:` };
    const clock = new FakeClock();
    const events = new StoreEvents();
    const store = await open(options, events, {}, clock);
    const other = await open(options, events, {}, clock);
    return {
      store,
      other,
      clock,
      [Symbol.asyncDispose]: async () => {
        await store[Symbol.asyncDispose]();
        await other[Symbol.asyncDispose]();
        expect(events.told).toEqual([]);
      },
    };
  };
}

/** Messages of one shard. */
function neighbours(trace: string, count: number): string[] {
  const found: string[] = [];
  for (let number = 0; found.length < count; number++) {
    if (shardOf(`${trace}${number}`) === shardOf(trace)) found.push(`${trace}${number}`);
  }
  return found;
}

async function recorded(store: Store, decisions: readonly Decision[]): Promise<void> {
  for (const one of decisions) store.record(one);
  await store.flush();
}

async function traces(store: Store, filter: Parameters<Store['history']>[0]): Promise<string[]> {
  return (await store.history(filter)).map(({ trace }) => trace);
}

describeWithNeighbours('the store in Redis', () => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(async () => {
    await server.stop();
  });

  storeSuite(
    'Redis',
    suite(() => at(server)),
  );
});

describeWithNeighbours('the store in a Redis Cluster', () => {
  let redis: RedisClusterServers;
  beforeAll(async () => {
    redis = await startRedisCluster();
  });
  afterAll(async () => {
    await redis[Symbol.asyncDispose]();
  });

  storeSuite(
    'Cluster',
    suite(() => ({ ...common, seeds: redis.nodes.slice(0, 2) })),
  );

  it('spreads the record over all masters', async () => {
    const events = new StoreEvents();
    await using store = await open({ ...common, prefix: 'spread:', seeds: redis.nodes }, events);
    await recorded(
      store,
      Array.from({ length: 200 }, (_, index) => decision({ trace: `spread${index}` })),
    );
    for (const master of redis.masters) {
      const keys = await master.command('KEYS', 'spread:history:*');
      expect(keys.length).toBeGreaterThan(0);
    }
    expect(await store.history({ limit: 1000 })).toHaveLength(200);
  });

  it('records each decision once when a master dies meanwhile', async () => {
    const events = new StoreEvents();
    const options = { ...common, timeoutMs: TIMEOUT_MS, prefix: 'dies:', seeds: redis.nodes };
    await using store = await open(options, events);
    await recorded(store, [decision({ trace: 'before' })]);
    const failed = events.next('failed');
    await redis.masters[1]?.kill();
    for (let number = 0; number < 300; number++) store.record(decision({ trace: `dies${number}` }));
    await failed;
    await expect
      .poll(
        () =>
          store.flush().then(
            () => 'written',
            () => 'not yet',
          ),
        { timeout: 30_000 },
      )
      .toBe('written');
    const found = await traces(store, { limit: 1000 });
    // A master that dies takes along what it had not passed on; nothing is there twice.
    expect(new Set(found).size).toBe(found.length);
    expect(new Set(found.filter((trace) => trace.startsWith('dies'))).size).toBe(300);
  });
});

describeWithNeighbours('the record of several hosts', () => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  beforeEach(async () => {
    await server.command('FLUSHALL');
  });
  afterAll(async () => {
    await server.stop();
  });

  it('says whose each decision is', async () => {
    const events = new StoreEvents();
    await using one = await open(at(server), events, { host: 'mx1.example.org' });
    await using other = await open(at(server), events, { host: 'mx2.example.org' });
    await recorded(one, [decision({ time: MORNING })]);
    await recorded(other, [decision({ time: MORNING + 1 })]);
    for (const store of [one, other]) {
      const hosts = (await store.history({ limit: 10 })).map(({ host }) => host);
      expect(hosts).toEqual(['mx2.example.org', 'mx1.example.org']);
    }
  });

  it('keeps as many as it may, and drops the oldest', async () => {
    await using store = await open(at(server), new StoreEvents(), { most: 2 * PART_DECISIONS * SHARDS });
    const all = neighbours('bounded', 10 * PART_DECISIONS);
    await recorded(
      store,
      all.map((trace, index) => decision({ trace, time: MORNING + index })),
    );
    const kept = await traces(store, { limit: 10_000 });
    expect(kept.length).toBeLessThanOrEqual(2 * PART_DECISIONS);
    expect(kept.length).toBeGreaterThan(PART_DECISIONS);
    expect(kept).toEqual(all.toReversed().slice(0, kept.length));
    const [oldest = ''] = all;
    expect(await traces(store, { trace: oldest, limit: 1 })).toEqual([]);
  });

  it('takes no memory for what is gone', async () => {
    await using store = await open(at(server), new StoreEvents());
    for (const trace of neighbours('gone', 1000)) store.record(decision({ trace }));
    await store.flush();
    await store.label({ message: 'gone1', user: 'bob', label: 'spam', time: MORNING });
    expect(await store.expire(MORNING + 1)).toBe(1000);
    const keys = await server.command('KEYS', '*');
    // What is left: the head of the shard, who wrote last, and how many labels the user has.
    expect(
      keys.filter((key) => !/^postern:(?:history:\{history\.\d+\}(?::w.*)?|labelled:\{bob\})$/.test(key)),
    ).toEqual([]);
  });

  it('finds what is newest, also when it was written late', async () => {
    const events = new StoreEvents();
    await using store = await open(at(server), events);
    const all = neighbours('late', 3 * PART_DECISIONS);
    const sorted = all.map((trace, index) => decision({ trace, time: MORNING + 1000 + index }));
    // Two parts of old ones after the newest.
    await recorded(store, sorted.slice(2 * PART_DECISIONS));
    await recorded(store, sorted.slice(0, 2 * PART_DECISIONS));
    const wanted = sorted.toReversed().map(({ trace }) => trace);
    expect(await traces(store, { limit: 10 })).toEqual(wanted.slice(0, 10));
    expect(await traces(store, { recipient: '@example.org', limit: 10 })).toEqual(wanted.slice(0, 10));
    expect(await traces(store, { limit: 10_000 })).toEqual(wanted);
    expect(await traces(store, { since: MORNING + 1000, until: MORNING + 1010, limit: 100 })).toEqual(
      wanted.slice(-10),
    );
  });

  it('finds a needle', async () => {
    await using store = await open(at(server), new StoreEvents());
    for (let number = 0; number < 4000; number++) {
      store.record(decision({ trace: `hay${number}`, queueId: `Q${number}`, time: MORNING + number }));
    }
    await store.flush();
    const backscatter = { daemon: 'lmtp-filter', reply: '552 5.2.2 full', queueId: 'Q7' } as const;
    await recorded(store, [
      decision({ ...backscatter, trace: 'needle', verdict: 'reject', rule: 'spam.high' }),
    ]);
    expect(await traces(store, { queueId: 'Q7', limit: 10 })).toEqual(['hay7', 'needle']);
    expect(await traces(store, { trace: 'hay3999', limit: 10 })).toEqual(['hay3999']);
    for (const filter of [
      { backscatter: true },
      { rule: 'spam.*' },
      { rule: 'sp*' },
      { verdict: 'reject' },
    ] as const) {
      expect(await traces(store, { ...filter, limit: 10 })).toEqual(['needle']);
    }
  });

  it('keeps no more labels of a user than it may; the oldest go', async () => {
    const surplus = 3;
    await using store = await open(at(server), new StoreEvents());
    const spoken = Array.from({ length: LABELS_PER_USER + surplus }, (_, index) => index);
    for (let from = 0; from < spoken.length; from += 500) {
      const some = spoken.slice(from, from + 500);
      await Promise.all(
        some.map((n) => store.label({ message: `m${n}`, user: 'bob', label: 'ham', time: MORNING + n })),
      );
    }
    await recorded(store, [decision({ trace: `m${surplus - 1}` }), decision({ trace: `m${surplus}` })]);
    const labelled = (await store.history({ limit: 10 })).filter(({ labels = [] }) => labels.length > 0);
    expect(labelled.map(({ trace }) => trace)).toEqual([`m${surplus}`]);
  });

  it('lets what is not asked for any more lapse by itself', async () => {
    const keepMs = 60_000;
    await using store = await open(at(server), new StoreEvents(), { keepMs });
    const keys = { session: '192.0.2.1:25', sender: 'ada@example.com', instance: 'i', queueId: 'Q' };
    await store.joinTrace(keys, 'trace');
    store.keepFacts('trace', 'Q', { direction: 'in', outcomes: [] });
    await store.openTrace({ ...keys, queueId: null }, 'opened');
    await store.flush();
    const all = await server.command('KEYS', 'postern:*');
    expect(all).toHaveLength(3);
    for (const key of all) {
      const [ttl] = await server.command('PTTL', key);
      expect(Number(ttl)).toBeGreaterThan(0);
      expect(Number(ttl)).toBeLessThanOrEqual(key.includes('opened') ? 3_600_000 : keepMs);
      // What a key is named after, and what it holds, are digests.
      expect([key, ...(await server.command('GET', key))].join(' ')).not.toMatch(/ada@|192\.0\.2/);
    }
  });

  it('goes on without Redis: decisions wait and are written once, traces are lost and told of, questions fail', async () => {
    const events = new StoreEvents();
    await using store = await open(at(server, { timeoutMs: TIMEOUT_MS }), events);
    await recorded(store, [decision({ trace: 'before' })]);
    server.freeze();
    const keys = { session: '192.0.2.1:25', sender: 'a@example.com', instance: 'i', queueId: null };
    try {
      const begin = performance.now();
      for (let number = 0; number < 50; number++) store.record(decision({ trace: `frozen${number}` }));
      expect(store.openTrace(keys, 'lost')).toBe('lost');
      expect(performance.now() - begin).toBeLessThan(SLACK_MS);
      await expect(store.joinTrace({ ...keys, queueId: 'Q' }, 'fresh')).rejects.toThrow('redis');
      await expect(store.history({ limit: 1 })).rejects.toThrow('redis');
      expect(performance.now() - begin).toBeLessThan(2 * TIMEOUT_MS + SLACK_MS);
      await Promise.all([events.next('failed'), events.next('traces')]);
    } finally {
      server.thaw();
    }
    await expect
      .poll(
        () =>
          store.flush().then(
            () => 'written',
            () => 'not yet',
          ),
        { timeout: 20_000 },
      )
      .toBe('written');
    // The frozen server may have read the first attempt, and executes it when it goes on.
    expect(await traces(store, { limit: 100 })).toHaveLength(51);
    expect(events.told.filter((word) => word.startsWith('lost'))).toEqual([]);
    expect(events.told.filter((word) => word.startsWith('traces'))).toEqual(['traces 1']);
  });

  it('has so many traces on their way, and no more', async () => {
    const events = new StoreEvents();
    await using store = await open(at(server), events);
    const surplus = 3;
    const keys = { session: '192.0.2.1:25', sender: 'a@example.com', queueId: null };
    server.freeze();
    try {
      for (let number = 0; number < MAX_UNDER_WAY + surplus; number++) {
        await store.openTrace({ ...keys, instance: `i${number}` }, `t${number}`);
      }
      await events.next('traces');
    } finally {
      server.thaw();
    }
    await store.flush();
    expect(events.told).toEqual([`traces ${surplus}`]);
    // Of one session and sender the last are known; the surplus came after them.
    expect(await store.joinTrace({ ...keys, instance: null, queueId: 'Q' }, 'fresh')).toBe(
      `t${MAX_UNDER_WAY - 1}`,
    );
  });

  it('keeps so many decisions while Redis is away, and no more', async () => {
    const events = new StoreEvents();
    const away = at(server, { address: { kind: 'tcp', host: '127.0.0.1', port: 1 } });
    {
      await using store = await open(away, events);
      for (let number = 0; number < MAX_WAITING + 7; number++)
        store.record(decision({ trace: `t${number}` }));
      await events.next('lost');
      expect(events.told).toContain('lost 7');
    }
    expect(events.told.at(-1)).toBe(`lost ${MAX_WAITING}`);
  });

  it('does not wait for ever for decisions that Redis refuses', async () => {
    const events = new StoreEvents();
    await using store = await open(at(server), events);
    await server.command('SET', `postern:history:{history.${shardOf('refused')}}`, 'not ours');
    const told = events.next('lost');
    for (const trace of ['refused', 'with it', 'and after']) store.record(decision({ trace }));
    await told;
    expect(events.told).toEqual(['failed', 'failed', 'lost 1']);
    await recorded(store, [decision({ trace: 'later' })]);
    expect(new Set(['refused', 'with it', 'and after', 'later'].map(shardOf)).size).toBe(4);
    for (const trace of ['with it', 'and after', 'later']) {
      expect(await traces(store, { trace, limit: 2 })).toEqual([trace]);
    }
  });

  it('writes what waited as soon as Redis is there again', async () => {
    const events = new StoreEvents();
    await using own = await startRedis();
    await using store = await open(at(own, { timeoutMs: TIMEOUT_MS, longestBackoffMs: 50 }), events);
    await own.kill();
    store.record(decision({ trace: 'waits' }));
    // By now the next attempt would be made in more than a second.
    for (let attempt = 0; attempt < 3; attempt++) await events.next('failed');
    await own.restart();
    const begin = performance.now();
    await expect.poll(() => traces(store, { limit: 1 }).catch(() => [])).toEqual(['waits']);
    expect(performance.now() - begin).toBeLessThan(1000);
  });

  it('says so when Redis holds something else', async () => {
    await using store = await open(at(server), new StoreEvents());
    await recorded(store, [decision({ trace: 'ours' })]);
    await server.command('LSET', `postern:history:{history.${shardOf('ours')}}:1`, '0', '{"not":"ours"}');
    await expect(store.history({ limit: 1 })).rejects.toSatisfy(
      (error: Error) => error.cause instanceof Error && error.cause.message.includes('no script of ours'),
    );
  });
});
