import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, expect, test, vi } from 'vitest';

import { PROGRESS_MS } from '../../../src/milter/connection.ts';
import { MilterClient } from '../../support/players/milter-client.ts';
import { metric } from '../../support/metric.ts';
import {
  ABORT,
  configOf,
  CONNECT,
  DATA,
  EOH,
  EOM,
  gate,
  HELO,
  mail,
  MAIL,
  onlyConnection,
  OFFER_V2,
  OFFER_V6,
  packet,
  QUIT,
  RawPeer,
  RCPT,
  startMilter,
  stubChecks,
  TRACE,
  words,
  type Running,
} from './support.ts';

afterEach(() => {
  vi.useRealTimers();
});

const BEGIN = [OFFER_V6, CONNECT, HELO];
const MESSAGE = [MAIL, RCPT, DATA, packet('L', 'Subject\0 hi\0'), EOH, packet('B', 'Hello\r\n')];
const TRACED = `i\0\0\0\0X-Postern-Trace\0 ${TRACE}\0`;

function fault({ tools }: Running, kind: string): Promise<number | undefined> {
  return metric(tools.registry, 'postern_milter_errors_total', { kind });
}

function sessions({ tools }: Running): Promise<number | undefined> {
  return metric(tools.registry, 'postern_milter_sessions');
}

/** A peer in the middle of its session: terms agreed, nothing else answered yet. */
async function begun(running: Running): Promise<RawPeer> {
  const peer = await RawPeer.open(running.target);
  peer.send(...BEGIN);
  expect(await peer.next()).toMatch(/^O/);
  return peer;
}

test.each([2, 3, 4, 6] as const)(
  'version %i: two messages of one session, accepted and refused',
  async (version) => {
    const checks = stubChecks();
    await using running = await startMilter({ checks });
    await using client = await MilterClient.open(running.target, version);
    expect(await client.begin(mail())).toBeNull();
    expect(await client.message(mail())).toEqual({
      at: 'E',
      verdict: 'c',
      text: '',
      edits: [
        { action: 'insert', index: 0, name: 'X-Postern-Trace', value: version === 6 ? ` ${TRACE}` : TRACE },
      ],
    });
    checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: 'EICAR' }]);
    expect(await client.message(mail({ queueId: 'SECOND' }))).toMatchObject({
      at: 'E',
      verdict: 'y',
      text: `550 5.7.1 Refused by local policy (${TRACE})`,
      edits: [],
    });
    expect(running.tools.store.decisions.map(({ verdict, queueId }) => [verdict, queueId])).toEqual([
      ['accept', '4gX1Yz0abcz1'],
      ['reject', 'SECOND'],
    ]);
    const [facts] = checks.asked.message;
    expect(facts?.message.headers.toArray().map(({ name, value }) => [name, value])).toEqual(mail().headers);
  },
);

test('all of an answer leaves in one write', async () => {
  const checks = stubChecks();
  checks.message = () => Promise.resolve([{ code: 'spam.odd', detail: '' }]);
  await using running = await startMilter({ checks });
  using peer = await begun(running);
  peer.send(...MESSAGE.slice(0, 3));
  await peer.next();
  const write = vi.spyOn(onlyConnection(running), 'write');
  peer.send(...MESSAGE.slice(3), EOM);
  expect([await peer.next(), await peer.next(), await peer.next()]).toEqual([
    TRACED,
    `qspam.odd (${TRACE})\0`,
    'c',
  ]);
  expect(write).toHaveBeenCalledTimes(1);
});

test('a session in single octets, and a session in one piece', async () => {
  await using running = await startMilter();
  const bytes = Buffer.concat([...BEGIN, ...MESSAGE, ABORT, ABORT, ...MESSAGE, EOM, ...MESSAGE, EOM]);
  for (const size of [1, bytes.length]) {
    using peer = await RawPeer.open(running.target);
    for (let at = 0; at < bytes.length; at += size) peer.send(bytes.subarray(at, at + size));
    const answers: (string | null)[] = [];
    for (let count = 0; count < 8; count++) answers.push(await peer.next());
    expect(answers.slice(1)).toEqual(['c', 'c', TRACED, 'c', 'c', TRACED, 'c']);
    peer.send(ABORT, ABORT, QUIT);
    expect(await peer.next()).toBeNull();
  }
  expect(running.tools.store.decisions).toHaveLength(4);
});

