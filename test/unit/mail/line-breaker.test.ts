import fc from 'fast-check';
import { expect, test } from 'vitest';

import { parseHeaderSection } from '../../../src/mail/header.ts';
import { breakLines, LineBreaker } from '../../../src/mail/line-breaker.ts';

function broken(text: string, limit: number, cuts: readonly number[] = []): string {
  let out = '';
  const breaker = new LineBreaker(limit, (bytes) => {
    out += Buffer.from(bytes).toString('latin1');
  });
  const bytes = Buffer.from(text, 'latin1');
  let begin = 0;
  for (const end of [...cuts.map((at) => at % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    breaker.write(bytes.subarray(begin, end));
    begin = end;
  }
  breaker.end();
  return out;
}

/** smtp_proto.c: smtp_text_out(), line by line. */
function asPostfix(text: string, limit: number): string {
  return text
    .split('\r\n')
    .map((line) => {
      let rest = line;
      const pieces: string[] = [];
      for (let room = limit; rest.length > room; room = limit - 1) {
        pieces.push(rest.slice(0, room));
        rest = rest.slice(room);
      }
      return [...pieces, rest].join('\r\n ');
    })
    .join('\r\n');
}

test('a line at the limit stays, one past it is broken, and what follows begins with a space', () => {
  expect(broken('12345\r\n', 5)).toBe('12345\r\n');
  expect(broken('123456\r\n', 5)).toBe('12345\r\n 6\r\n');
  expect(broken('123456789\r\n', 5)).toBe('12345\r\n 6789\r\n');
  expect(broken('1234567890\r\nab', 5)).toBe('12345\r\n 6789\r\n 0\r\nab');
});

test('whatever the text and its chunks, it is as Postfix sends it', () => {
  const text = fc
    .array(fc.constantFrom('a', 'bcd', ' ', '\r\n', '\r\n\r\n', '\r', 'x'.repeat(9)), { maxLength: 40 })
    // A CR before a line end is one octet of content and the line end.
    .map((pieces) => pieces.join(''));
  fc.assert(
    fc.property(
      text,
      fc.array(fc.nat(), { maxLength: 6 }),
      fc.integer({ min: 2, max: 12 }),
      (body, cuts, limit) => {
        expect(broken(body, limit, cuts)).toBe(asPostfix(body, limit));
      },
    ),
    { numRuns: 3000 },
  );
});

test('fields are broken with their names counted; short ones are left as they are', () => {
  const headers = parseHeaderSection('Subject: 123456789012\r\nTo: a\r\n');
  expect(breakLines(headers, 12).serialize()).toBe('Subject: 123\r\n 456789012\r\nTo: a\r\n');
  expect(breakLines(headers, 100)).toBe(headers);
  const folded = parseHeaderSection('References: <a>\r\n\t<bcdefghijkl>\r\n');
  expect(breakLines(folded, 12).serialize()).toBe('References: \r\n <a>\r\n\t<bcdefghijk\r\n l>\r\n');
});
