import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { HeaderList, parseHeaderSection, trimBlanks, unfold } from '../../../src/mail/header.ts';

const latin1 = fc
  .array(
    fc.oneof(
      fc.constantFrom('\r\n', '\r', '\n', ':', ' ', '\t', 'Subject', 'x', '\0', '\xa0'),
      fc.nat(255).map((code) => String.fromCharCode(code)),
    ),
    { maxLength: 60 },
  )
  .map((parts) => parts.join(''));

describe('parseHeaderSection', () => {
  it('reads names and values with every byte of theirs', () => {
    const list = parseHeaderSection('From: a\r\nSubject:b\r\n\tc\r\nTo :  d\r\nX:\r\n');
    expect(list.toArray()).toEqual([
      { name: 'From', value: ' a' },
      { name: 'Subject', value: 'b\r\n\tc' },
      { name: 'To', gap: ' ', value: '  d' },
      { name: 'X', value: '' },
    ]);
  });

  it('takes a line that is no field for part of the field before it', () => {
    expect(parseHeaderSection('A: 1\r\nno field\r\n: x\r\nB\xe9: 2\r\nC D: 3\r\nE: 4\r\n').toArray()).toEqual(
      [
        { name: 'A', value: ' 1\r\nno field\r\n: x\r\nB\xe9: 2\r\nC D: 3' },
        { name: 'E', value: ' 4' },
      ],
    );
  });

  it('keeps a line at the top that is no field', () => {
    const list = parseHeaderSection('From zeus Sat Nov 21\r\nA: 1\r\n');
    expect(list.toArray()).toEqual([
      { name: '', value: 'From zeus Sat Nov 21' },
      { name: 'A', value: ' 1' },
    ]);
    expect(list.serialize()).toBe('From zeus Sat Nov 21\r\nA: 1\r\n');
  });

  it('reads a section without a last line end, and an empty one', () => {
    expect(parseHeaderSection('A: 1').toArray()).toEqual([{ name: 'A', value: ' 1' }]);
    expect(parseHeaderSection('').length).toBe(0);
  });

  it('gives every byte back', () => {
    fc.assert(
      fc.property(latin1, (text) => {
        fc.pre(text !== '' && !text.startsWith('\r\n'));
        const section = `${text}\r\n`;
        expect(parseHeaderSection(section).serialize()).toBe(section);
      }),
      { numRuns: 2000 },
    );
  });

  it('reads what it wrote in the same way', () => {
    fc.assert(
      fc.property(latin1, (text) => {
        const once = parseHeaderSection(`A: 1\r\n${text}\r\n`);
        expect(parseHeaderSection(once.serialize()).toArray()).toEqual(once.toArray());
      }),
    );
  });

  it('takes time in proportion to the length', () => {
    const begun = performance.now();
    for (const text of [
      'a'.repeat(2_000_000),
      ' '.repeat(2_000_000),
      'a '.repeat(1_000_000),
      'a:\r\n'.repeat(500_000),
    ])
      parseHeaderSection(text);
    expect(performance.now() - begun).toBeLessThan(5000);
  });
});

describe('HeaderList', () => {
  const list = parseHeaderSection('A: 1\r\nb: 2\r\na: 3\r\nAB: 4\r\n');

  it('finds fields without regard to case, top first', () => {
    expect(list.all('a').map(({ value }) => value)).toEqual([' 1', ' 3']);
    expect(list.first('B')).toEqual({ name: 'b', value: ' 2' });
    expect(list.all('c')).toEqual([]);
    expect(list.first('c')).toBeUndefined();
  });

  it('is counted and walked through', () => {
    expect(list.length).toBe(4);
    expect([...list]).toEqual(list.toArray());
    expect(new HeaderList([]).serialize()).toBe('');
  });
});

describe('unfold', () => {
  it.each([
    [' a', 'a'],
    [' a\r\n\tb\r\n c ', 'a\tb c'],
    [' a\n b', 'a b'],
    [' a\r\nb', 'a\r\nb'],
    ['\r\n a\r\n ', 'a'],
    [' voil\xc3\xa0', 'voil\xc3\xa0'],
  ])('%j', (value, text) => {
    expect(unfold(value)).toBe(text);
  });
});

describe('trimBlanks', () => {
  it('takes what the header syntax calls white space, and no other', () => {
    expect(trimBlanks('\r\n\t a b \t\r\n')).toBe('a b');
    expect(trimBlanks('\xa0\v\f\xa0')).toBe('\xa0\v\f\xa0');
    expect(trimBlanks(' \t')).toBe('');
  });
});
