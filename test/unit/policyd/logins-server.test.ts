import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { describe, expect, test, vi } from 'vitest';
import { z } from 'zod';

import { logins } from '../../../src/policyd/logins.ts';
import { BODY_LIMIT } from '../../../src/policyd/logins-server.ts';
import type { Daemon } from '../../../src/runtime/daemon.ts';
import type { Config } from '../../../src/config/config.ts';
import { openListener, type Listener } from '../../../src/runtime/listener.ts';
import { NO_STATE } from '../../support/checks.ts';
import { metric } from '../../support/metric.ts';
import { mutated, seeded } from '../../support/mutate.ts';
import { givenLogins, SECRET, type LoginsGiven } from './logins-support.ts';

const QUESTION = {
  device_id: '',
  login: 'zeus@olimpus.example',
  mech: 'PLAIN',
  protocol: 'imap',
  pwhash: '0893',
  remote: '192.0.2.7',
  session_id: 'fEp9CcZggOx/AAAB',
  tls: false,
};
const GO_ON = { status: 0, msg: '' };

const LINE = z.record(z.string(), z.unknown());

interface Served extends AsyncDisposable {
  readonly given: LoginsGiven;
  readonly listener: Listener;
  readonly daemon: Daemon<Config>;
  readonly registry: Registry;
  readonly lines: z.infer<typeof LINE>[];
  readonly url: string;
}

