import { mkdtemp, rm } from 'node:fs/promises';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { Registry } from 'prom-client';
import { expect, test, vi } from 'vitest';

import { serveAdmin, type Readiness } from '../../../src/runtime/admin.ts';
import { openListener, type Listener } from '../../../src/runtime/listener.ts';
import { counter, gauge } from '../../../src/runtime/metrics.ts';

const READY: Readiness = {
  ready: true,
  listeners: { policyd: '127.0.0.1:10040' },
  neighbours: { spamd: 'not there' },
};

interface Given extends AsyncDisposable {
  readonly listener: Listener;
  readonly registry: Registry;
  readonly url: string;
}

async function given(readiness: () => Readiness = () => READY): Promise<Given> {
  const address = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
  const listener = await openListener({ address, mode: 0, group: null, maxConnections: 8 });
  const registry = new Registry();
  serveAdmin(listener, { registry, readiness });
  return {
    listener,
    registry,
    url: `http://${listener.text}`,
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  };
}

/** Sends octets as they are and gives back all of the answer. */
function raw(listener: Listener, octets: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port: listener.port ?? 0 });
  socket.write(octets, 'latin1');
  return text(socket);
}

test('/metrics speaks the format of Prometheus', async () => {
  await using admin = await given();
  counter(admin.registry, { name: 'postern_things_total', help: 'Things.' }).inc(3);
  const answer = await fetch(`${admin.url}/metrics`);
  expect(answer.status).toBe(200);
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  expect(await answer.text()).toContain('# TYPE postern_things_total counter\npostern_things_total 3\n');
});

test('metrics that can not be collected are a 500, and the process lives on', async () => {
  await using admin = await given();
  const broken = gauge(admin.registry, { name: 'broken', help: 'Broken.' });
  vi.spyOn(broken, 'get').mockRejectedValue(new Error('out of order'));
  const answer = await fetch(`${admin.url}/metrics`);
  expect(answer.status).toBe(500);
  expect(await answer.text()).toContain('out of order');
  expect((await fetch(`${admin.url}/healthz`)).status).toBe(200);
});

test('/healthz answers for as long as the event loop turns', async () => {
  await using admin = await given(() => ({ ...READY, ready: false }));
  const answer = await fetch(`${admin.url}/healthz`);
  expect([answer.status, await answer.text()]).toEqual([200, 'ok\n']);
});

test('/readyz says what there is; a neighbour that is missing does not make it unready', async () => {
  let ready = false;
  await using admin = await given(() => ({ ...READY, ready }));
  const before = await fetch(`${admin.url}/readyz`);
  expect([before.status, await before.json()]).toEqual([503, { ...READY, ready: false }]);
  ready = true;
  const after = await fetch(`${admin.url}/readyz?verbose`);
  expect([after.status, await after.json()]).toEqual([200, READY]);
});

test('anything else is 404, other methods are 405', async () => {
  await using admin = await given();
  expect((await fetch(`${admin.url}/`)).status).toBe(404);
  expect((await fetch(`${admin.url}/metrics/x`)).status).toBe(404);
  const posted = await fetch(`${admin.url}/metrics`, { method: 'POST', body: 'x'.repeat(100_000) });
  expect([posted.status, posted.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  const head = await fetch(`${admin.url}/healthz`, { method: 'HEAD' });
  expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '3', '']);
});

test('one request per connection', async () => {
  await using admin = await given();
  const ask = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n';
  const answer = await raw(admin.listener, ask + ask);
  expect(answer.match(/HTTP\/1\.1 200/g)).toHaveLength(1);
  expect(answer).toContain('Connection: close');
});

test('a header section that is too long, and what is no HTTP, are refused', async () => {
  await using admin = await given();
  const long = `GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(9000)}\r\n\r\n`;
  expect(await raw(admin.listener, long)).toMatch(/^HTTP\/1\.1 431 /);
  expect(await raw(admin.listener, 'EHLO example.com\r\n')).toMatch(/^HTTP\/1\.1 400 /);
});

test('who does not finish the request in time is cut off', async () => {
  await using admin = await given();
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const socket = connect({ host: '127.0.0.1', port: admin.listener.port ?? 0 });
    socket.on('error', () => socket.destroy());
    socket.write('GET /healthz HTTP/1.1\r\n');
    while (admin.listener.connections.size === 0) await new Promise((resolve) => setImmediate(resolve));
    vi.advanceTimersByTime(9999);
    expect(admin.listener.connections.size).toBe(1);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    vi.advanceTimersByTime(1);
    await closed;
  } finally {
    vi.useRealTimers();
  }
});

test('over a unix socket', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'postern-admin-'));
  try {
    const path = join(folder, 'admin');
    await using listener = await openListener({
      address: { kind: 'unix', path },
      mode: 0o600,
      group: null,
      maxConnections: 8,
    });
    serveAdmin(listener, { registry: new Registry(), readiness: () => READY });
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      request({ socketPath: path, path: '/healthz' }, resolve).on('error', reject).end();
    });
    expect(await text(answer)).toBe('ok\n');
  } finally {
    await rm(folder, { recursive: true });
  }
});
