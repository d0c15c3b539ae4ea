import { expect, test } from 'vitest';

import { milterMetrics } from '../../../src/milter/metrics.ts';
import { Session } from '../../../src/milter/session.ts';
import { ProtocolError, type ProtocolErrorKind } from '../../../src/milter/command.ts';
import { CommandDecoder } from '../../../src/milter/wire.ts';
import { seeded } from '../../support/mutate.ts';
import { BEGIN, BODY, GO, HEADER, MESSAGE, rig } from './rig.ts';
import {
  ABORT,
  configOf,
  CONNECT,
  DATA,
  EOH,
  EOM,
  HELO,
  MAIL,
  OFFER_V2,
  OFFER_V6,
  packet,
  RCPT,
  TRACE,
} from './support.ts';

/** Which protocol error comes of it. */
async function refusal(work: Promise<unknown>): Promise<ProtocolErrorKind | 'none'> {
  try {
    await work;
    return 'none';
  } catch (error) {
    if (error instanceof ProtocolError) return error.kind;
    throw error;
  }
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
  expect(await refusal(say(...packets))).toBe('out-of-order');
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
  for (const tooLong of [
    packet('D', 'M', `i\0${long}y\0`),
    packet('H', `${long}y\0`),
    packet('C', `${long}y\0`, 'U'),
  ]) {
    expect(await refusal(say(tooLong))).toBe('malformed');
  }
});

test('1,500 conversations in random order: answers, or a protocol error', async () => {
  const random = seeded(7);
  const below = (limit: number): number => Math.floor(random() * limit);
  const events = [CONNECT, HELO, MAIL, RCPT, DATA, HEADER, EOH, BODY, EOM, ABORT, packet('K'), packet('U', 'x\0'),
    packet('D', 'M', '{auth_authen}\0a\0'), packet('D', 'E', 'i\0Q\0'), packet('D', '?')]; // prettier-ignore
  const { session: unused, tools, checks } = await rig();
  expect(unused.messageOpen).toBe(false);
  const config = await configOf('', checks.definitions);
  const metrics = milterMetrics(tools.registry);
  let refused = 0;
  const answers: [string, boolean][] = [];
  for (let round = 0; round < 1500; round++) {
    const session = new Session(config, {
      log: tools.log,
      store: tools.store,
      checks: tools.checks,
      keys: tools.keys,
      quarantine: tools.quarantine,
      metrics,
    });
    const decoder = new CommandDecoder();
    decoder.push(Buffer.concat([round % 2 === 0 ? OFFER_V6 : OFFER_V2, CONNECT, MAIL, RCPT]));
    for (let count = below(8); count > 0; count--) decoder.push(events[below(events.length)] ?? EOM);
    try {
      for (let command = decoder.next(); command !== null; command = decoder.next()) {
        if (command.kind === 'quit') break;
        const answer = await session.handle(command);
        answers.push([command.kind, answer !== null]);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      refused++;
    }
    session.abort();
    expect(session.messageOpen).toBe(false);
  }
  expect(refused).toBeGreaterThan(500);
  expect(refused).toBeLessThan(1500);
  const answered = (kind: string): boolean[] => answers.filter((one) => one[0] === kind).map((one) => one[1]);
  expect(new Set(answered('abort'))).toEqual(new Set([false]));
  expect(new Set(answered('macros'))).toEqual(new Set([false]));
  expect(new Set(answered('end-of-message'))).toEqual(new Set([true]));
});