async function served(rules = '', maxConnections = 8): Promise<Served> {
  await using cleanup = new AsyncDisposableStack();
  const given = cleanup.use(await givenLogins(rules));
  const address = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
  const listener = cleanup.use(await openListener({ address, mode: 0, group: null, maxConnections }));
  const lines: z.infer<typeof LINE>[] = [];
  const log = pino({ level: 'debug' }, { write: (line) => void lines.push(LINE.parse(JSON.parse(line))) });
  const registry = new Registry();
  const checks = { state: given.state, notifier: given.notifier, clock: given.clock };
  const daemon = logins(listener, given.config, { log, registry, checks });
  const stack = cleanup.move();
  return {
    given,
    listener,
    daemon,
    registry,
    lines,
    url: `http://${listener.text}/logins`,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function post(url: string, body: string, key: string | null = SECRET): Promise<Response> {
  return fetch(url, { method: 'POST', body, headers: key === null ? {} : { 'X-API-Key': key } });
}

async function ask({ url }: Served, differs: Partial<typeof QUESTION> = {}): Promise<unknown> {
  const answer = await post(`${url}?command=allow`, JSON.stringify({ ...QUESTION, ...differs }));
  expect(answer.status).toBe(200);
  return answer.json();
}

let serial = 0;

async function report({ url }: Served, success: boolean, refused = false): Promise<void> {
  serial += 1;
  const body = { ...QUESTION, pwhash: `p${serial}`, success, policy_reject: refused };
  const answer = await post(`${url}?command=report`, JSON.stringify(body));
  expect([answer.status, await answer.json()]).toEqual([200, GO_ON]);
}

function http(body: string, head = 'POST /logins?command=allow HTTP/1.1'): string {
  return `${head}\r\nHost: x\r\nX-API-Key: ${SECRET}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

/** A question of so many octets. */
function filled(octets: number): string {
  const empty = JSON.stringify(QUESTION);
  return JSON.stringify({ ...QUESTION, device_id: 'x'.repeat(octets - empty.length) });
}

function dial({ listener }: Served): Socket {
  const socket = connect({ host: '127.0.0.1', port: listener.port ?? 0 });
  socket.on('error', () => socket.destroy());
  return socket;
}

describe('the answers', () => {
  test('go on; wrong passwords; refused, with words for the client', async () => {
    await using server = await served();
    expect(await ask(server)).toEqual(GO_ON);
    for (let n = 0; n < 11; n += 1) await report(server, false);
    expect(await ask(server)).toEqual({
      status: -1,
      msg: 'Too many failed logins, please try again later',
    });
    expect(await ask(server, { remote: '198.51.100.7' })).toEqual(GO_ON);
  });

  test('a number of seconds is a delay', async () => {
    await using server = await served('[logins.pair-failures]\naction = "delay 4s"\nlimit = 1');
    for (let n = 0; n < 3; n += 1) await report(server, false);
    expect(await ask(server)).toEqual({ status: 2, msg: '' });
  });

  test('what the policy refused is no wrong password', async () => {
    await using server = await served('[logins.pair-failures]\nlimit = 1');
    for (let n = 0; n < 20; n += 1) await report(server, false, true);
    expect(await ask(server)).toEqual(GO_ON);
  });

  test('log and metrics tell of them, and never of the hash', async () => {
    await using server = await served('[logins.pair-failures]\nlimit = 1');
    await ask(server, { login: 'ze\u009bus' });
    for (let n = 0; n < 2; n += 1) await report(server, false);
    await ask(server);
    await report(server, true);
    expect(server.lines.map(({ level, msg, rule, notes }) => [level, msg, rule ?? notes])).toEqual([
      [20, 'login may go on', 'none'],
      [30, 'login failed', []],
      [30, 'login failed', ['login.pair-failures']],
      [30, 'login refused', 'login.pair-failures'],
      [20, 'login succeeded', []],
    ]);
    expect(server.lines[0]).toMatchObject({ login: 'ze?us', client: '192.0.2.7', protocol: 'imap' });
    expect(JSON.stringify(server.lines)).not.toMatch(/0893|"p\d+"/);
    const series = { command: 'allow', protocol: 'imap', result: 'refuse', rule: 'login.pair-failures' };
    expect(await metric(server.registry, 'postern_logins_requests_total', series)).toBe(1);
    const failures = { command: 'report', protocol: 'imap', result: 'failure', rule: 'none' };
    expect(await metric(server.registry, 'postern_logins_requests_total', failures)).toBe(2);
  });

  test('a reload brings other rules', async () => {
    await using server = await served();
    for (let n = 0; n < 3; n += 1) await report(server, false);
    expect(await ask(server)).toEqual(GO_ON);
    await using other = await givenLogins('[logins.pair-failures]\nlimit = 2');
    server.daemon.reload(other.config);
    expect(await ask(server)).toMatchObject({ status: -1 });
  });
});

describe('who may ask', () => {
  test.each([
    ['no key', null],
    ['another key', SECRET.replace('0', '1')],
    ['a part of it', SECRET.slice(0, -1)],
    ['more than it', `${SECRET}0`],
    ['an empty one', ''],
  ])('%s is 401', async (_, key) => {
    await using server = await served();
    const answer = await post(`${server.url}?command=allow`, JSON.stringify(QUESTION), key);
    expect(answer.status).toBe(401);
    expect(answer.headers.get('connection')).toBe('close');
    expect(await metric(server.registry, 'postern_logins_protocol_errors_total', { reason: 'no-key' })).toBe(
      1,
    );
  });

  test('a wrong key is logged once, until a right one came', async () => {
    await using server = await served();
    const wrong = (): Promise<Response> => post(`${server.url}?command=allow`, '', 'wrong');
    await wrong();
    await wrong();
    await ask(server);
    await wrong();
    const warnings = server.lines.filter(({ level }) => level === 40);
    expect(warnings.map(({ msg }) => msg)).toEqual(Array(2).fill('a request without the right X-API-Key'));
  });
});

describe('what is no question', () => {
  test.each([
    ['GET', '/logins?command=allow', 405],
    ['POST', '/', 404],
    ['POST', '/logins/?command=allow', 404],
    ['POST', '/metrics', 404],
    ['POST', '/logins', 400],
    ['POST', '/logins?command=', 400],
    ['POST', '/logins?command=deny', 400],
    ['POST', '/logins?command=allow&command=report', 400],
    ['POST', '/logins?command=report', 400],
  ])('%s %s is %i', async (method, path, status) => {
    await using server = await served();
    const init = { method, headers: { 'X-API-Key': SECRET } };
    const body = method === 'GET' ? {} : { body: JSON.stringify(QUESTION) };
    const answer = await fetch(new URL(path, server.url), { ...init, ...body });
    expect(answer.status).toBe(status);
  });

  test('a body of the greatest length is read, and one octet more is not', async () => {
    await using server = await served();
    const url = `${server.url}?command=allow`;
    expect((await post(url, filled(BODY_LIMIT))).status).toBe(200);
    expect((await post(url, filled(BODY_LIMIT + 1))).status).toBe(413);
  });

  test('other protocols, and header sections that are too long, are told so', async () => {
    await using server = await served();
    for (const octets of ['EHLO x\r\n', `GET / HTTP/1.1\r\nX: ${'x'.repeat(9000)}\r\n\r\n`]) {
      const socket = dial(server);
      socket.write(octets);
      expect(await text(socket)).toMatch(/^HTTP\/1\.1 400 /);
    }
    expect(await metric(server.registry, 'postern_logins_protocol_errors_total', { reason: 'no-http' })).toBe(
      2,
    );
  });

  test('damaged requests end neither the process nor the service', async () => {
    await using server = await served();
    const random = seeded(9);
    const whole = Buffer.from(http(JSON.stringify(QUESTION)));
    for (let round = 0; round < 300; round += 1) {
      const socket = dial(server);
      socket.end(mutated(whole, random));
      socket.resume();
      await once(socket, 'close');
    }
    expect(await ask(server)).toEqual(GO_ON);
    expect(await metric(server.registry, 'postern_logins_connections')).toBeLessThanOrEqual(1);
    const internal = { reason: 'internal' };
    expect(await metric(server.registry, 'postern_logins_protocol_errors_total', internal)).toBe(0);
  });
});

describe('connections', () => {
  test('are kept for the next question, in whatever pieces it comes', async () => {
    await using server = await served();
    const socket = dial(server);
    const two = http(JSON.stringify(QUESTION)) + http(JSON.stringify(QUESTION));
    let answers = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => (answers += chunk));
    for (const octet of two) socket.write(octet);
    await vi.waitFor(() => expect(answers.match(/HTTP\/1\.1 200/g)).toHaveLength(2));
    expect(answers).not.toContain('Connection: close');
    expect(server.listener.connections.size).toBe(1);
    socket.destroy();
  });

  test('above the limit are closed at once, and counted', async () => {
    await using server = await served('', 1);
    const first = dial(server);
    await vi.waitFor(() => expect(server.listener.connections.size).toBe(1));
    const second = dial(server);
    second.resume();
    await once(second, 'close');
    expect(await metric(server.registry, 'postern_logins_refused_connections_total')).toBe(1);
    expect(server.lines.map(({ msg }) => msg)).toEqual([
      'too many connections: raise logins.max_connections',
    ]);
    first.destroy();
  });

  test('that say nothing, or not all of it, are cut off', async () => {
    await using server = await served();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      for (const [octets, ms, slow] of [
        ['', 60_000, 0],
        ['POST /logins?command=allow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{', 5000, 1],
      ] as const) {
        const socket = dial(server);
        socket.write(octets);
        await vi.waitFor(() => expect(server.listener.connections.size).toBe(1));
        await vi.waitFor(() => expect([...server.listener.connections][0]?.bytesRead).toBe(octets.length));
        vi.advanceTimersByTime(ms - 1);
        expect(server.listener.connections.size).toBe(1);
        const closed = once(socket, 'close');
        vi.advanceTimersByTime(1);
        await closed;
        const reason = { reason: 'slow' };
        expect(await metric(server.registry, 'postern_logins_protocol_errors_total', reason)).toBe(slow);
        await vi.waitFor(() => expect(server.listener.connections.size).toBe(0));
      }
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('a stop', () => {
  test('lets a question that was asked be answered, then closes', async () => {
    await using given = await givenLogins('deadline = "1s"');
    const address = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;
    await using listener = await openListener({ address, mode: 0, group: null, maxConnections: 8 });
    const asked = Promise.withResolvers<void>();
    const standing = Promise.withResolvers<null>();
    const state = {
      ...NO_STATE,
      hit: () => Promise.resolve([]),
      standing: () => {
        asked.resolve();
        return standing.promise;
      },
    };
    const checks = { state, notifier: given.notifier, clock: given.clock };
    const daemon = logins(listener, given.config, {
      log: pino({ level: 'silent' }),
      registry: new Registry(),
      checks,
    });
    const answer = post(`http://${listener.text}/logins?command=allow`, JSON.stringify(QUESTION));
    await asked.promise;
    const stopped = daemon.stop(new AbortController().signal);
    standing.resolve(null);
    expect((await answer).headers.get('connection')).toBe('close');
    await stopped;
    expect(listener.connections.size).toBe(0);
  });

  test('does not wait for connections that ask nothing', async () => {
    await using server = await served();
    const socket = dial(server);
    socket.resume();
    const closed = once(socket, 'close');
    await vi.waitFor(() => expect(server.listener.connections.size).toBe(1));
    await server.daemon.stop(new AbortController().signal);
    await closed;
    expect(server.listener.connections.size).toBe(0);
  });
});
