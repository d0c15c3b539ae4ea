import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { senderCheck } from '../../../src/checks/sender.ts';
import type { Account, Directory } from '../../../src/ports/directory.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { NO_DIRECTORY } from '../../support/checks.ts';
import { codes, codesAtOnce, runCheck, type Case } from './policy-facts.ts';

const ZEUS = 'zeus@olimpus.example';

/** Knows one alias of zeus, and what his account may use. */
function directory(account: Partial<Account> = {}, values: Partial<Directory> = {}): Directory {
  const own: Account = { limits: new Map(), senders: [], ...account };
  return {
    ...NO_DIRECTORY,
    account: () => own,
    owns: (login, address) => login === ZEUS && address.raw.toLowerCase() === 'info@olimpus.example',
    isLocalDomain: (domain) => domain === 'olimpus.example',
    ...values,
  };
}

function submitted(values: Case & { login?: string; account?: Partial<Account> }): Case {
  return {
    ...values,
    direction: 'out',
    client: { login: values.login ?? ZEUS },
    tools: { directory: directory(values.account), ...values.tools },
  };
}

describe('a login may send as', () => {
  test.each<[what: string, values: Parameters<typeof submitted>[0]]>([
    ['itself', { sender: ZEUS }],
    ['itself in other letters', { sender: 'Zeus@OLIMPUS.example' }],
    ['itself, whatever the case of the login', { login: 'ZEUS@Olimpus.Example', sender: ZEUS }],
    ['itself with an extension', { sender: 'zeus+thunder@olimpus.example' }],
    [
      'itself, when the login has a delimiter',
      { login: 'a+b@olimpus.example', sender: 'A+b@olimpus.example' },
    ],
    ['itself with another delimiter', { sender: 'zeus-x@olimpus.example', tools: { delimiter: '-' } }],
    ['an alias that the directory knows', { sender: 'Info@olimpus.example' }],
    [
      'a user name with the default domain',
      {
        login: 'Zeus',
        sender: ZEUS,
        options: { default_domain: 'Olimpus.example' },
      },
    ],
    [
      'a pattern of its account',
      { sender: 'a@news.olimpus.example', account: { senders: ['@*.olimpus.example'] } },
    ],
    [
      'a pattern of its account, with an extension',
      {
        sender: 'sales+x@asgard.example',
        account: { senders: ['SALES@asgard.example'] },
      },
    ],
    [
      'an entry of the table',
      {
        sender: 'news@asgard.example',
        options: { allow: [{ logins: [ZEUS], senders: ['hera@asgard.example', 'n*@asgard.example'] }] },
      },
    ],
    [
      'an entry of the table for all of a domain',
      {
        sender: 'x@asgard.example',
        options: { allow: [{ logins: ['@olimpus.example'], senders: ['@asgard.example'] }] },
      },
    ],
    [
      'an entry for a user name',
      {
        login: 'backup',
        sender: 'root@asgard.example',
        options: { allow: [{ logins: ['backup'], senders: ['root@*'] }] },
      },
    ],
    ['a user name as it is', { login: 'zeus', sender: 'zeus' }],
    [
      'an address in UTF-8',
      {
        sender: 'j\u00c3\u00bcrgen@asgard.example',
        options: { allow: [{ logins: ['*'], senders: ['j\u00fcrgen@asgard.example'] }] },
      },
    ],
  ])('%s', (_, values) => {
    expect(codesAtOnce(senderCheck, submitted(values))).toEqual([]);
  });
});

describe('a login may not send as', () => {
  test.each<[what: string, values: Parameters<typeof submitted>[0]]>([
    ['somebody else', { sender: 'hera@olimpus.example' }],
    ['itself elsewhere', { sender: 'zeus@valhalla.example' }],
    ['what its own name begins with', { sender: 'zeu@olimpus.example' }],
    [
      'an extension, when there is no delimiter',
      { sender: 'zeus+x@olimpus.example', tools: { delimiter: '' } },
    ],
    [
      'the user name that an extension stands on',
      { login: 'a+b@olimpus.example', sender: 'a@olimpus.example' },
    ],
    ['an address, when it is a user name and no default domain is set', { login: 'zeus', sender: ZEUS }],
    [
      'what another login may',
      {
        sender: 'x@asgard.example',
        options: { allow: [{ logins: ['hera@olimpus.example'], senders: ['@asgard.example'] }] },
      },
    ],
    [
      'what the table takes out for it',
      {
        sender: 'x@asgard.example',
        options: { allow: [{ logins: [`!${ZEUS}`, '*'], senders: ['@asgard.example'] }] },
      },
    ],
    [
      'an address whose local part holds the pattern',
      {
        sender: '"x@asgard.example"@evil.example',
        options: { allow: [{ logins: ['*'], senders: ['*@asgard.example'] }] },
      },
    ],
    [
      'a subdomain that the pattern does not name',
      {
        sender: 'x@evil-asgard.example',
        options: { allow: [{ logins: ['*'], senders: ['@*.asgard.example'] }] },
      },
    ],
  ])('%s', (_, values) => {
    expect(codesAtOnce(senderCheck, submitted(values))).toEqual(['sender.not-owned']);
  });
});

test('the detail names both', async () => {
  expect(await runCheck(senderCheck, submitted({ sender: 'Hera@olimpus.example' }))).toEqual([
    { code: 'sender.not-owned', detail: `login ${ZEUS} may not send as Hera@olimpus.example` },
  ]);
});

test('no sender: a fact of its own, and by default nothing is done about it', () => {
  expect(codesAtOnce(senderCheck, submitted({ sender: '' }))).toEqual(['sender.null']);
  expect(senderCheck.codes['sender.null']?.action).toBe('ignore');
});

test.each<[values: Case, found: string[]]>([
  [{ sender: 'odin@olimpus.example' }, ['sender.own-domain']],
  [{ sender: 'odin@valhalla.example' }, []],
  [{ sender: '' }, []],
  [{ sender: 'odin' }, []],
  [{ sender: 'odin@olimpus.example', direction: 'out' }, []],
])('without a login: %j finds %j', (values, found) => {
  expect(codesAtOnce(senderCheck, { ...values, tools: { directory: directory() } })).toEqual(found);
});

test('a directory that takes its time is waited for, one that fails makes the check unavailable', async () => {
  const late = directory(
    {},
    { account: () => Promise.resolve({ limits: new Map(), senders: ['hera@olimpus.example'] }) },
  );
  const sender = 'hera@olimpus.example';
  expect(await codes(senderCheck, submitted({ sender, tools: { directory: late } }))).toEqual([]);
  const broken = directory({}, { owns: () => Promise.reject(new NeighbourError('gone')) });
  await expect(runCheck(senderCheck, submitted({ sender, tools: { directory: broken } }))).rejects.toThrow(
    'gone',
  );
  expect(senderCheck.unavailable).toBe('defer');
});

test("off until it is enabled, and not the milter's", () => {
  expect([senderCheck.optIn, senderCheck.policyOnly]).toEqual([true, true]);
});

test.each([
  [{ allow: [{ logins: ['*'], senders: [] }] }],
  [{ allow: [{ logins: ['*'], senders: ['a b'] }] }],
  [{ allow: [{ logins: ['*'], senders: ['!a@b'] }] }],
  [{ allow: [{ logins: ['*'], senders: ['a@'] }] }],
  [{ allow: [{ senders: ['a@b'] }] }],
  [{ default_domain: 'a b' }],
])('%j is a mistake', (options) => {
  expect(() => senderCheck.bind(options, 1)).toThrow(z.ZodError);
});
