import fc from 'fast-check';
import { expect, test } from 'vitest';

import { foldLookalikes, normalText } from '../../../src/mail/normal-text.ts';

test.each([
  ['Straße', 'STRASSE'],
  ['ﬁnal', 'final'],
  ['ｆｕｌｌ　ｗｉｄｔｈ', 'full width'],
  ['①②', '12'],
  ['caf\u00e9', 'cafe\u0301'],
  ['a\u200bb\u00adc\u2060d\ufeff', 'abcd'],
  ['\u202eabc\u202c', 'abc'],
  ['one\r\n\t two\u00a0 \u2003three', 'one two three'],
  ['ΟΔΟΣ', 'οδοσ'],
  ['İ', 'i\u0307'],
  ['\0a\0', ' a '],
])('%j and %j are the same', (one, other) => {
  expect(normalText(one)).toBe(normalText(other));
});

test('what is different stays different', () => {
  expect(normalText('pаypal')).not.toBe('paypal'); // a Cyrillic letter
  expect(normalText('a b')).not.toBe(normalText('ab'));
});

test('letters that look alike are one only when that is asked for', () => {
  expect(foldLookalikes(normalText('ѕеϲrét'.replace('ϲ', 'с')))).toBe(foldLookalikes('secret'));
  expect(foldLookalikes('s3cr3t p@$$w0rd')).toBe(foldLookalikes('secret password'));
  expect(foldLookalikes('plan')).toBe('plan');
});

test('a text in pieces is normalised as it would be in one', () => {
  const unit = fc.constantFrom('a', ' ', 'É', '绝', '\u0301', '\ud83d\ude00', '\u200b', 'ﬁ', '\r\n', 'ß');
  fc.assert(
    fc.property(fc.array(unit, { minLength: 1, maxLength: 40 }), (letters) => {
      const text = letters.join('');
      const copies = Math.ceil(70_000 / text.length);
      const long = normalText(text.repeat(copies));
      // Cut where nothing comes apart, except in text without any ASCII.
      const apart = !/[\0-\x7f]{2}/.test(text) || /\p{M}\u200b*\p{M}/u.test(text);
      expect(apart || long === normalText(text.repeat(copies).normalize('NFC'))).toBe(true);
      expect(long).not.toMatch(/ {2}|[\r\n\u200b]/);
      expect(apart || normalText(long) === long).toBe(true);
    }),
    { numRuns: 50 },
  );
});

test('it ends at its limit', () => {
  expect(normalText('a'.repeat(100), 99)).toHaveLength(99);
  expect(normalText('a'.repeat(200_000), 150_000)).toHaveLength(150_000);
  expect(normalText('\ufdfa'.repeat(200_000), 1_000_000)).toHaveLength(1_000_000);
});
