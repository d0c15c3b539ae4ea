import { expect, test, vi } from 'vitest';

import { milterMetrics } from '../../../src/milter/metrics.ts';
import { CONTINUE } from '../../../src/milter/responses.ts';
import { Session } from '../../../src/milter/session.ts';
import {
  ENVELOPE_OCTETS_LIMIT,
  FIELD_LIMIT,
  HEADER_OCTETS_LIMIT,
  RECIPIENT_LIMIT,
} from '../../../src/milter/transaction.ts';
import { CommandDecoder, ProtocolError, type Command } from '../../../src/milter/wire.ts';
import { seeded } from '../../support/mutate.ts';
import {
  ABORT,
  configOf,
  CONNECT,
  DATA,
  EOH,
  EOM,
  gate,
  HELO,
  MAIL,
  metric,
  OFFER_V2,
  OFFER_V6,
  packet,
  RCPT,
  stubChecks,
  testTools,
  TRACE,
  type StubChecks,
  type TestTools,
} from './support.ts';

interface Rig {
  readonly session: Session;
  readonly tools: TestTools;
  readonly checks: StubChecks;
  /** What is answered to the last of these; all answers before it are dropped. */
  readonly say: (...packets: readonly Buffer[]) => Promise<string | null>;
  /** Messages counted with that end. */
  readonly counted: (verdict: string, direction?: 'in' | 'out') => Promise<number | undefined>;
}

async function rig(toml = ''): Promise<Rig> {
  const checks = stubChecks();
  const tools = testTools();
  const config = await configOf(toml, checks.definitions);
  const { log, store, registry } = tools;
  const session = new Session(config, { log, store, checks: tools.checks, metrics: milterMetrics(registry) });
  const decoder = new CommandDecoder();
  return {
    session,
    tools,
    checks,
    say: async (...packets) => {
      let answer: Buffer | null = null;
      decoder.push(Buffer.concat(packets));
      for (let command = decoder.next(); command !== null; command = decoder.next()) {
        if (command.kind === 'quit') throw new Error('QUIT is the connection its business');
        answer = await session.handle(command);
      }
      return answer === null ? null : answer.toString('latin1');
    },
    counted: (verdict, direction = 'in') =>
      metric(tools.registry, 'postern_milter_messages_total', { direction, verdict }),
  };
}

const GO = CONTINUE.toString('latin1');
const BEGIN = [OFFER_V6, CONNECT, HELO];
const HEADER = packet('L', 'Subject\0 hi\0');
const BODY = packet('B', 'Hello\r\n');
const MESSAGE = [MAIL, RCPT, DATA, HEADER, EOH, BODY];

function outOfOrder(): unknown {
  return expect.objectContaining({ name: 'ProtocolError', kind: 'out-of-order' });
}

test('version 6: only DATA and the end are answered', async () => {
  const { say } = await rig();
  expect(await say(OFFER_V6)).not.toBeNull();
  for (const silent of [CONNECT, packet('D', 'H'), HELO, MAIL, RCPT]) expect(await say(silent)).toBeNull();
  expect(await say(DATA)).toBe(GO);
  for (const silent of [HEADER, EOH, BODY]) expect(await say(silent)).toBeNull();
  expect(await say(EOM)).toContain(TRACE);
  expect(await say(ABORT)).toBeNull();
});

test('version 2: everything but macros and ABORT is answered', async () => {
  const { say } = await rig();
  await say(OFFER_V2);
  for (const event of [CONNECT, HELO, MAIL, RCPT, HEADER, EOH, BODY]) expect(await say(event)).toBe(GO);
  expect(await say(packet('D', 'E', 'i\0x\0'))).toBeNull();
  expect(await say(EOM)).toContain(TRACE);
  expect(await say(ABORT)).toBeNull();
});

test('UNKNOWN is answered where it comes although it was not wanted', async () => {
  const { say } = await rig();
  expect(await say(...BEGIN, packet('U', 'FROB\0'))).toBe(GO);
});

