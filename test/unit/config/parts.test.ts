import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { z } from 'zod';

import { formatProblem, inFileOrder, nearest, oneOf, shown } from '../../../src/config/errors.ts';
import { fullHostname } from '../../../src/config/hostname.ts';
import { readToml } from '../../../src/config/toml.ts';
import {
  domain,
  fieldName,
  formatSocketAddress,
  mailboxOrDomain,
  nameServer,
  parseSocketAddress,
  permissions,
  printable,
  rule,
  sizeBetween,
  socketAddress,
  waitingTime,
} from '../../../src/config/values.ts';

function accepts(schema: z.ZodType, value: unknown): boolean {
  return schema.safeParse(value).success;
}

describe('socket addresses', () => {
  test.each([
    ['127.0.0.1:8891', { kind: 'tcp', host: '127.0.0.1', port: 8891 }],
    ['[2001:db8::1]:25', { kind: 'tcp', host: '2001:db8::1', port: 25 }],
    ['localhost:24', { kind: 'tcp', host: 'localhost', port: 24 }],
    ['127.0.0.1:65535', { kind: 'tcp', host: '127.0.0.1', port: 65_535 }],
    ['unix:/run/dovecot/lmtp', { kind: 'unix', path: '/run/dovecot/lmtp' }],
  ])('%s is read and written the same', (text, address) => {
    expect(parseSocketAddress(text)).toEqual(address);
    expect(formatSocketAddress(parseSocketAddress(text) ?? { kind: 'unix', path: '' })).toBe(text);
  });

  test.each([
    '',
    '8891',
    ':8891',
    '127.0.0.1',
    '127.0.0.1:65536',
    '256.0.0.1:25',
    '127.1:25',
    '[127.0.0.1]:25',
    '[::1::]:25',
    '::1:25',
    '-:25',
    'a..b:25',
    'unix:run/x',
    'unix:',
  ])('"%s" is none', (text) => {
    expect(parseSocketAddress(text)).toBeNull();
  });

  test('a path of 107 octets fits into sun_path, one more does not', () => {
    expect(parseSocketAddress(`unix:/${'a'.repeat(106)}`)).not.toBeNull();
    expect(parseSocketAddress(`unix:/${'a'.repeat(107)}`)).toBeNull();
    expect(parseSocketAddress(`unix:/${'é'.repeat(53)}`)).not.toBeNull();
    expect(parseSocketAddress(`unix:/${'é'.repeat(54)}`)).toBeNull();
  });

  test.each([
    ['inet:8891@localhost', 'localhost:8891'],
    ['inet:localhost:8891', 'localhost:8891'],
    ['inet6:8891@[::1]', '[::1]:8891'],
    ['/run/x', 'unix:/run/x'],
    ['local:/run/x', 'unix:/run/x'],
    ['::1:25', '[::1]:25'],
    ['8891', '127.0.0.1:8891'],
  ])('the words of other programs are understood, "%s", and the right ones shown', (text, meant) => {
    const message = socketAddress().safeParse(text).error?.issues[0]?.message;
    expect(message).toMatch(new RegExp(`: write "${meant.replaceAll(/[[\].]/g, String.raw`\$&`)}"$`));
  });
});

test.each([
  ['192.0.2.53', { kind: 'tcp', host: '192.0.2.53', port: 53 }],
  ['2001:db8::53', { kind: 'tcp', host: '2001:db8::53', port: 53 }],
  ['127.0.0.1:5353', { kind: 'tcp', host: '127.0.0.1', port: 5353 }],
  ['[::1]:5353', { kind: 'tcp', host: '::1', port: 5353 }],
])('name server %s', (text, address) => {
  expect(nameServer().parse(text)).toEqual(address);
});

test.each(['localhost:53', '127.0.0.1:0', 'unix:/run/dns', '53', '', '127.1'])(
  'name server "%s" is refused',
  (text) => {
    expect(accepts(nameServer(), text)).toBe(false);
  },
);

describe('values at their limits', () => {
  const label = 'a'.repeat(63);
  test.each<[string, z.ZodType, unknown, boolean]>([
    ['a name of 253 characters', domain(), `${`${label}.`.repeat(3)}${'a'.repeat(61)}`, true],
    ['a name of 254 characters', domain(), `${`${label}.`.repeat(3)}${'a'.repeat(62)}`, false],
    ['a label of 63', domain(), `${label}.example`, true],
    ['a label of 64', domain(), `a${label}.example`, false],
    ['a name with an underscore', domain(), '_spf.example.org', true],
    ['a name with a space', domain(), 'a b.example', false],
    ['a tag of 60', printable(0, 60), 'x'.repeat(60), true],
    ['a tag of 61', printable(0, 60), 'x'.repeat(61), false],
    ['a tag that is not ASCII', printable(0, 60), 'Späm', false],
    ['an hour', waitingTime(), '1h', true],
    ['more than an hour', waitingTime(), '3601s', false],
    ['a millisecond', waitingTime(), '1ms', true],
    ['no time at all', waitingTime(), '0ms', false],
    ['the smallest size', sizeBetween(1024, 2048), '1KiB', true],
    ['a smaller one', sizeBetween(1024, 2048), '1023B', false],
    ['the largest size', sizeBetween(1024, 2048), '2KiB', true],
    ['a larger one', sizeBetween(1024, 2048), '2049B', false],
    ['permissions', permissions(), '0660', true],
    ['permissions with a digit too few', permissions(), '660', false],
    ['permissions that are not octal', permissions(), '0680', false],
    ['a field name', fieldName(), 'X-Spam-Flag', true],
    ['a field name with a colon', fieldName(), 'X-Spam:', false],
    ['a field name of 76', fieldName(), 'x'.repeat(76), true],
    ['a field name of 77', fieldName(), 'x'.repeat(77), false],
    ['a mailbox', mailboxOrDomain(), '"a@b"@example.org', true],
    ['a domain', mailboxOrDomain(), '@example.org', true],
    ['a domain without "@"', mailboxOrDomain(), 'example.org', false],
    ['a mailbox with a blank', mailboxOrDomain(), 'a b@example.org', false],
    ['points', rule(), 'score -2.125', true],
    ['points with four decimals', rule(), 'score 2.1251', false],
    ['a million points', rule(), 'score 1000000', false],
    ['own words', rule(), { action: 'reject', text: 'x'.repeat(200) }, true],
    ['too many of them', rule(), { action: 'reject', text: 'x'.repeat(201) }, false],
    ['words with a line break', rule(), { action: 'reject', text: 'a\r\nb' }, false],
  ])('%s', (_, schema, value, right) => {
    expect(accepts(schema, value)).toBe(right);
  });
});

