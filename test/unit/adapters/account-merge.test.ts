import { expect, test } from 'vitest';

import { ontoDomain } from '../../../src/adapters/account-merge.ts';
import { AccountSettings } from '../../../src/adapters/account-settings.ts';
import type { Account } from '../../../src/ports/directory.ts';

const NOTHING: Account = { limits: new Map(), senders: [] };

test('an account has its own settings, and those of its domain where it has none; lists stay apart', () => {
  const domain: Account = {
    quota: 5,
    limits: new Map([
      ['hourly', 1],
      ['daily', 2],
    ]),
    senders: ['@x.example'],
    thresholds: { tag: 4, reject: 10 },
    allow: ['a@y.example'],
    block: ['b@y.example'],
    subjectTag: '[D]',
    rewriteBody: true,
  };
  const own: Account = {
    limits: new Map([['hourly', 9]]),
    senders: ['c@y.example'],
    thresholds: { reject: null },
    allow: ['d@y.example'],
    rewriteBody: false,
  };
  expect(ontoDomain(domain, own)).toEqual({
    quota: 5,
    limits: new Map([
      ['hourly', 9],
      ['daily', 2],
    ]),
    senders: ['@x.example', 'c@y.example'],
    thresholds: { tag: 4, reject: null },
    allow: ['d@y.example'],
    domainLists: { allow: ['a@y.example'], block: ['b@y.example'] },
    subjectTag: '[D]',
    rewriteBody: false,
  });
  expect(ontoDomain(domain, NOTHING)).not.toHaveProperty('allow');
  expect(ontoDomain(NOTHING, own)).toEqual(own);
});

test.each([
  ['[D]', true],
  [true, true],
  [undefined, true],
  [false, false],
] as const)('a language of its own with the tag %s of the domain', (subjectTag, expected) => {
  const domain: Account = subjectTag === undefined ? NOTHING : { ...NOTHING, subjectTag };
  expect(ontoDomain(domain, { ...NOTHING, language: 'es' }).subjectTag).toBe(expected);
});

test('[[account]]: lists of the user and of the domain, with those of a directory', () => {
  const entry = { limits: {}, senders: [], allow: [], block: [] };
  const settings = new AccountSettings([
    { ...entry, names: ['@x.example'], block: ['@y.example'] },
    { ...entry, names: ['zeus@x.example'], allow: ['jörg@y.example'] },
  ]);
  expect(settings.keepSettings).toBe(true);
  expect(new AccountSettings([{ ...entry, names: ['@x.example'], quota: 5 }]).keepSettings).toBe(false);
  const octets = Buffer.from('jörg@y.example', 'utf8').toString('latin1');
  expect(settings.of('zeus@x.example', undefined)).toEqual({
    ...NOTHING,
    allow: [octets],
    domainLists: { block: ['@y.example'] },
  });
  expect(settings.of('hera@x.example', undefined)).toEqual({
    ...NOTHING,
    domainLists: { block: ['@y.example'] },
  });
  const others: Account = {
    ...NOTHING,
    allow: ['a@z.example'],
    thresholds: { tag: 1 },
    domainLists: { allow: ['b@z.example'], block: ['c@z.example'] },
  };
  expect(settings.over('zeus@x.example', others, undefined)).toEqual({
    ...NOTHING,
    thresholds: { tag: 1 },
    allow: [octets, 'a@z.example'],
    domainLists: { allow: ['b@z.example'], block: ['@y.example', 'c@z.example'] },
  });
});
