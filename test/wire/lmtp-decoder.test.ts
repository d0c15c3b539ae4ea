import { expect, test } from 'vitest';

import { parseCommand } from '../../src/lmtp-filter/command.ts';
import { COMMAND_LIMIT, LmtpDecoder } from '../../src/lmtp-filter/wire.ts';
import { cut, mutated, seeded } from '../support/mutate.ts';
import { strictContent, strictEnd } from '../support/players/fake-dovecot.ts';

const CONTENT = 'Subject: dots\r\n\r\n..one\r\n...two\r\n..\r\n.\rx\r\n.\n\n.\n\r\n';
const DIALOGUE =
  'LHLO delphos.olimpus.local\r\n' +
  'XFORWARD NAME=odin.valhalla.local ADDR=192.0.2.20 PORT=43741\r\n' +
  'MAIL FROM:<thor@valhalla.local> SIZE=483\r\nRCPT TO:<zeus@olimpus.local> ORCPT=rfc822;zeus@olimpus.local\r\nDATA\r\n' +
  `${CONTENT}.\r\nRSET\r\nMAIL FROM:<>\nRCPT TO:<"a b>"@olimpus.local>\r\nDATA\r\n.\r\nQUIT\r\n`;

/** What the stream says, content in one piece. `DATA` is always answered with 354. */
function read(pieces: readonly Buffer[]): string[] {
  const decoder = new LmtpDecoder();
  const seen: string[] = [];
  let content: string | null = null;
  for (const piece of pieces) {
    decoder.push(Buffer.from(piece));
    for (let input = decoder.next(); input !== null; input = decoder.next()) {
      switch (input.kind) {
        case 'line':
          seen.push(input.text);
          if (input.text === 'DATA') {
            decoder.startContent();
            content = '';
          }
          break;
        case 'overlong':
          seen.push('(overlong)');
          break;
        case 'content':
          if (input.chunk.length === 0) seen.push('(empty)');
          content = `${content}${input.chunk.toString('latin1')}`;
          break;
        case 'end':
          seen.push(`(content) ${content}`);
          content = null;
          break;
      }
    }
  }
  if (content !== null) seen.push(`(unfinished) ${content}`);
  return seen;
}

/** The same, written to be obvious: the whole stream at once. */
function reference(stream: string): string[] {
  const seen: string[] = [];
  let rest = stream;
  for (let end = rest.indexOf('\n'); end !== -1; end = rest.indexOf('\n')) {
    const line = rest.slice(0, end).replace(/\r$/, '');
    seen.push(end >= COMMAND_LIMIT ? '(overlong)' : line);
    rest = rest.slice(end + 1);
    if (line !== 'DATA') continue;
    const stop = strictEnd(rest);
    if (stop === -1) return [...seen, '(unfinished)'];
    seen.push(`(content) ${strictContent(rest.slice(0, stop))}`);
    rest = rest.slice(stop);
  }
  return seen;
}

const whole = reference(DIALOGUE);

test('a recorded dialogue is read as it is', () => {
  expect(read([Buffer.from(DIALOGUE, 'latin1')])).toEqual(whole);
  expect(whole).toContain('(content) Subject: dots\r\n\r\n.one\r\n..two\r\n.\r\n\rx\r\n\n\n.\n\r\n');
  expect(whole).toContain('(content) ');
  expect(whole.at(-1)).toBe('QUIT');
});

test('it may be split at any octet, or at all of them', () => {
  const octets = Buffer.from(DIALOGUE, 'latin1');
  for (let i = 0; i <= octets.length; i++) {
    expect(read([octets.subarray(0, i), octets.subarray(i)]), `split at ${i}`).toEqual(whole);
  }
  expect(read([...octets].map((octet) => Buffer.of(octet)))).toEqual(whole);
});

test('neighbours may be joined', () => {
  const twice = Buffer.from(DIALOGUE + DIALOGUE, 'latin1');
  expect(read([twice])).toEqual([...whole, ...whole]);
});

test.each([
  ['CRLF.CRLF', 'a\r\n.\r\n', 'a\r\n', true],
  ['at once', '.\r\n', '', true],
  ['LF.LF', 'a\n.\n', 'a\n.\n', false],
  ['LF.CRLF', 'a\n.\r\n', 'a\n.\r\n', false],
  ['CRLF.LF', 'a\r\n.\n', 'a\r\n\n', false],
  ['CR.CR', 'a\r.\r', 'a\r.\r', false],
  ['CRLF.CR', 'a\r\n.\rb', 'a\r\n\rb', false],
  ['CRLF.CRCRLF', 'a\r\n.\r\r\n', 'a\r\n\r\r\n', false],
  ['CRCRLF.CRLF', 'a\r\r\n.\r\n', 'a\r\r\n', true],
  ['NUL', 'a\0\r\n.\0\r\n', 'a\0\r\n\0\r\n', false],
  ['CRLF.NULCRLF', 'a\r\n.\0\r\n', 'a\r\n\0\r\n', false],
])('%s: %j is the end: %s %s', (_, sent, content, ends) => {
  const seen = read([Buffer.from(`DATA\r\n${sent}`, 'latin1')]);
  expect(seen).toEqual(['DATA', `${ends ? '(content)' : '(unfinished)'} ${content}`]);
});

test('a command line may have so many octets, and one more is too many', () => {
  const fits = `NOOP ${'x'.repeat(COMMAND_LIMIT - 'NOOP \r\n'.length)}`;
  expect(read([Buffer.from(`${fits}\r\nQUIT\r\n`)])).toEqual([fits, 'QUIT']);
  expect(read([Buffer.from(`${fits}x\r\nQUIT\r\n`)])).toEqual(['(overlong)', 'QUIT']);
  expect(read([Buffer.from(`${fits}x`), Buffer.from('\r\nQUIT\r\n')])).toEqual(['(overlong)', 'QUIT']);
});

test('a line without end is thrown away as it comes', () => {
  const decoder = new LmtpDecoder();
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 2000; i++) {
    decoder.push(Buffer.alloc(16 * 1024, 0x78));
    expect(decoder.next()).toBeNull();
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * 1024 * 1024);
  decoder.push(Buffer.from('\r\nNOOP\r\n'));
  expect(decoder.next()).toEqual({ kind: 'overlong' });
  expect(decoder.next()).toEqual({ kind: 'line', text: 'NOOP' });
});

test('60,000 mutated streams are read as the obvious reader reads them', () => {
  const random = seeded(20_261_121);
  const octets = Buffer.from(DIALOGUE, 'latin1');
  const different: string[] = [];
  for (let i = 0; i < 60_000; i++) {
    const stream = mutated(octets, random);
    const text = stream.toString('latin1');
    const seen = read(cut(stream, 1 + Math.floor(random() * 4), random));
    const unfinished = seen.at(-1)?.startsWith('(unfinished)') === true;
    if (unfinished) seen.splice(-1, 1, '(unfinished)');
    if (seen.join('\u2028') !== reference(text).join('\u2028')) different.push(text);
    for (const line of seen) parseCommand(line);
  }
  expect(different).toEqual([]);
});
