import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

import { afterEach, describe, expect, test, vi } from 'vitest';

import { PEER_DEADLINE_MS } from '../../../src/policyd/session.ts';
import { LINE_LIMIT } from '../../../src/policyd/wire.ts';
import { dial } from '../../support/players/dial.ts';
import { PolicyClient, policyRequest } from '../../support/players/policy-client.ts';
import { metric } from '../../support/metric.ts';
import { rcpt, spfFinding, startPolicyd, until, waitingCheck, type Running } from './support.ts';

const EHLO = policyRequest({ protocol_state: 'EHLO' });
const NO_FIELD = '[policyd]\nspf_header = "none"\n';

/** All that the daemon sends until it closes. */
async function readToEnd(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(socket, 'close');
  return Buffer.concat(chunks).toString('latin1');
}

/** What has come, once it is `count` replies. */
async function replies(socket: Socket, count: number): Promise<string[]> {
  let text = '';
  const all = Promise.withResolvers<string[]>();
  const read = (chunk: Buffer): void => {
    text += chunk.toString('latin1');
    const whole = text.split('\n\n');
    if (whole.length > count) all.resolve(whole.slice(0, -1));
  };
  socket.on('data', read);
  const given = await all.promise;
  socket.off('data', read);
  return given;
}

function faults({ tools }: Running, reason: string): Promise<number | undefined> {
  return metric(tools.registry, 'postern_policyd_protocol_errors_total', { reason });
}

afterEach(() => {
  vi.useRealTimers();
});

describe('requests', () => {
  test('several in one segment are answered in order, each once', async () => {
    await using running = await startPolicyd();
    const socket = await dial(running.target);
    running.spf.run = (facts) =>
      Promise.resolve([spfFinding(facts.sender.kind === 'null' ? 'fail' : 'pass', facts)]);
    const answers = replies(socket, 5);
    socket.write(
      Buffer.concat([
        policyRequest(rcpt({ instance: 'a', sender: '' })),
        EHLO,
        policyRequest(rcpt({ instance: 'b' })),
        policyRequest(rcpt({ instance: 'b' })),
        policyRequest(rcpt({ instance: 'a', sender: '' })),
      ]),
    );
    expect((await answers).map((reply) => reply.slice(0, 14))).toEqual([
      'action=550 5.7',
      'action=DUNNO',
      'action=PREPEND',
      'action=DUNNO',
      'action=550 5.7',
    ]);
    socket.destroy();
  });

  test('byte by byte', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const socket = await dial(running.target);
    const answer = replies(socket, 1);
    for (const byte of policyRequest(rcpt())) socket.write(Buffer.of(byte));
    expect(await answer).toEqual(['action=DUNNO']);
    socket.destroy();
  });

  test('come on one connection for as long as it lives, without a limit of ours', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    await using running = await startPolicyd(NO_FIELD);
    await using client = await PolicyClient.open(running.target);
    expect(await client.ask(rcpt())).toBe('DUNNO');
    await vi.advanceTimersByTimeAsync(24 * 3_600_000);
    expect(await client.ask(rcpt())).toBe('DUNNO');
    expect(running.listener.connections.size).toBe(1);
  });

  test('about one message on two connections are about one message', async () => {
    await using running = await startPolicyd();
    await using one = await PolicyClient.open(running.target);
    await using two = await PolicyClient.open(running.target);
    const actions = await Promise.all([one.ask(rcpt()), two.ask(rcpt())]);
    expect(actions.filter((action) => action.startsWith('PREPEND'))).toHaveLength(1);
    expect(running.spf.asked).toHaveLength(1);
  });

  test('of a peer that closes its side are answered before we close ours', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const { asked, open } = waitingCheck(running);
    const socket = await dial(running.target);
    const all = readToEnd(socket);
    socket.end(Buffer.concat([policyRequest(rcpt()), EHLO]));
    await asked;
    const [peer] = running.listener.connections;
    await until(() => peer?.readableEnded === true);
    open();
    expect(await all).toBe('action=DUNNO\n\naction=DUNNO\n\n');
    expect(await faults(running, 'cut-off')).toBe(0);
  });
});

