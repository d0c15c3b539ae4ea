import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import { command } from '../../../src/cli/command.ts';
import { openSiteState, openState } from '../../../src/cli/open-state.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { metric } from '../../support/metric.ts';

let folder: string;
/** A port of this machine where nobody listens. */
let port: number;
let lines: unknown[];

const log = pino(
  { level: 'info', base: null, timestamp: false },
  { write: (line: string) => lines.push(JSON.parse(line)) },
);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-open-state-'));
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  port = address.port;
  server.close();
  await once(server, 'close');
});

beforeEach(() => {
  lines = [];
});

afterAll(() => rm(folder, { recursive: true }));

async function config(...more: readonly string[]): Promise<Config> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, ['[state]', 'folder = "state"', ...more, ''].join('\n'));
  const result = await loadConfig(path);
  if (!result.ok) throw new Error('the configuration is wrong');
  return result.config;
}

const redis = (): Promise<Config> => config('[state.redis]', `address = "127.0.0.1:${port}"`);

test('without a word about Redis the state is a file in the state folder', async () => {
  const registry = new Registry();
  await using opened = await openSiteState(await config(), { log, registry });
  await opened.state.ping();
  expect(opened.neighbours).toEqual({});
  expect(existsSync(join(folder, 'state', 'state.sqlite'))).toBe(true);
  expect(await metric(registry, 'postern_redis_up')).toBe(0);
  expect(lines).toEqual([]);
});

test('a file that another process keeps locked: each call is told, the log once', async () => {
  await using opened = await openSiteState(await config(), { log, registry: new Registry() });
  const path = join(folder, 'state', 'state.sqlite');
  const holder = new DatabaseSync(path);
  holder.exec('BEGIN IMMEDIATE');
  const why = `cannot use the store ${path}: database is locked; another program keeps it locked`;
  try {
    for (let turn = 0; turn < 2; turn++) {
      await expect(opened.state.noteFull('ada', true)).rejects.toThrow(why);
    }
  } finally {
    holder.close();
  }
  expect(lines).toEqual([{ level: 50, why, msg: 'the state could not be used' }]);
  await opened.state.noteFull('ada', true);
});

test('a Redis that is not there: told once, in the log, as a metric and as a neighbour; the daemons start', async () => {
  const registry = new Registry();
  await using opened = await openSiteState(await redis(), { log, registry });
  await expect(opened.state.ping()).rejects.toThrow(`redis at 127.0.0.1:${port}`);
  expect(opened.neighbours).toEqual({ redis: 'not there' });
  expect(await metric(registry, 'postern_redis_up')).toBe(0);
  expect(lines).toEqual([
    {
      level: 50,
      neighbour: 'redis',
      address: `127.0.0.1:${port}`,
      state: 'not there',
      why: `connect ECONNREFUSED 127.0.0.1:${port}`,
      msg: 'neighbour',
    },
  ]);
});

test('for a command, what is wrong shows when the state is asked', async () => {
  await using state = await openState(await redis());
  await expect(state.standings()).rejects.toMatchObject({
    cause: { message: `no connection: connect ECONNREFUSED 127.0.0.1:${port}` },
  });
});

test('a command says in one line that Redis is not there', async () => {
  await redis();
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const status = await command(['sender', 'list', '--config', join(folder, 'postern.toml')]);
  const said = write.mock.calls.map(([text]) => String(text)).join('');
  write.mockRestore();
  expect(status).toBe(1);
  expect(said).toBe(
    `postern: redis at 127.0.0.1:${port}: no connection: connect ECONNREFUSED 127.0.0.1:${port}\n`,
  );
});
