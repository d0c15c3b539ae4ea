import { generateKeyPairSync } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import type { MailFacts } from '../../../src/checks/check.ts';
import { signingOf, signingTable, type Signing } from '../../../src/config/signing.ts';
import { parseReversePath } from '../../../src/mail/address.ts';
import { HeaderList } from '../../../src/mail/header.ts';
import { chooseKeys, PARENTS_LIMIT } from '../../../src/milter/signing.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { DomainKeys, SigningKey, SigningKeys } from '../../../src/ports/signing-keys.ts';
import { client } from '../../support/mail.ts';
import { heldKeys } from '../../support/signing-keys.ts';

const { privateKey } = generateKeyPairSync('ed25519');

function key(domain: string, selector: string, subdomains = false): SigningKey {
  return { domain, selector, subdomains, algorithm: 'ed25519-sha256', key: privateKey };
}

function signing(settings: object = {}): Signing {
  return signingOf(signingTable.parse(settings), '/etc/postern');
}

const KEYS = heldKeys(
  key('olimpus.example', 'rsa'),
  key('olimpus.example', 'ed'),
  key('valhalla.example', 'all', true),
  key('hall.valhalla.example', 'hall', true),
  key('example', 'tld', true),
);

interface From {
  readonly from?: string;
  readonly sender?: string;
  readonly login?: string | null;
}

/** Settings of accounts: the names of their keys. */
const ACCOUNTS: Readonly<Record<string, readonly string[]>> = {
  'zeus@olimpus.example': ['ed._domainkey.olimpus.example'],
  'hera@olimpus.example': ['valhalla.example'],
  'ares@olimpus.example': ['gone._domainkey.olimpus.example'],
  'eris@olimpus.example': ['olimpus.example', '-----BEGIN PRIVATE KEY-----'],
  zeus: ['ed._domainkey.olimpus.example'],
};

const DIRECTORY = {
  account: (name: string) => ({ limits: new Map(), senders: [], signingKeys: ACCOUNTS[name] ?? [] }),
};

function choice(settings: Signing, mail: From, source: SigningKeys = KEYS): Promise<DomainKeys> {
  const { from = 'zeus@asgard.test', sender = '', login = null } = mail;
  const facts: MailFacts = {
    client: client({ login }),
    direction: 'out',
    sender: parseReversePath(`<${sender}>`),
  };
  const headers = new HeaderList([{ name: 'From', value: ` ${from}` }]);
  return chooseKeys(settings, facts, headers, source, DIRECTORY);
}

async function selectors(
  settings: Signing,
  mail: From,
  source?: SigningKeys,
): Promise<readonly string[] | string> {
  const chosen = await choice(settings, mail, source);
  return chosen.kind === 'usable' ? chosen.keys.map(({ selector }) => selector) : chosen.kind;
}

test.each([
  ['zeus@olimpus.example', ['rsa', 'ed']],
  ['Zeus <ZEUS@Olimpus.Example.>', ['rsa', 'ed']],
  ['zeus@mail.olimpus.example', ['tld']],
  ['thor@valhalla.example', ['all']],
  ['thor@mail.valhalla.example', ['all']],
  ['thor@a.hall.valhalla.example', ['hall']],
  ['thor@notvalhalla.example', ['tld']],
  ['thor@asgard.test', 'none'],
  ['thor@olimpus.example.test', 'none'],
  ['zeus@olimpus.example, thor@asgard.test', 'none'],
  ['', 'none'],
])('keys for %s', async (from, expected) => {
  expect(await selectors(signing(), { from })).toEqual(expected);
});

function deep(labels: number): string {
  return `zeus@${'a.'.repeat(labels)}valhalla.example`;
}

test('parents are looked at up to a limit', async () => {
  const source = heldKeys(key('valhalla.example', 'all', true));
  expect(await selectors(signing(), { from: deep(PARENTS_LIMIT) }, source)).toEqual(['all']);
  expect(await selectors(signing(), { from: deep(PARENTS_LIMIT + 1) }, source)).toBe('none');
});

test.each([
  ['from', { sender: 'a@valhalla.example', login: 'b@olimpus.example' }, 'none'],
  ['envelope', { sender: 'a@valhalla.example', login: 'b@olimpus.example' }, ['all']],
  ['login', { sender: 'a@valhalla.example', login: 'b@olimpus.example' }, ['rsa', 'ed']],
  ['envelope', {}, 'none'],
  ['login', {}, 'none'],
  ['login', { login: 'zeus' }, 'none'],
] as const)('identity %s of %o', async (identity, mail, expected) => {
  expect(await selectors(signing({ identity: [identity] }), mail)).toEqual(expected);
});

test('the first identity that there is a key for is the one', async () => {
  const settings = signing({ identity: ['from', 'envelope', 'login'] });
  const mail = { sender: 'a@valhalla.example', login: 'b@olimpus.example' };
  expect(await selectors(settings, mail)).toEqual(['all']);
  expect(await selectors(settings, { ...mail, from: 'c@olimpus.example' })).toEqual(['rsa', 'ed']);
  expect(await selectors(settings, { login: 'b@olimpus.example' })).toEqual(['rsa', 'ed']);
});

