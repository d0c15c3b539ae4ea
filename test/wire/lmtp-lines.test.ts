import fc from 'fast-check';
import { expect, test } from 'vitest';

import { CanonicalLines } from '../../src/lmtp-filter/lines.ts';
import { lenientContent, lenientEnd, strictContent, strictEnd } from '../support/players/fake-dovecot.ts';

/** As delivery sends a message. */
function sent(pieces: readonly string[]): string {
  const lines = new CanonicalLines({ stuffing: true });
  const text = pieces
    .map((piece) => Buffer.from(lines.encode(Buffer.from(piece, 'latin1'))).toString('latin1'))
    .join('');
  return `${text}${lines.ended ? '' : '\r\n'}.\r\n`;
}

/** What the message is when every line ends in CRLF. */
function canonical(text: string): string {
  const lines = text.replaceAll(/(?<!\r)\n/g, '\r\n');
  return lines === '' || lines.endsWith('\n') ? lines : `${lines}\r\n`;
}

/** Whether it is exactly one message, with the same lines, to a strict reader and to Dovecot 2.3. */
function isOneMessage(pieces: readonly string[]): boolean {
  const wire = sent(pieces);
  const content = canonical(pieces.join(''));
  return (
    strictEnd(wire) === wire.length &&
    lenientEnd(wire) === wire.length &&
    strictContent(wire) === content &&
    lenientContent(wire) === content
  );
}

const OCTETS = ['\r', '\n', '.', '\0', 'a'];

function* strings(length: number): Generator<string> {
  if (length === 0) yield '';
  else for (const rest of strings(length - 1)) for (const octet of OCTETS) yield octet + rest;
}

test('every text of up to six octets that matter, split at every place, is one message', () => {
  const others: string[] = [];
  let count = 0;
  for (let length = 0; length <= 6; length++) {
    for (const text of strings(length)) {
      for (let i = 0; i <= length; i++) {
        if (!isOneMessage([text.slice(0, i), text.slice(i)])) others.push(JSON.stringify([text, i]));
      }
      count += 1;
    }
  }
  expect(others).toEqual([]);
  expect(count).toBe((5 ** 7 - 1) / 4);
});

test('so is any text in any pieces', () => {
  const piece = fc.string({ unit: fc.constantFrom(...OCTETS), maxLength: 12 });
  expect(
    fc.check(fc.property(fc.array(piece, { maxLength: 8 }), isOneMessage), { numRuns: 20_000 }),
  ).toMatchObject({ failed: false });
});

test('what is canonical is not copied', () => {
  const lines = new CanonicalLines({ stuffing: true });
  const chunk = Buffer.from('one\r\ntwo.\r\n three\r\n');
  expect(lines.encode(chunk)).toBe(chunk);
  expect(lines.ended).toBe(true);
});

test('without stuffing only line ends change', () => {
  const lines = new CanonicalLines({ stuffing: false });
  expect(Buffer.from(lines.encode(Buffer.from('.a\n.b\r\n\r.\r'))).toString()).toBe('.a\r\n.b\r\n\r.\r');
  expect(Buffer.from(lines.encode(Buffer.from('\n.\n'))).toString()).toBe('\n.\r\n');
});