test.each([
  ['CONNECT before the negotiation', [CONNECT]],
  ['macros before the negotiation', [packet('D', 'C')]],
  ['HELO before CONNECT', [OFFER_V6, HELO]],
  ['MAIL before CONNECT', [OFFER_V6, MAIL]],
  ['UNKNOWN before CONNECT', [OFFER_V6, packet('U', 'x\0')]],
  ['a second negotiation', [OFFER_V6, OFFER_V6]],
  ['RCPT without MAIL', [...BEGIN, RCPT]],
  ['DATA without MAIL', [...BEGIN, DATA]],
  ['a header without MAIL', [...BEGIN, HEADER]],
  ['the end of headers without MAIL', [...BEGIN, EOH]],
  ['a body without MAIL', [...BEGIN, BODY]],
  ['the end without MAIL', [...BEGIN, EOM]],
  ['a body before the end of headers', [...BEGIN, MAIL, RCPT, HEADER, BODY]],
  ['RCPT among headers', [...BEGIN, MAIL, RCPT, HEADER, RCPT]],
  ['DATA among headers', [...BEGIN, MAIL, RCPT, HEADER, DATA]],
  ['a header in the body', [...BEGIN, ...MESSAGE, HEADER]],
  ['a second end of headers', [...BEGIN, MAIL, RCPT, EOH, EOH]],
  ['a body after the verdict', [...BEGIN, ...MESSAGE, EOM, BODY]],
  ['an end after ABORT', [...BEGIN, ...MESSAGE, ABORT, EOM]],
  ['MAIL after QUIT_NC', [...BEGIN, packet('K'), MAIL]],
] as const)('%s is out of order', async (_, packets) => {
  const { say } = await rig();
  await expect(say(...packets)).rejects.toThrow(outOfOrder() as Error);
});

test('what may be left out: HELO, DATA, headers, body', async () => {
  const { say, tools } = await rig();
  expect(await say(OFFER_V6, CONNECT, MAIL, RCPT, EOM)).toContain(TRACE);
  expect(await say(ABORT, MAIL, EOM)).toContain(TRACE);
  expect(tools.store.decisions.map(({ helo, size, recipients }) => [helo, size, recipients])).toEqual([
    [null, 2, ['zeus@olimpus.example']],
    [null, 2, []],
  ]);
});

test('the last piece of the body may come with the end of the message', async () => {
  const { say, checks } = await rig();
  let body = '';
  checks.message = ({ message }) => {
    for (const chunk of message.body.chunks() as Iterable<Uint8Array>) body += Buffer.from(chunk).toString();
    return Promise.resolve([]);
  };
  await say(...BEGIN, ...MESSAGE, packet('E', 'bye\r\n'));
  expect(body).toBe('Hello\r\nbye\r\n');
});

test('ABORT: any number of them, anywhere after the negotiation; counts as aborted once, and only before the verdict', async () => {
  const { say, counted, tools } = await rig();
  await say(OFFER_V6, ABORT, CONNECT, ABORT, HELO, ABORT, ABORT, MAIL, RCPT, ABORT, ABORT);
  expect(await counted('aborted')).toBe(1);
  expect(tools.lines).toEqual([]);
  await say(...MESSAGE, EOM, ABORT, ABORT);
  expect(await counted('aborted')).toBe(1);
  expect(await counted('accept')).toBe(1);
  expect(tools.store.decisions).toHaveLength(1);
});

test('ABORT drops the message, not the session', async () => {
  const { say, tools } = await rig();
  await say(...BEGIN, packet('D', 'M', '{auth_authen}\0zeus\0i\0QID1\0'), ...MESSAGE, ABORT);
  await say(packet('D', 'M', '{mail_addr}\0x\0'), ...MESSAGE, EOM);
  expect(tools.store.decisions).toEqual([
    expect.objectContaining({ helo: 'odin.valhalla.example', login: null, queueId: null, direction: 'in' }),
  ]);
});

test('MAIL in the middle of a message begins a new one, with its own macros', async () => {
  const { say, tools, counted } = await rig();
  const macros = packet('D', 'M', '{auth_authen}\0hera\0');
  await say(...BEGIN, packet('D', 'M', '{auth_authen}\0zeus\0'), MAIL, packet('D', 'R', 'i\0QID1\0'), RCPT);
  await say(macros, packet('M', '<hera@olimpus.example>\0'), RCPT, EOM);
  await say(packet('D', 'R', 'i\0QID2\0'), MAIL, MAIL, RCPT, EOM);
  expect(tools.store.decisions.map(({ sender, login, queueId }) => [sender, login, queueId])).toEqual([
    ['hera@olimpus.example', 'hera', null],
    ['thor@valhalla.example', null, null],
  ]);
  expect(await counted('aborted', 'out')).toBe(1);
  expect(await counted('aborted', 'in')).toBe(1);
});

