import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import type { RedisOptions } from '../adapters/redis-client.ts';
import type { ClusterOptions } from '../adapters/redis-cluster.ts';
import { databasePath, StoreUnusable } from '../adapters/sqlite-schema.ts';
import { STATE_SCHEMA } from '../adapters/sqlite-state-schema.ts';
import { openSqliteState } from '../adapters/state-sqlite.ts';
import type { Config } from '../config/config.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { StateContents } from '../ports/state-entries.ts';
import { UsageError } from './arguments.ts';
import { systemClock } from './clock.ts';
import { readConfig } from './config-file.ts';
import { redisOptions } from './open-state.ts';

/** A command has more patience than mail. */
const COMMAND_TIMEOUT_MS = 5000;

/** Where state is copied from or to. */
export type StateEnd =
  | { readonly kind: 'sqlite'; readonly folder: string; readonly words: string }
  | { readonly kind: 'redis'; readonly options: RedisOptions | ClusterOptions; readonly words: string };

/** `sqlite`, `redis`, or the path of another configuration; null: that one is wrong, which was told. @throws {UsageError} */
export async function endOf(word: string, config: Config): Promise<StateEnd | null> {
  if (word === 'sqlite') return fileEnd(config);
  if (word === 'redis') {
    const end = redisEnd(config);
    if (end === null)
      throw new UsageError('"redis": the configuration names no Redis in [state.redis]', 'store');
    return end;
  }
  const loaded = await readConfig(word);
  return loaded === null ? null : (redisEnd(loaded.config) ?? fileEnd(loaded.config));
}

/** Where a configuration has the state. */
export function usedEnd(config: Config): StateEnd {
  return redisEnd(config) ?? fileEnd(config);
}

export function isSameEnd(one: StateEnd, other: StateEnd): boolean {
  if (one.kind === 'sqlite') return other.kind === 'sqlite' && one.folder === other.folder;
  return other.kind === 'redis' && isDeepStrictEqual(one.options, other.options);
}

/** @param made whether a file is made when there is none @throws {StoreUnusable} */
export async function openEnd(end: StateEnd, made: boolean): Promise<StateContents & AsyncDisposable> {
  if (end.kind === 'redis') {
    const { openRedisState } = await import('../adapters/state-redis.ts');
    return await openRedisState(end.options, { up: () => undefined, down: () => undefined });
  }
  const path = databasePath(end.folder, STATE_SCHEMA);
  if (!made && !existsSync(path)) throw new StoreUnusable(path, 'there is no such file');
  return await openSqliteState(end.folder, systemClock);
}

function fileEnd({ file }: Config): StateEnd {
  const folder = resolve(file.state.folder);
  return { kind: 'sqlite', folder, words: databasePath(folder, STATE_SCHEMA) };
}

function redisEnd(config: Config): Extract<StateEnd, { kind: 'redis' }> | null {
  const options = redisOptions(config);
  if (options === null) return null;
  const { address, addresses, sentinels, prefix } = config.file.state.redis;
  const places = address === null ? [...addresses, ...sentinels] : [address];
  return {
    kind: 'redis',
    options: { ...options, timeoutMs: Math.max(options.timeoutMs, COMMAND_TIMEOUT_MS) },
    words: `redis ${places.map(formatSocketAddress).join(', ')} (keys ${prefix}*)`,
  };
}
