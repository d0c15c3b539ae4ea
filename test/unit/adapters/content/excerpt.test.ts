import { expect, test } from 'vitest';

import { maskedExcerpt } from '../../../../src/adapters/content/excerpt.ts';

test.each([
  ['all of it is ', 'top secret', ' and stays so', '"of it is t********t and stays"'],
  ['', 'top secret', '', '"t********t"'],
  ['is ', '密', ' here', '"is * here"'],
  ['is', '绝密', 'so', '"is**so"'],
  ['a ', 'one', ' b', '"a *** b"'],
  ['card 4711 ', '4111 1111 1111 1111', ' cvc 123', '"card #### 4************1 cvc ###"'],
  ['say "', 'abcd', '"\0', '"say  a**d"'],
  ['\ud83d\ude00123456789', 'abcd', '123456789\ud83d\ude00', '"#########a**d#########"'],
])('%j%j%j: %s', (before, found, behind, expected) => {
  const text = `${before}${found}${behind}`;
  expect(maskedExcerpt(text, before.length, before.length + found.length)).toBe(expected);
});
