import type { DirectorySource } from '../adapters/directory-source.ts';
import { directoryKeys, type KeySource } from '../adapters/key-source.ts';
import type { RedisCalls } from '../adapters/redis-calls.ts';
import type { Config } from '../config/config.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Log } from '../runtime/telemetry.ts';

/** Connections that are there for other purposes. */
export interface KeyConnections {
  readonly directory: { readonly sources: readonly DirectorySource[] };
  readonly redis: RedisCalls | null;
}

export interface OpenKeySources {
  readonly sources: readonly KeySource[];
  /** Closes the connection that is for keys alone; null: there is none. */
  readonly close: (() => Promise<void>) | null;
}

/** Where a configuration has signing keys besides files, in the order they are asked in. What is not there keeps no daemon from starting. */
export async function openKeySources(
  config: Config,
  { directory, redis: shared }: KeyConnections,
  log: Log,
): Promise<OpenKeySources> {
  const inDirectory = directory.sources.map(directoryKeys).filter((source) => source !== null);
  const { enabled, address, keys, selectors, username, database, tls, timeout } = config.file.signing.redis;
  if (!enabled) return { sources: inDirectory, close: null };
  const { RedisKeys } = await import('../adapters/key-redis.ts');
  if (address === null) {
    if (shared === null) throw new Error('signing.redis needs an address');
    return {
      sources: [...inDirectory, new RedisKeys('the Redis of [state.redis]', shared, { keys, selectors })],
      close: null,
    };
  }
  const at = formatSocketAddress(address);
  const { RedisClient } = await import('../adapters/redis-client.ts');
  const { password, ca } = config.keysRedis;
  const client = new RedisClient(
    { address, username, password, database, tls: tls ? { ca } : null, prefix: '', timeoutMs: timeout },
    {
      up: () => log.info({ neighbour: 'redis', address: at, state: 'there' }, 'neighbour'),
      down: (why) => log.error({ neighbour: 'redis', address: at, state: 'not there', why }, 'neighbour'),
    },
  );
  await client.start();
  return {
    sources: [...inDirectory, new RedisKeys(`Redis at ${at}`, client, { keys, selectors })],
    close: () => client[Symbol.asyncDispose](),
  };
}
