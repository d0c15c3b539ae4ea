import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, test } from 'vitest';

import {
  isPublicAddress,
  networkOf,
  networkSet,
  NetworkTable,
  parseIp,
  parseNetwork,
} from '../../../src/checks/networks.ts';

test.each([
  '10/8',
  '10.0.0.0/33',
  '::/129',
  '10.0.0.0/',
  '10.0.0.0/8/8',
  '10.1',
  '010.0.0.1',
  '10.0.0.0/-1',
  '::ffff:192.0.2.0/95',
  `${'0'.repeat(100)}::/64`,
  '',
  'x',
])('network "%s" is refused', (text) => {
  expect(parseNetwork(text)).toBeNull();
  expect(networkSet().safeParse([text])).toMatchObject({
    success: false,
    error: { issues: [{ path: [0] }] },
  });
});

test('a set of networks knows its addresses, IPv4 within IPv6 too', () => {
  const set = networkSet().parse(['192.0.2.0/24', '2001:db8::/32', '198.51.100.7', '::ffff:203.0.113.0/120']);
  const inside = ['192.0.2.255', '2001:db8:1::1', '::ffff:192.0.2.1', '198.51.100.7', '203.0.113.9'];
  const outside = ['192.0.3.0', '2001:db9::1', '198.51.100.8', '203.0.114.0', 'unknown', '', '192.0.2', 'é'];
  expect(inside.filter((address) => !set.has(address))).toEqual([]);
  expect(outside.filter((address) => set.has(address))).toEqual([]);
});

const ipv4 = fc.ipV4();
const ipv6 = fc.ipV6();
const network = fc.oneof(
  fc.tuple(ipv4, fc.integer({ min: 0, max: 32 })),
  fc.tuple(ipv6, fc.integer({ min: 0, max: 128 })),
);

describe('the table', () => {
  test('finds what ipaddr.js finds by looking at each network, the smallest first', () => {
    const near = fc.tuple(fc.array(network, { maxLength: 20 }), fc.oneof(ipv4, ipv6), fc.nat(19));
    fc.assert(
      fc.property(near, ([networks, other, pick]) => {
        const table = new NetworkTable<string>();
        for (const [host, bits] of networks) {
          const parsed = parseNetwork(`${host}/${bits}`);
          if (parsed === null) return; // an IPv4-mapped network of less than 96 bits
          table.set(parsed, networkOf(host, { ipv4: bits, ipv6: bits }) ?? '');
        }
        for (const text of [other, networks[pick]?.[0] ?? other]) {
          const address = parseIp(text);
          const found = address === null ? [] : [...table.matches(address)];
          const processed = ipaddr.process(text);
          const expected = networks.filter(([host, bits]) => {
            const range = ipaddr.process(host);
            const mapped = range.kind() === 'ipv4' && host.includes(':');
            return range.kind() === processed.kind() && processed.match(range, mapped ? bits - 96 : bits);
          });
          expect(new Set(found).size).toBe(found.length);
          expect(found.length > 0).toBe(expected.length > 0);
          expect(address !== null && table.has(address)).toBe(expected.length > 0);
          const sizes = found.map((line) => Number(line.split('/')[1]));
          expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
        }
      }),
    );
  });

  test('gives back what was set for the same network, however it was written', () => {
    const table = new NetworkTable<number>();
    const parsed = parseNetwork('192.0.2.77/24');
    const same = parseNetwork('192.0.2.0/24');
    const other = parseNetwork('192.0.2.0/25');
    if (parsed === null || same === null || other === null) throw new Error('these are networks');
    table.set(parsed, 1);
    expect([table.get(same), table.get(other)]).toEqual([1, undefined]);
  });
});

test.each([
  ['192.0.2.77', '192.0.2.0/24'],
  ['::ffff:192.0.2.77', '192.0.2.0/24'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:DB8::', '2001:db8::/64'],
  ['unknown', null],
  ['', null],
  ['192.0.2.77\n', null],
  ['1'.repeat(100_000), null],
])('the network of %s', (address, expected) => {
  expect(networkOf(address, { ipv4: 24, ipv6: 64 })).toBe(expected);
});

test('networks of odd sizes', () => {
  expect(networkOf('192.0.255.255', { ipv4: 17, ipv6: 0 })).toBe('192.0.128.0/17');
  expect(networkOf('192.0.255.255', { ipv4: 0, ipv6: 0 })).toBe('0.0.0.0/0');
  expect(networkOf('192.0.255.255', { ipv4: 32, ipv6: 0 })).toBe('192.0.255.255/32');
  expect(networkOf('2001:db8:ffff::', { ipv4: 0, ipv6: 33 })).toBe('2001:db8:8000::/33');
});

test('addresses that the world can reach', () => {
  const open = ['1.1.1.1', '2606:4700::1'];
  const closed = [
    '127.0.0.1',
    '10.1.2.3',
    '192.168.0.1',
    '169.254.1.1',
    '0.0.0.0',
    '224.0.0.1',
    '240.0.0.1',
    '::1',
    '::',
    'fe80::1',
    'fc00::1',
    '::ffff:127.0.0.1',
    'x',
  ];
  expect(open.filter((address) => !isPublicAddress(address))).toEqual([]);
  expect(closed.filter((address) => isPublicAddress(address))).toEqual([]);
});
