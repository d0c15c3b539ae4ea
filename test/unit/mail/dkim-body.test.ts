import { createHash } from 'node:crypto';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { BodyCanonicalizer, type Canonicalization } from '../../../src/mail/dkim-body.ts';

function canonical(kind: Canonicalization, chunks: readonly Uint8Array[]): string {
  const out: Buffer[] = [];
  const canonicalizer = new BodyCanonicalizer(kind, (bytes) => out.push(Buffer.from(bytes)));
  for (const chunk of chunks) canonicalizer.write(chunk);
  canonicalizer.end();
  return Buffer.concat(out).toString('latin1');
}

function whole(kind: Canonicalization, body: string): string {
  return canonical(kind, [Buffer.from(body, 'latin1')]);
}

/** RFC 6376 §3.4.3 and §3.4.4 word for word, on the whole text. */
function reference(kind: Canonicalization, body: string): string {
  const lines = body.split('\r\n');
  const kept =
    kind === 'simple' ? lines : lines.map((line) => line.replaceAll(/[ \t]+/g, ' ').replace(/ $/, ''));
  while (kept.length > 0 && kept.at(-1) === '') kept.pop();
  if (kept.length === 0) return kind === 'simple' ? '\r\n' : '';
  return `${kept.join('\r\n')}\r\n`;
}

/** Text that is mostly what canonicalization is about. */
const body = fc
  .array(
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc.constantFrom('\r\n', ' ', '\t', '\r', '\n', '  ', '\r\n\r\n', ' \r\n', 'a', '\r\r\n'),
      },
      { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 8 }).map(latin1) },
      { weight: 1, arbitrary: fc.nat(1500).map((length) => 'x'.repeat(length)) },
      { weight: 1, arbitrary: fc.nat(1500).map((count) => '\r\n'.repeat(count)) },
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(''));

function latin1(text: string): string {
  return text.replaceAll(/[^\0-\xff]/gu, 'é');
}

function cut(text: string, positions: readonly number[]): Uint8Array[] {
  const bytes = Buffer.from(text, 'latin1');
  const ends = [...positions.map((position) => position % (bytes.length + 1)), bytes.length].toSorted(
    (a, b) => a - b,
  );
  return ends.map((end, index) => bytes.subarray(index === 0 ? 0 : ends[index - 1], end));
}

describe('the body that DKIM hashes', () => {
  test('RFC 6376 §3.4.5: the example', () => {
    const example = ' C \r\nD \t E\r\n\r\n\r\n';
    expect(whole('relaxed', example)).toBe(' C\r\nD E\r\n');
    expect(whole('simple', example)).toBe(' C \r\nD \t E\r\n');
  });

  test.each([
    ['an empty body', '', '', '\r\n'],
    ['one empty line', '\r\n', '', '\r\n'],
    ['many empty lines', '\r\n'.repeat(2000), '', '\r\n'],
    ['white space alone', ' \t ', '', ' \t \r\n'],
    ['lines of white space alone', ' \r\n\t\r\n', '', ' \r\n\t\r\n'],
    ['no line end at the end', 'a', 'a\r\n', 'a\r\n'],
    ['white space and no line end at the end', 'a  ', 'a\r\n', 'a  \r\n'],
    ['a CR alone at the end', 'a\r', 'a\r\r\n', 'a\r\r\n'],
    ['a CR before CRLF', 'a\r\r\n', 'a\r\r\n', 'a\r\r\n'],
    ['a LF alone', 'a\nb\n', 'a\nb\n\r\n', 'a\nb\n\r\n'],
    ['LF and CR in the wrong order', '\n\r', '\n\r\r\n', '\n\r\r\n'],
    ['white space before a CR alone', 'a \t\rb\r\n', 'a \rb\r\n', 'a \t\rb\r\n'],
    ['a byte that is white space elsewhere', 'a\xa0\xa0\r\n', 'a\xa0\xa0\r\n', 'a\xa0\xa0\r\n'],
    ['vertical tab and form feed', 'a\v\f \r\n', 'a\v\f\r\n', 'a\v\f \r\n'],
    ['a NUL', '\0\r\n', '\0\r\n', '\0\r\n'],
  ])('%s', (_, text, relaxed, simple) => {
    expect(whole('relaxed', text)).toBe(relaxed);
    expect(whole('simple', text)).toBe(simple);
  });

  test('RFC 8463 §A.3: the body hash of the example', () => {
    const hash = createHash('sha256').update(
      whole('relaxed', 'Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n'),
    );
    expect(hash.digest('base64')).toBe('2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=');
  });

  test.each(['relaxed', 'simple'] as const)(
    '%s: says what the RFC says, wherever the chunks are cut',
    (kind) => {
      fc.assert(
        fc.property(body, fc.array(fc.nat(), { maxLength: 12 }), (text, positions) => {
          expect(canonical(kind, cut(text, positions))).toBe(reference(kind, text));
        }),
        { numRuns: 1500 },
      );
    },
  );

  test.each(['relaxed', 'simple'] as const)('%s: octet by octet', (kind) => {
    fc.assert(
      fc.property(body, (text) => {
        const octets = [...Buffer.from(text, 'latin1')].map((octet) => Uint8Array.of(octet));
        expect(canonical(kind, octets)).toBe(reference(kind, text));
      }),
      { numRuns: 100 },
    );
  });

  test('stays linear for white space and empty lines without end', () => {
    const spaces = Buffer.alloc(4 * 1024 * 1024, ' ');
    const lines = Buffer.from('\r\n'.repeat(2 * 1024 * 1024));
    let given = 0;
    const canonicalizer = new BodyCanonicalizer('relaxed', (bytes) => {
      given += bytes.length;
    });
    canonicalizer.write(spaces);
    canonicalizer.write(lines);
    canonicalizer.write(Buffer.from('x'));
    canonicalizer.end();
    expect(given).toBe(lines.length + 3);
  });
});
