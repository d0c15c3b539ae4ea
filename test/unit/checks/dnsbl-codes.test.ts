import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { matchesCode, parseCode, parseWeighedCode } from '../../../src/checks/dnsbl-codes.ts';

function matches(pattern: string, address: string): boolean {
  const code = parseCode(pattern);
  if (code === null) throw new Error(`${pattern} is no pattern`);
  return matchesCode(code, address.split('.').map(Number));
}

describe('answers of a list', () => {
  test.each([
    ['127.0.0.2', '127.0.0.2', true],
    ['127.0.0.2', '127.0.0.3', false],
    ['127.0.0.2', '127.0.1.2', false],
    ['127.0.0.2-11', '127.0.0.1', false],
    ['127.0.0.2-11', '127.0.0.2', true],
    ['127.0.0.2-11', '127.0.0.11', true],
    ['127.0.0.2-11', '127.0.0.12', false],
    ['127.0.2-15.1-3', '127.0.15.3', true],
    ['127.0.2-15.1-3', '127.0.16.3', false],
    ['127.255.255.*', '127.255.255.254', true],
    ['127.255.255.*', '127.255.254.254', false],
    ['127.0.0.&8', '127.0.0.12', true],
    ['127.0.0.&8', '127.0.0.7', false],
    ['127.0.0.&12', '127.0.0.8', false],
  ])('%s and %s: %s', (pattern, address, expected) => {
    expect(matches(pattern, address)).toBe(expected);
  });

  test.each(['', '127.0.0', '127.0.0.2.3', '10.0.0.2', '*.0.0.2', '127.0.0.256', '127.0.0.11-2', '127.0.0.&0', '127.0.0.&2-4',
    '127.0.0.-2', '127.0.0. 2', '127.0.0.a'])(
    '"%s" is no answer of a list',
    (text) => {
      expect(parseCode(text)).toBeNull();
    },
  ); // prettier-ignore

  test('every address lies in the pattern that is it, and in the range around it', () => {
    const octet = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(octet, octet, octet, octet, (b, c, d, other) => {
        expect(matches(`127.${b}.${c}.${d}`, `127.${b}.${c}.${d}`)).toBe(true);
        const [low, high] = [Math.min(d, other), Math.max(d, other)];
        expect(matches(`127.*.${c}.${low}-${high}`, `127.${b}.${c}.${d}`)).toBe(true);
        expect(matches(`127.*.${c}.${d}`, `127.${b}.${c}.${other}`)).toBe(d === other);
      }),
    );
  });

  test.each([
    ['127.0.0.4', null],
    ['127.0.0.4 2.5', 2.5],
    ['127.0.0.4 -3', -3],
    ['127.0.0.4 1000', 1000],
  ])('points of "%s"', (text, weight) => {
    expect(parseWeighedCode(text)?.weight).toBe(weight);
  });

  test.each([
    '127.0.0.4 1001',
    '127.0.0.4 x',
    '127.0.0.4=2',
    '127.0.0.4 1 2',
    ' 127.0.0.4',
    '127.0.0.4 1.2345',
  ])('"%s" has no points', (text) => {
    expect(parseWeighedCode(text)).toBeNull();
  });
});
