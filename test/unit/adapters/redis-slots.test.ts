import { expect, test } from 'vitest';

import { readSlots, slotOf, SLOTS } from '../../../src/adapters/redis-slots.ts';

// Cluster specification, "Keys hash tags" and Appendix A: CRC16 of "123456789" is 0x31C3.
test.each([
  ['123456789', 0x31c3],
  ['{user1000}.following', slotOf('{user1000}.followers')],
  ['foo{}{bar}', 8363],
  ['foo{{bar}}zap', slotOf('{bar')],
  ['foo{bar}{zap}', slotOf('bar')],
  ['', 0],
])('%s is in slot %i', (key, slot) => {
  expect(slotOf(key)).toBe(slot);
});

const ALL = [0, SLOTS - 1, ['192.0.2.1', 7000, 'id'], ['192.0.2.2', 7000, 'id']];

test('the first of a range has it; the others are known', () => {
  const map = readSlots([ALL], 'asked');
  expect(map?.masters[0]).toBe('192.0.2.1:7000');
  expect(map?.masters.at(-1)).toBe('192.0.2.1:7000');
  expect([...(map?.nodes.keys() ?? [])]).toEqual(['192.0.2.1:7000', '192.0.2.2:7000']);
});

test.each(['', null, '?'])('a node whose host is %j is where it was asked', (host) => {
  expect(readSlots([[0, 9, [host, 7000]]], '192.0.2.9')?.masters[9]).toBe('192.0.2.9:7000');
  expect(readSlots([[0, 9, [host, 7000]]], '192.0.2.9')?.masters[10]).toBeUndefined();
});

test.each([
  'OK',
  [],
  [1],
  [[0, SLOTS, ['192.0.2.1', 7000]]],
  [[-1, 5, ['192.0.2.1', 7000]]],
  [['0', 5, ['192.0.2.1', 7000]]],
  [[0, 5, ['192.0.2.1', 0]]],
  [[0, 5, ['192.0.2.1', 65_536]]],
  [[0, 5, 'node']],
  [[0, 5, [7, 7000]]],
])('%j can not be read', (answer) => {
  expect(readSlots(answer, 'asked')).toBeNull();
});
