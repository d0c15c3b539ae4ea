import { expect, test } from 'vitest';

import {
  REPLY_LINE_LIMIT,
  REPLY_LINES_LIMIT,
  ReplyDecoder,
  ReplyError,
  type UpstreamReply,
} from '../../src/lmtp-filter/reply-decoder.ts';
import { cut, mutated, seeded } from '../support/mutate.ts';

const STREAM =
  '220 delphos.olimpus.local Dovecot (Debian) ready.\r\n' +
  '250-delphos.olimpus.local\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n250-PIPELINING\r\n250 STARTTLS\r\n' +
  "250 2.1.0 OK\r\n550 5.1.1 <nobody@olimpus.local> User doesn't exist: nobody@olimpus.local\r\n354 OK\r\n" +
  '250 2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved\r\n552 5.2.2 <hera@olimpus.local> Quota exceeded\r\n250\r\n';

const EXPECTED: UpstreamReply[] = [
  { code: 220, lines: ['delphos.olimpus.local Dovecot (Debian) ready.'] },
  {
    code: 250,
    lines: ['delphos.olimpus.local', '8BITMIME', 'CHUNKING', 'ENHANCEDSTATUSCODES', 'PIPELINING', 'STARTTLS'],
  },
  { code: 250, lines: ['2.1.0 OK'] },
  { code: 550, lines: ["5.1.1 <nobody@olimpus.local> User doesn't exist: nobody@olimpus.local"] },
  { code: 354, lines: ['OK'] },
  { code: 250, lines: ['2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved'] },
  { code: 552, lines: ['5.2.2 <hera@olimpus.local> Quota exceeded'] },
  { code: 250, lines: [''] },
];

function read(pieces: readonly Buffer[]): UpstreamReply[] {
  const decoder = new ReplyDecoder();
  return pieces.flatMap((piece) => decoder.push(piece));
}

test("Dovecot's recorded replies are read, however they are split", () => {
  const octets = Buffer.from(STREAM);
  expect(read([octets])).toEqual(EXPECTED);
  for (let i = 0; i <= octets.length; i++) {
    expect(read([octets.subarray(0, i), octets.subarray(i)]), `split at ${i}`).toEqual(EXPECTED);
  }
  expect(read([...octets].map((octet) => Buffer.of(octet)))).toEqual(EXPECTED);
});

test.each([
  ['no code', 'hello\r\n'],
  ['an empty line', '\r\n'],
  ['a code out of range', '999 what\r\n'],
  ['a code below 200', '150 x\r\n'],
  ['a second digit above 5', '260 x\r\n'],
  ['four digits', '2500 x\r\n'],
  ['no blank behind the code', '250_x\r\n'],
  ['lines of several codes', '250-a\r\n550 b\r\n'],
  ['bare LF', '250 a\n'],
  ['garbage between the lines', '250-a\r\nx\r\n'],
])('%s is no reply', (_, text) => {
  expect(() => read([Buffer.from(text)])).toThrow(ReplyError);
});

test('a line may have so many octets, and one more is too many', () => {
  const fits = `250 ${'x'.repeat(REPLY_LINE_LIMIT - '250 \r\n'.length)}\r\n`;
  expect(read([Buffer.from(fits)])).toHaveLength(1);
  const long = fits.replace('250 ', '250 x');
  expect(() => read([Buffer.from(long)])).toThrow('too long');
  expect(() => read([Buffer.from(long.slice(0, -1))])).toThrow('too long');
});

test('a reply may have so many lines, and one more is too many', () => {
  const line = '250-x\r\n';
  expect(read([Buffer.from(`${line.repeat(REPLY_LINES_LIMIT - 1)}250 x\r\n`)])).toHaveLength(1);
  expect(() => read([Buffer.from(line.repeat(REPLY_LINES_LIMIT))])).toThrow('too many lines');
});

test('60,000 mutated streams give replies or an error, and the same however they are split', () => {
  const random = seeded(5321);
  const octets = Buffer.from(STREAM);
  const different: string[] = [];
  let errors = 0;
  const outcome = (pieces: readonly Buffer[]): string => {
    const decoder = new ReplyDecoder();
    const replies: UpstreamReply[] = [];
    try {
      for (const piece of pieces) replies.push(...decoder.push(piece));
    } catch (error) {
      if (!(error instanceof ReplyError)) throw error;
      errors += 1;
      return 'error';
    }
    return JSON.stringify(replies);
  };
  for (let i = 0; i < 60_000; i++) {
    const stream = mutated(octets, random);
    if (outcome([stream]) !== outcome(cut(stream, 3, random))) different.push(stream.toString('latin1'));
  }
  expect(different).toEqual([]);
  expect(errors).toBeGreaterThan(1000);
});