describe('the nearest known word', () => {
  const known = ['max_connections', 'max_message_size', 'listen', 'deadline', 'log'];
  test.each([
    ['max_conections', 'max_connections'],
    ['max-connections', 'max_connections'],
    ['MaxConnections', 'max_connections'],
    ['lisetn', 'listen'],
    ['dead', 'deadline'],
    ['logs', 'log'],
  ])('%s → %s', (word, near) => {
    expect(nearest(word, known)).toBe(near);
  });

  test.each(['zone', 'x', '', 'l'.repeat(81)])('none for "%s"', (word) => {
    expect(nearest(word, known)).toBeNull();
  });
});

describe('messages', () => {
  test('values are cut, kept on their line, and never a key', () => {
    expect(shown('a"b\u001B[31m\u202E\n')).toBe(String.raw`"a\"b\u001B[31m\u202E\u000A"`);
    expect(shown('x'.repeat(60))).toBe(`"${'x'.repeat(60)}"`);
    expect(shown('x'.repeat(61))).toBe(`"${'x'.repeat(20)}…"`);
    expect(shown('-----BEGIN RSA PRIVATE KEY-----')).toBe('the text of a key (not shown)');
    expect([[], ['a'], {}, new Date(0), 5, false].map(shown)).toEqual([
      'an empty list',
      'a list',
      'a table',
      'a date',
      '5',
      'false',
    ]);
  });

  test('lists of words', () => {
    expect([oneOf(['a']), oneOf(['a', 'b']), oneOf(['a', 'b', 'c'])]).toEqual([
      '"a"',
      '"a" or "b"',
      '"a", "b" or "c"',
    ]);
  });

  test('a problem is one line, with its place when it has one', () => {
    const about = { file: 'postern.toml', key: 'log.level', wrong: 'found 5', remedy: 'expected "info"' };
    const placed = { ...about, position: { line: 12, column: 9 } };
    expect(formatProblem(placed)).toBe('postern.toml:12:9: log.level: found 5; expected "info"');
    expect(formatProblem({ ...about, key: '', position: null })).toBe(
      'postern.toml: found 5; expected "info"',
    );
    const earlier = { ...about, position: { line: 12, column: 8 } };
    const whole = { ...about, position: null };
    expect(inFileOrder([placed, earlier, whole])).toEqual([whole, earlier, placed]);
  });
});

describe('TOML', () => {
  test('of a file full of mistakes, twenty are named', () => {
    const { problems, usable } = readToml('a = x\n'.repeat(30));
    expect(problems.map(({ position }) => position.line)).toEqual(
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
    expect(usable).toBe(false);
  });

  test('a mistake that reaches over lines is named where something is missing, and so is what follows', () => {
    const { problems, usable } = readToml('a = [\n  1,\n\n# more\nb = 2\nc = x\n');
    expect(problems.map(({ position, wrong }) => [position.line, position.column, wrong])).toEqual([
      [2, 5, 'this list has no end'],
      [6, 5, 'a text without quotes'],
    ]);
    expect(usable).toBe(true);
  });

  test('after a mistake whose end can not be seen, nothing is read', () => {
    const { problems, usable } = readToml('a = """\nb = 2\nc = x\n');
    expect(problems.map(({ wrong }) => wrong)).toEqual(['this text has no end']);
    expect(usable).toBe(false);
  });

  test('keys that objects have by nature are keys like others', () => {
    const { root, usable } = readToml('constructor = 1\n[__proto__]\npolluted = true\n');
    expect(usable).toBe(true);
    expect([...root.entries.keys()]).toEqual(['constructor', '__proto__']);
    expect('polluted' in {}).toBe(false);
  });
});

describe('the host name', () => {
  let folder: string;
  let hosts: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-hosts-'));
    hosts = join(folder, 'hosts');
    await writeFile(
      hosts,
      '127.0.0.1 localhost\n# 127.0.1.1 wrong.example.org mx\n127.0.1.1\tmx.example.org mx # this host\n127.0.1.2 bad_.. bad\n',
    );
  });

  afterAll(() => rm(folder, { recursive: true }));

  test.each([
    ['a full name', 'mail.example.net', 'mail.example.net'],
    ['a short name that /etc/hosts completes', 'mx', 'mx.example.org'],
    ['a short name that it does not know', 'other', 'other'],
    ['what is no name', 'a b\r\nX: y', 'localhost'],
  ])('%s', (_, name, full) => {
    expect(fullHostname(name, hosts)).toBe(full);
  });

  test('a machine without /etc/hosts', () => {
    expect(fullHostname('mx', join(folder, 'nowhere'))).toBe('mx');
  });
});
