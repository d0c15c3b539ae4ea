import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { authResultsField, authservIdOf, claimsAuthservId } from '../../../src/mail/auth-results.ts';

const OURS = 'mx.olimpus.example';

describe('authResultsField', () => {
  it('writes one line for each result', () => {
    const field = authResultsField(OURS, [
      { method: 'spf', result: 'pass', properties: [['smtp.mailfrom', 'thor@valhalla.example']] },
      {
        method: 'dkim',
        result: 'fail',
        comment: 'body hash differs',
        properties: [
          ['header.d', 'valhalla.example'],
          ['header.s', 'mail'],
          ['header.b', 'abc+/=='],
        ],
      },
    ]);
    expect(field).toEqual({
      name: 'Authentication-Results',
      value:
        ' mx.olimpus.example;\r\n\tspf=pass smtp.mailfrom=thor@valhalla.example;\r\n\tdkim=fail (body hash differs) header.d=valhalla.example header.s=mail header.b="abc+/=="',
    });
  });

  it('says none when there is nothing', () => {
    expect(authResultsField(OURS, []).value).toBe(' mx.olimpus.example;\r\n\tnone');
  });

  it.each([
    ['', '""'],
    ['a b@c', '"a b@c"'],
    ['x; dkim=pass', '"x; dkim=pass"'],
    ['"x"\\', '"\\"x\\"\\\\"'],
    ['a\r\nX: y', '"a??X: y"'],
    ['h\xe9@x', '"h?@x"'],
    ['@olimpus.example', '@olimpus.example'],
    ['a@b@c', '"a@b@c"'],
  ])('writes the value %j as %s', (value, written) => {
    const field = authResultsField(OURS, [
      { method: 'spf', result: 'pass', properties: [['smtp.helo', value]] },
    ]);
    expect(field.value).toBe(` ${OURS};\r\n\tspf=pass smtp.helo=${written}`);
  });

  it('can not be made to say more than it is given', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (comment, value) => {
        const field = authResultsField(OURS, [
          { method: 'spf', result: 'fail', comment, properties: [['smtp.mailfrom', value]] },
        ]);
        // Comments and quoted strings taken out, one result is left.
        const bare = field.value
          .replaceAll(/"(?:[^"\\]|\\.)*"/g, 'Q')
          .replaceAll(/\([^()]*\)/g, '')
          .replaceAll(/\r\n(?=\t)/g, '');
        expect(bare).toMatch(/^ mx\.olimpus\.example;\tspf=fail +smtp\.mailfrom=[^;\s()"]+$/);
      }),
    );
  });
});

describe('authservIdOf', () => {
  it.each([
    [' mx.olimpus.example; none', OURS],
    [' MX.Olimpus.EXAMPLE;none', OURS],
    [' mx.olimpus.example 1; none', OURS],
    [' (a (nested) comment) mx.olimpus.example (b); none', OURS],
    [' (a ; b) mx.olimpus.example; none', OURS],
    ['\r\n\tmx.olimpus.example\r\n\t; none', OURS],
    [' "mx.olimpus.example"; none', OURS],
    [String.raw` "mx\.olimpus\.example"; none`, OURS],
    [String.raw` (\)) mx.olimpus.example; none`, OURS],
    [' mx.olimpus.example', OURS],
    [' spf=pass', 'spf'],
    ['', null],
    [' ; none', null],
    [' (unclosed mx.olimpus.example; none', null],
  ])('%j', (value, id) => {
    expect(authservIdOf(value)).toBe(id);
  });

  it('takes time in proportion to the length', () => {
    const begun = performance.now();
    for (const text of ['(', ')', '"', '\\', ' ', '\r\n ', '()', '"\\"', 'a'].map((part) =>
      part.repeat(300_000),
    )) {
      authservIdOf(text);
      authservIdOf(`"${text}`);
      claimsAuthservId(text, [OURS]);
    }
    expect(performance.now() - begun).toBeLessThan(5000);
  });
});

describe('claimsAuthservId', () => {
  it.each([
    ' mx.olimpus.example; spf=pass',
    ' (x) "MX.olimpus.example" 1; spf=pass',
    // What a lenient reader may take for ours.
    ' mx.olimpus.example.; spf=pass',
    ' mx.olimpus.example/1; spf=pass',
    ' "mx.olimpus.example; spf=pass',
    ' x mx.olimpus.example; spf=pass',
    ' =mx.olimpus.example; spf=pass',
    ' <mx.olimpus.example>; spf=pass',
    '\xa0mx.olimpus.example; spf=pass',
    ' \rmx.olimpus.example; spf=pass',
    ' a.example mx.olimpus.example',
    // A version, comments in comments, an escaped bracket, a quote that begins inside a comment.
    ' mx.olimpus.example 1(x); spf=pass',
    ' ((a)(b)) mx.olimpus.example (c(d)) 1 ; spf=pass',
    ' (\\)) mx.olimpus.example; spf=pass',
    ' (") mx.olimpus.example; spf=pass (")',
    ' "mx.olimpus\\.example" ; spf=pass',
    ' mx.olimpus.example\r\n\t1;\r\n\tspf=pass',
    // What can't be read.
    '',
    ' (mx.olimpus.example; spf=pass',
    ' ; mx.olimpus.example; spf=pass',
  ])('%j passes for ours', (value) => {
    expect(claimsAuthservId(value, [OURS])).toBe(true);
  });

  it.each([
    ' other.example; spf=pass smtp.mailfrom=x@mx.olimpus.example',
    ' amx.olimpus.example; spf=pass',
    ' mx.olimpus.example.evil; spf=pass',
    ' a.mx.olimpus.example; spf=pass',
    ' mx.olimpus.example-2; spf=pass',
    ' other.example',
  ])('%j does not', (value) => {
    expect(claimsAuthservId(value, [OURS])).toBe(false);
  });

  it.each([
    ' mx2.olimpus.example; spf=pass',
    ' (\\() "MX2\\.olimpus.example" 1; none',
    '\r\n\tmx2.olimpus.example/1; x=y',
  ])('%j passes for one of several names of ours', (value) => {
    expect(claimsAuthservId(value, [OURS, 'mx2.olimpus.example'])).toBe(true);
    expect(claimsAuthservId(value, [OURS])).toBe(false);
  });

  it('does not care how the configuration writes it', () => {
    expect(claimsAuthservId(' mx.olimpus.example; none', ['MX.Olimpus.Example'])).toBe(true);
  });
});
