import fc from 'fast-check';
import { expect, test } from 'vitest';

import { insider, outsider } from '../../../src/checks/greylist-key.ts';
import { parseMailbox } from '../../../src/mail/address.ts';

test.for([
  ['Odin@Valhalla.example', 'odin@valhalla.example'],
  ['odin+raven@valhalla.example', 'odin@valhalla.example'],
  ['+odin@valhalla.example', '+odin@valhalla.example'],
  ['list-bounces+zeus=olimpus.example@lists.example', 'list-bounces@lists.example'],
  ['bounce-4711-news@lists.example', 'bounce-#-news@lists.example'],
  ['bounces-31337-0a1b2c3d4e5f@lists.example', 'bounces-#@lists.example'],
  ['0100018f3c2a1b4d-7e8f9a0b-1c2d-4e3f-abcd-0123456789ab-000000@ses.example', '#@ses.example'],
  ['prvs=1234abcdef=odin@valhalla.example', 'odin@valhalla.example'],
  ['msprvs1=19000abcdefgh=bounces-5@valhalla.example', 'bounces-#@valhalla.example'],
  ['SRS0=HhHh=Tt=valhalla.example=odin@forwarder.example', 'srs=valhalla.example=odin@forwarder.example'],
  ['SRS0+HhHh=Tt=valhalla.example=odin@forwarder.example', 'srs=valhalla.example=odin@forwarder.example'],
  [
    'SRS1=HhHh=first.example==GgGg=Tt=valhalla.example=odin@second.example',
    'srs=valhalla.example=odin@second.example',
  ],
  // These may be people.
  ['robert1990@mail.example', 'robert1990@mail.example'],
  ['12345678@mail.example', '12345678@mail.example'],
  ['anna.o365@mail.example', 'anna.o365@mail.example'],
  ['deadbeef@mail.example', 'deadbeef@mail.example'],
] as const)('%s is remembered as %s', ([sender, expected]) => {
  expect(outsider(parseMailbox(sender))).toBe(expected);
});

test('one of ours goes without the extension of this site', () => {
  expect(insider(parseMailbox('Zeus+Folder@Olimpus.example'), '+')).toBe('zeus@olimpus.example');
  expect(insider(parseMailbox('zeus-folder@olimpus.example'), '-')).toBe('zeus@olimpus.example');
  expect(insider(parseMailbox('zeus+folder@olimpus.example'), '')).toBe('zeus+folder@olimpus.example');
});

function issue(number: number, id: string): string {
  return outsider(parseMailbox(`bounce-${number}-${id}@l.example`));
}

test('the next issue of a newsletter has the same name', () => {
  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.uuid(), fc.uuid(), (one, other, first, second) => {
      expect(issue(one, first)).toBe(issue(other, second));
    }),
  );
});

test('whatever the sender is, its name is short, and made in no time', () => {
  const begun = performance.now();
  const long = [
    'a'.repeat(100_000),
    '1-'.repeat(50_000),
    'a1'.repeat(50_000),
    'prvs='.repeat(20_000),
    'srs0='.repeat(20_000),
  ];
  for (const local of long) {
    expect(outsider(parseMailbox(`${local}@valhalla.example`)).length).toBeLessThanOrEqual(256);
    expect(insider(parseMailbox(`${local}@${local}`), '+').length).toBeLessThanOrEqual(256);
  }
  expect(performance.now() - begun).toBeLessThan(1000);
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (text) => {
      expect(outsider(parseMailbox(text)).length).toBeLessThanOrEqual(256);
    }),
  );
});
