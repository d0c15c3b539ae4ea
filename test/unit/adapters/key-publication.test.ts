import { createPublicKey, generateKeyPairSync } from 'node:crypto';

import { expect, test } from 'vitest';

import { judgePublication, judgeTexts, publicDataOf } from '../../../src/adapters/key-publication.ts';
import type { ServerWord } from '../../../src/adapters/zone-servers.ts';

const RSA = generateKeyPairSync('rsa', { modulusLength: 1024 });
const ED = generateKeyPairSync('ed25519');
const DATA = publicDataOf(RSA.publicKey);
const RECORD = `v=DKIM1; k=rsa; p=${DATA}`;

function word(
  server: string,
  address: string | null,
  said: ServerWord['said'] | 'right' | 'silent',
): ServerWord {
  if (said === 'right') return { zone: 'z', server, address, said: { kind: 'texts', texts: [RECORD] } };
  if (said === 'silent') return { zone: 'z', server, address, said: { kind: 'failed', why: 'no answer' } };
  return { zone: 'z', server, address, said };
}

const NONE = { kind: 'texts', texts: [] } as const;

test('p= of a public key, whichever half it is read from', () => {
  expect(publicDataOf(createPublicKey(RSA.privateKey))).toBe(DATA);
  expect(Buffer.from(publicDataOf(ED.publicKey), 'base64')).toHaveLength(32);
  expect(
    judgeTexts([`v=DKIM1; k=ed25519; p=${publicDataOf(ED.publicKey)}`], publicDataOf(ED.publicKey)),
  ).toEqual({
    kind: 'published',
  });
});

test.for<[string, readonly string[], string]>([
  ['the record', [RECORD], 'published'],
  [
    'with blanks in the key, and other tags',
    [`v=DKIM1; t=s; h=sha256; p=${DATA.slice(0, 40)} ${DATA.slice(40)}`],
    'published',
  ],
  [
    'a bare RSAPublicKey (RFC 6376 §3.6.1)',
    [`p=${RSA.publicKey.export({ type: 'pkcs1', format: 'der' }).toString('base64')}`],
    'published',
  ],
  ['nothing', [], 'missing'],
  ['a revoked key', ['v=DKIM1; p='], 'revoked'],
  ['another key', [`v=DKIM1; k=ed25519; p=${publicDataOf(ED.publicKey)}`], 'mismatch'],
  ['half a key', [`v=DKIM1; k=rsa; p=${DATA.slice(0, 100)}`], 'malformed'],
  ['quotes of a zone file in it', [`"v=DKIM1; k=rsa; p=${DATA}"`], 'malformed'],
  ['a wildcard for something else', ['v=spf1 -all'], 'malformed'],
  ['two records', [RECORD, RECORD], 'malformed'],
  ['a hash that is not used', [`v=DKIM1; h=sha1; p=${DATA}`], 'malformed'],
  ['not for mail', [`v=DKIM1; s=other; p=${DATA}`], 'malformed'],
])('%s', ([, texts, kind]) => {
  expect(judgeTexts(texts, DATA).kind).toBe(kind);
});

test.for<[string, readonly ServerWord[], string, boolean]>([
  ['both have it', [word('a', '192.0.2.1', 'right'), word('b', '192.0.2.2', 'right')], 'everywhere', false],
  ['one has it not', [word('a', '192.0.2.1', 'right'), word('b', '192.0.2.2', NONE)], 'partly', false],
  ['one is silent', [word('a', '192.0.2.1', 'right'), word('b', '192.0.2.2', 'silent')], 'partly', true],
  ['one has no address', [word('a', '192.0.2.1', 'right'), word('b', null, 'silent')], 'partly', true],
  ['neither has it', [word('a', '192.0.2.1', NONE), word('b', '192.0.2.2', NONE)], 'nowhere', false],
  [
    'the only one that answers has it not',
    [word('a', '192.0.2.1', NONE), word('b', '192.0.2.2', 'silent')],
    'nowhere',
    true,
  ],
  ['both are silent', [word('a', '192.0.2.1', 'silent'), word('b', '192.0.2.2', 'silent')], 'unknown', true],
  [
    'one address of a server is out of reach',
    [word('a', '192.0.2.1', 'right'), word('a', '2001:db8::1', 'silent')],
    'everywhere',
    false,
  ],
  [
    'two addresses of a server differ',
    [word('a', '192.0.2.1', 'right'), word('a', '2001:db8::1', NONE)],
    'partly',
    false,
  ],
  [
    'an alias leads to one that has it',
    [word('a', '192.0.2.1', { kind: 'elsewhere', name: 'x' }), word('c', '192.0.2.3', 'right')],
    'everywhere',
    false,
  ],
])('%s', ([, words, state, incomplete]) => {
  const found = judgePublication({ kind: 'asked', words }, DATA);
  expect({ state: found.state, incomplete: found.incomplete }).toEqual({ state, incomplete });
});

test('a survey that failed tells nothing', () => {
  expect(judgePublication({ kind: 'failed', why: 'no zone' }, DATA)).toEqual({
    state: 'unknown',
    why: 'no zone',
    servers: [],
    incomplete: true,
  });
});
