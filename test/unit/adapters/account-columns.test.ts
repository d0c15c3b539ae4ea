import { describe, expect, test } from 'vitest';

import { accountOf } from '../../../src/adapters/account-columns.ts';
import type { Row } from '../../../src/adapters/directory-source.ts';

function row(columns: Readonly<Record<string, string | readonly string[]>>): Row {
  return new Map(
    Object.entries(columns).map(([name, value]) => [name, typeof value === 'string' ? [value] : value]),
  );
}

test('every column; the first row that has a value counts, and lists are joined', () => {
  const account = accountOf([
    row({
      quota: '',
      limit_hourly: '50',
      senders: 'a@x, b@x',
      tag: '-1.5',
      discard: '40',
      language: 'es_MX',
      rewrite_body: 'yes',
      allow: ['c@x', 'd@x e@x'],
      unknown: 'x',
    }),
    row({
      quota: '5G',
      limit_hourly: '9',
      limit_size: '10M',
      senders: 'f@x',
      junk: 'none',
      block: '*@y',
      signing_keys: 'mail',
    }),
  ]);
  expect(account).toEqual({
    quota: 5 * 1024 ** 3,
    limits: new Map([
      ['hourly', 50],
      ['size', 10 * 1024 ** 2],
    ]),
    senders: ['a@x', 'b@x', 'f@x'],
    thresholds: { tag: -1.5, junk: null, discard: 40 },
    language: 'es-mx',
    rewriteBody: true,
    allow: ['c@x', 'd@x', 'e@x'],
    block: ['*@y'],
    signingKeys: ['mail'],
  });
});

test.each([
  ['0', null],
  ['none', null],
  ['1048576', 1_048_576],
  [' 40M ', 40 * 1024 ** 2],
])('quota %s', (text, quota) => {
  expect(accountOf([row({ quota: text })])).toMatchObject({ quota });
});

test.each([
  ['1', true],
  ['On', true],
  ['none', false],
  ['no', false],
  ['0', false],
  ['[SPAM?]', '[SPAM?]'],
  [Buffer.from('[¿Basura?]', 'utf8').toString('latin1'), '[¿Basura?]'],
  ['x'.repeat(60), 'x'.repeat(60)],
])('subject_tag %s', (text, subjectTag) => {
  expect(accountOf([row({ subject_tag: text })])).toMatchObject({ subjectTag });
});

test('no rows, and rows that say nothing', () => {
  expect(accountOf([])).toBeNull();
  expect(accountOf([row({ quota: [], senders: ' , ' }), row({ address: 'x' })])).toBeNull();
});

describe('what can not be read is an error', () => {
  test.each([
    ['quota', 'lots'],
    ['quota', '-5'],
    ['limit_hourly', '1.5'],
    ['tag', '5 points'],
    ['reject', '1234567'],
    ['discard', 'always'],
    ['language', 'klingon of the empire'],
    ['language', 'x'],
    ['rewrite_body', 'perhaps'],
    ['subject_tag', 'a\r\nBcc: b'],
    ['subject_tag', 'x'.repeat(61)],
    ['subject_tag', '\xff\xfe'],
  ])('%s = %s', (column, text) => {
    expect(() => accountOf([row({ [column]: text })])).toThrow(
      `the column ${column} holds something else than it should`,
    );
  });

  test('a list of more than a thousand', () => {
    const list = Array.from({ length: 1000 }, (_, index) => `a${index}@x`);
    expect(accountOf([row({ senders: list })])?.senders).toHaveLength(1000);
    expect(() => accountOf([row({ senders: [...list, 'b@x'] })])).toThrow('more than 1000 entries');
  });
});
