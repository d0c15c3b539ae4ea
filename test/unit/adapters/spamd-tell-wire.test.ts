import { expect, test } from 'vitest';

import { readTold, tellHead } from '../../../src/adapters/spamd-tell-wire.ts';

test('a request, for a user and for the site', () => {
  expect(tellHead({ label: 'spam', contentLength: 12, user: 'zeus@example.org' })).toBe(
    'TELL SPAMC/1.5\r\nContent-length: 12\r\nUser: zeus@example.org\r\nMessage-class: spam\r\nSet: local\r\n\r\n',
  );
  expect(tellHead({ label: 'ham', contentLength: 0, user: null })).toBe(
    'TELL SPAMC/1.5\r\nContent-length: 0\r\nMessage-class: ham\r\nSet: local\r\n\r\n',
  );
});

test('a user name can be no second line', () => {
  const head = tellHead({ label: 'ham', contentLength: 0, user: 'a\r\nMessage-class: spam' });
  expect(head.split('\r\n')).toContain('User: a??Message-class: spam');
});

// As spamd 4.0.1 answers.
test('learned, and nothing new', () => {
  expect(readTold('SPAMD/1.1 0 EX_OK\r\nDidSet: local\r\n\r\n\r\n')).toBe('learned');
  expect(readTold('SPAMD/1.1 0 EX_OK\r\n\r\n\r\n')).toBe('known');
});

test.each([
  ['SPAMD/1.0 69 Service Unavailable: TELL commands are not enabled\r\n', '--allow-tell'],
  ['SPAMD/1.0 79 Timeout\r\n', 'answered 79 Timeout'],
  ['SPAMD/1.1 0 EX_OK\r\nDidSet: lo', 'broke off'],
  ['220 mx ESMTP\u001b\r\n', 'not spamd\'s language: "220 mx ESMTP?"'],
])('%j is no lesson learned', (answer, why) => {
  expect(() => readTold(answer)).toThrow(why);
});