test('HELO and CONNECT in the middle of a message end it', async () => {
  const { say, counted } = await rig();
  await say(...BEGIN, ...MESSAGE, HELO);
  await say(...MESSAGE, CONNECT);
  await say(...MESSAGE, packet('K'));
  expect(await counted('aborted')).toBe(3);
});

test('QUIT_NC: a new connection on the same socket knows nothing of the old one', async () => {
  const { say, tools } = await rig();
  await say(OFFER_V6, packet('D', 'C', '{daemon_name}\0ORIGINATING\0'), CONNECT);
  await say(packet('D', 'H', '{tls_version}\0TLSv1.3\0'), HELO, packet('K'));
  await say(packet('C', '[198.51.100.7]\0', '4', Buffer.from([0, 99]), '198.51.100.7\0'), ...MESSAGE, EOM);
  expect(tools.store.decisions).toEqual([
    expect.objectContaining({ client: '198.51.100.7', helo: null, direction: 'in' }),
  ]);
});

test.each([
  ['a login', [packet('D', 'M', '{auth_authen}\0zeus\0')], CONNECT, 'out'],
  ['an empty login', [packet('D', 'M', '{auth_authen}\0\0')], CONNECT, 'in'],
  ['a submission service', [packet('D', 'C', '{daemon_name}\0ORIGINATING\0')], CONNECT, 'out'],
  ['an own network', [], packet('C', 'a\0', '4', Buffer.from([1, 1]), '127.0.0.1\0'), 'out'],
  [
    'an own network of IPv6, as Sendmail writes it',
    [],
    packet('C', 'a\0', '6', Buffer.from([1, 1]), 'IPv6:::1\0'),
    'out',
  ],
  ['a stranger', [], CONNECT, 'in'],
  ['a unix socket', [], packet('C', 'localhost\0', 'L', Buffer.from([0, 0]), '/run/x\0'), 'in'],
  ['an unknown family', [], packet('C', 'localhost\0', 'U'), 'in'],
  ['text that is no address', [], packet('C', 'a\0', '4', Buffer.from([0, 0]), '127.0.0.1 x\0'), 'in'],
] as const)('the direction of mail from %s', async (_, macros, connect, direction) => {
  const { say, tools } = await rig();
  const [first] = macros;
  const early = first?.toString('latin1', 5, 6) === 'C';
  await say(OFFER_V6, ...(early ? macros : []), connect, HELO, ...(early ? [] : macros), ...MESSAGE, EOM);
  expect(tools.store.decisions.map((decision) => decision.direction)).toEqual([direction]);
});

test.each([
  [
    'odin.valhalla.example',
    'odin.valhalla.example [192.0.2.20]',
    'odin.valhalla.example',
    'odin.valhalla.example',
  ],
  ['[192.0.2.20]', 'unknown [192.0.2.20]', null, null],
  ['[192.0.2.20]', 'forged.example [192.0.2.20] (may be forged)', null, 'forged.example'],
  ['forged.example', 'forged.example [192.0.2.20] (may be forged)', null, 'forged.example'],
  ['odin.example', 'thor@odin.example [192.0.2.20]', 'odin.example', 'odin.example'],
  ['192.0.2.20', '[192.0.2.20]', null, null],
  ['odin.example', '', 'odin.example', null],
])('host %s with _ = %s', async (host, resolved, name, reverseName) => {
  const { say, checks } = await rig();
  await say(OFFER_V6, packet('D', 'C', `_\0${resolved}\0`));
  await say(packet('C', `${host}\0`, '4', Buffer.from([0, 25]), '192.0.2.20\0'), HELO, MAIL);
  expect(checks.asked.mail[0]?.client).toMatchObject({ name, reverseName, address: '192.0.2.20', port: 25 });
});

