import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  enhancedCode,
  isTemporary,
  printable,
  replyLine,
  withText,
  type Reply,
} from '../../../src/mail/reply.ts';

const REJECT: Reply = { code: 550, detail: '7.23', text: 'SPF: not allowed' };

describe('replyLine', () => {
  it('has an enhanced code of the same class as the code', () => {
    expect(replyLine(REJECT)).toBe('550 5.7.23 SPF: not allowed');
    expect(replyLine({ ...REJECT, code: 451 })).toBe('451 4.7.23 SPF: not allowed');
    expect(enhancedCode({ ...REJECT, code: 421 })).toBe('4.7.23');
  });

  it('ends with the trace', () => {
    expect(replyLine(REJECT, 'abcdefghijklmnop')).toBe('550 5.7.23 SPF: not allowed (abcdefghijklmnop)');
  });

  it('is one line of printable US-ASCII that Postfix does not cut', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 2000 }), (text) => {
        const line = replyLine({ ...REJECT, text }, 'abcdefghijklmnop');
        expect(line).toMatch(/^550 5\.7\.23 [ -~]* \(abcdefghijklmnop\)$/);
        expect(line.length).toBeLessThanOrEqual(510);
      }),
    );
  });
});

describe('withText', () => {
  it('changes nothing but the words', () => {
    expect(withText(REJECT, 'no')).toEqual({ code: 550, detail: '7.23', text: 'no' });
  });
});

describe('isTemporary', () => {
  it.each([
    [421, true],
    [455, true],
    [521, false],
    [556, false],
  ] as const)('%d: %s', (code, temporary) => {
    expect(isTemporary({ ...REJECT, code })).toBe(temporary);
  });
});

describe('printable', () => {
  it.each([
    ['abc', 3, 'abc'],
    ['abcd', 3, '...'],
    ['abcdef', 5, 'ab...'],
    ['a\r\n\0\x7f\xe9\u2028b', 20, 'a??????b'],
    ['', 3, ''],
  ])('%j within %d', (text, limit, result) => {
    expect(printable(text, limit)).toBe(result);
  });
});
