import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

import { describe, expect, test } from 'vitest';

import { bounded } from '../../../src/adapters/state-keys.ts';
import type { RedisOptions } from '../../../src/adapters/redis-client.ts';
import { openRedisState } from '../../../src/adapters/state-redis.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { State } from '../../../src/ports/state.ts';
import { LinkEvents } from '../../support/redis-events.ts';
import { PLAIN_REDIS } from '../../support/redis-options.ts';

const TIMEOUT_MS = 100;
/** Where an answer comes: more than any machine needs. */
const AMPLE_MS = 5000;
/** What a call may take on top of its time on a machine that has other things to do. */
const SLACK_MS = 900;

interface Impostor extends AsyncDisposable {
  /** With little time for each call. */
  readonly options: RedisOptions;
  /** With more than enough. */
  readonly patient: RedisOptions;
}

/** Listens where Redis should, and answers each question with what the test says. */
async function startImpostor(
  answer: (question: readonly string[], socket: Socket) => string,
): Promise<Impostor> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    let received = '';
    socket.setEncoding('latin1').on('data', (text: string) => {
      received += text;
      for (;;) {
        const question = takeQuestion(received);
        if (question === null) return;
        received = received.slice(question.length);
        socket.write(answer(question.words, socket));
      }
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const options: RedisOptions = {
    address: { kind: 'tcp', host: '127.0.0.1', port: address.port },
    ...PLAIN_REDIS,
    timeoutMs: TIMEOUT_MS,
  };
  return {
    options,
    patient: { ...options, timeoutMs: AMPLE_MS },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** The first whole question, in the form that every client of Redis uses. */
function takeQuestion(received: string): { words: string[]; length: number } | null {
  const count = /^\*(\d+)\r\n/.exec(received);
  if (count === null) return null;
  const words: string[] = [];
  let at = count[0].length;
  while (words.length < Number(count[1])) {
    const head = /^\$(\d+)\r\n/.exec(received.slice(at, at + 20));
    if (head === null) return null;
    const [start, length] = [at + head[0].length, Number(head[1])];
    at = start + length + 2;
    if (at > received.length) return null;
    words.push(received.slice(start, start + length));
  }
  return { words, length: at };
}

/** As a server does that is ready, so that scripts are sent to it. */
function ready(question: readonly string[], otherwise: string): string {
  const [word = ''] = question;
  if (word === 'info') return '$9\r\nloading:0\r\n';
  return word === 'client' ? '+OK\r\n' : otherwise;
}

/** The calls whose answers are read. */
function calls(state: State): Promise<unknown>[] {
  const hit = {
    limit: 'l',
    key: 'k',
    algorithm: 'window',
    most: 1,
    periodMs: 1,
    cost: 1,
    enforced: true,
  } as const;
  const times = { delayMs: 1000, windowMs: 1000, ageMs: 1000, clientPasses: 5 };
  return [
    state.ping(),
    state.hit([hit]),
    state.counters({ count: 1 }),
    state.counters({ limit: 'l', key: 'k', count: 1 }),
    state.resetCounters({ limit: 'l', key: 'k' }),
    state.greylist({ network: 'n', sender: 's', recipient: 'r' }, times),
    state.reserve('t', [{ mailbox: 'b', bytes: 1, used: 0, limit: null, grace: 0 }], 1000),
    state.settle('t', null, 1000),
    state.reservations('b'),
    state.noteFull('b', true),
    state.seen([{ kind: 'recipient', subject: 'a', value: 'b', windowMs: 1000 }]),
    state.tallies('a', 0),
    state.standing('a'),
    state.raiseStanding({ login: 'a', kind: 'hold', why: '', by: 'postern', since: 1, until: null }),
    state.standings(),
  ];
}

/** Why each failed. */
async function reasons(asked: readonly Promise<unknown>[]): Promise<string[]> {
  const begin = performance.now();
  const ends = await Promise.allSettled(asked);
  expect(performance.now() - begin).toBeLessThan(AMPLE_MS);
  return ends.map((end) => {
    if (end.status === 'fulfilled') return `answered ${JSON.stringify(end.value)}`;
    const error: unknown = end.reason;
    if (!(error instanceof NeighbourError) || !(error.cause instanceof Error))
      return `not ours: ${String(error)}`;
    expect(error.message).toMatch(/^redis at 127\.0\.0\.1:\d+$/);
    return error.cause.message;
  });
}

describe('a server that is not Redis', () => {
  test.each([
    ['a text', '+OK\r\n'],
    ['another text', '$8\r\nwhatever\r\n'],
    ['a number below all', ':-1\r\n'],
    ['lists in lists', '*2\r\n*1\r\n:1\r\n*1\r\n$1\r\nx\r\n'],
    ['an empty text', '$0\r\n\r\n'],
    ['a list with nothing in it', '*3\r\n$-1\r\n$-1\r\n$-1\r\n'],
  ])('%s in the place of every answer is an error of the neighbour', async (_, answer) => {
    await using impostor = await startImpostor((question) => ready(question, answer));
    await using state = await openRedisState(impostor.patient, new LinkEvents());
    for (const reason of await reasons(calls(state))) {
      expect(reason).toBe('it answered what no script of ours answers');
    }
  });

  test('an error is told with its text', async () => {
    await using impostor = await startImpostor((question) => ready(question, '-ERR out of cheese\r\n'));
    await using state = await openRedisState(impostor.patient, new LinkEvents());
    for (const reason of await reasons(calls(state))) expect(reason).toBe('ERR out of cheese');
  });

  test('that does not know our scripts, even those that we have just sent, is not asked for ever', async () => {
    let questions = 0;
    await using impostor = await startImpostor((question) => {
      questions++;
      return ready(question, '-NOSCRIPT No matching script.\r\n');
    });
    await using state = await openRedisState(impostor.patient, new LinkEvents());
    questions = 0;
    expect(await reasons([state.standings()])).toEqual(['NOSCRIPT No matching script.']);
    expect(questions).toBe(2);
  });

  test.each([
    ['another protocol', () => 'HTTP/1.1 400 Bad Request\r\n\r\n'],
    ['nothing at all', () => ''],
    [
      'the end of the connection',
      (socket: Socket) => {
        socket.destroy();
        return '';
      },
    ],
  ])('%s as an answer: no connection, in time', async (_, answer) => {
    await using impostor = await startImpostor((__, socket) => answer(socket));
    const events = new LinkEvents();
    const begin = performance.now();
    await using state = await openRedisState(impostor.options, events);
    expect(performance.now() - begin).toBeLessThan(TIMEOUT_MS + SLACK_MS);
    for (const reason of await reasons(calls(state))) expect(reason).toMatch(/^no connection: /);
    // One outage, however often it is tried again.
    expect(events.told).toEqual([expect.stringMatching(/^down: /)]);
  });

  test('more answers than questions: the connection is given up, since they no longer match', async () => {
    await using impostor = await startImpostor((question) => ready(question, '+PONG\r\n+PONG\r\n'));
    const events = new LinkEvents();
    await using state = await openRedisState(impostor.patient, events);
    const gone = events.next('down');
    await state.ping();
    await gone;
    expect(events.told).toEqual(['up', expect.stringContaining('Command queue state error')]);
  });

  test('an answer without end: it is given up when its time is over', async () => {
    const chunk = 'x'.repeat(65_536);
    await using impostor = await startImpostor((question, socket) => {
      if (question[0] !== 'ping') return ready(question, '+OK\r\n');
      const more = (): void => {
        while (socket.writable && socket.write(chunk));
      };
      socket.on('drain', more);
      return `$2000000000\r\n${chunk}`;
    });
    const events = new LinkEvents();
    await using state = await openRedisState(impostor.options, events);
    const gone = events.next('down');
    const asked = performance.now();
    expect(await reasons([state.ping()])).toEqual([`no answer within ${TIMEOUT_MS} ms`]);
    expect(performance.now() - asked).toBeLessThan(TIMEOUT_MS + SLACK_MS);
    await gone;
    expect(events.told).toEqual(['up', `down: no answer within ${TIMEOUT_MS} ms`]);
  });
});

describe('parts of keys', () => {
  test('are written out up to their limit, and stay apart beyond it', () => {
    const longest = 'a'.repeat(320);
    expect(bounded(longest)).toBe(longest);
    const [one, other] = [bounded(`${longest}b`), bounded(`${longest}c`)];
    expect([one.length, other.length]).toEqual([320, 320]);
    expect(one).not.toBe(other);
    expect(bounded(`${longest}b`)).toBe(one);
  });
});
