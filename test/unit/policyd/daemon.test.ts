import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import { dial } from '../../support/players/dial.ts';
import { PolicyClient, policyRequest } from '../../support/players/policy-client.ts';
import { metric } from '../../support/metric.ts';
import { configOf, rcpt, startPolicyd, until, waitingCheck, type Running } from './support.ts';

const EHLO = policyRequest({ protocol_state: 'EHLO' });
const DUNNO = 'action=DUNNO\n\n';
const NO_FIELD = '[policyd]\nspf_header = "none"\n';

/** A connection that the daemon has taken, with all that it sends up to its close. */
async function connected(
  running: Running,
): Promise<{ readonly socket: Socket; readonly all: Promise<string> }> {
  const socket = await dial(running.target);
  const chunks: Buffer[] = [];
  const answered = Promise.withResolvers<void>();
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    answered.resolve();
  });
  const closed = once(socket, 'close');
  socket.write(EHLO);
  await answered.promise;
  return { socket, all: closed.then(() => Buffer.concat(chunks).toString('latin1')) };
}

const { signal: NO_HURRY } = new AbortController();

test('a message that passes gets its header field once', async () => {
  await using running = await startPolicyd();
  await using client = await PolicyClient.open(running.target);
  expect(await client.ask(rcpt())).toBe(
    'PREPEND Received-SPF: pass receiver=mx.olimpus.example; identity=mailfrom; client-ip=192.0.2.20; ' +
      'envelope-from="thor@valhalla.example"; helo=odin.valhalla.example',
  );
  expect(await client.ask(rcpt({ recipient: 'hera@olimpus.example' }))).toBe('DUNNO');
  const labels = { state: 'RCPT', action: 'PREPEND' };
  expect(await metric(running.tools.registry, 'postern_policyd_requests_total', labels)).toBe(1);
});

test('on a unix socket', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'policyd-'));
  await using running = await startPolicyd(NO_FIELD, join(folder, 'policy'));
  await using client = await PolicyClient.open(running.target);
  expect(await client.ask(rcpt())).toBe('DUNNO');
  await rm(folder, { recursive: true });
});

test('the settings of a reload hold for the next message', async () => {
  await using running = await startPolicyd(NO_FIELD);
  await using client = await PolicyClient.open(running.target);
  expect(await client.ask(rcpt())).toBe('DUNNO');
  running.daemon.reload(await configOf('[rules]\n"spf.pass" = "reject"\n', running.spf));
  expect(await client.ask(rcpt())).toBe('DUNNO');
  expect(await client.ask(rcpt({ instance: 'next' }))).toMatch(/^550 /);
});

test('connections are counted, and those above the limit closed, with one line for all of them', async () => {
  await using running = await startPolicyd(`${NO_FIELD}max_connections = 2\n`);
  const { registry, lines } = running.tools;
  const one = await connected(running);
  const two = await connected(running);
  expect(await metric(registry, 'postern_policyd_connections')).toBe(2);
  for (let extra = 0; extra < 3; extra++) {
    const socket = await dial(running.target);
    socket.resume();
    await once(socket, 'close');
  }
  expect(await metric(registry, 'postern_policyd_refused_connections_total')).toBe(3);
  expect(lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
  one.socket.destroy();
  await expect.poll(() => metric(registry, 'postern_policyd_connections')).toBe(1);
  const three = await connected(running);
  two.socket.destroy();
  three.socket.destroy();
});

describe('stop', () => {
  test('idle connections are closed, nobody new is let in', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const { all } = await connected(running);
    await running.daemon.stop(NO_HURRY);
    expect(await all).toBe(DUNNO);
    await expect(dial(running.target)).rejects.toThrow('ECONNREFUSED');
  });

  test('resolves at once when nobody is there', async () => {
    await using running = await startPolicyd(NO_FIELD);
    await running.daemon.stop(NO_HURRY);
    expect(running.listener.connections.size).toBe(0);
  });

  test('what waits for its answer gets it, and the connection is closed right after', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const check = waitingCheck(running);
    const { socket, all } = await connected(running);
    socket.write(policyRequest(rcpt()));
    await check.asked;
    const stop = running.daemon.stop(NO_HURRY);
    await setImmediate();
    await setImmediate();
    await setImmediate();
    expect(running.listener.connections.size).toBe(1);
    check.open();
    expect(await all).toBe(`${DUNNO}${DUNNO}`);
    await stop;
  });

  test('a request that has begun to arrive is waited for', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const { socket, all } = await connected(running);
    const request = policyRequest(rcpt());
    socket.write(request.subarray(0, 100));
    const [peer] = running.listener.connections;
    await until(() => peer?.bytesRead === EHLO.length + 100);
    const stop = running.daemon.stop(NO_HURRY);
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    socket.write(request.subarray(100));
    expect(await all).toBe(`${DUNNO}${DUNNO}`);
    await stop;
  });

  test('a request that the kernel holds already is answered', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const { socket, all } = await connected(running);
    socket.write(EHLO);
    await running.daemon.stop(NO_HURRY);
    expect(await all).toBe(`${DUNNO}${DUNNO}`);
  });

  test('when time is up, the rest is cut off without an answer', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const check = waitingCheck(running);
    const { socket, all } = await connected(running);
    socket.write(policyRequest(rcpt()));
    await check.asked;
    const hurry = new AbortController();
    const stop = running.daemon.stop(hurry.signal);
    hurry.abort();
    await stop;
    expect(await all).toBe(DUNNO);
  });

  test('the same when time is up from the start', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const check = waitingCheck(running);
    const { socket, all } = await connected(running);
    socket.write(policyRequest(rcpt()));
    await check.asked;
    await running.daemon.stop(AbortSignal.abort());
    expect(await all).toBe(DUNNO);
  });
});
