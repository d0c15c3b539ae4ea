import fc from 'fast-check';
import { expect, test } from 'vitest';

import { WordMatcher, type WordMatch } from '../../../../src/adapters/content/word-matcher.ts';

function matches(words: readonly string[], text: string): string[] {
  const found: string[] = [];
  new WordMatcher(words).search(text, ({ word, start, end }: WordMatch) => {
    found.push(`${words[word] ?? ''}@${start}-${end}`);
    return true;
  });
  return found;
}

test.each<[string, string, number]>([
  ['secret', 'secret', 1],
  ['secret', 'a secret, and the secret', 2],
  ['secret', 'secretary', 0],
  ['secret', 'topsecret', 0],
  ['secret*', 'secretary', 1],
  ['*secret', 'topsecret', 1],
  ['*cre*', 'topsecret', 1],
  ['secret', 'secret_1', 0],
  ['secret', '绝secret密', 0],
  ['绝密', '这是绝密的', 1],
  ['c++', 'c++', 1],
  ['c++', 'c++x', 1],
  ['.net', 'the .net', 1],
  ['.net', 'asp.net', 1],
  ['é', 'café é', 1],
  ['𝕏', 'a 𝕏 b', 1],
  ['a', '𝕏a', 0],
])('%j in %j: %i', (word, text, count) => {
  expect(matches([word], text)).toHaveLength(count);
});

test('words within words are all found', () => {
  expect(matches(['*he*', '*she*', '*hers*', '*his*'], 'ushers').toSorted()).toEqual([
    '*he*@2-4',
    '*hers*@2-6',
    '*she*@1-4',
  ]);
});

test('it stops when that is wanted', () => {
  let count = 0;
  new WordMatcher(['a']).search('a a a a', () => ++count < 2);
  expect(count).toBe(2);
});

test('it finds what a search for each word finds', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '密', 'é'), minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(
      fc.uniqueArray(letters, { minLength: 1, maxLength: 10 }),
      fc.string({ unit: fc.constantFrom('a', 'b', '密', 'é', ' ') }),
      (words, text) => {
        const expected: string[] = [];
        for (const word of words) {
          for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + 1)) {
            expected.push(`*${word}*@${at}-${at + word.length}`);
          }
        }
        expect(
          matches(
            words.map((word) => `*${word}*`),
            text,
          ).toSorted(),
        ).toEqual(expected.toSorted());
      },
    ),
    { numRuns: 500 },
  );
});
