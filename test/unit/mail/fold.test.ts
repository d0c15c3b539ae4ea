import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  foldedValue,
  LINE_LIMIT,
  REMOTE_VALUE_LIMIT,
  remoteValue,
  wrapLines,
} from '../../../src/mail/fold.ts';

const nasty = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        '\r\n',
        '\r',
        '\n',
        '\t',
        ' ',
        '\0',
        '\xe9',
        'x'.repeat(700),
        ' '.repeat(90),
        ' '.repeat(1200),
      ),
      fc.string(),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(''));

/** No line break but CRLF and white space, and no line of white space alone. */
function expectFolded(value: string): void {
  expect(value.replaceAll(/\r\n(?=[\t ])/g, '')).not.toMatch(/[\0\r\n]/);
  expect(value).not.toMatch(/\r\n[\t ]*(?:\r\n|$)/);
}

describe('foldedValue', () => {
  it.each([
    [' a\r\n\tb\r\n  c', ' a\r\n\tb\r\n  c'],
    [' a\nb', ' a\r\n\tb'],
    [' a\r\nX-Injected: b', ' a\r\n\tX-Injected: b'],
    [' a\rb', ' a\r\n\tb'],
    [' a\r\n\r\nbody', ' a\r\n\tbody'],
    [' a\r\n \r\n b', ' a\r\n\tb'],
    [' a\r\n', ' a'],
    [' a\r\n \t', ' a'],
    ['\r\n', ''],
    [' a\0b', ' a?b'],
    [' \xc3\xa9\xa0', ' \xc3\xa9\xa0'],
  ])('%j becomes %j', (value, folded) => {
    expect(foldedValue(value)).toBe(folded);
  });

  it('leaves nothing that could end the field, and what it made alone', () => {
    fc.assert(
      fc.property(nasty, (value) => {
        const folded = foldedValue(value);
        expectFolded(folded);
        expect(foldedValue(folded)).toBe(folded);
      }),
    );
  });
});

describe('remoteValue', () => {
  it('keeps harmless text as it is', () => {
    const text = ' Yes, score=5.0\r\n\ttests=A,B  \r\n\t* x';
    expect(remoteValue('X-Spam-Status', text)).toBe(text);
  });

  it('is printable, folded and within the line limit, whatever it is made of', () => {
    fc.assert(
      fc.property(nasty, (value) => {
        const text = remoteValue('X-Spam-Report', value);
        expectFolded(text);
        expect(text).toMatch(/^[\t\n\r -~]*$/);
        for (const line of `X-Spam-Report:${text}`.split('\r\n'))
          expect(line.length).toBeLessThanOrEqual(LINE_LIMIT);
      }),
    );
  });

  it('is cut at its limit', () => {
    const words = 'abcd '.repeat(REMOTE_VALUE_LIMIT);
    const kept = remoteValue('X', words).replaceAll('\r\n', '');
    expect(kept.length).toBe(REMOTE_VALUE_LIMIT);
    expect(remoteValue('X', words.slice(0, REMOTE_VALUE_LIMIT)).replaceAll('\r\n', '')).toBe(kept);
  });

  it('takes time in proportion to the length', () => {
    const begun = performance.now();
    for (const text of ['\r'.repeat(5_000_000), ' '.repeat(5_000_000), `${' '.repeat(79)}x`.repeat(60_000)]) {
      foldedValue(text);
      remoteValue('X', text);
    }
    expect(performance.now() - begun).toBeLessThan(5000);
  });
});

describe('wrapLines', () => {
  it('keeps a line of just the limit, and folds one octet more', () => {
    const fits = `a ${'b'.repeat(LINE_LIMIT - 'Name:a '.length)}`;
    expect(wrapLines('Name', fits)).toBe(fits);
    expect(wrapLines('Name', `${fits}b`)).toBe(`a\r\n ${fits.slice(2)}b`);
  });

  it('breaks a word only where there is no white space', () => {
    const value = ` ${'x'.repeat(2500)}`;
    const lines = `Name:${wrapLines('Name', value)}`.split('\r\n');
    expect(lines.map((line) => line.length)).toEqual([998, 998, 512]);
    expect(lines.slice(1).every((line) => line.startsWith('\t'))).toBe(true);
  });

  it('folds only the lines that are too long', () => {
    const value = ` short\r\n\t${'y '.repeat(600)}end`;
    const [first, ...others] = wrapLines('Name', value).split('\r\n');
    expect(first).toBe(' short');
    expect(others).toHaveLength(2);
    expect(others.join('')).toBe(`\t${'y '.repeat(600)}end`);
  });
});
