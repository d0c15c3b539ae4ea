import { describe, expect, test } from 'vitest';

import {
  detached,
  instanceOf,
  mailFactsOf,
  messageKey,
  queueIdOf,
  recipientCountOf,
  recipientOf,
  sizeOf,
  stateOf,
} from '../../../src/policyd/request.ts';
import type { PolicyAttributes } from '../../support/players/policy-client.ts';
import { decoded, rcpt } from './support.ts';

const NONE = { has: () => false };
const OWN = { has: (address: string) => address === '192.0.2.20' };

test('the facts of a request at RCPT', () => {
  expect(mailFactsOf(decoded(rcpt()), NONE)).toEqual({
    direction: 'in',
    sender: {
      kind: 'address',
      address: { raw: 'thor@valhalla.example', local: 'thor', domain: 'valhalla.example' },
    },
    client: {
      address: '192.0.2.20',
      port: 40_235,
      name: 'odin.valhalla.example',
      reverseName: 'odin.valhalla.example',
      helo: 'odin.valhalla.example',
      tls: null,
      login: null,
    },
  });
});

test('what Postfix does not know, or has not got yet, is null and never a word', () => {
  const { client, sender } = mailFactsOf(
    decoded({ client_address: 'unknown', client_name: 'unknown', client_port: 'unknown', sender: '' }),
    { has: () => true },
  );
  expect(client).toEqual({
    address: '',
    port: null,
    name: null,
    reverseName: null,
    helo: null,
    tls: null,
    login: null,
  });
  expect(sender).toEqual({ kind: 'null' });
});

test('TLS', () => {
  const { client } = mailFactsOf(
    decoded(
      rcpt({
        encryption_protocol: 'TLSv1.3',
        encryption_cipher: 'TLS_AES_256_GCM_SHA384',
        encryption_keysize: '256',
      }),
    ),
    NONE,
  );
  expect(client.tls).toEqual({ protocol: 'TLSv1.3', cipher: 'TLS_AES_256_GCM_SHA384', bits: 256 });
});

test.for([
  ['a stranger', {}, NONE, 'in'],
  ['a login', { sasl_username: 'zeus@olimpus.example' }, NONE, 'out'],
  ['an own network', {}, OWN, 'out'],
  ['another address', { client_address: '192.0.2.21' }, OWN, 'in'],
  ['no address at all', { client_address: '' }, { has: () => true }, 'in'],
] as const)('direction: %s', ([, changes, own, direction]) => {
  expect(mailFactsOf(decoded(rcpt(changes)), own).direction).toBe(direction);
});

describe('mailboxes, which Postfix tells without their quoting', () => {
  test.for([
    ['zeus@olimpus.example', 'zeus@olimpus.example', 'zeus'],
    ['a b@valhalla.example', '"a b"@valhalla.example', 'a b'],
    ['a"b\\c@valhalla.example', '"a\\"b\\\\c"@valhalla.example', 'a"b\\c'],
    ['a@b@valhalla.example', '"a@b"@valhalla.example', 'a@b'],
    ['.a@valhalla.example', '".a"@valhalla.example', '.a'],
    ['zeus+tag@olimpus.example', 'zeus+tag@olimpus.example', 'zeus+tag'],
    ['caf\xc3\xa9@valhalla.example', 'caf\xc3\xa9@valhalla.example', 'caf\xc3\xa9'],
    ['postmaster', 'postmaster', 'postmaster'],
    ['@valhalla.example', '""@valhalla.example', ''],
  ] as const)('%s', ([told, raw, local]) => {
    expect(recipientOf(decoded(rcpt({ recipient: told })))).toMatchObject({ raw, local });
    expect(mailFactsOf(decoded(rcpt({ sender: told })), NONE).sender).toMatchObject({
      address: { raw, local },
    });
  });

  test('no recipient', () => {
    expect(recipientOf(decoded(rcpt({ recipient: '' })))).toBeNull();
  });
});

test.for([
  ['CONNECT', 'CONNECT'],
  ['END-OF-MESSAGE', 'END-OF-MESSAGE'],
  ['rcpt', 'unknown'],
  ['BDAT', 'unknown'],
  ['', 'unknown'],
] as const)('state %s', ([text, state]) => {
  expect(stateOf(decoded({ protocol_state: text }))).toBe(state);
});

test('numbers: what is none is not taken for one', () => {
  expect(sizeOf(decoded({ size: '1000' }))).toBe(1000);
  expect(sizeOf(decoded({ size: '0' }))).toBeNull();
  expect(sizeOf(decoded({ size: '-5' }))).toBeNull();
  expect(sizeOf(decoded({ size: '9'.repeat(15) }))).toBe(999_999_999_999_999);
  expect(sizeOf(decoded({ size: '9'.repeat(16) }))).toBeNull();
  expect(recipientCountOf(decoded({ recipient_count: '3' }))).toBe(3);
  expect(recipientCountOf(decoded({ recipient_count: 'x' }))).toBe(0);
});

test('queue id and instance', () => {
  expect(queueIdOf(decoded({ queue_id: '' }))).toBeNull();
  expect(queueIdOf(decoded({ queue_id: 'F3B6924C468' }))).toBe('F3B6924C468');
  expect(instanceOf(decoded(rcpt()))).toBe('74fc.6b01513a.6a32c.0');
});

function key(changes: PolicyAttributes, instance = 'i'): string {
  return messageKey(decoded(rcpt(changes)), instance);
}

test('all that the checks look at is part of the key, the recipient is not', () => {
  expect(key({ recipient: 'hera@olimpus.example', queue_id: 'F3B6924C468' })).toBe(key({}));
  const others = [
    key({}, 'j'),
    key({ client_address: '192.0.2.21' }),
    key({ client_port: '1' }),
    key({ server_address: '192.0.2.11' }),
    key({ helo_name: 'loki' }),
    key({ sasl_username: 'thor' }),
    key({ sender: 'loki@valhalla.example' }),
  ];
  expect(new Set([key({}), ...others]).size).toBe(others.length + 1);
});

test('a detached text is the same text, byte for byte', () => {
  const text = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).join('');
  expect(detached(text)).toBe(text);
});
