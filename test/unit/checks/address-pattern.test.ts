import fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  matchesAddress,
  parseAddressPattern,
  selection,
  selects,
} from '../../../src/checks/address-pattern.ts';

test.each<[pattern: string, text: string, matches: boolean]>([
  ['zeus@olimpus.example', 'zeus@olimpus.example', true],
  ['ZEUS@Olimpus.Example', 'zeus@olimpus.example', true],
  ['zeus@olimpus.example', 'xzeus@olimpus.example', false],
  ['@olimpus.example', 'anybody@olimpus.example', true],
  ['@olimpus.example', 'a@b@olimpus.example', true],
  ['@olimpus.example', 'a@mail.olimpus.example', false],
  ['@*.olimpus.example', 'a@mail.olimpus.example', true],
  ['@*.olimpus.example', 'a@olimpus.example', false],
  ['*@*.example', 'a@b.example', true],
  ['z*s@olimpus.example', 'zs@olimpus.example', true],
  ['z*@olimpus.example', 'z@evil@olimpus.example', true],
  ['*@olimpus.example', 'a@olimpus.example.evil.test', false],
  ['a*', 'ab@c', false],
  ['a*', 'ab', true],
  ['*', 'a@b', true],
  ['*', 'a', true],
  ['*@*', 'a', false],
])('%s and %s: %s', (pattern, text, matches) => {
  expect(matchesAddress(parseAddressPattern(pattern), text)).toBe(matches);
});

test.each<[list: string[], text: string | null, selected: boolean]>([
  [[], 'a@b', true],
  [[], null, true],
  [['a@b'], 'a@b', true],
  [['a@b'], 'c@b', false],
  [['a@b'], null, false],
  [['!a@b'], 'a@b', false],
  [['!a@b'], 'c@b', true],
  [['!a@b'], null, true],
  [['!a@b', '@b'], 'a@b', false],
  [['!a@b', '@b'], 'c@b', true],
  [['@b', '!a@b'], 'a@b', true],
  [['!a@b', '@b'], 'a@c', false],
])('of %j, %s is meant: %s', (list, text, selected) => {
  expect(selects(selection().parse(list), text)).toBe(selected);
});

test.each([
  [['']],
  [['!']],
  [['!!a']],
  [['a b']],
  [['a@']],
  ['a'],
  [['a'.repeat(321)]],
  [Array<string>(1001).fill('a')],
])('%j is no list of patterns', (list) => {
  expect(selection().safeParse(list).success).toBe(false);
});

test('the longest pattern and the longest list are read', () => {
  expect(selection().safeParse([`!${'a'.repeat(320)}`]).success).toBe(true);
  expect(selection().safeParse(Array<string>(1000).fill('a')).success).toBe(true);
});

test('a pattern matches what it was made from by putting stars in place of text', () => {
  const piece = fc.stringMatching(/^[a-z.]{0,5}$/);
  fc.assert(
    fc.property(fc.array(fc.tuple(piece, fc.boolean()), { minLength: 1 }), piece, (parts, domain) => {
      const text = `${parts.map(([word]) => word).join('')}@${domain}`;
      const pattern = `${parts.map(([word, hidden]) => (hidden ? '*' : word)).join('')}@${domain}`;
      expect(matchesAddress(parseAddressPattern(pattern), text)).toBe(true);
    }),
  );
});

test('hostile text costs no more than its length', () => {
  const pattern = parseAddressPattern(`${'a*'.repeat(150)}b@x`);
  const begun = performance.now();
  expect(matchesAddress(pattern, `${'a'.repeat(1_000_000)}@x`)).toBe(false);
  expect(performance.now() - begun).toBeLessThan(500);
});
