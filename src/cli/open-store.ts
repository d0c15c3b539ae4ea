import { mkdir } from 'node:fs/promises';

import { StoreUnusable } from '../adapters/sqlite-schema.ts';
import type { WriterEvents } from '../adapters/sqlite-writer.ts';
import { openSqliteHistory, openSqliteStore } from '../adapters/store-sqlite.ts';
import type { Config } from '../config/config.ts';
import type { Store } from '../ports/store.ts';
import { systemClock } from './clock.ts';
import { redisOptions } from './open-state.ts';

/** A command waits longer than mail. */
const COMMAND_TIMEOUT_MS = 5000;

/** The store that a configuration names: Redis where the state is, else a file. @throws {StoreUnusable} */
export async function openSiteStore(config: Config, events: WriterEvents): Promise<Store & AsyncDisposable> {
  const { folder } = config.file.state;
  try {
    // The file would be made with it; spools and what waits for spamd are there in any case.
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    const why = error instanceof Error ? error.message : 'unknown error';
    throw new StoreUnusable(folder, `${why}; the state folder must be writable for this user`, {
      cause: error,
    });
  }
  return open(config, events, 0);
}

/** For a command that labels messages: labels are written at once, or fail by themselves; there are no decisions or traces. @throws {StoreUnusable} */
export function openLabels(config: Config): Promise<Pick<Store, 'label'> & AsyncDisposable> {
  return open(config, NO_EVENTS, COMMAND_TIMEOUT_MS);
}

/** For a command that reads; null when nothing was ever written to the file. @throws {StoreUnusable} */
export async function openHistory(
  config: Config,
): Promise<(Pick<Store, 'history'> & AsyncDisposable) | null> {
  if (redisOptions(config) !== null) return await open(config, NO_EVENTS, COMMAND_TIMEOUT_MS);
  const reader = openSqliteHistory(config.file.state.folder);
  if (reader === null) return null;
  return {
    history: (filter) => reader.history(filter),
    [Symbol.asyncDispose]: () => Promise.resolve(reader[Symbol.dispose]()),
  };
}

const NO_EVENTS: WriterEvents = {
  writeFailed: () => undefined,
  lost: () => undefined,
  tracesLost: () => undefined,
};

async function open(
  config: Config,
  events: WriterEvents,
  timeoutMs: number,
): Promise<Store & AsyncDisposable> {
  const { state, site } = config.file;
  const redis = redisOptions(config);
  if (redis === null) return openSqliteStore(state.folder, systemClock, events);
  // Loaded only where it is used: ioredis is the largest package that a process may need.
  const { openRedisStore } = await import('../adapters/store-redis.ts');
  return openRedisStore(
    {
      redis: { ...redis, timeoutMs: Math.max(redis.timeoutMs, timeoutMs) },
      host: site.hostname,
      most: state.redis.history_entries,
      keepMs: state.redis.handover,
    },
    systemClock,
    events,
  );
}
