import { tmpdir } from 'node:os';

import fc from 'fast-check';
import { expect, test } from 'vitest';

import { Intake, type IntakeResult } from '../../../src/lmtp-filter/intake.ts';
import { Statuses } from '../../../src/lmtp-filter/statuses.ts';
import { lastHop } from '../../../src/lmtp-filter/received.ts';
import { parseHeaderSection } from '../../../src/mail/header.ts';

async function take(
  pieces: readonly string[],
  memory = 1024,
): Promise<{ result: IntakeResult; body: string }> {
  await using intake = new Intake({ memory, limit: 100_000, folder: tmpdir() });
  for (const piece of pieces) await intake.write(Buffer.from(piece, 'latin1'));
  const result = await intake.finish();
  let body = '';
  if (result.kind === 'received') {
    for await (const chunk of result.message.body.chunks()) body += Buffer.from(chunk).toString('latin1');
  }
  return { result, body };
}

/** Header section, its end and body, put together again. */
function whole({ result, body }: { result: IntakeResult; body: string }): string {
  if (result.kind !== 'received') return result.kind;
  return `${result.message.headers.serialize()}${result.message.separated ? '\r\n' : ''}${body}`;
}

const LETTER = 'Subject: one\r\n two\r\nX: y\r\r\n\r\nbody\r\n\r\nmore\r\n';

test('a message is taken apart the same, wherever it is cut', async () => {
  const expected = await take([LETTER]);
  expect(expected.body).toBe('body\r\n\r\nmore\r\n');
  expect(expected.result).toMatchObject({
    kind: 'received',
    message: { size: LETTER.length, separated: true },
  });
  for (let i = 0; i <= LETTER.length; i++) {
    const cut = await take([LETTER.slice(0, i), LETTER.slice(i)], 4);
    expect([whole(cut), cut.body]).toEqual([LETTER, expected.body]);
  }
  const octets = await take(LETTER.split(''));
  expect([whole(octets), octets.body]).toEqual([LETTER, expected.body]);
});

test('no octet is lost or moved between header and body', async () => {
  const line = fc.constantFrom(
    'A: b',
    'Long-Name: value',
    ' folded',
    '\tfolded',
    'x',
    '',
    '\r',
    '.',
    '..',
    'a\rb',
    '\0',
  );
  const message = fc
    .tuple(fc.array(line, { maxLength: 8 }), fc.constantFrom('\r\n', '\n'))
    .map(([lines, end]) => lines.map((text) => text + end).join(''));
  await fc.assert(
    fc.asyncProperty(message, fc.array(fc.nat(80), { maxLength: 4 }), async (body, cuts) => {
      const text = `Top: x\r\n${body}`;
      const places = [
        0,
        ...cuts.map((cut) => Math.min(cut, text.length)).toSorted((a, b) => a - b),
        text.length,
      ];
      const pieces = places.slice(1).map((end, i) => text.slice(places[i], end));
      expect(whole(await take(pieces))).toBe(text.replaceAll(/(?<!\r)\n/g, '\r\n'));
    }),
    { numRuns: 500 },
  );
});

test('replies are sent in order, each as soon as those before it are known, and once', () => {
  const sent: string[] = [];
  let there = true;
  const statuses = new Statuses(4, (text) => {
    sent.push(text);
    return there;
  });
  expect(statuses.settle(1, '250 b')).toBe(true);
  expect(statuses.settle(1, '451 again')).toBe(false);
  expect([sent, statuses.reached]).toEqual([[], 0]);
  statuses.settle(0, '250-a\r\n250 a');
  expect([sent, statuses.reached]).toEqual([['250-a\r\n250 a\r\n250 b\r\n'], 2]);
  there = false;
  statuses.settleAll('451 rest');
  expect(sent.slice(1)).toEqual(['451 rest\r\n', '451 rest\r\n']);
  expect([statuses.complete, statuses.reached, statuses.replyAt(1), statuses.replyAt(3)]).toEqual([
    true,
    2,
    '250 b',
    '451 rest',
  ]);
});

test.each([
  [
    'by ESMTP',
    'from odin (odin [192.0.2.20])\r\n\tby delphos (Postfix) with ESMTP id 8180B24C465\r\n\tfor <z@o>; date',
    '8180B24C465',
    false,
  ],
  [
    'without for',
    'from odin (x [1])\r\n\tby delphos (Postfix) with ESMTPA id 9EF2624C465;\r\n\tdate',
    '9EF2624C465',
    true,
  ],
  [
    'over TLS',
    'from odin (x [1])\r\n\t(using TLSv1.3 with cipher X (256/256 bits))\r\n\t(No client certificate requested)\r\n\tby d.example (Postfix) with ESMTPSA id 4gX1Yz0abcz1\r\n\tfor <z@o>; date',
    '4gX1Yz0abcz1',
    true,
  ],
  ['from sendmail(1)', 'by delphos (Postfix, from userid 0)\r\n\tid D057D24C475; date', 'D057D24C475', false],
  ['of another MTA', 'from x by y; date', null, false],
])('the last hop %s', (_, value, queueId, authenticated) => {
  const headers = parseHeaderSection(
    `Received: ${value}\r\nReceived: by z (Postfix) with ESMTPA id 1234; date\r\n`,
  );
  expect(lastHop(headers, null)).toEqual({ queueId, authenticated });
  expect(lastHop(headers, 'OTHER')).toEqual({ queueId: 'OTHER', authenticated: false });
});
