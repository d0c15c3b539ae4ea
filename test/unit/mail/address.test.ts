import { describe, expect, it } from 'vitest';

import {
  NULL_PATH,
  parseForwardPath,
  parseMailbox,
  parseReversePath,
  pathText,
  settingsKey,
} from '../../../src/mail/address.ts';

describe('parseMailbox', () => {
  it.each([
    ['zeus@olimpus.example', 'zeus', 'olimpus.example'],
    ['Zeus@OLIMPUS.Example.', 'Zeus', 'olimpus.example'],
    ['postmaster', 'postmaster', ''],
    ['', '', ''],
    ['"a b"@olimpus.example', 'a b', 'olimpus.example'],
    ['"a@b"@olimpus.example', 'a@b', 'olimpus.example'],
    [String.raw`"a\"b\\c"@olimpus.example`, String.raw`a"b\c`, 'olimpus.example'],
    ['""@olimpus.example', '', 'olimpus.example'],
    ['"@olimpus.example', '"', 'olimpus.example'],
    ['zeus@[192.0.2.1]', 'zeus', '[192.0.2.1]'],
    ['zeus@[IPv6:2001:DB8::1]', 'zeus', '[ipv6:2001:db8::1]'],
    ['@olimpus.example', '', 'olimpus.example'],
    ['zeus@', 'zeus', ''],
    ['zeus@a@b', 'zeus@a', 'b'],
    ['@', '', ''],
  ])('%j', (raw, local, domain) => {
    expect(parseMailbox(raw)).toEqual({ raw, local, domain });
  });

  it('keeps the bytes of UTF-8 letters, whose single characters have a lower case of their own', () => {
    const raw = Buffer.from('ZÉUS@MÜNCHEN.example').toString('latin1');
    const address = parseMailbox(raw);
    expect(Buffer.from(address.domain, 'latin1').toString('utf8')).toBe('mÜnchen.example');
    expect(Buffer.from(settingsKey(address), 'latin1').toString('utf8')).toBe('zÉus@mÜnchen.example');
  });

  it('of hostile length takes no time', () => {
    const begun = performance.now();
    parseMailbox(`"${'\\'.repeat(1_000_000)}@${'A'.repeat(1_000_000)}`);
    expect(performance.now() - begun).toBeLessThan(1000);
  });
});

describe('parseReversePath', () => {
  it.each(['<>', '', ' <> ', '<@relay.example:>'])('%j is the null path', (text) => {
    expect(parseReversePath(text)).toBe(NULL_PATH);
    expect(pathText(parseReversePath(text))).toBe('');
  });

  it.each([
    ['<thor@valhalla.example>', 'thor@valhalla.example'],
    // As Postfix gives it for mail that did not come by SMTP.
    ['thor@valhalla.example', 'thor@valhalla.example'],
    // RFC 5321 appendix C
    ['<@a.example,@b.example:thor@valhalla.example>', 'thor@valhalla.example'],
    ['<@a.example:"x:y"@valhalla.example>', '"x:y"@valhalla.example'],
    ['<"<>"@valhalla.example>', '"<>"@valhalla.example'],
    ['<thor@valhalla.example', '<thor@valhalla.example'],
    ['<"@x:y"@valhalla.example>', '"@x:y"@valhalla.example'],
    // A closing byte of UTF-8 that String.trim() takes for a space.
    ['<thor@voil\xc3\xa0>', 'thor@voil\xc3\xa0'],
    ['thor@voil\xc3\xa0', 'thor@voil\xc3\xa0'],
  ])('%j', (text, mailbox) => {
    const path = parseReversePath(text);
    expect(path.kind).toBe('address');
    expect(pathText(path)).toBe(mailbox);
  });
});

describe('parseForwardPath', () => {
  it.each([
    ['<Postmaster>', 'Postmaster', ''],
    ['<>', '', ''],
    ['<zeus@olimpus.example>', 'zeus', 'olimpus.example'],
  ])('%j', (text, local, domain) => {
    expect(parseForwardPath(text)).toMatchObject({ local, domain });
  });
});

describe('settingsKey', () => {
  it.each([
    ['Zeus+Thunder@Olimpus.Example', '+', 'zeus@olimpus.example'],
    ['zeus+a+b@olimpus.example', '+', 'zeus@olimpus.example'],
    // A mailbox is never named by its extension alone.
    ['+zeus@olimpus.example', '+', '+zeus@olimpus.example'],
    ['zeus-x@olimpus.example', '-', 'zeus@olimpus.example'],
    ['zeus+x@olimpus.example', '', 'zeus+x@olimpus.example'],
    ['postmaster', '+', 'postmaster@'],
  ])('%s with delimiter %j', (mailbox, delimiter, key) => {
    expect(settingsKey(parseMailbox(mailbox), delimiter)).toBe(key);
  });
});
