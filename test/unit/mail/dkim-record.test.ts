import fc from 'fast-check';
import { expect, test } from 'vitest';

import { KEY_RECORD_LIMIT } from '../../../src/mail/dkim-key.ts';
import { recordLines, recordName, recordText } from '../../../src/mail/dkim-record.ts';

const NAME = recordName('s1', 'olimpus.example');

/** As a reader of master files joins the strings again. */
function joined(lines: string): string {
  return Array.from(lines.matchAll(/"((?:[^"\\]|\\.)*)"/g), ([, part = '']) =>
    part.replaceAll(/\\(.)/g, '$1'),
  ).join('');
}

/** Lengths of the strings that a text of this length becomes. */
function strings(length: number): readonly number[] {
  const lines = recordLines({ name: NAME, text: 'x'.repeat(length) }, 'bind', 60);
  return (lines.match(/"[^"]*"/g) ?? []).map((part) => part.length - 2);
}

test('a record has the name and tags of RFC 6376 §3.6.1', () => {
  expect(NAME).toBe('s1._domainkey.olimpus.example');
  expect(recordText('ed25519', 'AAAA')).toBe('v=DKIM1; k=ed25519; p=AAAA');
});

test('a short record is one string on one line', () => {
  expect(recordLines({ name: NAME, text: recordText('ed25519', 'AA==') }, 'bind', 3600)).toBe(
    's1._domainkey.olimpus.example. 3600 IN TXT "v=DKIM1; k=ed25519; p=AA=="\n',
  );
});

test('255 octets are one string, 256 are two', () => {
  expect(strings(255)).toEqual([255]);
  expect(strings(256)).toEqual([255, 1]);
  expect(strings(511)).toEqual([255, 255, 1]);
});

test('whatever the text, its strings make it again, and each fits a character-string', () => {
  const text = fc.string({
    unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
    maxLength: 1200,
  });
  fc.assert(
    fc.property(text, (value) => {
      for (const form of ['bind', 'nsupdate'] as const) {
        expect(joined(recordLines({ name: NAME, text: value }, form, 60))).toBe(value);
      }
    }),
  );
});

test('for web panels, tinydns-data and nsupdate(1)', () => {
  const record = { name: NAME, text: 'v=DKIM1; k=rsa; n=a:b\\c; p=AAAA' };
  expect(recordLines(record, 'plain', 60)).toBe(`name:  ${NAME}\ntype:  TXT\nvalue: ${record.text}\n`);
  expect(recordLines(record, 'tinydns', 60)).toBe(`'${NAME}:v=DKIM1; k=rsa; n=a\\072b\\134c; p=AAAA:60\n`);
  expect(recordLines(record, 'nsupdate', 60)).toBe(
    `update add ${NAME}. 60 IN TXT "v=DKIM1; k=rsa; n=a:b\\\\c; p=AAAA"\n`,
  );
});

test('what is no record text is not printed into a zone', () => {
  for (const text of ['a\nb', 'a\tb', '\u00e9', 'x'.repeat(KEY_RECORD_LIMIT + 1)]) {
    expect(() => recordLines({ name: NAME, text }, 'bind', 60)).toThrow('not the text of a key record');
  }
  expect(recordLines({ name: NAME, text: 'x'.repeat(KEY_RECORD_LIMIT) }, 'plain', 60)).toContain('xxx');
});
