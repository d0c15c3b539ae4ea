import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { SpamdWatch } from '../../../src/cli/spamd-watch.ts';
import type { ConfigFile } from '../../../src/config/schema.ts';

type Settings = ConfigFile['spamd'];

let server: Server;
let port: number;
/** What it says to PING; null: closes without a word. */
let answer: string | null;
let lines: string[];

const log = pino({ level: 'info', base: null }, { write: (line: string) => lines.push(line) });

function settings(enabled: Settings['enabled']): Settings {
  return { enabled, address: { kind: 'tcp', host: '127.0.0.1', port }, max_connections: 1 };
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
  using watch = new SpamdWatch(settings('auto'), log);
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
  using watch = new SpamdWatch(settings('auto'), log);
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
  using watch = new SpamdWatch(settings('auto'), log);
  await watch.look();
  expect([watch.scanner, watch.state]).toEqual([null, 'not there']);
});

test('true: always asked, the state is for people', async () => {
  await gone();
  using watch = new SpamdWatch(settings(true), log);
  await watch.look();
  expect(watch.scanner).not.toBeNull();
  expect(watch.state).toBe('not there');
  expect(lines[0]).not.toContain('effect');
});

test('false: never', async () => {
  using watch = new SpamdWatch(settings(false), log);
  await watch.look();
  expect([watch.scanner, watch.state, lines]).toEqual([null, 'not used', []]);
});

test('other settings count from the reload on; the same ones change nothing', async () => {
  using watch = new SpamdWatch(settings('auto'), log);
  await watch.look();
  const { scanner } = watch;
  watch.reload(settings('auto'));
  expect(watch.scanner).toBe(scanner);
  watch.reload(settings(true));
  expect(watch.scanner).not.toBe(scanner);
  watch.reload(settings(false));
  expect(watch.scanner).toBeNull();
});