test('ABORT while the checks run: they end, nothing is answered, the session goes on', async () => {
  const checks = stubChecks();
  const began = gate();
  const ended = gate();
  checks.message = async (_, signal) => {
    signal.addEventListener('abort', ended.open);
    began.open();
    await ended.opened;
    return [{ code: 'spam.virus', detail: 'too late' }];
  };
  await using running = await startMilter({ checks });
  using peer = await begun(running);
  peer.send(...MESSAGE, EOM);
  expect(await peer.next()).toBe('c');
  await began.opened;
  peer.send(ABORT);
  await ended.opened;
  checks.message = () => Promise.resolve([]);
  peer.send(...MESSAGE, EOM);
  expect([await peer.next(), await peer.next(), await peer.next()]).toEqual(['c', TRACED, 'c']);
  expect(running.tools.store.decisions.map(({ verdict }) => verdict)).toEqual(['accept']);
});

test.each([
  ['ABORT', ABORT, ['c', TRACED, 'c']],
  ['QUIT_NC and a new connection', Buffer.concat([packet('K'), CONNECT]), ['c', TRACED, 'c']],
  ['QUIT', QUIT, [null]],
])('%s in one piece with the end of the message: no verdict', async (_, after, answers) => {
  await using running = await startMilter();
  using peer = await begun(running);
  peer.send(...MESSAGE, EOM, after, ...MESSAGE, EOM);
  expect(await peer.next()).toBe('c');
  for (const answer of answers) expect(await peer.next()).toBe(answer);
  expect(
    await metric(running.tools.registry, 'postern_milter_messages_total', {
      verdict: 'aborted',
      direction: 'in',
    }),
  ).toBe(1);
});

test('a peer that leaves while the checks run: they end, and nothing is recorded', async () => {
  const checks = stubChecks();
  const began = gate();
  const ended = gate();
  checks.message = async (_, signal) => {
    signal.addEventListener('abort', ended.open);
    began.open();
    await ended.opened;
    return [];
  };
  await using running = await startMilter({ checks });
  using peer = await begun(running);
  peer.send(...MESSAGE, EOM);
  await began.opened;
  peer.socket.destroy();
  await ended.opened;
  await running.daemon.stop(AbortSignal.timeout(5000));
  expect(running.tools.store.decisions).toEqual([]);
  expect(await fault(running, 'lost')).toBe(1);
  expect(await sessions(running)).toBe(0);
});

test('what comes while the checks run waits, in order, and only so much of it is read', async () => {
  const checks = stubChecks();
  const began = gate();
  const slow = gate();
  checks.message = async () => {
    began.open();
    await slow.opened;
    return [];
  };
  await using running = await startMilter({ checks });
  using peer = await begun(running);
  peer.send(...MESSAGE, EOM);
  await began.opened;
  const socket = onlyConnection(running);
  const more = Array.from({ length: 40 }, () => packet('D', 'M', '{mail_addr}\0x\0'));
  // An ABORT that is not next in line gives up another message than the one that is being judged.
  peer.send(...more, MAIL, ABORT, ...MESSAGE, EOM);
  await vi.waitFor(() => expect(socket.isPaused()).toBe(true));
  slow.open();
  const answers: (string | null)[] = [];
  for (let count = 0; count < 6; count++) answers.push(await peer.next());
  expect(answers).toEqual(['c', TRACED, 'c', 'c', TRACED, 'c']);
  expect(socket.isPaused()).toBe(false);
});

