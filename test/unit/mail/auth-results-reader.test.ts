import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  readArcAuthResults,
  readAuthResults,
  RESULTS_LENGTH_LIMIT,
} from '../../../src/mail/auth-results-reader.ts';
import { authResultsField } from '../../../src/mail/auth-results.ts';

describe('readAuthResults', () => {
  test('RFC 8601 §B.5: several methods, with versions, comments and reasons', () => {
    const value = [
      ' example.com 1;',
      '\r\n\tauth/1=pass (cram-md5) smtp.auth=sender@example.net;',
      '\r\n\tspf=FAIL reason="no; good" smtp.mailfrom="a b"@example.net;',
      '\r\n\tdkim (x(y)) = pass header . d = Example.net header.b="abc+/=="',
    ].join('');
    expect(readAuthResults(value)).toEqual({
      authservId: 'example.com',
      results: [
        { method: 'auth', result: 'pass', properties: [['smtp.auth', 'sender@example.net']] },
        {
          method: 'spf',
          result: 'fail',
          properties: [
            ['reason', 'no; good'],
            ['smtp.mailfrom', 'a b@example.net'],
          ],
        },
        {
          method: 'dkim',
          result: 'pass',
          properties: [
            ['header.d', 'Example.net'],
            ['header.b', 'abc+/=='],
          ],
        },
      ],
    });
  });

  test.each([' mx.example; none', ' mx.example', ' mx.example 1;', '(c)mx.example(d);none(e)'])(
    'no results: %j',
    (value) => {
      expect(readAuthResults(value)).toEqual({ authservId: 'mx.example', results: [] });
    },
  );

  test.each([
    [' mx.example; arc=pass smtp.remote-ip=2001:db8::1', ['arc=pass']],
    // What stands in a comment or in quotes is no result.
    [' mx.example; spf=fail (; dmarc=pass header.from=a.example)', ['spf=fail']],
    [' mx.example; spf=fail smtp.helo="x; dmarc=pass"', ['spf=fail']],
    [String.raw` mx.example; spf=fail smtp.helo="x\"; dmarc=pass"`, ['spf=fail']],
    [String.raw` mx.example; spf=fail (\); dmarc=pass)`, ['spf=fail']],
  ])('%j', (value, expected) => {
    expect(readAuthResults(value)?.results.map(({ method, result }) => `${method}=${result}`)).toEqual(
      expected,
    );
  });

  test.each([
    '',
    ' ; spf=pass',
    ' (mx.example; spf=pass',
    ' mx.example; spf=pass (unclosed',
    ' mx.example; spf=pass smtp.helo="unclosed',
    ' mx.example; spf',
    ' mx.example; spf=',
    ' mx.example; =pass',
    ' mx.example; spf=pass; none',
    ' mx.example; none; spf=pass',
    ' mx.example; spf/x=pass',
    ' mx.example; spf=pass smtp.=x',
    ' mx.example; spf=pass smtp.helo',
    ' mx.example; spf=pass smtp.helo=',
    ' mx.example; spf=pass)',
    ' mx.example; spf=pass dmarc=pass"',
    ' mx.example spf=pass',
    ' mx.example one; spf=pass',
  ])('what is by no grammar says nothing: %j', (value) => {
    expect(readAuthResults(value)).toBeNull();
  });

  test('so many octets', () => {
    const value = ` mx.example; spf=pass (${'x'.repeat(RESULTS_LENGTH_LIMIT)}`;
    const fits = `${value.slice(0, RESULTS_LENGTH_LIMIT - 1)})`;
    expect(readAuthResults(fits)?.results).toHaveLength(1);
    expect(readAuthResults(`${fits} `)).toBeNull();
  });

  test('reads what we write, whatever it says', () => {
    const text = fc.string({ unit: 'binary-ascii' });
    fc.assert(
      fc.property(text, text, (comment, value) => {
        const written = authResultsField('mx.example', [
          { method: 'spf', result: 'fail', comment, properties: [['smtp.mailfrom', value]] },
          { method: 'dkim', result: 'pass', properties: [] },
        ]);
        const read = readAuthResults(written.value);
        expect(read?.results.map(({ method, result }) => `${method}=${result}`)).toEqual([
          'spf=fail',
          'dkim=pass',
        ]);
      }),
    );
  });

  test('takes time in proportion to the length', () => {
    const begun = performance.now();
    for (const part of ['(', ')', '"', '\\', ' ', ';', 'a=b ', 'a.b=', '()', '; a=b']) {
      readAuthResults(` mx.example; ${part.repeat(RESULTS_LENGTH_LIMIT / part.length - 4)}`);
    }
    expect(performance.now() - begun).toBeLessThan(1000);
  });
});

describe('readArcAuthResults', () => {
  test.each([
    ' i=1; mx.example; dmarc=pass header.from=a.example',
    '\r\n\ti = 1 (c);\r\n\tmx.example;\r\n\tdmarc=pass header.from=a.example',
  ])('%j', (value) => {
    expect(readArcAuthResults(value)?.results).toEqual([
      { method: 'dmarc', result: 'pass', properties: [['header.from', 'a.example']] },
    ]);
  });

  test.each([
    ' mx.example; dmarc=pass',
    ' i=; mx.example; dmarc=pass',
    ' i=1 mx.example; dmarc=pass',
    ' j=1; x; a=b',
  ])('without its instance it says nothing: %j', (value) => {
    expect(readArcAuthResults(value)).toBeNull();
  });
});
