import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, expect, test, vi } from 'vitest';

import {
  IDLE_CONNECTIONS,
  IDLE_LIMIT_MS,
  UpstreamPool,
  type UpstreamObserver,
} from '../../../src/lmtp-filter/upstream.ts';
import type { UpstreamTls } from '../../../src/lmtp-filter/upstream-dial.ts';
import { UpstreamError } from '../../../src/lmtp-filter/upstream-error.ts';
import { FakeDovecot, type Step } from '../../support/players/fake-dovecot.ts';

const MAIL = 'MAIL FROM:<thor@valhalla.local>';

function poolFor(
  port: number,
  timeoutMs = 5000,
  tls: UpstreamTls | null = null,
): { pool: UpstreamPool; counts: number[]; health: boolean[] } {
  const counts: number[] = [];
  const health: boolean[] = [];
  const observe: UpstreamObserver = {
    connected: () => {},
    failed: () => {},
    open: (change) => void counts.push(change),
    health: (_, up) => void health.push(up),
    forget: () => {},
  };
  const address = { kind: 'tcp', host: '127.0.0.1', port } as const;
  const options = { address, timeoutMs, hostname: 'mx.olimpus.example', tls };
  return { pool: new UpstreamPool(options, observe), counts, health };
}

afterEach(() => {
  vi.useRealTimers();
});

test('capabilities are those of the reply to LHLO', async () => {
  await using dovecot = await FakeDovecot.open();
  dovecot.capabilities = ['pipelining', 'SIZE 1000', 'XCLIENT ADDR PORT'];
  const { pool } = poolFor(dovecot.port);
  expect(await pool.capabilities()).toEqual(new Set(['PIPELINING', 'SIZE', 'XCLIENT']));
  pool.close();
});

test('a connection is used again, with RSET and MAIL', async () => {
  await using dovecot = await FakeDovecot.open();
  const { pool } = poolFor(dovecot.port);
  for (let i = 0; i < 3; i++) {
    const { connection, reply } = await pool.begin(() => [MAIL]);
    expect(reply).toEqual({ code: 250, lines: ['2.1.0 OK'] });
    pool.release(connection);
  }
  expect(dovecot.connections).toBe(1);
  expect(dovecot.commands).toEqual(['LHLO mx.olimpus.example', MAIL, 'RSET', MAIL, 'RSET', MAIL]);
  pool.close();
});

test('RSET is awaited where PIPELINING was not announced', async () => {
  await using dovecot = await FakeDovecot.open();
  dovecot.capabilities = [];
  const { pool } = poolFor(dovecot.port);
  const first = await pool.begin(() => [MAIL]);
  await pool.reset(first.connection);
  const second = await pool.begin(() => [MAIL]);
  expect(second.connection).toBe(first.connection);
  expect(dovecot.commands).toEqual(['LHLO mx.olimpus.example', MAIL, 'RSET', 'RSET', MAIL]);
  pool.close();
});

test('an idle connection is ended before Dovecot does it', async () => {
  await using dovecot = await FakeDovecot.open();
  const { pool, counts } = poolFor(dovecot.port);
  const { connection } = await pool.begin(() => [MAIL]);
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  pool.release(connection);
  vi.advanceTimersByTime(IDLE_LIMIT_MS - 1);
  expect(connection.usable).toBe(true);
  vi.advanceTimersByTime(1);
  expect(connection.usable).toBe(false);
  expect(counts).toEqual([1, -1]);
});

test('so many idle connections are kept, and one more is ended', async () => {
  await using dovecot = await FakeDovecot.open();
  const { pool } = poolFor(dovecot.port);
  const begun = await Promise.all(
    Array.from({ length: IDLE_CONNECTIONS + 1 }, () => pool.begin(() => [MAIL])),
  );
  for (const { connection } of begun) pool.release(connection);
  expect(begun.map(({ connection }) => connection.usable)).toEqual([
    ...Array.from({ length: IDLE_CONNECTIONS }, () => true),
    false,
  ]);
  pool.close();
  expect(begun.some(({ connection }) => connection.usable)).toBe(false);
});

test('what Dovecot says unasked ends a connection, idle or not', async () => {
  await using dovecot = await FakeDovecot.open();
  const { pool } = poolFor(dovecot.port);
  dovecot.fault = ({ step }) =>
    step === 'MAIL' ? { text: '250 2.1.0 OK\r\n421 4.3.2 going down\r\n' } : null;
  const { connection, reply } = await pool.begin(() => [MAIL]);
  expect(reply.code).toBe(250);
  expect(connection.usable).toBe(false);
  await expect(connection.command('RSET')).rejects.toMatchObject({ failure: 'lost' });
  expect(() => connection.send(Buffer.from('x'))).toThrow(UpstreamError);
  pool.release(connection);
  dovecot.fault = () => null;
  expect((await pool.begin(() => [MAIL])).connection).not.toBe(connection);
  pool.abort();
});