test('a macro or a name that is too long ends the connection, at the limit it does not', async () => {
  const long = 'x'.repeat(2048);
  const { say, checks } = await rig();
  await say(
    OFFER_V6,
    packet('D', 'C', `_\0${long}\0other\0${long}y\0`),
    CONNECT,
    packet('H', `${long}\0`),
    MAIL,
  );
  expect(checks.asked.mail[0]?.client.helo).toBe(long);
  const malformed = expect.objectContaining({ kind: 'malformed' }) as Error;
  await expect(say(packet('D', 'M', `i\0${long}y\0`))).rejects.toThrow(malformed);
  await expect(say(packet('H', `${long}y\0`))).rejects.toThrow(malformed);
  await expect(say(packet('C', `${long}y\0`, 'U'))).rejects.toThrow(malformed);
});

test('header values: line feeds become folds, the space that was cut comes back, white space in a name is kept apart', async () => {
  const odd = [
    packet('L', 'X-Fold\0 a\n\tb\n c\0'),
    packet('L', 'X-Odd \t\0tight\0'),
    packet('L', 'X-Inject\0 a\nb: c\0'),
    packet('L', 'X-Empty\0\0'),
    packet('L', '\0 nameless\0'),
    packet('L', ' \0 blank\0'),
  ];
  const verbatim = await rig();
  await verbatim.say(...BEGIN, MAIL, RCPT, ...odd, EOM);
  expect(verbatim.checks.asked.message[0]?.message.headers.toArray()).toEqual([
    { name: 'X-Fold', value: ' a\r\n\tb\r\n c' },
    { name: 'X-Odd', gap: ' \t', value: 'tight' },
    { name: 'X-Inject', value: ' a\r\n\tb: c' },
    { name: 'X-Empty', value: '' },
    { name: '', value: ' nameless' },
    { name: '', gap: ' ', value: ' blank' },
  ]);
  const stripped = await rig();
  await stripped.say(
    OFFER_V2,
    CONNECT,
    MAIL,
    RCPT,
    packet('L', 'Subject\0two\0'),
    packet('L', 'X-Tab\0\ttab\0'),
    EOM,
  );
  expect(stripped.checks.asked.message[0]?.message.headers.toArray()).toEqual([
    { name: 'Subject', value: ' two' },
    { name: 'X-Tab', value: ' \ttab' },
  ]);
});

test('a body at the limit passes, one octet more is refused with 552', async () => {
  const { say, tools } = await rig('milter.max_message_size = "1MiB"');
  const piece = packet('B', Buffer.alloc(64 * 1024, 'x'));
  const full = Array.from({ length: 16 }, () => piece);
  expect(await say(...BEGIN, MAIL, RCPT, EOH, ...full, EOM)).toContain(TRACE);
  const refused = await say(ABORT, MAIL, RCPT, EOH, ...full, packet('B', 'x'), packet('B', 'more'), EOM);
  expect(refused).toBe(
    packet('y', `552 5.3.4 This message is larger than this site accepts (${TRACE})\0`).toString('latin1'),
  );
  expect(tools.store.decisions.map(({ verdict, rule }) => [verdict, rule])).toEqual([
    ['accept', 'default'],
    ['reject', 'limit:size'],
  ]);
});

test('header fields at the limit of their number pass, one more is refused', async () => {
  const { say, checks } = await rig();
  const fields = Array.from({ length: FIELD_LIMIT }, () => packet('L', 'X\0 y\0'));
  expect(await say(...BEGIN, MAIL, RCPT, ...fields, EOM)).not.toContain('552');
  expect(checks.asked.message[0]?.message.headers.length).toBe(FIELD_LIMIT);
  expect(await say(ABORT, MAIL, RCPT, ...fields, packet('L', 'X\0 y\0'), EOM)).toContain('552 5.3.4');
});

test('header octets at the limit pass, one more is refused', async () => {
  const { say } = await rig();
  const field = (octets: number): Buffer => packet('L', `X\0${'v'.repeat(octets - 'X:\r\n'.length)}\0`);
  const quarters = Array.from({ length: 8 }, () => field(HEADER_OCTETS_LIMIT / 8));
  expect(await say(...BEGIN, MAIL, RCPT, ...quarters, EOM)).not.toContain('552');
  const over = [...quarters.slice(1), field(HEADER_OCTETS_LIMIT / 8 + 1)];
  expect(await say(ABORT, MAIL, RCPT, ...over, EOM)).toContain('552 5.3.4');
});

