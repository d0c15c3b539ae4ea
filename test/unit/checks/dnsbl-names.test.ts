import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { addressLabels, labelsOf, listName } from '../../../src/checks/dnsbl-names.ts';
import { parseIp } from '../../../src/checks/networks.ts';
import { parseReversePath } from '../../../src/mail/address.ts';
import type { Client } from '../../../src/mail/envelope.ts';
import { client } from '../../support/mail.ts';

function facts(values: Partial<Client>, sender = '<thor@valhalla.example>'): Parameters<typeof labelsOf>[1] {
  return { client: client(values), direction: 'in', sender: parseReversePath(sender) };
}

describe('what a list is asked about', () => {
  test.each([
    ['192.0.2.99', '99.2.0.192'],
    ['::ffff:192.0.2.99', '99.2.0.192'],
    ['2001:db8:1:2:3:4:567:89ab', 'b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2'],
  ])('RFC 5782 §2.1, §2.4: %s', (address, expected) => {
    expect(labelsOf('client', facts({ address }))).toBe(expected);
  });

  test.each([
    ['client-ipv4', '192.0.2.1', true],
    ['client-ipv4', '2001:db8::1', false],
    ['client-ipv4', '::ffff:192.0.2.1', true],
    ['client-ipv6', '2001:db8::1', true],
    ['client-ipv6', '192.0.2.1', false],
  ] as const)('%s and %s: %s', (subject, address, asked) => {
    expect(labelsOf(subject, facts({ address })) !== null).toBe(asked);
  });

  test.each(['10.1.2.3', '127.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.1.1', '::1', 'fe80::1', 'fd00::1', 'fc00::1', '', 'unknown'])(
    'nobody outside knows anything of "%s"',
    (address) => {
      expect(labelsOf('client', facts({ address }))).toBeNull();
    },
  ); // prettier-ignore

  test.each(['172.15.0.1', '172.32.0.1', '11.0.0.1', '192.169.0.1', '::2', 'fec0::1', '2001:db8::1'])(
    'but of %s',
    (address) => {
      expect(labelsOf('client', facts({ address }))).not.toBeNull();
    },
  );

  test('names, without case and closing dot', () => {
    const given = facts({
      helo: 'Odin.Valhalla.Example.',
      name: 'odin.valhalla.example',
      reverseName: 'mail.good.example',
    });
    expect(labelsOf('helo', given)).toBe('odin.valhalla.example');
    expect(labelsOf('sender', given)).toBe('valhalla.example');
    expect(labelsOf('ptr', given)).toBe('odin.valhalla.example');
  });

  test('the name of the client only when it is verified', () => {
    expect(labelsOf('ptr', facts({ name: null, reverseName: 'mail.good.example' }))).toBeNull();
  });

  test.each(['[192.0.2.1]', 'localhost', '192.0.2.1', 'a b.example', 'a..example', `${'a'.repeat(64)}.example`, 'b\xfccher.example', ''])(
    'no list has a HELO name "%s"',
    (helo) => {
      expect(labelsOf('helo', facts({ helo }))).toBeNull();
    },
  ); // prettier-ignore

  test('bounces and literals have no sender domain', () => {
    expect(labelsOf('sender', facts({}, '<>'))).toBeNull();
    expect(labelsOf('sender', facts({}, '<user@[192.0.2.1]>'))).toBeNull();
  });

  test('a name may have 253 characters with its zone', () => {
    const label = `${'a'.repeat(63)}.`.repeat(3);
    expect(listName(`${label}${'b'.repeat(48)}`, 'bl.example')?.length).toBe(251);
    expect(listName(`${label}${'b'.repeat(50)}`, 'bl.example')?.length).toBe(253);
    expect(listName(`${label}${'b'.repeat(51)}`, 'bl.example')).toBeNull();
  });

  test('labels read back are the address', () => {
    const octet = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(fc.tuple(octet, octet, octet, octet), (octets) => {
        const address = parseIp(octets.join('.'));
        expect(
          addressLabels(address ?? [])
            .split('.')
            .toReversed(),
        ).toEqual(octets.map(String));
      }),
    );
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        const address = parseIp(text);
        fc.pre(address !== null && address.length === 8);
        const nibbles = addressLabels(address ?? [])
          .split('.')
          .toReversed()
          .join('');
        expect(parseIp(nibbles.match(/.{4}/g)?.join(':') ?? '')).toEqual(address);
      }),
    );
  });
});
