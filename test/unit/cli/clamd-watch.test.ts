import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { watchClamd, type ClamdWatch } from '../../../src/cli/clamd-watch.ts';
import { systemClock } from '../../../src/cli/clock.ts';
import type { ConfigFile } from '../../../src/config/schema.ts';
import { metric } from '../../support/metric.ts';

let server: Server;
let port: number;
let lines: string[];

const log = pino({ level: 'info', base: null }, { write: (line: string) => lines.push(line) });

async function listening(): Promise<void> {
  server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.once('data', () => socket.end('PONG\0'));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  if (typeof bound === 'object' && bound !== null) port = bound.port;
}

async function gone(): Promise<void> {
  server.close();
  await once(server, 'close');
}

beforeEach(async () => {
  lines = [];
  port = 0;
  await listening();
});

afterEach(() => {
  server.close();
});

function settings(enabled: boolean | 'auto', ...more: number[]): ConfigFile['clamd'] {
  const addresses = [port, ...more].map((at) => ({ kind: 'tcp' as const, host: '127.0.0.1', port: at }));
  return { enabled, addresses, max_connections: 1 };
}

function watching(used: ConfigFile['clamd'], registry = new Registry()): ClamdWatch {
  return watchClamd(used, systemClock, log, registry);
}

test('auto: clamd is used once it was there, and from then on, whatever becomes of it', async () => {
  const registry = new Registry();
  using watch = watching(settings('auto'), registry);
  expect([watch.scanner, watch.states]).toEqual([null, { clamd: 'unknown' }]);
  await gone();
  await watch.look();
  expect([watch.scanner, watch.state]).toEqual([null, 'not there']);
  expect(lines[0]).toContain('"effect":"no virus check"');
  expect(await metric(registry, 'postern_clamd_up')).toBe(0);
  await listening();
  await watch.look();
  expect(watch.scanner).not.toBeNull();
  expect(await metric(registry, 'postern_clamd_up')).toBe(1);
  await gone();
  await watch.look();
  expect(watch.scanner).not.toBeNull();
  expect(watch.state).toBe('not there');
  expect(lines.at(-1)).not.toContain('effect');
});

test('auto: it stays so at another address, and not when it was switched off between', async () => {
  using watch = watching(settings('auto'));
  await watch.look();
  await gone();
  watch.reload({ ...settings('auto'), max_connections: 2 });
  expect(watch.scanner).not.toBeNull();
  watch.reload(settings(false));
  expect([watch.scanner, watch.state]).toEqual([null, 'not used']);
  watch.reload(settings('auto'));
  await watch.look();
  expect([watch.scanner, watch.state]).toEqual([null, 'not there']);
});

test('one of several that fails is told of, and is no reason to say that clamd is not there', async () => {
  const registry = new Registry();
  using watch = watching(settings(true, 1), registry);
  await watch.look();
  expect(watch.state).toBe('there');
  expect(lines.join('')).toContain('one of several scanners failed');
  expect(await metric(registry, 'postern_clamd_up', { server: '127.0.0.1:1' })).toBe(0);
  expect(await metric(registry, 'postern_clamd_up', { server: `127.0.0.1:${port}` })).toBe(1);
});
