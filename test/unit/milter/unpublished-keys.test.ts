import { generateKeyPairSync } from 'node:crypto';

import { Registry } from 'prom-client';
import { expect, test } from 'vitest';

import type { MailFacts } from '../../../src/checks/check.ts';
import { signingOf, signingTable } from '../../../src/config/signing.ts';
import { parseReversePath } from '../../../src/mail/address.ts';
import { HeaderList } from '../../../src/mail/header.ts';
import { DkimFinisher } from '../../../src/milter/dkim-finisher.ts';
import { milterMetrics } from '../../../src/milter/metrics.ts';
import { chooseKeys } from '../../../src/milter/signing.ts';
import {
  NO_KEYS,
  type DomainKeys,
  type SigningKey,
  type SigningKeys,
} from '../../../src/ports/signing-keys.ts';
import { client } from '../../support/mail.ts';
import { metric } from '../../support/metric.ts';

const { privateKey } = generateKeyPairSync('ed25519');

function key(domain: string, selector: string): SigningKey {
  return { domain, selector, subdomains: true, algorithm: 'ed25519-sha256', key: privateKey };
}

const NO_SETTINGS = { account: () => ({ limits: new Map(), senders: [] }) };

function choice(keys: Readonly<Record<string, DomainKeys>>, settings: object = {}): Promise<DomainKeys> {
  const source: SigningKeys = { keysOf: (domain) => keys[domain] ?? NO_KEYS };
  const facts: MailFacts = {
    client: client({ login: null }),
    direction: 'out',
    sender: parseReversePath('<>'),
  };
  const headers = new HeaderList([{ name: 'From', value: ' zeus@hall.olimpus.example' }]);
  return chooseKeys(
    signingOf(signingTable.parse(settings), '/etc/postern'),
    facts,
    headers,
    source,
    NO_SETTINGS,
  );
}

const UNPUBLISHED = { kind: 'unpublished', subdomains: true } as const satisfies DomainKeys;

test('keys that are not in DNS are not replaced by those of somebody else', async () => {
  const parent = { kind: 'usable', keys: [key('olimpus.example', 'a')] } as const;
  const keys = { 'hall.olimpus.example': UNPUBLISHED, 'olimpus.example': parent };
  expect(await choice(keys)).toEqual(UNPUBLISHED);
});

test('those of the parent domain count where they are for subdomains', async () => {
  expect(await choice({ 'olimpus.example': UNPUBLISHED })).toEqual(UNPUBLISHED);
  expect(await choice({ 'olimpus.example': { ...UNPUBLISHED, subdomains: false } })).toEqual(NO_KEYS);
});

function table(name: string): object {
  return { table: [{ senders: ['*'], keys: [name] }] };
}

test('an entry of the signing table names a key that waits for DNS: not broken, and mail is not deferred for it', async () => {
  const some = { kind: 'usable', keys: [key('olimpus.example', 'a')], leftOut: ['b'] } as const;
  expect((await choice({ 'olimpus.example': UNPUBLISHED }, table('olimpus.example'))).kind).toBe(
    'unpublished',
  );
  expect((await choice({ 'olimpus.example': some }, table('b._domainkey.olimpus.example'))).kind).toBe(
    'unpublished',
  );
  expect((await choice({ 'olimpus.example': some }, table('a._domainkey.olimpus.example'))).kind).toBe(
    'usable',
  );
  expect((await choice({ 'olimpus.example': some }, table('c._domainkey.olimpus.example'))).kind).toBe(
    'broken',
  );
});

test('the message goes unsigned, and is counted', async () => {
  const registry = new Registry();
  const form = signingOf(signingTable.parse({}), '/etc/postern');
  const finisher = new DkimFinisher(form, Promise.resolve(UNPUBLISHED), milterMetrics(registry));
  finisher.body(Buffer.from('Hello\r\n'));
  const headers = new HeaderList([{ name: 'From', value: ' zeus@olimpus.example' }]);
  expect(await finisher.finish({ headers, newBody: null, outcomes: [], timeSeconds: 1 })).toEqual([]);
  expect(await metric(registry, 'postern_milter_signatures_total', { result: 'unpublished' })).toBe(1);
});

test.for<[object, boolean]>([
  [{}, true],
  [
    { unpublished: 'skip', new_keys: ['rsa'], rsa_bits: 4096, rotate_every: '1d', queue_lifetime: '0s' },
    true,
  ],
  [{ unpublished: 'defer' }, false],
  [{ new_keys: [] }, false],
  [{ new_keys: ['rsa', 'rsa'] }, false],
  [{ rsa_bits: 1024 }, false],
  [{ rsa_bits: 2049 }, false],
  [{ rotate_every: '23h' }, false],
])('settings %j: %s', ([settings, valid]) => {
  expect(signingTable.safeParse(settings).success).toBe(valid);
});
