import { expect, test } from 'vitest';

import { newTraceId } from '../../../src/runtime/trace-id.ts';

test('16 characters of base32, never the same', () => {
  const ids = Array.from({ length: 2000 }, newTraceId);
  expect(ids.filter((id) => !/^[a-z2-7]{16}$/.test(id))).toEqual([]);
  expect(new Set(ids).size).toBe(2000);
});

test('every place takes every character: no bits are lost', () => {
  const seen = Array.from({ length: 16 }, () => new Set<string>());
  for (let count = 0; count < 3000; count++) {
    for (const [place, character] of Array.from(newTraceId()).entries()) seen[place]?.add(character);
  }
  // The chance that a character is missing somewhere is 512 * (31/32)^3000, about 1e-38.
  expect(seen.map((characters) => characters.size)).toEqual(Array.from({ length: 16 }, () => 32));
});
