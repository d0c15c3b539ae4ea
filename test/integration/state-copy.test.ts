import { once } from 'node:events';

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import type { RedisOptions } from '../../src/adapters/redis-client.ts';
import type { ClusterOptions } from '../../src/adapters/redis-cluster.ts';
import { openRedisState, type RedisState } from '../../src/adapters/state-redis.ts';
import { openSqliteState, type SqliteState } from '../../src/adapters/state-sqlite.ts';
import { systemClock } from '../../src/cli/clock.ts';
import { copyState } from '../../src/cli/store-copy.ts';
import type { Hit } from '../../src/ports/limits.ts';
import type { StateContents } from '../../src/ports/state-entries.ts';
import { privateFolder, type PrivateFolder } from '../support/neighbours/folder.ts';
import { startRedisCluster, type RedisClusterServers } from '../support/neighbours/redis-cluster.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { LinkEvents } from '../support/redis-events.ts';
import { contentsOf, countKinds, entriesOf, FILLED, fillState } from '../support/state-contents.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import { PLAIN_REDIS } from '../support/redis-options.ts';

const HOUR = 3_600_000;

const common = {
  ...PLAIN_REDIS,
  timeoutMs: 5000,
} satisfies Partial<RedisOptions>;

/** A clock that is ahead of the machine's by what the states were moved on: both kinds of state then agree about the time. */
class AheadClock {
  ms = 0;

  now(): number {
    return systemClock.now() + this.ms;
  }

  elapsed(): number {
    return systemClock.elapsed() + this.ms;
  }
}

function hit(key: string, cost = 1): Hit {
  return {
    limit: 'per-login',
    key,
    algorithm: 'window',
    most: 1_000_000,
    periodMs: HOUR,
    cost,
    enforced: true,
  };
}

function totals(counts: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries(counts);
}

