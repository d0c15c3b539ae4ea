import { expect, test } from 'vitest';

import {
  ENVELOPE_OCTETS_LIMIT,
  FIELD_LIMIT,
  HEADER_OCTETS_LIMIT,
  RECIPIENT_LIMIT,
} from '../../../src/milter/transaction.ts';
import { BEGIN, MESSAGE, rig } from './rig.ts';
import { ABORT, CONNECT, EOH, EOM, MAIL, OFFER_V2, packet, RCPT, TRACE } from './support.ts';

/** A field of that many octets in the message. */
function field(octets: number): Buffer {
  return packet('L', `X\0${'v'.repeat(octets - 'X:\r\n'.length)}\0`);
}

/** An address of that many octets. */
function path(code: string, octets: number): Buffer {
  return packet(code, `<${'a'.repeat(octets - 2)}>\0`);
}

test('the last piece of the body may come with the end of the message', async () => {
  const { say, checks } = await rig();
  let body = '';
  checks.message = async ({ message }) => {
    for await (const chunk of message.body.chunks()) body += Buffer.from(chunk).toString();
    return [];
  };
  await say(...BEGIN, ...MESSAGE, packet('E', 'bye\r\n'));
  expect(body).toBe('Hello\r\nbye\r\n');
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
  const piece = ENVELOPE_OCTETS_LIMIT / 128;
  const most = [path('M', piece), ...Array.from({ length: 127 }, () => path('R', piece))];
  expect(await say(...BEGIN, ...most, EOM)).not.toContain('554');
  expect(await say(ABORT, ...most, packet('R', '\0x\0'), EOM)).toContain('554 5.5.3');
});