const TABLE = [
  { senders: ['boss@olimpus.example'], keys: ['rsa._domainkey.olimpus.example'] },
  { senders: ['*@*.customer.test', '@customer.test'], keys: ['olimpus.example', 'valhalla.example'] },
  { senders: ['odin@lost.test'], keys: ['gone._domainkey.olimpus.example'] },
];

test.each([
  ['boss@olimpus.example', ['rsa'], ['rsa']],
  ['BOSS@olimpus.example', ['rsa'], ['rsa']],
  ['clerk@olimpus.example', ['rsa', 'ed'], 'none'],
  ['a@customer.test', ['rsa', 'ed', 'all'], ['rsa', 'ed', 'all']],
  ['a@b.customer.test', ['rsa', 'ed', 'all'], ['rsa', 'ed', 'all']],
  ['a@notcustomer.test', 'none', 'none'],
  ['odin@lost.test', 'broken', 'broken'],
])('the signing table, for %s', async (from, expected, only) => {
  expect(await selectors(signing({ table: TABLE }), { from })).toEqual(expected);
  expect(await selectors(signing({ table: TABLE, table_only: true }), { from })).toEqual(only);
});

const BROKEN: SigningKeys = {
  keysOf: (domain) => {
    if (domain === 'stuck.test') return { kind: 'broken', subdomains: false, why: 'open to everybody' };
    if (domain === 'stuck.all.test') return { kind: 'broken', subdomains: true, why: 'open to its group' };
    return KEYS.keysOf(domain);
  },
};

function choose(from: string): Promise<DomainKeys> {
  return choice(signing(), { from }, BROKEN);
}

test('broken keys stop the mail of their own domain alone', async () => {
  expect(await choose('a@stuck.test')).toEqual({
    kind: 'broken',
    subdomains: false,
    why: 'open to everybody',
  });
  expect(await choose('a@sub.stuck.test')).toEqual({ kind: 'none' });
  expect(await choose('a@sub.stuck.all.test')).toMatchObject({ kind: 'broken', why: 'open to its group' });
  expect(await choose('a@olimpus.example')).toMatchObject({ kind: 'usable' });
});

test('a source that answers later, or not at all', async () => {
  const later: SigningKeys = { keysOf: (domain) => Promise.resolve(KEYS.keysOf(domain)) };
  expect(await selectors(signing(), { from: 'zeus@olimpus.example' }, later)).toEqual(['rsa', 'ed']);
  const down: SigningKeys = { keysOf: () => Promise.reject(new NeighbourError('connection refused')) };
  await expect(choice(signing(), { from: 'zeus@olimpus.example' }, down)).rejects.toThrow(
    'connection refused',
  );
});

describe('all entries of the signing table together', () => {
  const table = [
    { senders: ['zeus@olimpus.example'], keys: ['rsa._domainkey.olimpus.example'] },
    { senders: ['@olimpus.example'], keys: ['olimpus.example', 'valhalla.example'] },
    { senders: ['*'], keys: ['tld._domainkey.example'] },
  ];

  test('each key signs once, in the order of the entries', async () => {
    const all = signing({ table, table_match: 'all' });
    expect(await selectors(all, { from: 'zeus@olimpus.example' })).toEqual(['rsa', 'ed', 'all', 'tld']);
    expect(await selectors(all, { from: 'hera@olimpus.example' })).toEqual(['rsa', 'ed', 'all', 'tld']);
    expect(await selectors(all, { from: 'loki@asgard.test' })).toEqual(['tld']);
  });

  test('only the first one, unless that is asked for', async () => {
    expect(await selectors(signing({ table }), { from: 'zeus@olimpus.example' })).toEqual(['rsa']);
  });
});

describe('keys that the settings of an account name', () => {
  const byAccount = signing({ account_keys: true });

  test.each([
    ['zeus@olimpus.example', ['ed']],
    ['hera@olimpus.example', ['all']],
    ['poseidon@olimpus.example', ['rsa', 'ed']],
    ['ares@olimpus.example', 'broken'],
    ['eris@olimpus.example', 'broken'],
  ])('of %s: %j', async (from, expected) => {
    expect(await selectors(byAccount, { from })).toEqual(expected);
  });

  test('are not asked for unless that is set', async () => {
    expect(await selectors(signing(), { from: 'zeus@olimpus.example' })).toEqual(['rsa', 'ed']);
  });

  test('of the login, where that is who chooses', async () => {
    const byLogin = signing({ account_keys: true, identity: ['login'] });
    expect(await selectors(byLogin, { login: 'Zeus' })).toEqual(['ed']);
  });

  test('come after the signing table, and count as part of it', async () => {
    const table = [{ senders: ['zeus@olimpus.example'], keys: ['rsa._domainkey.olimpus.example'] }];
    const both = signing({ account_keys: true, table, table_only: true });
    expect(await selectors(both, { from: 'zeus@olimpus.example' })).toEqual(['rsa']);
    expect(await selectors(both, { from: 'hera@olimpus.example' })).toEqual(['all']);
    expect(await selectors(both, { from: 'poseidon@olimpus.example' })).toEqual('none');
  });

  test('what stands there in place of a name is in no message', async () => {
    const found = await choice(byAccount, { from: 'eris@olimpus.example' });
    expect(JSON.stringify(found)).toContain('SELECTOR._domainkey.DOMAIN');
    expect(JSON.stringify(found)).not.toContain('PRIVATE');
  });
});
