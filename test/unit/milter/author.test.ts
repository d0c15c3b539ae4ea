import { createPrivateKey, generateKeyPairSync } from 'node:crypto';

import { expect, test } from 'vitest';

import type { Signing, SigningKey } from '../../../src/config/config.ts';
import { HeaderList } from '../../../src/mail/header.ts';
import { addressDomains, authorDomain } from '../../../src/milter/author.ts';
import { selectKeys } from '../../../src/milter/signing.ts';

test.each<[value: string, domains: readonly string[] | null]>([
  ['thor@valhalla.example', ['valhalla.example']],
  ['<thor@valhalla.example>', ['valhalla.example']],
  ['Thor <thor@Valhalla.EXAMPLE>', ['valhalla.example']],
  ['Thor Odinson <thor@valhalla.example>, loki@asgard.example', ['valhalla.example', 'asgard.example']],
  ['"loki@asgard.example" <thor@valhalla.example>', ['valhalla.example']],
  ['"Thor, \\"God\\" of <thunder>" <thor@valhalla.example>', ['valhalla.example']],
  ['(loki@asgard.example) thor@valhalla.example (a (nested) \\) comment)', ['valhalla.example']],
  ['=?UTF-8?Q?loki=40asgard.example?= <thor@valhalla.example>', ['valhalla.example']],
  ['loki@asgard.example <thor@valhalla.example>', ['valhalla.example']],
  ['"thor@home"@valhalla.example', ['valhalla.example']],
  ['thor@valhalla.example.', ['valhalla.example']],
  ['thor @ valhalla . example', ['valhalla.example']],
  ['thor@(here)valhalla.example', ['valhalla.example']],
  ['thor@[192.0.2.1]', ['[192.0.2.1]']],
  ['thor@[IPv6:2001:db8::1]', ['[ipv6:2001:db8::1]']],
  ['Gods: thor@valhalla.example, Odin <odin@valhalla.example>;', ['valhalla.example', 'valhalla.example']],
  ['Gods: thor@valhalla.example;, zeus@olimpus.example', ['valhalla.example', 'olimpus.example']],
  ['Nobody:;', []],
  ['<@relay.example,@other.example:thor@valhalla.example>', ['valhalla.example']],
  ['thor@valhalla.example,', ['valhalla.example']],
  [', ,thor@valhalla.example', ['valhalla.example']],
  ['Th\xc3\xb6r <th\xc3\xb6r@valhalla.example>', ['valhalla.example']],
  ['', []],
  ['(only a comment)', []],
  // Not well formed: nobody knows whom a reader would see.
  ['thor', null],
  ['@valhalla.example', null],
  ['thor@', null],
  ['thor@.', null],
  ['<>', null],
  ['thor@valhalla.example@asgard.example', null],
  ['Thor thor@valhalla.example', null],
  ['thor@valhalla.example loki', null],
  ['<thor@valhalla.example', null],
  ['thor@valhalla.example>', null],
  ['<thor@valhalla.example> loki@asgard.example', null],
  ['<thor@valhalla.example> <loki@asgard.example>', null],
  ['<<thor@valhalla.example>>', null],
  ['"thor@valhalla.example', null],
  ['(thor@valhalla.example', null],
  ['thor@[192.0.2.1', null],
  ['Gods: thor@valhalla.example', null],
  ['thor@valhalla.example;', null],
  [': thor@valhalla.example;', null],
  ['A: B: thor@valhalla.example;;', null],
  ['Gods: <thor@valhalla.example; >', null],
  ['<thor:loki@valhalla.example>', null],
  ['<thor,loki@valhalla.example>', null],
  ['thor\x01@valhalla.example', null],
  ['thor\\@valhalla.example', null],
  ['Gods:;thor@valhalla.example', null],
])('domains of %j', (value, domains) => {
  expect(addressDomains(value)).toEqual(domains);
});

test.each([
  ['no From', [], null],
  ['one', [' thor@valhalla.example'], 'valhalla.example'],
  ['folded', ['\r\n\tThor\r\n <thor@valhalla.example>'], 'valhalla.example'],
  ['two addresses of one domain', [' a@valhalla.example, b@Valhalla.example'], 'valhalla.example'],
  ['two domains', [' a@valhalla.example, b@asgard.example'], null],
  ['two fields', [' a@valhalla.example', ' a@valhalla.example'], null],
  ['an empty group', [' Nobody:;'], null],
])('the author of a message with %s', (_, values, domain) => {
  const headers = new HeaderList(values.map((value) => ({ name: 'fRoM', value })));
  expect(authorDomain(headers)).toBe(domain);
});

test('hostile text is read in linear time, and not at all above the limit', () => {
  for (const piece of ['(', '"', '<', '@', ' ', ' @', ',', 'a@b,', '(a)', 'x:', '\\', '<a@b>,', '. ']) {
    const text = piece.repeat(Math.floor(65_536 / piece.length));
    const begun = performance.now();
    addressDomains(text);
    expect({ piece, quick: performance.now() - begun < 500 }).toEqual({ piece, quick: true });
  }
  const local = 'a'.repeat(65_536 - '@b.example'.length);
  expect(addressDomains(`${local}@b.example`)).toEqual(['b.example']);
  expect(addressDomains(`a${local}@b.example`)).toBeNull();
});

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
