import { expect, test } from 'vitest';

import { PROFILE_LIMIT, profilesOf } from '../../../src/checks/spam-profiles.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import type { Recipient } from '../../../src/mail/envelope.ts';
import { found } from '../../support/judgement.ts';

function recipients(...addresses: readonly string[]): readonly Recipient[] {
  return addresses.map((address) => ({ address: parseMailbox(address), parameters: [] }));
}

const TWO = recipients('zeus+a@x.example', 'Hera@x.example', 'ZEUS@x.example', 'ada@y.example');

test.each([
  ['none', undefined, [[null, [0, 1, 2, 3]]]],
  ['none', 'site', [['site', [0, 1, 2, 3]]]],
  [
    'recipient',
    'site',
    [
      ['zeus@x.example', [0, 2]],
      ['hera@x.example', [1]],
      ['ada@y.example', [3]],
    ],
  ],
  [
    'domain',
    undefined,
    [
      ['x.example', [0, 1, 2]],
      ['y.example', [3]],
    ],
  ],
] as const)('user = %s, default_user %s: each profile once', (user, default_user, profiles) => {
  const made = profilesOf(TWO, { user, default_user }, '+');
  expect(made.map(({ user: name, recipients: of }) => [name, of])).toEqual(profiles);
});

test('an alias of one mailbox goes by that; one of several by its own name', () => {
  const settings = found(
    'settings',
    { code: 'settings.own', detail: '', recipient: 0, settings: [{ mailbox: 'Zeus@x.example' }] },
    { code: 'settings.own', detail: '', recipient: 1, settings: [{ mailbox: 'a@x' }, { mailbox: 'b@x' }] },
    { code: 'settings.own', detail: '', recipient: 2, settings: [{ mailbox: null }] },
  );
  const made = profilesOf(
    recipients('info@x.example', 'all@x.example', 'away@x.example'),
    { user: 'recipient' },
    '+',
    settings,
  );
  expect(made.map(({ user }) => user)).toEqual(['zeus@x.example', 'all@x.example', 'away@x.example']);
});

test('as many profiles as there may be; those beyond go by default_user', () => {
  const names = Array.from({ length: PROFILE_LIMIT + 2 }, (_, index) => `u${index}@x.example`);
  const made = profilesOf(recipients(...names), { user: 'recipient', default_user: 'site' }, '+');
  expect(made).toHaveLength(PROFILE_LIMIT + 1);
  expect(made.at(-1)).toEqual({ user: 'site', recipients: [PROFILE_LIMIT, PROFILE_LIMIT + 1] });
});
