import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { isMadeFromAddress } from '../../../src/checks/generic-name.ts';
import { parseIp } from '../../../src/checks/networks.ts';
import { ptrCheck } from '../../../src/checks/ptr.ts';
import { codesAtOnce, HOSTILE, runCheck } from './policy-facts.ts';

function isGeneric(name: string, address: string): boolean {
  const parsed = parseIp(address);
  if (parsed === null) throw new Error(`${address} is no address`);
  return isMadeFromAddress(name, parsed);
}

function forms(a: readonly number[]): string[] {
  return [
    `${a.join('-')}.example`,
    `${a.toReversed().join('.')}.in.example`,
    `host${a.map((octet) => String(octet).padStart(3, '0')).join('')}.example`,
    `x-${a.map((octet) => octet.toString(16).padStart(2, '0')).join('')}.example`,
  ];
}

describe('names made from an address', () => {
  test.for([
    '192-0-2-20.pool.example',
    'host-192-0-2-20.example',
    '20.2.0.192.clients.example',
    'ip192.0.2.20.example',
    '192x0x2x20.example',
    'c-192-0-2-20.hsd1.example',
    'h192000002020.example',
    '020002000192.example',
    'c0000214.example',
    'ppp-C0000214.example',
    '0-2-20.dyn.example',
    '20-2-0.dyn.example',
    '192-0-2.net20.example',
  ])('192.0.2.20 is called %s', (name) => {
    expect(isGeneric(name, '192.0.2.20')).toBe(true);
  });

  test.for([
    'odin.valhalla.example',
    'mail-2-20.valhalla.example',
    'a2-20.smtp-out.example',
    'mx20.valhalla.example',
    'o1.ptr1920.example',
    '192-0-3-20.example',
    'x1920002020x.example',
    'dc0000214.example',
    'cc00002145.example',
  ])('not %s', (name) => {
    expect(isGeneric(name, '192.0.2.20')).toBe(false);
  });

  test('digits without separators count from eight on', () => {
    expect(isGeneric('h87231142201.example', '87.231.142.20')).toBe(false);
    expect(isGeneric('h-8723114220.example', '87.231.142.20')).toBe(true);
    expect(isGeneric('h-19220.example', '1.9.2.20')).toBe(false);
  });

  test.for([
    ['2001-db8-0-0-1-2-3-4.example', '2001:db8::1:2:3:4'],
    ['2001-db8--1-2-3-4.example', '2001:db8::1:2:3:4'],
    ['20010db8000000000001000200030004.example', '2001:db8::1:2:3:4'],
    ['2001-0db8-0000-0000-0001-0002-0003-0004.example', '2001:db8::1:2:3:4'],
    ['4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.example', '2001:db8::1:2:3:4'],
    ['dyn-8a2e03707334abcd.example', '2001:db8::8a2e:370:7334:abcd'],
    ['2001-db8--14.example', '2001:db8::14'],
  ] as const)('%s of %s', ([name, address]) => {
    expect(isGeneric(name, address)).toBe(true);
  });

  test.for([
    ['xn--1-example.example', '::1'],
    ['mx1.example', '2001:db8::1'],
    ['mail--1.example', '2001:db8::1'],
    ['mx0000000000000001.example', '2001:db8::1'],
  ] as const)('not %s of %s', ([name, address]) => {
    expect(isGeneric(name, address)).toBe(false);
  });

  test('every address is found in the forms that providers use', () => {
    fc.assert(
      fc.property(fc.ipV4(), (address) => {
        const missed = forms(address.split('.').map(Number)).filter((name) => !isGeneric(name, address));
        expect(missed).toEqual([]);
      }),
    );
  });
});

test.for([
  [{}, []],
  [{ name: null, reverseName: null }, ['ptr.none']],
  [{ name: null }, ['ptr.unverified']],
  [{ name: null, reverseName: '192-0-2-20.dsl.example' }, ['ptr.unverified', 'ptr.generic']],
  [{ name: '192-0-2-20.dsl.example', reverseName: '192-0-2-20.dsl.example' }, ['ptr.generic']],
  [{ address: '', name: null, reverseName: null }, []],
] as const)('%j: %j', ([client, expected]) => {
  expect(codesAtOnce(ptrCheck, { client })).toEqual(expected);
});

test("the operator's own patterns, and his exceptions", () => {
  const options = { generic_names: ['*.dyn.*', 'odin.*'], named_hosts: ['*.mail.example'] };
  const found = (name: string): string[] =>
    codesAtOnce(ptrCheck, { options, client: { name, reverseName: name } });
  expect(found('a.dyn.example')).toEqual(['ptr.generic']);
  expect(found('ODIN.valhalla.example')).toEqual(['ptr.generic']);
  expect(found('192-0-2-20.out.mail.example')).toEqual([]);
  expect(found('thor.valhalla.example')).toEqual([]);
});

test('the detail names address and name', async () => {
  const client = { name: null, reverseName: 'Thor.example' };
  expect(await runCheck(ptrCheck, { client })).toEqual([
    { code: 'ptr.unverified', detail: '192.0.2.20 is called thor.example, which does not lead back to it' },
  ]);
});

test.for(HOSTILE)('a name %j is looked at in no time', (name) => {
  const begun = performance.now();
  const options = { generic_names: ['*a*b*c*'], named_hosts: ['*.x*y'] };
  expect(codesAtOnce(ptrCheck, { options, client: { name, reverseName: name } })).toEqual([]);
  expect(
    codesAtOnce(ptrCheck, { options, client: { name, reverseName: name, address: '2001:db8::1' } }),
  ).toEqual([]);
  expect(performance.now() - begun).toBeLessThan(1000);
});
