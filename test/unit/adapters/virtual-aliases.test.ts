import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  ADDRESS_LIMIT,
  expandAliases,
  EXPANSION_LIMIT,
  extensionAt,
  RECURSION_LIMIT,
} from '../../../src/adapters/virtual-aliases.ts';

type Table = Readonly<Record<string, readonly string[]>>;

function expand(address: string, table: Table, delimiter = '+'): readonly string[] | null {
  return expandAliases(address, (key) => (Object.hasOwn(table, key) ? table[key] : undefined), delimiter);
}

/** So many links of a chain. */
function deep(links: number): Table {
  return Object.fromEntries(Array.from({ length: links }, (_, link) => [`${link}@x`, [`${link + 1}@x`]]));
}

/** So many targets. */
function many(count: number): Table {
  return { 'list@x': Array.from({ length: count }, (_, n) => `${n}@y`) };
}

/** A target of so many characters. */
function long(length: number): Table {
  return { 'a@x': [`${'b'.repeat(length - 2)}@y`] };
}

describe('where an address leads', () => {
  const table: Table = {
    'one@x': ['zeus@x'],
    'two@x': ['zeus@x', 'hera@x'],
    'chain@x': ['one@x'],
    'ext+special@x': ['special@x'],
    'ext@x': ['plain@x', 'other@y'],
    '@all.x': ['catch@x'],
    '@old.x': ['@x'],
    'kept@old.x': ['kept@elsewhere'],
    'self@x': ['self@x', 'archive@x'],
    'local@x': ['root'],
    '"all gods"@x': ['zeus@x'],
    'empty@x': [],
  };

  test.each([
    ['nobody@x', ['nobody@x']],
    ['one@x', ['zeus@x']],
    ['ONE@X', ['zeus@x']],
    ['two@x', ['zeus@x', 'hera@x']],
    ['chain@x', ['zeus@x']],
    // virtual(5): the whole address first, then without the extension, which goes over to each target.
    ['ext+special@x', ['special@x']],
    ['ext+other@x', ['plain+other@x', 'other+other@y']],
    ['ext@x', ['plain@x', 'other@y']],
    // The extension does not go over to the target of @domain.
    ['any+where@all.x', ['catch@x']],
    ['zeus@old.x', ['zeus@x']],
    ['one@old.x', ['zeus@x']],
    ['zeus+news@old.x', ['zeus+news@x']],
    ['kept@old.x', ['kept@elsewhere']],
    ['self@x', ['self@x', 'archive@x']],
    // Only the address as it stands among its own targets is not expanded again: here it is one with another name.
    ['self+tag@x', ['self+tag@x', 'archive+tag@x']],
    ['local@x', ['root']],
    ['local+tag@x', ['root+tag']],
    ['all gods@x', ['zeus@x']],
    ['empty@x', null],
  ])('%s', (address, expected) => {
    expect(expand(address, table)).toEqual(expected);
  });

  test('without a delimiter there are no extensions', () => {
    expect(expand('ext+other@x', table, '')).toEqual(['ext+other@x']);
  });

  test('a circle ends at the limit, and so does what grows without end', () => {
    expect(expand('a@x', { 'a@x': ['b@x'], 'b@x': ['a@x'] })).toBeNull();
    expect(expand('a@x', { 'a@x': ['a@x', 'b@x'], 'b@x': ['a@x', 'b@x'] })).toEqual(['a@x', 'a@x', 'b@x']);
    expect(expand('a@x', { 'a@x': ['b@x', 'b@x'], 'b@x': ['a@x', 'a@x'] })).toBeNull();
  });

  test('as deep and as many as Postfix allows, and one more', () => {
    // The last look finds nothing, and counts.
    expect(expand('0@x', deep(RECURSION_LIMIT - 1))).toEqual([`${RECURSION_LIMIT - 1}@x`]);
    expect(expand('0@x', deep(RECURSION_LIMIT))).toBeNull();
    expect(expand('list@x', many(EXPANSION_LIMIT))).toHaveLength(EXPANSION_LIMIT);
    expect(expand('list@x', many(EXPANSION_LIMIT + 1))).toBeNull();
    expect(expand('a@x', long(ADDRESS_LIMIT))).toHaveLength(1);
    expect(expand('a@x', long(ADDRESS_LIMIT + 1))).toBeNull();
  });
});

describe('extensions', () => {
  test.each([
    ['zeus+news', '+', 4],
    ['zeus', '+', null],
    ['+news', '+', null],
    ['zeus+', '+', 4],
    ['zeus+a+b', '+', 4],
    ['postmaster+x', '+', 10],
    ['MAILER-DAEMON', '-', null],
    ['owner-list', '-', null],
    ['list-request', '-', null],
    ['list-news', '-', 4],
    ['zeus+news', '', null],
  ])('%s with %j', (local, delimiter, at) => {
    expect(extensionAt(local, delimiter)).toBe(at);
  });
});

describe('whatever the tables say', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'a+e', 'b+f', '');
  const address = fc
    .tuple(name, fc.constantFrom('x', 'y', 'z'))
    .map(([local, domain]) => `${local}@${domain}`);
  const tables = fc.dictionary(address, fc.array(address, { maxLength: 3 }), { maxKeys: 12 });

  test('it ends, within the limits', () => {
    fc.assert(
      fc.property(address, tables, (from, table) => {
        // The last address that is looked at may add three.
        const targets = expand(from, table) ?? [];
        expect(targets.length).toBeLessThanOrEqual(EXPANSION_LIMIT + 2);
      }),
      { numRuns: 500 },
    );
  });

  test('every address that comes out leads no further, unless it leads to itself', () => {
    fc.assert(
      fc.property(address, tables, (from, table) => {
        for (const target of expand(from, table) ?? []) {
          const again = expand(target, table);
          expect(again === null || again.includes(target)).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('an address that no table names stays as it is', () => {
    fc.assert(
      fc.property(tables, (table) => {
        expect(expand('nobody@nowhere', table)).toEqual(['nobody@nowhere']);
      }),
    );
  });
});