/** What must hold of any Redis. */
function roundTrip(open: (offset: () => number) => Promise<RedisState>, forget: () => Promise<void>): void {
  let clock: AheadClock;
  let folder: PrivateFolder;
  beforeEach(async () => {
    clock = new AheadClock();
    await forget();
    folder = await privateFolder('state-copy');
    return () => folder[Symbol.asyncDispose]();
  });
  const openFile = (name: string): Promise<SqliteState> => openSqliteState(folder.join(name), clock);
  const openRedis = (): Promise<RedisState> => open(() => clock.ms);
  const advance = (ms: number): Promise<void> => {
    clock.ms += ms;
    return Promise.resolve();
  };
  const fill = async (state: SqliteState | RedisState): Promise<void> =>
    fillState(state, { word: 'word', now: await state.now(), advance });

  it('from SQLite to Redis and back: each entry is the same to the last digit', async () => {
    await using first = await openFile('first');
    await using redis = await openRedis();
    await using last = await openFile('last');
    await fill(first);
    const there = await copyState(first, redis, 'refuse');
    if (there.kind !== 'copied') throw new Error('refused');
    expect(totals(there.made)).toEqual(FILLED);
    expect([there.changed.size, there.same.size, there.kept.size, there.removed.size]).toEqual([0, 0, 0, 0]);
    expect(await contentsOf(redis)).toEqual(await contentsOf(first));
    const back = await copyState(redis, last, 'refuse');
    if (back.kind !== 'copied') throw new Error('refused');
    expect(totals(back.made)).toEqual(FILLED);
    expect(await contentsOf(last)).toEqual(await contentsOf(first));
  });

  it('from Redis to SQLite: what was begun there goes on here', async () => {
    await using redis = await openRedis();
    await using file = await openFile('state');
    await fill(redis);
    await copyState(redis, file, 'refuse');
    expect(countKinds(await entriesOf(file))).toEqual(FILLED);
    const times = { delayMs: 300_000, windowMs: 48 * HOUR, ageMs: 720 * HOUR, clientPasses: 3 };
    const triplet = { sender: 'ada-0@example.org', recipient: 'bob-0@example.org' };
    expect(await file.greylist({ network: 'word/0', ...triplet }, times)).toEqual({ kind: 'known' });
    expect(await file.greylist({ network: 'word/9', ...triplet }, times)).toMatchObject({ kind: 'wait' });
    const limit = { ...hit('word-3@example.org', 6), limit: 'word.window', most: 10 };
    expect(await file.hit([limit, { ...limit, cost: 1 }])).toMatchObject([
      { within: true },
      { within: false },
    ]);
    const claim = { mailbox: 'word-box-2@example.org', bytes: 1, used: 0, limit: null, grace: 0 };
    expect(await file.reserve('other', [claim], HOUR)).toEqual([{ granted: true, inFlight: 4006 }]);
  });

  it('what lapses at the source lapses at the target, at the same time', async () => {
    await using file = await openFile('state');
    await using redis = await openRedis();
    await fill(file);
    await copyState(file, redis, 'refuse');
    for (const ms of [3 * HOUR, 30 * HOUR, 700 * HOUR, 40 * 24 * HOUR]) {
      await advance(ms);
      expect(await lasting(redis)).toEqual(await lasting(file));
    }
    // A standing without end.
    expect(await lasting(redis)).toHaveLength(1);
  });

  it('twice does nothing; and again, when the source went on, takes over what is new', async () => {
    await using file = await openFile('state');
    await using redis = await openRedis();
    await fill(file);
    await copyState(file, redis, 'refuse');
    const again = await copyState(file, redis, 'refuse');
    if (again.kind !== 'copied') throw new Error('refused');
    expect(totals(again.same)).toEqual(FILLED);
    expect([again.made.size, again.changed.size]).toEqual([0, 0]);

    await file.hit([hit('new'), { ...hit('word-0@example.org'), limit: 'word.window', most: 10 }]);
    const third = await copyState(file, redis, 'refuse');
    if (third.kind !== 'copied') throw new Error('refused');
    expect([totals(third.made), totals(third.changed)]).toEqual([{ counter: 1 }, { counter: 1 }]);
    expect(await contentsOf(redis)).toEqual(await contentsOf(file));
  });

  it('refuses where there is newer or other state; keeps it, or replaces it, when told to', async () => {
    await using file = await openFile('state');
    await using redis = await openRedis();
    await fill(file);
    await copyState(file, redis, 'refuse');
    await advance(1000);
    await redis.hit([{ ...hit('word-0@example.org'), limit: 'word.window', most: 10 }, hit('other')]);
    await redis.setStanding({
      login: 'mallory',
      kind: 'block',
      why: '',
      by: 'operator',
      since: 1,
      until: null,
    });
    const before = await lasting(redis);
    const refused = await copyState(file, redis, 'refuse');
    if (refused.kind !== 'refused') throw new Error('not refused');
    expect(totals(refused.newer)).toEqual({ counter: 1 });
    expect(totals(refused.others)).toEqual({ counter: 1, standing: 1 });
    expect(await lasting(redis)).toEqual(before);

    await file.hit([hit('new')]);
    const merged = await copyState(file, redis, 'merge');
    if (merged.kind !== 'copied') throw new Error('refused');
    expect([totals(merged.made), totals(merged.kept)]).toEqual([{ counter: 1 }, { counter: 1 }]);
    expect(await lasting(redis)).toHaveLength(before.length + 1);

    const replaced = await copyState(file, redis, 'replace');
    if (replaced.kind !== 'copied') throw new Error('refused');
    expect([totals(replaced.changed), totals(replaced.removed)]).toEqual([
      { counter: 1 },
      { counter: 1, standing: 1 },
    ]);
    expect(await lasting(redis)).toEqual(await lasting(file));
  });

  it('more than fits into one call, with sets and mailboxes that hold many', async () => {
    await using file = await openFile('state');
    await using redis = await openRedis();
    await using back = await openFile('back');
    for (let group = 0; group < 30; group++) {
      await file.hit(Array.from({ length: 50 }, (_, index) => hit(`key-${group}-${index}`)));
    }
    for (let from = 0; from < 1300; from += 100) {
      const numbers = Array.from({ length: 100 }, (_, index) => from + index);
      await file.seen(
        numbers.map((number) => ({
          kind: 'recipient',
          subject: 'ada',
          value: `to-${number}`,
          windowMs: HOUR,
        })),
      );
      for (const number of numbers) {
        await file.reserve(
          `trace-${number}`,
          [{ mailbox: 'bob', bytes: 1, used: 0, limit: null, grace: 0 }],
          HOUR,
        );
      }
    }
    await copyState(file, redis, 'refuse');
    const counts = countKinds(await entriesOf(redis));
    expect(counts).toEqual({ counter: 1500, sighting: 1300, reservation: 1300 });
    await copyState(redis, back, 'refuse');
    expect(await contentsOf(back)).toEqual(await contentsOf(file));
    expect(
      await redis.reserve('next', [{ mailbox: 'bob', bytes: 1, used: 0, limit: null, grace: 0 }], HOUR),
    ).toEqual([{ granted: true, inFlight: 1300 }]);
  });

  it('is safe while daemons count at the source, and exact with a second time once they have stopped', async () => {
    await using file = await openFile('state');
    await using redis = await openRedis();
    await fill(file);
    for (let group = 0; group < 20; group++) {
      await file.hit(Array.from({ length: 50 }, (_, index) => hit(`key-${group}-${index}`)));
    }
    const stop = new AbortController();
    const counting = count(file, stop.signal);
    await copyState(file, redis, 'refuse');
    stop.abort();
    const turns = await counting;
    expect(turns).toBeGreaterThan(0);
    await copyState(file, redis, 'replace');
    expect(await contentsOf(redis)).toEqual(await contentsOf(file));
    expect(await redis.counters({ limit: 'per-login', key: 'key-0-0', count: 1 })).toMatchObject([
      { used: 1 + turns },
    ]);
  });
}

