import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:net';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, test } from 'vitest';

import {
  scannerSettings,
  watchScanner,
  type ScannerSettings,
  type ScannerWatch,
} from '../../../src/cli/scanner-watch.ts';

type Settings = Extract<ScannerSettings, { kind: 'spamd' }>;

let server: Server;
let port: number;
/** What it says to PING; null: closes without a word. */
let answer: string | null;
let lines: string[];

const log = pino({ level: 'info', base: null }, { write: (line: string) => lines.push(line) });

function settings(enabled: Settings['enabled']): Settings {
  return {
    kind: 'spamd',
    enabled,
    address: [{ kind: 'tcp', host: '127.0.0.1', port }],
    max_connections: 1,
    timeout: 5000,
  };
}

const clock = { now: () => Date.now(), elapsed: () => performance.now() };

function watching(used: ScannerSettings, registry = new Registry()): ScannerWatch {
  return watchScanner(used, clock, log, registry);
}

function listening(): Promise<unknown> {
  server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.on('end', () => (answer === null ? socket.end() : socket.end(answer)));
    socket.resume();
  });
  server.listen(port, '127.0.0.1');
  return once(server, 'listening');
}

async function gone(): Promise<void> {
  server.close();
  await once(server, 'close');
}

beforeEach(async () => {
  lines = [];
  port = 0;
  answer = 'SPAMD/1.5 0 PONG\r\n';
  await listening();
  const bound = server.address();
  if (typeof bound === 'object' && bound !== null) port = bound.port;
});

afterEach(() => {
  server.close();
});

test('auto: the scanner is there when spamd is, and the log says each change once', async () => {
  using watch = watching(settings('auto'));
  expect([watch.scanner, watch.state]).toEqual([null, 'unknown']);
  await watch.look();
  await watch.look();
  expect(watch.scanner).not.toBeNull();
  expect(watch.state).toBe('there');
  await gone();
  await watch.look();
  await watch.look();
  expect([watch.scanner, watch.state]).toEqual([null, 'not there']);
  await listening();
  await watch.look();
  expect(watch.scanner).not.toBeNull();
  expect(lines.map((line) => /"state":"([^"]+)"/.exec(line)?.[1])).toEqual(['there', 'not there', 'there']);
  expect(lines[1]).toContain('"effect":"no spam check"');
});

test('auto: one that was there and does not answer is overloaded, and is asked on', async () => {
  using watch = watching(settings('auto'));
  await watch.look();
  answer = null;
  await watch.look();
  expect(watch.state).toBe('does not answer');
  expect(watch.scanner).not.toBeNull();
  answer = 'SPAMD/1.5 0 PONG\r\n';
  await watch.look();
  expect(watch.state).toBe('there');
});

test('auto: one that never answered rightly is not there', async () => {
  answer = 'HTTP/1.1 400 Bad Request\r\n\r\n';
  using watch = watching(settings('auto'));
  await watch.look();
  expect([watch.scanner, watch.state]).toEqual([null, 'not there']);
});

test('true: always asked, the state is for people', async () => {
  await gone();
  using watch = watching(settings(true));
  await watch.look();
  expect(watch.scanner).not.toBeNull();
  expect(watch.state).toBe('not there');
  expect(lines[0]).not.toContain('effect');
});

test('false: never', async () => {
  using watch = watching(settings(false));
  await watch.look();
  expect([watch.scanner, watch.state, lines]).toEqual([null, 'not used', []]);
});

test('other settings count from the reload on; the same ones change nothing', async () => {
  using watch = watching(settings('auto'));
  await watch.look();
  const { scanner } = watch;
  watch.reload(settings('auto'));
  expect(watch.scanner).toBe(scanner);
  watch.reload(settings(true));
  expect(watch.scanner).not.toBe(scanner);
  watch.reload(settings(false));
  expect(watch.scanner).toBeNull();
});

test('of several, each is told of when it fails, and the metric shows which', async () => {
  const registry = new Registry();
  const refusing = { kind: 'unix', path: '/nonexistent/spamd.sock' } as const;
  const both = { ...settings(true), address: [...settings(true).address, refusing] };
  using watch = watching(both, registry);
  await watch.look();
  expect([watch.state, watch.states]).toEqual(['there', { spamd: 'there' }]);
  expect(lines.filter((line) => line.includes('one of several scanners failed'))).toHaveLength(1);
  const text = await registry.metrics();
  expect(text).toContain(`postern_scanner_up{scanner="spamd",server="127.0.0.1:${port}"} 1`);
  expect(text).toContain('postern_scanner_up{scanner="spamd",server="unix:/nonexistent/spamd.sock"} 0');
  watch.reload(settings(true));
  expect(await registry.metrics()).not.toContain('nonexistent');
});

test('rspamd takes the place of spamd', async () => {
  await gone();
  const answers = createHttpServer((_, response) => response.end('pong\r\n'));
  await new Promise<void>((resolve) => answers.listen(port, '127.0.0.1', resolve));
  try {
    const { kind: _, enabled: __, ...common } = settings(true);
    const file = { spamd: settings('auto'), rspamd: { ...common, enabled: true } };
    expect(scannerSettings(file, false).enabled).toBe(false);
    using watch = watching(scannerSettings(file, true));
    await watch.look();
    expect(watch.states).toEqual({ rspamd: 'there' });
    expect(watch.scanner).not.toBeNull();
  } finally {
    await new Promise((resolve) => answers.close(resolve));
  }
});