describe('peers that break the protocol', () => {
  test.for([
    ['line-too-long', `request=${'x'.repeat(LINE_LIMIT)}`],
    ['no-equals-sign', 'GET / HTTP/1.1\r\n\r\n'],
    ['not-a-policy-request', 'request=junk\n\n'],
    ['too-many-attributes', 'a=b\n'.repeat(200)],
    ['request-too-long', `a=${'x'.repeat(8000)}\n`.repeat(10)],
  ])(
    '%s: what was asked before is answered, then the connection is closed, counted and logged',
    async ([reason = '', bytes = '']) => {
      await using running = await startPolicyd(NO_FIELD);
      const socket = await dial(running.target);
      const all = readToEnd(socket);
      socket.write(Buffer.concat([policyRequest(rcpt()), EHLO, Buffer.from(bytes)]));
      expect(await all).toBe('action=DUNNO\n\naction=DUNNO\n\n');
      expect(await faults(running, reason)).toBe(1);
      expect(running.tools.lines).toContainEqual(expect.objectContaining({ level: 'warn', reason }));
    },
  );

  test('the end in the middle of a request', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const socket = await dial(running.target);
    const all = readToEnd(socket);
    socket.end(Buffer.concat([EHLO, EHLO.subarray(0, 40)]));
    expect(await all).toBe('action=DUNNO\n\n');
    expect(await faults(running, 'cut-off')).toBe(1);
  });

  test('a reset connection takes nothing with it', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const { asked, open } = waitingCheck(running);
    const socket = await dial(running.target);
    socket.write(policyRequest(rcpt()));
    await asked;
    socket.resetAndDestroy();
    await once(socket, 'close');
    open();
    await using client = await PolicyClient.open(running.target);
    expect(await client.ask(rcpt())).toBe('DUNNO');
    expect(running.spf.asked).toHaveLength(1);
    await until(() => running.listener.connections.size === 1);
  });

  test('a request that does not come to its end', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    await using running = await startPolicyd(NO_FIELD);
    const socket = await dial(running.target);
    const answer = replies(socket, 1);
    socket.write(Buffer.concat([EHLO, EHLO.subarray(0, 40)]));
    await answer;
    const all = readToEnd(socket);
    await vi.advanceTimersByTimeAsync(PEER_DEADLINE_MS - 1);
    expect(await faults(running, 'slow-request')).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(await all).toBe('');
    expect(await faults(running, 'slow-request')).toBe(1);
  });

  test('while an answer is awaited, no more is read than a buffer holds', async () => {
    await using running = await startPolicyd(NO_FIELD);
    const { asked, open } = waitingCheck(running);
    const socket = await dial(running.target);
    const count = 30_000;
    const answers = replies(socket, count + 1);
    socket.write(policyRequest(rcpt()));
    await asked;
    socket.write(Buffer.concat(Array.from({ length: count }, () => EHLO)));
    const [peer] = running.listener.connections;
    // Some 20 MB wait; the kernel takes a part of them, we no more than a chunk or two.
    for (let turn = 0; turn < 100; turn++) await setImmediate();
    expect(peer?.bytesRead).toBeLessThan(512 * 1024);
    open();
    expect(new Set(await answers)).toEqual(new Set(['action=DUNNO']));
    socket.destroy();
  });

  test('a peer that does not read is not read either, and closed when it stays so', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const folder = await mkdtemp(join(tmpdir(), 'policyd-'));
    // The buffers of a unix socket are small.
    await using running = await startPolicyd(NO_FIELD, join(folder, 'policy'));
    const socket = await dial(running.target);
    socket.pause();
    const [peer] = running.listener.connections;
    const closed = once(peer ?? socket, 'close');
    socket.write(Buffer.concat(Array.from({ length: 30_000 }, () => EHLO)));
    await until(() => peer?.writableNeedDrain === true);
    const written = peer?.bytesWritten ?? 0;
    expect(written).toBeLessThan(2 * 1024 ** 2);
    expect(peer?.isPaused()).toBe(true);
    await vi.advanceTimersByTimeAsync(PEER_DEADLINE_MS - 1);
    expect(await faults(running, 'not-reading')).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    await closed;
    expect(await faults(running, 'not-reading')).toBe(1);
    socket.destroy();
    await rm(folder, { recursive: true });
  });

  test('a peer that reads late gets every reply', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'policyd-'));
    await using running = await startPolicyd(NO_FIELD, join(folder, 'policy'));
    const socket = await dial(running.target);
    socket.pause();
    const count = 30_000;
    socket.write(Buffer.concat(Array.from({ length: count }, () => EHLO)));
    const [peer] = running.listener.connections;
    await until(() => peer?.writableNeedDrain === true);
    socket.end();
    const all = readToEnd(socket);
    socket.resume();
    expect(await all).toBe('action=DUNNO\n\n'.repeat(count));
    await rm(folder, { recursive: true });
  });
});

test('an error of ours sends nothing and closes: Postfix refuses for now', async () => {
  await using running = await startPolicyd(NO_FIELD);
  running.tools.store.record = () => {
    throw new TypeError('undefined is not a function');
  };
  const socket = await dial(running.target);
  const all = readToEnd(socket);
  socket.write(Buffer.concat([EHLO, policyRequest(rcpt()), EHLO]));
  expect(await all).toBe('action=DUNNO\n\n');
  expect(await faults(running, 'internal')).toBe(1);
  expect(running.tools.lines).toContainEqual(
    expect.objectContaining({ level: 'error', msg: 'request could not be answered' }),
  );
});

test('the same when the message is known already, so that nothing is awaited', async () => {
  await using running = await startPolicyd(NO_FIELD);
  const socket = await dial(running.target);
  const first = replies(socket, 1);
  socket.write(policyRequest(rcpt()));
  await first;
  running.tools.log.isLevelEnabled = () => {
    throw new TypeError('undefined is not a function');
  };
  const all = readToEnd(socket);
  socket.write(Buffer.concat([EHLO, policyRequest(rcpt()), EHLO]));
  expect(await all).toBe('action=DUNNO\n\n');
  expect(await faults(running, 'internal')).toBe(1);
});
