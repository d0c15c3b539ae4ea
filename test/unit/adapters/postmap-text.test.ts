import { describe, expect, test } from 'vitest';

import { parseAddressList } from '../../../src/adapters/address-list.ts';
import { mailboxEntries } from '../../../src/adapters/passwd-file.ts';
import { LINE_LIMIT, postmapEntries } from '../../../src/adapters/postmap-text.ts';

function entries(text: string): string[] {
  return [...postmapEntries(text)].map((entry) =>
    'fault' in entry ? `${entry.line}! ${entry.fault}` : `${entry.key} -> ${entry.value}`,
  );
}

/** A line of so many octets, and another one. */
function lineOf(length: number): string {
  return `k ${'v'.repeat(length - 2)}\nnext x\n`;
}

describe('a table as postmap reads it', () => {
  // The cases of Postfix's own test program (readlline.c), with values.
  test.each([
    ['abc x\ndef y\n', ['abc -> x', 'def -> y']],
    ['abc x', ['abc -> x']],
    [' abcde x\nfghij y\n', ['fghij -> y']],
    [' #abcde\nfghij y\n', ['fghij -> y']],
    ['#abc\ndef y', ['def -> y']],
    ['\nabc x\n', ['abc -> x']],
    [' \nabc x\n', ['abc -> x']],
    ['abc\n def\n', ['abc -> def']],
    ['abc\n #def\n ghi', ['abc -> ghi']],
    ['abc\n#def\n ghi', ['abc -> ghi']],
    ['abc\n \n ghi', ['abc -> ghi']],
    ['abc\n\n ghi', ['abc -> ghi']],
    ['abc x,\r\n\ty\r\n', ['abc -> x,\r\ty']],
    ['', []],
    ['\n \n', []],
  ])('%j', (text, expected) => {
    expect(entries(text)).toEqual(expected);
  });

  test('keys are folded, values are not; bytes of UTF-8 letters stay as they are', () => {
    expect(entries('ZEUS@Olimpus.Example Zeus@OLIMPUS.example')).toEqual([
      'zeus@olimpus.example -> Zeus@OLIMPUS.example',
    ]);
    expect(entries('\u00c3\u0089@x y')).toEqual(['\u00c3\u0089@x -> y']);
  });

  test('a quoted key may hold white space', () => {
    expect(entries('"all gods"@olimpus.example zeus')).toEqual(['"all gods"@olimpus.example -> zeus']);
    expect(entries(String.raw`"a\" b"@x y`)).toEqual([String.raw`"a\" b"@x -> y`]);
  });

  test('what postmap warns about is left out and told', () => {
    expect(entries('one x\n"two x\nthree\nfour y\n')).toEqual([
      'one -> x',
      '2! an odd number of quotes',
      '3! a key without a value',
      'four -> y',
    ]);
  });

  test('the longest line, and one octet more', () => {
    expect(entries(lineOf(LINE_LIMIT))[0]).toMatch(/^k -> v+$/);
    expect(entries(lineOf(LINE_LIMIT + 1))).toEqual([
      `1! a line of more than ${LINE_LIMIT} octets`,
      'next -> x',
    ]);
  });
});

describe('a list of addresses', () => {
  test.each([
    ['a@x', ['a@x']],
    ['a@x, b@y', ['a@x', 'b@y']],
    ['a@x,b@y,', ['a@x', 'b@y']],
    ['a@x b@y', ['a@x', 'b@y']],
    ['a b', ['a', 'b']],
    ['"b c"@y, d', ['b c@y', 'd']],
    [String.raw`"q\"uote"@y`, ['q"uote@y']],
    ['Name <d@z>', ['d@z']],
    ['"A. Name" <d@z>, e@z', ['d@z', 'e@z']],
    ['a@x (his (old) box), b@y', ['a@x', 'b@y']],
    ['a @ x', ['a@x']],
    ['first.last@x', ['first.last@x']],
    ['@other.example', ['@other.example']],
    ['', []],
    [' , ', []],
    ['"never closed', ['never closed']],
    ['(never closed', []],
  ])('%j', (value, expected) => {
    expect(parseAddressList(value)).toEqual(expected);
  });
});

function quotaIn(extra: string): unknown {
  return [...mailboxEntries(`zeus@x:{PLAIN}secret:5000:5000::/home/zeus::${extra}`)][0]?.quota;
}

describe('a list of mailboxes', () => {
  test.each([
    ['userdb_quota_rule=*:storage=1G', 1024 ** 3],
    ['userdb_quota_rule=*:storage=100', 100 * 1024],
    ['userdb_quota_rule=*:bytes=1234', 1234],
    ['userdb_quota_rule=*:messages=10:storage=20M', 20 * 1024 ** 2],
    ['userdb_mail=maildir:~/x userdb_quota_rule=*:storage=5K', 5120],
    ['userdb_quota_rule=Trash:storage=+100M', undefined],
    ['userdb_quota_rule=*:storage=10%', undefined],
    ['userdb_quota_rule=*:storage=0', null],
    ['userdb_quota_storage_size=2G', 2 * 1024 ** 3],
    ['userdb_quota_storage_size=123B', 123],
    ['userdb_quota_storage_size=123', 123],
    ['userdb_quota_storage_size=unlimited', null],
    // Without userdb_ Dovecot does not look at it (userdb-passwd-file.c).
    ['quota_rule=*:storage=1G', undefined],
    ['userdb_quota_rule=*:storage=99999999999999999999G', undefined],
    ['', undefined],
  ])('%s', (extra, quota) => {
    expect(quotaIn(extra)).toBe(quota);
  });

  test('plain lines, tables of Postfix, comments, and users without a domain', () => {
    const text =
      '# users\n\nZeus@Olimpus.example\nhera@olimpus.example   1\nada:{PLAIN}x\n@all.example x\n \tnot one\n';
    expect([...mailboxEntries(text)].map(({ name }) => name)).toEqual([
      'zeus@olimpus.example',
      'hera@olimpus.example',
      'ada',
      '@all.example',
    ]);
  });
});
