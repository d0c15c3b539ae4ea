import { expect, test } from 'vitest';

import { parseScriptHead, ScriptFault, USER_LIMIT } from '../../../src/feedback/script-request.ts';

/** As Dovecot 2.3.19 sent it. */
const HEAD = 'VERSION\tscript\t4\t0\nenv_USER=zeus@example.org\nenv_HOME=/mail/zeus\nenv_HOST=mx\n-\nspam';

test('the head that Dovecot sends', () => {
  expect(parseScriptHead(HEAD)).toEqual({ label: 'spam', user: 'zeus@example.org' });
});

test('a time limit, an answer that nobody waits for, a later minor version, other words in the environment', () => {
  const head = 'VERSION\tscript\t4\t12\nenv_X=a=b\nenv_USER=zeus\nalarm=10\nnoreply\nham';
  expect(parseScriptHead(head)).toEqual({ label: 'ham', user: 'zeus' });
});

test.each([
  ['another protocol', 'GET / HTTP/1.1'],
  ['nothing', ''],
  ['another version', HEAD.replace('\t4\t', '\t5\t')],
  ['no line for the answer', HEAD.replace('\n-\n', '\n')],
  ['no label', HEAD.replace('\nspam', '')],
  ['another label', HEAD.replace('\nspam', '\nSPAM')],
  ['a second argument', `${HEAD}\nham`],
  ['no user', HEAD.replace('env_USER=zeus@example.org\n', '')],
  ['an empty user', HEAD.replace('zeus@example.org', '')],
  ['a user with a control character', HEAD.replace('zeus@', 'ze\u001bus@')],
  ['a user with a line separator', HEAD.replace('zeus@', 'ze\u2028us@')],
])('refused: %s', (_, head) => {
  expect(() => parseScriptHead(head)).toThrow(ScriptFault);
});

test('the longest user name, and one character more', () => {
  const longest = 'z'.repeat(USER_LIMIT);
  expect(parseScriptHead(HEAD.replace('zeus@example.org', longest)).user).toBe(longest);
  expect(() => parseScriptHead(HEAD.replace('zeus@example.org', `${longest}z`))).toThrow(ScriptFault);
});
