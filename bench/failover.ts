// What a failover costs: hits on limits at a steady pace, each with a decision that is recorded, and in the middle the master is killed.
//   node bench/failover.ts [--requests N] [--rate PER_SECOND] [--only sentinel|cluster]

import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import type { RedisOptions } from '../src/adapters/redis-client.ts';
import type { ClusterOptions } from '../src/adapters/redis-cluster.ts';
import { openRedisState } from '../src/adapters/state-redis.ts';
import { openRedisStore } from '../src/adapters/store-redis.ts';
import type { State } from '../src/ports/state.ts';
import { decision } from '../test/support/decisions.ts';
import { startRedisCluster } from '../test/support/neighbours/redis-cluster.ts';
import { MASTER_NAME, startWatchedRedis } from '../test/support/neighbours/redis-sentinels.ts';
import { PLAIN_REDIS } from '../test/support/redis-options.ts';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '10000' },
    rate: { type: 'string', default: '1000' },
    only: { type: 'string' },
  },
});
const requests = Number(values.requests);
const rate = Number(values.rate);
const KEYS = 100;
const TIMEOUT_MS = 250;
const TICK_MS = 10;

const common = {
  ...PLAIN_REDIS,
  timeoutMs: TIMEOUT_MS,
} satisfies Omit<RedisOptions, 'address'>;

if (values.only !== 'cluster') {
  await using redis = await startWatchedRedis();
  const { sentinels, master } = redis;
  await measure(
    'Sentinel',
    { ...common, address: { kind: 'sentinel', sentinels, master: MASTER_NAME, password: null } },
    () => master.kill(),
  );
}
if (values.only !== 'sentinel') {
  await using redis = await startRedisCluster();
  await measure('Cluster', { ...common, seeds: redis.nodes }, async () => {
    await redis.masters[1]?.kill();
  });
}

async function measure(
  name: string,
  options: RedisOptions | ClusterOptions,
  kill: () => Promise<void>,
): Promise<void> {
  const begin = performance.now();
  const said = (): string => `${((performance.now() - begin) / 1000).toFixed(2)} s`;
  await using state = await openRedisState(options, {
    up: () => print(name, 'up', said()),
    down: (why) => print(name, 'down', `${said()}: ${why}`),
  });
  const record = { lost: 0, failures: 0 };
  await using store = await openRedisStore(
    { redis: options, host: 'mx1.example.org', most: 10 * requests, keepMs: 3_600_000 },
    { now: () => Date.now(), elapsed: () => performance.now() },
    {
      lost: (decisions) => (record.lost += decisions),
      writeFailed: () => (record.failures += 1),
      tracesLost: () => undefined,
    },
  );
  const counted = new Map<number, number>();
  const failed = new Map<number, number>();
  const times: number[] = [];
  const failedAt: number[] = [];
  const whys = new Map<string, number>();
  const calls: Promise<void>[] = [];
  let killed: Promise<void> | null = null;
  let sent = 0;
  const start = performance.now();
  while (sent < requests) {
    const due = Math.min(requests, Math.ceil(((performance.now() - start) * rate) / 1000));
    for (; sent < due; sent++) {
      calls.push(one(sent % KEYS));
      store.record(decision({ trace: `trace${sent}`, time: Date.now() }));
    }
    if (killed === null && sent >= requests * 0.3) {
      print(name, 'killed', said());
      killed = kill();
    }
    await wait(TICK_MS);
  }
  await Promise.all(calls);
  await killed;
  await store.flush();
  const found = await store.history({ limit: 2 * requests });
  const traces = new Set(found.map(({ trace }) => trace));

  async function one(key: number): Promise<void> {
    const from = performance.now();
    try {
      await hit(state, key);
      add(counted, key);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      add(failed, key);
      failedAt.push(from);
      const why = error.cause instanceof Error ? error.cause.message : error.message;
      add(whys, why.replaceAll(/\d+\.\d+\.\d+\.\d+:\d+/g, 'HOST'));
    }
    times.push(performance.now() - from);
  }

  let [lost, doubled, unsaid] = [0, 0, 0];
  for (let key = 0; key < KEYS; key++) {
    const [counter] = await state.counters({ limit: 'messages', key: `user${key}`, count: 1 });
    const used = counter?.used ?? 0;
    const [sure, perhaps] = [counted.get(key) ?? 0, failed.get(key) ?? 0];
    lost += Math.max(0, sure - used);
    unsaid += Math.min(perhaps, Math.max(0, used - sure));
    doubled += Math.max(0, used - sure - perhaps);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): string =>
    `${(times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0).toFixed(1)} ms`;
  const errors = failedAt.length;
  print(name, 'requests', `${requests} at ${rate} a second`);
  print(name, 'errors', `${errors}`);
  if (errors > 0)
    print(name, 'errors for', `${(Math.max(...failedAt) - Math.min(...failedAt)).toFixed(0)} ms`);
  for (const [why, count] of whys) print(name, `  ${count}`, why);
  print(name, 'latency p50 / p99 / longest', `${at(0.5)} / ${at(0.99)} / ${at(1)}`);
  print(name, 'said to be counted, and lost', `${lost}`);
  print(name, 'failed, and yet counted', `${unsaid}`);
  print(name, 'counted twice', `${doubled}`);
  print(name, 'attempts to write decisions that failed', `${record.failures}`);
  print(name, 'decisions lost for want of room', `${record.lost}`);
  print(name, 'decisions lost with the master', `${requests - record.lost - traces.size}`);
  print(name, 'decisions recorded twice', `${found.length - traces.size}`);
}

async function hit(state: State, key: number): Promise<void> {
  await state.hit([
    {
      limit: 'messages',
      key: `user${key}`,
      algorithm: 'window',
      most: 1_000_000,
      periodMs: 3_600_000,
      cost: 1,
      enforced: true,
    },
  ]);
}

function add<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function print(name: string, what: string, figure: string): void {
  console.log(`${`${name}: ${what}`.padEnd(44)} ${figure}`);
}
