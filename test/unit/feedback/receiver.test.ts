import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { LabelledMail } from '../../../src/feedback/collector.ts';
import { Receiver, RECEIVE_TIMEOUT_MS } from '../../../src/feedback/receiver.ts';
import { SCRIPT_HEAD_LIMIT } from '../../../src/feedback/script-request.ts';
import { openListener, type Listener } from '../../../src/runtime/listener.ts';

const MAX_SIZE = 1000;
const HEAD = 'VERSION\tscript\t4\t0\nenv_USER=zeus\n-\nspam\n\n';

let folder: string;
let listener: Listener;
let receiver: Receiver;
let taken: LabelledMail[];
let faults: string[];
let take: (mail: LabelledMail) => Promise<void>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-feedback-'));
  const address = { kind: 'unix', path: join(folder, 'feedback') } as const;
  listener = await openListener({ address, mode: 0o600, group: null, maxConnections: 2 });
  taken = [];
  faults = [];
  take = (mail) => {
    taken.push(mail);
    return Promise.resolve();
  };
  receiver = new Receiver(listener, {
    maxSize: () => MAX_SIZE,
    take: (mail) => take(mail),
    onFault: (fault) => void faults.push(fault),
    onRefused: () => void faults.push('refused'),
  });
});

afterEach(async () => {
  vi.useRealTimers();
  await listener[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** A request whose head has so many octets, up to its empty line. */
function padded(length: number): string {
  const rest = HEAD.replace('-\n', 'env_X=-\n-\n');
  return rest.replace('env_X=', `env_X=${'x'.repeat(length + 2 - rest.length)}`);
}

async function dial(): Promise<Socket> {
  const socket = connect({ path: join(folder, 'feedback'), allowHalfOpen: true });
  await once(socket, 'connect');
  return socket;
}

/** All that comes until the connection ends. */
async function answerOf(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
  });
  await once(socket, 'close');
  return text;
}

/** Sends the pieces one after another, then our half of the connection ends. */
async function ask(...pieces: readonly (string | Buffer)[]): Promise<string> {
  const socket = await dial();
  const answer = answerOf(socket);
  for (const piece of pieces) await new Promise((resolve) => socket.write(piece, resolve));
  socket.end();
  return await answer;
}

describe('a message', () => {
  test('is taken whole and answered when it is kept', async () => {
    expect(await ask(`${HEAD}Subject: \u00e9\n\nbody\n\nmore`)).toBe('+\n');
    expect(taken).toEqual([
      { label: 'spam', user: 'zeus', octets: Buffer.from('Subject: \u00e9\n\nbody\n\nmore'), complete: true },
    ]);
    expect(faults).toEqual([]);
  });

  test('is the same however it is cut', async () => {
    expect(await ask(...Array.from(`${HEAD}Subject: x\n\nbody`))).toBe('+\n');
    expect(taken.map(({ octets }) => String(octets))).toEqual(['Subject: x\n\nbody']);
  });

  test('of the largest size is complete, of one octet more is not', async () => {
    await ask(HEAD, Buffer.alloc(MAX_SIZE));
    await ask(HEAD, Buffer.alloc(MAX_SIZE), 'x', Buffer.alloc(100_000));
    expect(taken.map(({ octets, complete }) => [octets.length, complete])).toEqual([
      [MAX_SIZE, true],
      [MAX_SIZE, false],
    ]);
  });

  test('that can’t be kept is answered with a failure', async () => {
    take = () => Promise.reject(new Error('disk full'));
    expect(await ask(`${HEAD}Subject: x\n\n`)).toBe('-\n');
    expect(faults).toEqual(['not-kept']);
  });
});

describe('what is no message', () => {
  test.each([
    ['another protocol', 'GET / HTTP/1.1\r\nHost: x\n\n', 'protocol'],
    ['a head that ends early', HEAD.slice(0, -2), 'broken-off'],
    ['nothing', '', 'broken-off'],
  ])('%s', async (_, text, fault) => {
    expect(await ask(text)).toBe('-\n');
    expect(faults).toEqual([fault]);
    expect(taken).toEqual([]);
  });

  test('the longest head, and one octet more', async () => {
    expect(await ask(padded(SCRIPT_HEAD_LIMIT))).toBe('+\n');
    expect(await ask(padded(SCRIPT_HEAD_LIMIT + 1))).toBe('-\n');
    expect(faults).toEqual(['protocol']);
  });

  test('a head without an end is not waited for', async () => {
    const socket = await dial();
    const answer = answerOf(socket);
    socket.write('x'.repeat(SCRIPT_HEAD_LIMIT + 1));
    await once(socket, 'end');
    socket.end();
    expect(await answer).toBe('-\n');
  });

  test('a connection that says nothing ends', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const socket = await dial();
    const answer = answerOf(socket);
    // It is served a moment after it was accepted.
    while (vi.getTimerCount() === 0) await new Promise((resolve) => setImmediate(resolve));
    vi.advanceTimersByTime(RECEIVE_TIMEOUT_MS - 1);
    expect(faults).toEqual([]);
    vi.advanceTimersByTime(1);
    socket.end();
    expect(await answer).toBe('');
    expect(faults).toEqual(['slow']);
  });
});

test('more connections than there may be are refused', async () => {
  const open = [await dial(), await dial()];
  expect(await ask('')).toBe('');
  expect(faults).toContain('refused');
  for (const socket of open) socket.destroy();
});

test('a stop waits for what is being kept, and no longer than it may', async () => {
  const keeping = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  take = () => {
    begun.resolve();
    return keeping.promise;
  };
  const answer = ask(`${HEAD}Subject: x\n\n`);
  await begun.promise;
  const stopped = receiver.stop(AbortSignal.timeout(20_000));
  keeping.resolve();
  expect(await answer).toBe('+\n');
  await stopped;
});

test('a stop that may not wait cuts connections', async () => {
  const socket = await dial();
  const answer = answerOf(socket);
  await expect.poll(() => listener.connections.size).toBe(1);
  await receiver.stop(AbortSignal.abort(new Error('now')));
  socket.end();
  expect(await answer).toBe('');
});