test('recipients at the limit pass, one more is refused for good', async () => {
  const { say, tools } = await rig();
  const recipients = Array.from({ length: RECIPIENT_LIMIT }, () => RCPT);
  expect(await say(...BEGIN, MAIL, ...recipients, EOM)).not.toContain('554');
  expect(tools.store.decisions[0]?.recipients).toHaveLength(RECIPIENT_LIMIT);
  expect(await say(ABORT, MAIL, ...recipients, RCPT, EOM)).toContain('554 5.5.3');
});

test('octets of addresses and parameters at the limit pass, one more is refused', async () => {
  const { say } = await rig();
  const path = (code: string, octets: number): Buffer => packet(code, `<${'a'.repeat(octets - 2)}>\0`);
  const piece = ENVELOPE_OCTETS_LIMIT / 128;
  const most = [path('M', piece), ...Array.from({ length: 127 }, () => path('R', piece))];
  expect(await say(...BEGIN, ...most, EOM)).not.toContain('554');
  expect(await say(ABORT, ...most, packet('R', '\0x\0'), EOM)).toContain('554 5.5.3');
});

test('an outcome that comes after ABORT is nobody’s', async () => {
  const { say, session, checks, tools, counted } = await rig();
  const slow = gate();
  const began = gate();
  checks.message = async (_, signal) => {
    began.open();
    signal.addEventListener('abort', slow.open);
    await slow.opened;
    return [{ code: 'spam.virus', detail: 'late' }];
  };
  await say(...BEGIN, ...MESSAGE);
  const end: Command = { kind: 'end-of-message', chunk: Buffer.alloc(0) };
  const answer = session.handle(end);
  await began.opened;
  session.abort();
  expect(await answer).toBeNull();
  expect(tools.store.decisions).toEqual([]);
  expect(await counted('aborted')).toBe(1);
  checks.message = () => Promise.resolve([]);
  expect(await say(...MESSAGE, EOM)).toContain(TRACE);
});

test('the verdict is the mildest of the recipients’, with the rules that it came from', async () => {
  const { say, checks, tools } = await rig(
    '[[override]]\nrecipients = ["hera@olimpus.example"]\n[override.rules]\n"spam.virus" = "ignore"\n',
  );
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: 'EICAR' }]);
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('550 5.7.1');
  expect(await say(ABORT, MAIL, RCPT, packet('R', '<hera@olimpus.example>\0'), EOM)).toContain(TRACE);
  expect(tools.store.decisions.map(({ verdict }) => verdict)).toEqual(['reject', 'accept']);
});

test('findings about one recipient are weighed for that one', async () => {
  const { say, checks } = await rig();
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: 'EICAR', recipient: 0 }]);
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('550 5.7.1');
  expect(await say(ABORT, MAIL, RCPT, RCPT, EOM)).not.toContain('550');
});

test('discard', async () => {
  const { say, checks } = await rig();
  checks.message = () => Promise.resolve([{ code: 'spam.noise', detail: '' }]);
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toBe(packet('d').toString('latin1'));
});

test('the scan is kept for the LMTP side when the message goes on, and has a queue id', async () => {
  const { say, checks, tools } = await rig();
  const scan = { score: 1, required: 5, rules: ['A'], fields: [] };
  checks.message = () => Promise.resolve([{ code: 'spam.scored', detail: '', score: 1, scan }]);
  const queued = packet('D', 'E', 'i\0QID1\0');
  await say(...BEGIN, ...MESSAGE, EOM, ...MESSAGE, queued, EOM);
  expect(tools.store.scans).toEqual([{ trace: TRACE, queueId: 'QID1', scan }]);
  checks.message = () => Promise.resolve([{ code: 'spam.virus', detail: '', scan }]);
  await say(...MESSAGE, queued, EOM);
  expect(tools.store.scans).toHaveLength(1);
});

test('mail does not stop for the record', async () => {
  const { say, checks, tools } = await rig();
  const broken = new Error('disk full');
  tools.store.joinTrace = () => Promise.reject(broken);
  tools.store.keepScan = () => Promise.reject(broken);
  const scan = { score: 1, required: 5, rules: ['A'], fields: [] };
  checks.message = () => Promise.resolve([{ code: 'spam.scored', detail: '', score: 1, scan }]);
  const answer = await say(...BEGIN, ...MESSAGE, packet('D', 'E', 'i\0QID1\0'), EOM);
  expect(answer).toMatch(/X-Postern-Trace\0 [a-z2-7]{16}\0/);
  expect(answer).not.toContain(TRACE);
  expect(tools.lines.filter(({ level }) => level === 'warn')).toHaveLength(2);
  expect(await metric(tools.registry, 'postern_milter_errors_total', { kind: 'store' })).toBe(2);
});