test('SMFIR_PROGRESS goes out while the checks run', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  const checks = stubChecks();
  const began = gate();
  const slow = gate();
  checks.message = async () => {
    began.open();
    await slow.opened;
    return [];
  };
  await using running = await startMilter({ checks });
  using peer = await begun(running);
  peer.send(...MESSAGE, EOM);
  await began.opened;
  vi.advanceTimersByTime(2 * PROGRESS_MS);
  slow.open();
  const answers: (string | null)[] = [];
  for (let count = 0; count < 5; count++) answers.push(await peer.next());
  expect(answers).toEqual(['c', 'p', 'p', TRACED, 'c']);
  expect(vi.getTimerCount()).toBe(0);
});

test.each([
  ['packet-length', Buffer.alloc(4)],
  ['packet-length', Buffer.from([0xff, 0xff, 0xff, 0xff])],
  ['unknown-command', packet('z')],
  ['malformed', packet('H', 'odin')],
  ['out-of-order', RCPT],
])('%s ends the connection, counted and logged', async (kind, bytes) => {
  await using running = await startMilter();
  using peer = await begun(running);
  peer.send(bytes, ...MESSAGE, EOM);
  expect(await peer.next()).toBeNull();
  expect(await fault(running, kind)).toBe(1);
  expect(running.tools.lines).toEqual([
    expect.objectContaining({ level: 'warn', msg: 'connection given up', reason: kind }),
  ]);
});

test('terms that can not be met end the connection', async () => {
  await using running = await startMilter();
  using peer = await RawPeer.open(running.target);
  peer.send(packet('O', words(1, 0x3f, 0x7f)));
  expect(await peer.next()).toBeNull();
  expect(await fault(running, 'negotiation')).toBe(1);
});

test('noise of all kinds never brings the daemon down', async () => {
  await using running = await startMilter();
  for (const noise of ['GET / HTTP/1.1\r\n\r\n', '\0\0\0\x01', 'EHLO x\r\n', '\x16\x03\x01\x02\0\x01', '']) {
    using peer = await RawPeer.open(running.target);
    peer.socket.end(noise, 'latin1');
    expect(await peer.next()).toBeNull();
  }
  await using client = await MilterClient.open(running.target);
  await client.begin(mail());
  expect((await client.message(mail())).verdict).toBe('c');
});

test('a peer that does not read its answers is not read from, and is given up in the end', async () => {
  // The buffers of a unix socket are smaller.
  const path = join(tmpdir(), `milter-${randomUUID()}`);
  await using running = await startMilter({ path });
  using peer = await RawPeer.open(running.target);
  peer.send(OFFER_V2, CONNECT, HELO);
  await peer.next();
  peer.socket.pause();
  const socket = onlyConnection(running);
  const flood = Buffer.concat(Array.from({ length: 10_000 }, () => packet('H', '\0')));
  const fill = (): void => {
    while (peer.socket.writable && peer.socket.write(flood));
    peer.socket.once('drain', fill);
  };
  fill();
  await vi.waitFor(() => expect(socket.isPaused()).toBe(true), 10_000);
  expect(socket.writableLength).toBeLessThan(1024 * 1024);
  socket.emit('timeout');
  await once(socket, 'close');
  expect(await fault(running, 'not-reading')).toBe(1);
  peer.socket.removeAllListeners('drain');
}, 20_000);

test('a connection on which nothing happens for hours is given up', async () => {
  await using running = await startMilter();
  using peer = await begun(running);
  const socket = onlyConnection(running);
  expect(socket.timeout).toBe(7_210_000);
  socket.emit('timeout');
  expect(await peer.next()).toBeNull();
  expect(await fault(running, 'idle')).toBe(1);
});

test('connections above the limit are closed at once, counted, and told of once', async () => {
  await using running = await startMilter({ toml: 'milter.max_connections = 1' });
  using first = await begun(running);
  for (let count = 0; count < 3; count++) {
    using more = await RawPeer.open(running.target);
    expect(await more.next()).toBeNull();
  }
  expect(await fault(running, 'too-many-connections')).toBe(3);
  expect(running.tools.lines).toHaveLength(1);
  expect(await sessions(running)).toBe(1);
  first.send(QUIT);
  expect(await first.next()).toBeNull();
});

