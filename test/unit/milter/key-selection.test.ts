import { createPrivateKey, generateKeyPairSync } from 'node:crypto';

import { expect, test } from 'vitest';

import type { Signing, SigningKey } from '../../../src/config/config.ts';
import { HeaderList } from '../../../src/mail/header.ts';
import { selectKeys } from '../../../src/milter/signing.ts';

const PEM = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });

function key(domain: string, selector: string, subdomains = false): SigningKey {
  return { domain, selector, subdomains, algorithm: 'ed25519-sha256', key: createPrivateKey(PEM) };
}

function signing(...keys: SigningKey[]): Signing {
  return {
    headerCanonicalization: 'relaxed',
    bodyCanonicalization: 'relaxed',
    oversign: [],
    expire: null,
    keys,
  };
}

const SITE = signing(
  key('olimpus.example', 'rsa'),
  key('olimpus.example', 'ed'),
  key('valhalla.example', 'all', true),
  key('hall.valhalla.example', 'hall', true),
  key('example', 'tld', true),
);

test.each([
  ['zeus@olimpus.example', ['rsa', 'ed']],
  ['zeus@mail.olimpus.example', ['tld']],
  ['thor@valhalla.example', ['all']],
  ['thor@mail.valhalla.example', ['all']],
  ['thor@a.hall.valhalla.example', ['hall']],
  ['thor@notvalhalla.example', ['tld']],
  ['thor@asgard.test', []],
  ['thor@olimpus.example.test', []],
])('keys for %s', (address, selectors) => {
  const headers = new HeaderList([{ name: 'From', value: ` ${address}` }]);
  expect(selectKeys(SITE, headers).map(({ selector }) => selector)).toEqual(selectors);
});

test('no keys, or an author who can not be told: none', () => {
  const headers = new HeaderList([{ name: 'From', value: ' zeus@olimpus.example, thor@asgard.test' }]);
  expect(selectKeys(SITE, headers)).toEqual([]);
  expect(selectKeys(signing(), headers)).toEqual([]);
});