/** Hits, refunds and what comes and goes, until told to stop; says how often. */
async function count(state: SqliteState, signal: AbortSignal): Promise<number> {
  let turns = 0;
  while (!signal.aborted) {
    await state.hit([hit('key-0-0'), hit(`new-${turns}`)]);
    await state.reserve(
      `turn-${turns}`,
      [{ mailbox: 'bob', bytes: 1, used: 0, limit: null, grace: 0 }],
      HOUR,
    );
    await state.settle(`turn-${turns - 1}`, null, 0);
    turns++;
    const turn = new EventTarget();
    setImmediate(() => turn.dispatchEvent(new Event('over')));
    await once(turn, 'over');
  }
  return turns;
}

/** Without sightings: Redis itself knows when a set of them lapses, and it does not go by the time of the test. */
async function lasting(state: StateContents): Promise<string[]> {
  return (await contentsOf(state)).filter((line) => !line.includes('"entry":"sighting"'));
}

describeWithNeighbours('state that is copied: one Redis', () => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());

  roundTrip(
    (offset) => {
      const options: RedisOptions = { ...common, address: { kind: 'unix', path: server.socketPath }, offset };
      return openRedisState(options, new LinkEvents());
    },
    async () => void (await server.command('FLUSHALL')),
  );

  it('leaves keys alone that are not of the state', async () => {
    await using folder = await privateFolder('state-copy');
    const options: RedisOptions = { ...common, address: { kind: 'unix', path: server.socketPath } };
    await using redis = await openRedisState(options, new LinkEvents());
    await using file = await openSqliteState(folder.path, systemClock);
    await server.command('SET', 'postern:triplet:{192.0.2.0/24}of another form', 'w1');
    await server.command('SET', 'postern:history:{history.1}', 'x');
    await server.command('SET', 'limit:{of}another', 'x');
    await redis.hit([hit('ada')]);
    await copyState(redis, file, 'refuse');
    expect(countKinds(await entriesOf(file))).toEqual({ counter: 1 });
    await file.resetCounters({});
    await copyState(file, redis, 'replace');
    expect((await server.command('KEYS', '*')).toSorted()).toEqual([
      'limit:{of}another',
      'postern:history:{history.1}',
      'postern:triplet:{192.0.2.0/24}of another form',
    ]);
  });
});

describeWithNeighbours('state that is copied: a Cluster', () => {
  let redis: RedisClusterServers;
  beforeAll(async () => {
    redis = await startRedisCluster();
  });
  afterAll(() => redis[Symbol.asyncDispose]());

  roundTrip(
    (offset) => {
      const options: ClusterOptions = { ...common, seeds: redis.nodes.slice(0, 2), offset };
      return openRedisState(options, new LinkEvents());
    },
    async () => {
      await Promise.all(redis.masters.map((master) => master.command('FLUSHALL')));
    },
  );
});