test('a body larger than memory is spooled, and read back whole', async () => {
  const checks = stubChecks();
  let seen = Buffer.alloc(0);
  checks.message = async ({ message }) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of message.body.chunks()) chunks.push(chunk);
    seen = Buffer.concat(chunks);
    return [];
  };
  await using running = await startMilter({ checks, toml: 'milter.memory_per_message = "64KiB"' });
  const body = Buffer.alloc(3 * 1024 * 1024, '0123456789abcdef\r\n');
  for (const version of [2, 6] as const) {
    await using client = await MilterClient.open(running.target, version);
    await client.begin(mail());
    expect((await client.message(mail({ body }))).verdict).toBe('c');
    expect(seen.equals(body)).toBe(true);
  }
});

test('a body that can not be spooled is deferred', async () => {
  const toml = 'milter.memory_per_message = "64KiB"';
  await using running = await startMilter({ toml, spool: '/nowhere/at/all' });
  await using client = await MilterClient.open(running.target);
  await client.begin(mail());
  const answer = await client.message(mail({ body: Buffer.alloc(1024 * 1024, 'x') }));
  expect(answer.verdict).toBe('y');
  expect(answer.text).toMatch(/^451 4\.3\.0 /);
  expect(await fault(running, 'spool')).toBeGreaterThan(0);
  expect((await client.message(mail())).verdict).toBe('c');
});

test('reload: sessions under way keep their configuration, new ones have the new', async () => {
  const checks = stubChecks();
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: 'EICAR' }]);
  await using running = await startMilter({ checks });
  await using old = await MilterClient.open(running.target);
  await old.begin(mail());
  running.daemon.reload(await configOf('rules."spam.virus" = "ignore"', checks.definitions));
  await using young = await MilterClient.open(running.target);
  await young.begin(mail());
  expect((await old.message(mail())).verdict).toBe('y');
  expect((await young.message(mail())).verdict).toBe('c');
});

test('stop: no new connections; sessions go on to their QUIT, messages included', async () => {
  await using running = await startMilter();
  using idle = await begun(running);
  using busy = await begun(running);
  busy.send(MAIL, RCPT);
  const patience = new AbortController();
  let stopped = false;
  const stop = running.daemon.stop(patience.signal).then(() => (stopped = true));
  await vi.waitFor(() => expect(RawPeer.open(running.target)).rejects.toThrow('ECONNREFUSED'));
  busy.send(...MESSAGE.slice(2), EOM);
  expect([await busy.next(), await busy.next(), await busy.next()]).toEqual(['c', TRACED, 'c']);
  // Postfix would fail the next message of a session whose milter had gone away.
  busy.send(ABORT, ...MESSAGE, EOM);
  expect([await busy.next(), await busy.next(), await busy.next()]).toEqual(['c', TRACED, 'c']);
  busy.send(QUIT);
  expect(await busy.next()).toBeNull();
  expect(stopped).toBe(false);
  idle.send(QUIT);
  expect(await idle.next()).toBeNull();
  await stop;
  expect(await fault(running, 'cut-off')).toBe(0);
  expect(running.tools.lines.filter(({ level }) => level !== 'info')).toEqual([]);
});

test('stop at its deadline: open messages fail for now, idle sessions are closed', async () => {
  const checks = stubChecks();
  const began = gate();
  checks.message = () => {
    began.open();
    return new Promise(() => {});
  };
  await using running = await startMilter({ checks });
  using idle = await begun(running);
  using envelope = await begun(running);
  envelope.send(MAIL, RCPT, DATA);
  await envelope.next();
  using judged = await begun(running);
  judged.send(...MESSAGE, EOM);
  await judged.next();
  await began.opened;
  await running.daemon.stop(AbortSignal.abort());
  expect([await idle.next()]).toEqual([null]);
  expect([await envelope.next(), await envelope.next()]).toEqual(['t', null]);
  expect([await judged.next(), await judged.next()]).toEqual(['t', null]);
  expect(await fault(running, 'cut-off')).toBe(2);
  expect(running.tools.store.decisions).toEqual([]);
  expect(await sessions(running)).toBe(0);
});
