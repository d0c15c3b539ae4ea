import { expect, test } from 'vitest';

import { AUTHORS_LIMIT, authorCheck } from '../../../src/checks/author.ts';
import type { Directory } from '../../../src/ports/directory.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { checkTools, NO_DIRECTORY } from '../../support/checks.ts';
import { client, envelope } from '../../support/mail.ts';
import { messageFacts, outcome } from './auth-facts.ts';

const ZEUS = 'zeus@olimpus.example';

const DIRECTORY: Directory = {
  ...NO_DIRECTORY,
  account: () => ({ limits: new Map(), senders: [] }),
  owns: (_, { local, domain }) => local.toLowerCase() === 'info' && domain === 'olimpus.example',
};

function judged(
  headers: string,
  values: { login?: string | null; directory?: Directory; options?: unknown } = {},
): Promise<Outcome> {
  const { login = ZEUS, directory = DIRECTORY, options } = values;
  return outcome(authorCheck, {
    facts: messageFacts({
      headers,
      envelope: envelope({ client: client({ login }), direction: 'out', sender: `<${ZEUS}>` }),
    }),
    tools: checkTools({ directory }),
    options,
  });
}

test.each([
  ['itself', `From: Zeus <${ZEUS}>\r\n`],
  ['itself and an alias', `From: ${ZEUS},\r\n Info <INFO@olimpus.example>\r\n`],
  ['an address with an extension', 'From: zeus+x@olimpus.example\r\n'],
  ['nobody: the field is missing', 'Subject: thunder\r\n'],
  ['as many as are looked at', `From: ${Array.from({ length: AUTHORS_LIMIT }, () => ZEUS).join(', ')}\r\n`],
])('From names %s: nothing is found', async (_, headers) => {
  expect(await judged(headers)).toMatchObject({ kind: 'found', findings: [] });
});

test.each([
  [
    'somebody else',
    'From: hera@olimpus.example\r\n',
    `login ${ZEUS} may not send as hera@olimpus.example (From)`,
  ],
  [
    'one of two who is somebody else',
    `From: ${ZEUS}, hera@olimpus.example\r\n`,
    `login ${ZEUS} may not send as hera@olimpus.example (From)`,
  ],
  [
    'two fields',
    `From: ${ZEUS}\r\nFrom: ${ZEUS}\r\n`,
    `From of login ${ZEUS} is there twice or can't be read`,
  ],
  [
    'what can not be read',
    `From: hera@olimpus.example <${ZEUS}\r\n`,
    `From of login ${ZEUS} is there twice or can't be read`,
  ],
  ['nobody in a group', 'From: hera@olimpus.example:;\r\n', `From of login ${ZEUS} names no address`],
  ['an empty group', 'From: Hera:;\r\n', `From of login ${ZEUS} names no address`],
  [
    'more than are looked at',
    `From: ${Array.from({ length: AUTHORS_LIMIT + 1 }, () => ZEUS).join(', ')}\r\n`,
    `From of login ${ZEUS} names 101 addresses, more than 100`,
  ],
])('From names %s: not owned', async (_, headers, detail) => {
  const found = await judged(headers);
  expect(found.kind === 'found' ? found.findings : found).toEqual([{ code: 'author.not-owned', detail }]);
});

test('a display name that looks like an address is no author', async () => {
  expect(await judged(`From: "hera@olimpus.example" <${ZEUS}>\r\n`)).toMatchObject({ findings: [] });
});

test('the table of [checks.sender] holds here too', async () => {
  const options = { allow: [{ logins: [ZEUS], senders: ['@asgard.example'] }] };
  expect(await judged('From: x@asgard.example\r\n', { options })).toMatchObject({ findings: [] });
  expect(authorCheck.partOf).toBe('sender');
});

test('without a login there is nobody to ask about', async () => {
  expect(await judged('From: x@y.example\r\n', { login: null, directory: NO_DIRECTORY })).toMatchObject({
    kind: 'found',
    findings: [],
  });
});

test('a directory that fails makes the check unavailable', async () => {
  const directory = { ...DIRECTORY, owns: () => Promise.reject(new NeighbourError('gone')) };
  expect(await judged('From: x@y.example\r\n', { directory })).toMatchObject({
    kind: 'unavailable',
    reason: 'neighbour',
  });
});
