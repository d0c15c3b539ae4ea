import type { RedisEvents, RedisOptions } from '../adapters/redis-client.ts';
import type { ClusterOptions } from '../adapters/redis-cluster.ts';
import type { RedisCalls } from '../adapters/redis-calls.ts';
import type { RedisState } from '../adapters/state-redis.ts';
import { openSqliteState } from '../adapters/state-sqlite.ts';
import type { Config } from '../config/config.ts';
import { redisInUse, withPort } from '../config/redis.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { State } from '../ports/state.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry, Telemetry } from '../runtime/telemetry.ts';
import { systemClock } from './clock.ts';

type OpenState = State & AsyncDisposable;

/** For a command: the state that a configuration names. What is wrong with it shows when it is asked. @throws {StoreUnusable} */
export async function openState(config: Config): Promise<OpenState> {
  const redis = redisOptions(config);
  if (redis === null) return openSqliteState(config.file.state.folder, systemClock);
  return openRedis(redis, { up: () => undefined, down: () => undefined });
}

/** The state of a process of daemons. */
export interface SiteState extends AsyncDisposable {
  readonly state: State;
  /** The connection to Redis; null: the state is in SQLite. */
  readonly redis: RedisCalls | null;
  /** For /readyz: what it rests on that may be away. */
  readonly neighbours: Readonly<Record<string, string>>;
}

/** For daemons: tells in log and metrics when the state is away. @throws {StoreUnusable} */
export async function openSiteState(config: Config, { log, registry }: Telemetry): Promise<SiteState> {
  const redis = redisOptions(config);
  const link = new RedisLink(config, log, registry);
  const shared = redis === null ? null : await openRedis(redis, link, config.file.state.when_lost);
  const state =
    shared ??
    (await openSqliteState(config.file.state.folder, systemClock, {
      failed: (error) => log.error({ why: error.message }, 'the state could not be tidied'),
      troubled: seldom((error) => log.error({ why: error.message }, 'the state could not be used')),
    }));
  return {
    state,
    redis: shared?.calls ?? null,
    get neighbours() {
      return redis === null ? {} : { redis: link.state };
    },
    [Symbol.asyncDispose]: () => state[Symbol.asyncDispose](),
  };
}

const TOLD_AGAIN_MS = 60_000;

/** Tells of an error once in a minute; of another one at once. */
function seldom(tell: (error: Error) => void): (error: Error) => void {
  let told = { message: '', time: -Infinity };
  return (error) => {
    const time = systemClock.elapsed();
    if (error.message === told.message && time < told.time + TOLD_AGAIN_MS) return;
    told = { message: error.message, time };
    tell(error);
  };
}

/** What becomes of the connection, in the log (once for each outage), in a metric and for /readyz. */
class RedisLink implements RedisEvents {
  state: 'unknown' | 'there' | 'not there' = 'unknown';
  readonly #where: string;
  readonly #log: Log;
  readonly #up: { set(value: number): void };

  constructor({ file }: Config, log: Log, registry: Registry) {
    const { address, addresses, sentinels } = file.state.redis;
    const places = address === null ? [...addresses, ...sentinels] : [address];
    this.#where = places.map(formatSocketAddress).join(', ');
    this.#log = log;
    this.#up = redisUp(registry);
  }

  up(): void {
    this.state = 'there';
    this.#up.set(1);
    this.#log.info({ neighbour: 'redis', address: this.#where, state: this.state }, 'neighbour');
  }

  down(why: string): void {
    this.state = 'not there';
    this.#up.set(0);
    this.#log.error({ neighbour: 'redis', address: this.#where, state: this.state, why }, 'neighbour');
  }
}

export function redisUp(registry: Registry): { set(value: number): void } {
  return gauge(registry, {
    name: 'postern_redis_up',
    help: 'Whether the Redis of [state.redis] answers; 0 also where none is used.',
    together: 'min',
  });
}

/** null: SQLite. */
export function redisOptions({ file, redis }: Config): RedisOptions | ClusterOptions | null {
  const settings = file.state.redis;
  if (!redisInUse(settings)) return null;
  const { address, addresses, cluster, sentinels, master, username, database, tls, prefix, timeout } =
    settings;
  const common = {
    username,
    password: redis.password,
    database,
    tls: tls ? { ca: redis.ca } : null,
    prefix,
    timeoutMs: timeout,
  };
  if (cluster) return { ...common, seeds: withPort(address === null ? addresses : [address]) };
  if (address !== null) return { ...common, address };
  const password = redis.sentinelPassword;
  return {
    ...common,
    address: { kind: 'sentinel', sentinels: withPort(sentinels), master: master ?? '', password },
  };
}

/** Loaded only where it is used: ioredis is the largest package that a process may need. */
async function openRedis(
  options: RedisOptions | ClusterOptions,
  events: RedisEvents,
  whenLost: 'rule' | 'local' = 'rule',
): Promise<RedisState> {
  const { openRedisState } = await import('../adapters/state-redis.ts');
  return openRedisState(options, events, whenLost);
}
