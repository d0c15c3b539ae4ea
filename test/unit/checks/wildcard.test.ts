import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { MailboxTable, NameTable } from '../../../src/checks/names.ts';
import { matchesWildcard, parseWildcard } from '../../../src/checks/wildcard.ts';

/** Few letters, so that matches and near misses are common. */
const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*'), maxLength: 10 });
const text = fc.string({ unit: fc.constantFrom('a', 'b', '.'), maxLength: 12 });

function asRegExp(source: string): RegExp {
  return new RegExp(`^${source.replaceAll('.', '\\.').replaceAll('*', '.*')}$`, 's');
}

describe('wildcards', () => {
  test('mean what the regular expression would', () => {
    fc.assert(
      fc.property(pattern, text, (source, given) => {
        expect(matchesWildcard(parseWildcard(source), given)).toBe(asRegExp(source).test(given));
      }),
      { numRuns: 3000 },
    );
  });

  test('a pattern that makes backtracking machines count for years', () => {
    const wildcard = parseWildcard(`${'*a'.repeat(100)}*b`);
    const begun = performance.now();
    expect(matchesWildcard(wildcard, 'a'.repeat(100_000))).toBe(false);
    expect(performance.now() - begun).toBeLessThan(1000);
  });

  test.each([
    ['ab*ba', 'aba', false],
    ['ab*ba', 'abba', true],
    ['*', '', true],
    ['', '', true],
    ['', 'a', false],
    ['a**b', 'ab', true],
  ])('%j and %j: %s', (source, given, expected) => {
    expect(matchesWildcard(parseWildcard(source), given)).toBe(expected);
  });
});

describe('the table of names', () => {
  test('finds every pattern that matches, and no other', () => {
    fc.assert(
      fc.property(fc.uniqueArray(pattern, { maxLength: 12 }), text, (sources, given) => {
        const table = new NameTable<string>();
        for (const source of sources) table.set(source, source);
        const expected = sources.filter((source) =>
          // "*.b" is all names below b, which have to have something in front of the dot.
          /^\*\.[^*]+$/.test(source)
            ? given.length >= source.length && given.endsWith(source.slice(1))
            : asRegExp(source).test(given),
        );
        expect([...table.matches(given)].toSorted()).toEqual(expected.toSorted());
        expect(table.has(given)).toBe(expected.length > 0);
        expect(sources.map((source) => table.get(source))).toEqual(sources);
      }),
      { numRuns: 3000 },
    );
  });

  test('a name that is too long to be one is matched by its end', () => {
    const table = new NameTable<number>();
    table.set('*.spam.example', 1);
    expect([...table.matches(`${'a.'.repeat(50_000)}spam.example`)]).toEqual([1]);
    expect([...table.matches(`${'a'.repeat(50_000)}.spam.example`)]).toEqual([1]);
    expect([...table.matches(`${'a'.repeat(50_000)}spam.example`)]).toEqual([]);
  });

  test('upper case in patterns is lower case', () => {
    const table = new NameTable<number>();
    table.set('*.Example.ORG', 1);
    table.set('MX*', 2);
    expect([[...table.matches('a.example.org')], [...table.matches('mx1')]]).toEqual([[1], [2]]);
  });
});

test('mailboxes: by name, by domain, by what is below a domain, by pattern', () => {
  const table = new MailboxTable<string>();
  for (const source of ['zeus@a.example', '@a.example', '@*.a.example', 'news*@*', '<>', '*'])
    table.set(source, source);
  const found = (mailbox: string): string[] =>
    [...table.matches(mailbox)].filter((source) => source !== '*').toSorted();
  expect(found('zeus@a.example')).toEqual(['@a.example', 'zeus@a.example']);
  expect(found('hera@b.a.example')).toEqual(['@*.a.example']);
  expect(found('newsletter@c.example')).toEqual(['news*@*']);
  expect(found('<>')).toEqual(['<>']);
  expect(found('zeus')).toEqual([]);
  expect(found('a@b@a.example')).toEqual(['@a.example']);
  expect(table.has('whoever')).toBe(true);
  expect([table.size, table.slow]).toEqual([6, 2]);
});