test('one reply too many makes all of them doubtful', async () => {
  await using dovecot = await FakeDovecot.open();
  const { pool } = poolFor(dovecot.port);
  dovecot.fault = ({ step }) => (step === 'MAIL' ? { text: '250 2.1.0 OK\r\n250 2.1.0 OK\r\n' } : null);
  await expect(pool.begin(() => [MAIL])).rejects.toMatchObject({ failure: 'protocol' });
});

test('a server that refuses the greeting is no server', async () => {
  await using dovecot = await FakeDovecot.open();
  dovecot.fault = ({ step }) => (step === 'greeting' ? { text: '554 5.3.2 no\r\n' } : null);
  const { pool } = poolFor(dovecot.port);
  await expect(pool.begin(() => [MAIL])).rejects.toMatchObject({ failure: 'protocol' });
  expect(await pool.capabilities()).toBeNull();
});

test('nobody listening, and a greeting that never comes', async () => {
  const closed = await FakeDovecot.open();
  const { port } = closed;
  await closed[Symbol.asyncDispose]();
  await expect(poolFor(port).pool.begin(() => [MAIL])).rejects.toMatchObject({ failure: 'connect' });
  await using silent = await FakeDovecot.open();
  silent.fault = () => ({ after: 'hang' });
  await expect(poolFor(silent.port, 50).pool.begin(() => [MAIL])).rejects.toMatchObject({
    failure: 'timeout',
  });
});

test('a pool that is ended gives up connections that are being made', async () => {
  await using silent = await FakeDovecot.open();
  const asked = Promise.withResolvers<void>();
  silent.fault = () => {
    asked.resolve();
    return { after: 'hang' };
  };
  const { pool } = poolFor(silent.port);
  const begun = pool.begin(() => [MAIL]);
  begun.catch(() => {});
  await asked.promise;
  pool.abort();
  await expect(begun).rejects.toBeInstanceOf(UpstreamError);
});

test('Dovecot on a unix socket', async () => {
  const path = join(tmpdir(), `fake-dovecot-${process.pid}`);
  const lines: string[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.write('220 unix\r\n');
    socket.on('data', (piece) => {
      lines.push(piece.toString());
      socket.write('250 OK\r\n');
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const pool = new UpstreamPool(
    { address: { kind: 'unix', path }, timeoutMs: 5000, hostname: 'x', tls: null },
    { connected: () => {}, failed: () => {}, open: () => {}, health: () => {}, forget: () => {} },
  );
  expect((await pool.begin(() => [MAIL])).reply.code).toBe(250);
  expect(lines).toEqual(['LHLO x\r\n', `${MAIL}\r\n`]);
  pool.abort();
  await new Promise((resolve) => server.close(resolve));
});

test('while the server is not to be had, one attempt at a time is made, and all have its outcome', async () => {
  await using dovecot = await FakeDovecot.open();
  const asked = Promise.withResolvers<void>();
  dovecot.fault = ({ step }) => {
    if (step !== 'greeting') return null;
    if (dovecot.connections === 2) asked.resolve();
    return { after: 'hang' };
  };
  const { pool, health } = poolFor(dovecot.port, 1000);
  await expect(pool.begin(() => [MAIL])).rejects.toMatchObject({ failure: 'timeout' });
  const waiting = [1, 2, 3].map(() => pool.begin(() => [MAIL]));
  await asked.promise;
  const outcomes = await Promise.allSettled(waiting);
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
  expect(dovecot.connections).toBe(2);

  dovecot.fault = () => null;
  const begun = await Promise.all([1, 2, 3].map(() => pool.begin(() => [MAIL])));
  expect(begun.map(({ reply }) => reply.code)).toEqual([250, 250, 250]);
  expect(dovecot.connections).toBe(5);
  expect(health).toEqual([true, false, false, true, true, true]);
  pool.abort();
});

const TLS: UpstreamTls = { name: null, ca: null };

test.each([
  ['offers no STARTTLS', (dovecot: FakeDovecot) => (dovecot.capabilities = ['PIPELINING'])],
  ['refuses it', (dovecot: FakeDovecot) => (dovecot.fault = says('STARTTLS', '454 4.7.0 not now\r\n'))],
  [
    'talks on in the clear behind its answer',
    (dovecot: FakeDovecot) => (dovecot.fault = says('STARTTLS', '220 2.0.0 go\r\n250-injected\r\n')),
  ],
  [
    'does not talk TLS then',
    (dovecot: FakeDovecot) => (dovecot.fault = says('STARTTLS', '220 2.0.0 go\r\n')),
  ],
])('a server that %s gets no mail where TLS is wanted', async (_, set) => {
  await using dovecot = await FakeDovecot.open();
  set(dovecot);
  const { pool } = poolFor(dovecot.port, 500, TLS);
  await expect(pool.begin(() => [MAIL])).rejects.toMatchObject({ failure: 'tls' });
  expect(dovecot.commands).not.toContain(MAIL);
  pool.abort();
});

function says(step: Step, text: string): FakeDovecot['fault'] {
  return (context) => (context.step === step ? { text } : null);
}
