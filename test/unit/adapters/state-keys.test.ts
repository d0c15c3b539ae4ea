import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  correspondentKey,
  counterKey,
  fullKey,
  heldKeys,
  hoursKey,
  messageKey,
  networkKey,
  readStateKey,
  seenKey,
  standingsKeys,
  tripletKey,
} from '../../../src/adapters/redis-state-keys.ts';
import { slotOf } from '../../../src/adapters/redis-slots.ts';
import { bounded, correspondentName, tripletName } from '../../../src/adapters/state-keys.ts';

/** What remote parties choose: with braces, colons and line breaks. */
const CHOSEN = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('', '}', '{}', 'a}b{c', 'x:y\n{z}'));
/** What we choose. */
const OURS = fc.stringMatching(/^[a-z.-]{1,20}$/);

describe('names', () => {
  test('are the same words for the same triplet, and begin with its network', () => {
    const triplet = { network: '192.0.2.0/24', sender: 'ada@example.com', recipient: 'bob@example.org' };
    expect(tripletName(triplet)).toBe(tripletName({ ...triplet }));
    expect(tripletName(triplet)).toMatch(/^[\w-]{22}$/);
    expect(tripletName({ ...triplet, sender: '' }).slice(0, 4)).toBe(tripletName(triplet).slice(0, 4));
    expect(tripletName({ ...triplet, network: '192.0.3.0/24' }).slice(0, 4)).not.toBe(
      tripletName(triplet).slice(0, 4),
    );
  });

  test('keep their words apart', () => {
    const pairs = [
      { local: 'ab', remote: 'c' },
      { local: 'a', remote: 'bc' },
      { local: '', remote: 'abc' },
    ];
    expect(new Set(pairs.map(correspondentName)).size).toBe(3);
  });

  test('of 320 characters are written out, longer ones are cut and stay apart', () => {
    const long = 'x'.repeat(320);
    expect(bounded(long)).toBe(long);
    expect(bounded(`${long}y`)).toHaveLength(320);
    expect(bounded(`${long}y`)).not.toBe(bounded(`${long}z`));
    expect(bounded(bounded(`${long}y`))).toBe(bounded(`${long}y`));
  });
});

describe('keys in Redis', () => {
  test('can be taken apart again, whatever is in them', () => {
    fc.assert(
      fc.property(CHOSEN, OURS, fc.constantFrom('', 'postern:', 'a:b '), (chosen, ours, prefix) => {
        const read = (key: string): unknown => readStateKey(prefix, key);
        expect(read(counterKey(prefix, ours, chosen))).toEqual({
          entry: 'counter',
          limit: ours,
          key: chosen,
        });
        expect(read(networkKey(prefix, ours))).toEqual({ entry: 'network', network: ours });
        expect(read(heldKeys(prefix, chosen)[1])).toEqual({ entry: 'reservation', mailbox: chosen });
        expect(read(fullKey(prefix, chosen))).toEqual({ entry: 'full-mailbox', mailbox: chosen });
        expect(read(seenKey(prefix, ours, chosen))).toEqual({
          entry: 'sighting',
          set: ours,
          subject: chosen,
        });
        expect(read(`${hoursKey(prefix, chosen)}3600000`)).toEqual({
          entry: 'tally',
          subject: chosen,
          hour: 3_600_000,
        });
        const name = tripletName({ network: ours, sender: chosen, recipient: ours });
        expect(read(tripletKey(prefix, name))).toEqual({ entry: 'triplet', name });
        const pair = correspondentName({ local: chosen, remote: ours });
        expect(read(correspondentKey(prefix, pair))).toEqual({ entry: 'correspondent', name: pair });
        expect(read(standingsKeys(prefix)[0])).toEqual({ entry: 'standing' });
        // Those that come with others.
        for (const other of [
          heldKeys(prefix, chosen)[0],
          messageKey(prefix, chosen),
          hoursKey(prefix, chosen),
          standingsKeys(prefix)[1],
        ])
          expect(read(other)).toBeNull();
      }),
    );
  });

  test('of others are not taken for ours', () => {
    for (const key of [
      'limit:{ada}messages',
      'postern:history:{history.1}',
      'postern:triplet:{192.0.2.0/24}ada@example.com',
      'postern:network:{192.0.2.0/24}',
      'postern:wrote:{bob}',
      'postern:limits',
      'postern:tally:{ada}x',
      'postern:limit',
      '',
    ])
      expect(readStateKey('postern:', key)).toBeNull();
  });

  test('of a triplet and its network are in one slot of a Cluster', () => {
    fc.assert(
      fc.property(fc.ipV4(), CHOSEN, (network, sender) => {
        const name = tripletName({ network, sender, recipient: 'bob' });
        expect(slotOf(tripletKey('p:', name))).toBe(slotOf(networkKey('p:', network)));
      }),
    );
  });
});
