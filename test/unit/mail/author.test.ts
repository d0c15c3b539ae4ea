import { expect, test } from 'vitest';

import { HeaderList } from '../../../src/mail/header.ts';
import { addressList, authorDomain, authors } from '../../../src/mail/author.ts';

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
  ['thor@"valhalla".example', null],
])('domains of %j', (value, domains) => {
  expect(addressList(value)?.map(({ domain }) => domain) ?? null).toEqual(domains);
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
    addressList(text);
    expect({ piece, quick: performance.now() - begun < 2000 }).toEqual({ piece, quick: true });
  }
  const local = 'a'.repeat(65_536 - '@b.example'.length);
  expect(addressList(`${local}@b.example`)).toMatchObject([{ local, domain: 'b.example' }]);
  expect(addressList(`a${local}@b.example`)).toBeNull();
});

test.each<[value: string, locals: readonly string[]]>([
  ['Thor <thor@valhalla.example>', ['thor']],
  ['"Thor" <"thor the \\"god\\""@valhalla.example>', ['thor the "god"']],
  ['"a@x" <"b@y"@valhalla.example>, "c"@valhalla.example', ['b@y', 'c']],
  ['"Gods": "a"@valhalla.example, b@valhalla.example;', ['a', 'b']],
  ['th . or @ valhalla.example', ['th.or']],
  ['<@"relay":"a"@valhalla.example>', ['a']],
])('local parts of %j', (value, locals) => {
  expect(addressList(value)?.map(({ local }) => local)).toEqual(locals);
});

test.each<[name: string, values: string[], addresses: readonly string[] | null]>([
  [
    'all addresses of the one field',
    [' a@valhalla.example, B <b@asgard.example>'],
    ['a@valhalla.example', 'b@asgard.example'],
  ],
  ['none in an empty group', [' Nobody:;'], []],
  ['none can be told of two fields', [' a@valhalla.example', ' a@valhalla.example'], null],
  ['none can be told of no field', [], null],
])('the authors: %s', (_, values, addresses) => {
  const headers = new HeaderList(values.map((value) => ({ name: 'From', value })));
  expect(authors(headers)?.map(({ raw }) => raw) ?? null).toEqual(addresses);
});