test('a store that does not answer is waited for two seconds', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const { say, tools } = await rig();
    tools.store.joinTrace = () => {
      queueMicrotask(() => vi.advanceTimersByTime(2000));
      return new Promise(() => {});
    };
    expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('X-Postern-Trace');
    expect(tools.lines).toContainEqual(expect.objectContaining({ level: 'warn' }));
  } finally {
    vi.useRealTimers();
  }
});

test('at the deadline of the whole answer the checks without a result are unavailable', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const { say, checks, tools } = await rig('milter.deadline = "30s"');
    checks.message = () => {
      queueMicrotask(() => vi.advanceTimersByTime(30_000));
      return new Promise(() => {});
    };
    expect(await say(...BEGIN, ...MESSAGE, EOM)).toContain('451 4.7.0');
    expect(tools.store.decisions[0]).toMatchObject({ verdict: 'defer', rule: 'unavailable:spam' });
    expect(tools.lines.at(-1)).toMatchObject({
      findings: ['unavailable:spam'],
      elapsed_ms: expect.any(Number),
    });
  } finally {
    vi.useRealTimers();
  }
});

test('an error that nobody expected defers the message', async () => {
  const { say, tools, counted } = await rig();
  tools.store.record = () => {
    throw new Error('out of memory');
  };
  expect(await say(...BEGIN, ...MESSAGE, EOM)).toBe(packet('t').toString('latin1'));
  expect(await counted('defer')).toBe(1);
  expect(await counted('accept')).toBe(0);
  expect(tools.lines).toContainEqual(
    expect.objectContaining({ level: 'error', msg: 'message could not be judged' }),
  );
});

test('one log line for a message, with remote text made harmless', async () => {
  const { say, tools } = await rig();
  const many = Array.from({ length: 25 }, (_, index) => packet('R', `<u${index}@olimpus.example>\0`));
  await say(OFFER_V6, CONNECT, packet('H', 'a\x9b31m\nb\0'), packet('M', '<x\r\n@y>\0'), ...many, EOM);
  expect(tools.lines).toHaveLength(1);
  const [line] = tools.lines;
  expect(line).toMatchObject({
    level: 'info',
    msg: 'message judged',
    daemon: 'milter',
    trace: TRACE,
    qid: null,
    client: '192.0.2.20',
    helo: 'a?31m?b',
    from: 'x??@y',
    recipients: 25,
    verdict: 'accept',
    findings: [],
  });
  expect(line?.['to']).toHaveLength(20);
});

test('3,000 conversations in random order: answers, or a protocol error', async () => {
  const random = seeded(7);
  const below = (limit: number): number => Math.floor(random() * limit);
  const events = [CONNECT, HELO, MAIL, RCPT, DATA, HEADER, EOH, BODY, EOM, ABORT, packet('K'), packet('U', 'x\0'),
    packet('D', 'M', '{auth_authen}\0a\0'), packet('D', 'E', 'i\0Q\0'), packet('D', '?')]; // prettier-ignore
  const { session: unused, tools, checks } = await rig();
  expect(unused.messageOpen).toBe(false);
  const config = await configOf('', checks.definitions);
  const metrics = milterMetrics(tools.registry);
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const session = new Session(config, {
      log: tools.log,
      store: tools.store,
      checks: tools.checks,
      metrics,
    });
    const decoder = new CommandDecoder();
    decoder.push(Buffer.concat([round % 2 === 0 ? OFFER_V6 : OFFER_V2, CONNECT, MAIL, RCPT]));
    for (let count = below(8); count > 0; count--) decoder.push(events[below(events.length)] ?? EOM);
    try {
      for (let command = decoder.next(); command !== null; command = decoder.next()) {
        if (command.kind === 'quit') break;
        const answer = await session.handle(command);
        if (command.kind === 'abort' || command.kind === 'macros') expect(answer).toBeNull();
        if (command.kind === 'end-of-message') expect(answer).not.toBeNull();
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      refused++;
    }
    session.abort();
    expect(session.messageOpen).toBe(false);
  }
  expect(refused).toBeGreaterThan(1000);
  expect(refused).toBeLessThan(3000);
});
