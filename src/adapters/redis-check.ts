import type { EntryKind } from '../ports/state-entries.ts';
import type { RedisCalls } from './redis-calls.ts';
import { RedisClient, type RedisOptions } from './redis-client.ts';
import { RedisCluster, type ClusterOptions } from './redis-cluster.ts';
import { readStateKey } from './redis-state-keys.ts';

/** How one server is. */
export interface ServerHealth {
  /** `host:port` in a Cluster; empty: the only one. */
  readonly name: string;
  readonly version: string;
  readonly role: string;
  readonly replicas: number;
  readonly usedOctets: number;
  /** 0: as much as there is. */
  readonly mostOctets: number;
  readonly policy: string;
  readonly appendOnly: boolean;
  /** `save` of redis.conf; null: this user may not ask. */
  readonly save: string | null;
  /** What is wrong: calls fail, or soon will. */
  readonly faults: readonly string[];
  /** What works, and had better be otherwise. */
  readonly warnings: readonly string[];
}

export interface RedisHealth {
  readonly pingMs: number;
  readonly servers: readonly ServerHealth[];
  /** Keys of the state by kind, and others with our prefix. */
  readonly keys: Readonly<Partial<Record<EntryKind | 'other', number>>>;
  /** Not all keys were looked at, because there are too many. */
  readonly partly: boolean;
}

/** Steps of a scan; each looks at about a thousand keys. */
const SCAN_STEPS = 2000;
const SCAN_MS = 15_000;

/** @param scanSteps for tests @throws {NeighbourError} when it is not there, or not in time */
export async function checkRedis(
  options: RedisOptions | ClusterOptions,
  scanSteps = SCAN_STEPS,
): Promise<RedisHealth> {
  if ('seeds' in options) {
    await using cluster = new RedisCluster(options, QUIET);
    await cluster.start();
    return await healthOf(cluster, () => cluster.nodes(), scanSteps);
  }
  await using client = new RedisClient(options, QUIET);
  await client.start();
  return await healthOf(client, () => new Map([['', client]]), scanSteps);
}

async function healthOf(
  calls: RedisCalls,
  nodes: () => ReadonlyMap<string, RedisClient>,
  scanSteps: number,
): Promise<RedisHealth> {
  const begin = performance.now();
  await calls.ping();
  const pingMs = performance.now() - begin;
  const servers: ServerHealth[] = [];
  for (const [name, client] of nodes()) servers.push(await serverHealth(name, client));
  return { pingMs, servers, ...(await countKeys(calls, scanSteps)) };
}

async function serverHealth(name: string, client: RedisClient): Promise<ServerHealth> {
  const info = await client.info();
  const text = (field: string): string => info.get(field) ?? '';
  const role = text('role');
  const policy = text('maxmemory_policy');
  const appendOnly = text('aof_enabled') === '1';
  const save = await client.setting('save');
  const faults: string[] = [];
  if (role !== 'master') faults.push(`it is a ${role === 'slave' ? 'replica' : role}, and takes no writes`);
  if (text('loading') === '1') faults.push('it is still reading its data from the disk');
  if (text('rdb_last_bgsave_status') === 'err') faults.push('it could not save its data the last time');
  if (appendOnly && text('aof_last_write_status') === 'err')
    faults.push('it cannot write its append-only file');
  const warnings: string[] = [];
  if (policy !== 'noeviction') {
    warnings.push(`maxmemory-policy is ${policy}: it may forget state before its time; set noeviction`);
  }
  if (!appendOnly && save === '') {
    warnings.push('neither save nor appendonly is set: a restart forgets all state');
  }
  return {
    name,
    version: text('redis_version'),
    role,
    replicas: Number(text('connected_slaves')),
    usedOctets: Number(text('used_memory')),
    mostOctets: Number(text('maxmemory')),
    policy,
    appendOnly,
    save,
    faults,
    warnings,
  };
}

async function countKeys(calls: RedisCalls, steps: number): Promise<Pick<RedisHealth, 'keys' | 'partly'>> {
  const keys: Partial<Record<EntryKind | 'other', number>> = {};
  const until = performance.now() + SCAN_MS;
  let step = 0;
  for await (const found of calls.keys(calls.prefix)) {
    if (step++ >= steps || performance.now() > until) return { keys, partly: true };
    for (const key of found) {
      const kind = readStateKey(calls.prefix, key)?.entry ?? 'other';
      keys[kind] = (keys[kind] ?? 0) + 1;
    }
  }
  return { keys, partly: false };
}

const QUIET = { up: () => undefined, down: () => undefined };
