import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { nameKey, pairKey, pairOf } from '../../../src/policyd/logins-keys.ts';
import { parseLoginRequest } from '../../../src/policyd/logins-request.ts';
import { KEY_LIMIT } from '../../../src/ports/limits.ts';
import { mutated, seeded } from '../../support/mutate.ts';

// As Dovecot 2.3.19 sends it.
const ALLOW =
  '{"device_id":"","login":"zeus@olimpus.local","mech":"PLAIN","protocol":"imap","pwhash":"0893","remote":"127.0.0.1","session_id":"fEp9CcZggOx/AAAB","tls":false}';

const ATTRIBUTES = z.record(z.string(), z.unknown()).parse(JSON.parse(ALLOW));

function report(success: boolean, refused: boolean): string {
  return ALLOW.replace('"tls"', `"success":${success},"policy_reject":${refused},"tls"`);
}

function parse(command: 'allow' | 'report', text: string): ReturnType<typeof parseLoginRequest> {
  return parseLoginRequest(command, Buffer.from(text));
}

function without(name: string): string {
  return JSON.stringify({ ...ATTRIBUTES, [name]: undefined });
}

function changed(values: Record<string, unknown>): string {
  return JSON.stringify({ ...ATTRIBUTES, ...values });
}

test('a question', () => {
  expect(parse('allow', ALLOW)).toEqual({
    command: 'allow',
    attempt: {
      login: 'zeus@olimpus.local',
      remote: '127.0.0.1',
      protocol: 'imap',
      session: 'fEp9CcZggOx/AAAB',
      device: '',
      passwordMark: '0893',
    },
  });
});

test.each([
  [true, false, 'success'],
  [false, false, 'failure'],
  [false, true, 'refused'],
])('a report with success %s and policy_reject %s is a %s', (success, refused, result) => {
  expect(parse('report', report(success, refused))).toMatchObject({ command: 'report', result });
});

test('a report must say what came of it; a question need not', () => {
  expect(parse('report', ALLOW)).toBeNull();
  expect(parse('report', changed({ success: false }))).toMatchObject({ result: 'failure' });
  expect(parse('report', changed({ success: 'false' }))).toBeNull();
  expect(parse('allow', report(true, false))).toMatchObject({ command: 'allow' });
});

test.each(['login', 'remote', 'protocol'])('without %s it is malformed', (name) => {
  expect(parse('allow', without(name))).toBeNull();
});

test.each(['pwhash', 'device_id', 'session_id', 'mech', 'tls'])('%s may be left out', (name) => {
  expect(parse('allow', without(name))).not.toBeNull();
});

test('attributes that the operator added are passed over', () => {
  expect(parse('allow', changed({ local: '192.0.2.1', lport: 993 }))).not.toBeNull();
});

test.each(['imap', 'pop3', 'sieve', 'smtp'])('the protocol %s', (protocol) => {
  expect(parse('allow', changed({ protocol }))).toMatchObject({ attempt: { protocol } });
});

test('any other protocol is "other", so that labels stay few', () => {
  for (const protocol of ['', 'IMAP', 'xmpp', 'constructor'])
    expect(parse('allow', changed({ protocol }))).toMatchObject({ attempt: { protocol: 'other' } });
});

test.each([
  ['', ''],
  ['2001:db8::7', '2001:db8::7'],
  ['fe80::1%eth0', 'fe80::1'],
  ['::ffff:192.0.2.7', '::ffff:192.0.2.7'],
])('the address %j', (remote, read) => {
  expect(parse('allow', changed({ remote }))).toMatchObject({ attempt: { remote: read } });
});

test.each(['localhost', '127.1', '192.0.2.7 ', '192.0.2.256', '::g', null, 7])(
  'the address %j is malformed',
  (remote) => {
    expect(parse('allow', changed({ remote }))).toBeNull();
  },
);

test.each([
  ['PLAIN', '0893'],
  ['login', '0893'],
  ['CRAM-MD5', null],
  ['SCRAM-SHA-256', null],
  ['', null],
])('with %j the hash tells passwords apart: %j', (mech, passwordMark) => {
  expect(parse('allow', changed({ mech }))).toMatchObject({ attempt: { passwordMark } });
});

test.each(['', 'null', '[]', '"x"', '7', '{', `${ALLOW}x`, '{"login":7}'])('%j is malformed', (text) => {
  expect(parse('allow', text)).toBeNull();
});

test('what a client can choose is never malformed: its login would pass unasked', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (login, device) => {
      const read = parse('allow', changed({ login, device_id: device }));
      expect(read?.attempt.login).toBe(login.toWellFormed());
    }),
  );
  const octets = Buffer.from(ALLOW.replace('zeus', 'z\xff\xc3us'), 'latin1');
  expect(parseLoginRequest('allow', octets)?.attempt.login).toBe('z\ufffd\ufffdus@olimpus.local');
});

test('damaged requests are read or refused, and nothing else', () => {
  const random = seeded(10_041);
  for (let round = 0; round < 3000; round += 1) {
    const read = parseLoginRequest('report', mutated(Buffer.from(report(false, false)), random));
    expect(read === null || typeof read.attempt.login === 'string').toBe(true);
  }
});

describe('keys', () => {
  test('a login in lower case, as the octets that Postfix names it by', () => {
    expect(nameKey('Zeus@Olimpus.Example')).toBe('zeus@olimpus.example');
    expect(nameKey('zeüs')).toBe(Buffer.from('zeüs').toString('latin1'));
  });

  test('whatever the login, its key is short and printable, and different logins have different keys', () => {
    const seen = new Map<string, string>();
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 2000 }), (login) => {
        const key = nameKey(login);
        expect(pairKey(key, '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128').length).toBeLessThanOrEqual(
          KEY_LIMIT,
        );
        // oxlint-disable-next-line no-control-regex
        expect(key).not.toMatch(/[\x00-\x1f\x7f]/);
        const same = login.toWellFormed().replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
        expect(seen.get(key) ?? same).toBe(same);
        seen.set(key, same);
      }),
    );
    expect(nameKey('a'.repeat(256))).toBe('a'.repeat(256));
    expect(nameKey('a'.repeat(257))).toMatch(/^a{223}~[0-9a-f]{32}$/);
  });

  test('a login can not pass for another pair', () => {
    expect(pairOf(pairKey('eve|192.0.2.0/24', '198.51.100.0/24'))).toEqual({
      login: 'eve|192.0.2.0/24',
      network: '198.51.100.0/24',
    });
  });
});
