import fc from 'fast-check';
import { expect, test } from 'vitest';

import type { Publication } from '../../../src/adapters/key-publication.ts';
import { ROLES } from '../../../src/adapters/key-store.ts';
import {
  newSelector,
  planDomain,
  RETIRE_MARGIN_MS,
  type KnownKey,
  type LifeSettings,
} from '../../../src/cli/keys-plan.ts';

const DAY = 86_400_000;
const NOW = Date.UTC(2026, 10, 21);
const SETTINGS: LifeSettings = { newKeys: ['rsa'], rotateEveryMs: 365 * DAY, queueLifetimeMs: 5 * DAY };

function publication(state: Publication['state'], incomplete = false): Publication {
  return state === 'unknown'
    ? { state, why: 'x', servers: [], incomplete: true }
    : { state, servers: [], incomplete };
}

function key(
  selector: string,
  role: KnownKey['role'],
  state: Publication['state'] = 'everywhere',
  days = 1,
  kind: KnownKey['kind'] = 'rsa',
): KnownKey {
  return { selector, role, kind, since: NOW - days * DAY, publication: publication(state) };
}

const plan = (keys: readonly KnownKey[], now = false, settings = SETTINGS) =>
  planDomain(keys, settings, NOW, now);

test('a domain without keys gets one of each kind', () => {
  expect(plan([], false, { ...SETTINGS, newKeys: ['rsa', 'ed25519'] })).toEqual({
    steps: [
      { kind: 'generate', keyKind: 'rsa' },
      { kind: 'generate', keyKind: 'ed25519' },
    ],
    tasks: [],
  });
});

test('the first key signs as soon as all servers have it, and another one is prepared', () => {
  expect(plan([key('a', 'next', 'nowhere')])).toEqual({
    steps: [],
    tasks: [{ kind: 'publish', selector: 'a', due: true }],
  });
  expect(plan([key('a', 'next', 'partly')])).toEqual({
    steps: [],
    tasks: [{ kind: 'publish', selector: 'a', due: true }],
  });
  expect(plan([key('a', 'next', 'unknown')])).toEqual({
    steps: [],
    tasks: [{ kind: 'unknown', selector: 'a' }],
  });
  expect(plan([key('a', 'next')])).toEqual({
    steps: [
      { kind: 'promote', selector: 'a', others: [] },
      { kind: 'generate', keyKind: 'rsa' },
    ],
    tasks: [],
  });
});

test('a key signs for its time, to the millisecond', () => {
  const next = key('b', 'next');
  expect(plan([key('a', 'private', 'everywhere', 364.99), next]).steps).toEqual([]);
  expect(plan([key('a', 'private', 'everywhere', 365), next]).steps).toEqual([
    { kind: 'promote', selector: 'b', others: ['a'] },
    { kind: 'generate', keyKind: 'rsa' },
  ]);
});

test('it goes on signing when its time is up and the next one is not everywhere', () => {
  expect(plan([key('a', 'private', 'everywhere', 500), key('b', 'next', 'partly')])).toEqual({
    steps: [],
    tasks: [{ kind: 'publish', selector: 'b', due: true }],
  });
});

test('before its time it is asked for without haste, and signs at once when that is wanted', () => {
  const keys = [key('a', 'private'), key('b', 'next', 'nowhere')];
  expect(plan(keys).tasks).toEqual([{ kind: 'publish', selector: 'b', due: false }]);
  expect(plan([key('a', 'private'), key('b', 'next')]).steps).toEqual([]);
  expect(plan([key('a', 'private'), key('b', 'next')], true).steps).toContainEqual({
    kind: 'promote',
    selector: 'b',
    others: ['a'],
  });
  expect(plan(keys, true).steps).toEqual([]);
});

test('a kind is rotated apart from the other; one that is not made any more is not prepared', () => {
  const keys = [
    key('r', 'private', 'everywhere', 400),
    key('r2', 'next'),
    key('e', 'private', 'everywhere', 400, 'ed25519'),
  ];
  expect(plan(keys).steps).toEqual([
    { kind: 'promote', selector: 'r2', others: ['r'] },
    { kind: 'generate', keyKind: 'rsa' },
  ]);
});

test('one that was broken off on its way is ended, published or not', () => {
  const keys = [key('b', 'next', 'unknown', 0), key('b', 'private', 'unknown', 0), key('a', 'private')];
  expect(plan(keys).steps[0]).toEqual({ kind: 'promote', selector: 'b', others: ['a'] });
});

test('an old key goes after the lifetime of the queue, and its record after it', () => {
  const old = (ms: number): KnownKey => ({ ...key('o', 'old'), since: NOW - ms });
  const up = SETTINGS.queueLifetimeMs + RETIRE_MARGIN_MS;
  const rest = [key('a', 'private'), key('b', 'next')];
  expect(plan([...rest, old(up - 1)])).toEqual({ steps: [], tasks: [] });
  expect(plan([...rest, old(up)])).toEqual({ steps: [{ kind: 'retire', selector: 'o' }], tasks: [] });
  for (const state of ['everywhere', 'partly'] as const) {
    expect(plan([...rest, key('o', 'retired', state)])).toEqual({
      steps: [],
      tasks: [{ kind: 'remove', selector: 'o' }],
    });
  }
  expect(plan([...rest, key('o', 'retired', 'nowhere')])).toEqual({
    steps: [{ kind: 'forget', selector: 'o' }],
    tasks: [],
  });
  const silent = { ...key('o', 'retired'), publication: publication('nowhere', true) };
  expect(plan([...rest, silent])).toEqual({ steps: [], tasks: [{ kind: 'remove', selector: 'o' }] });
});

test('what signs, and what is on its way, has to be in DNS', () => {
  expect(plan([key('a', 'private', 'nowhere'), key('b', 'next'), key('o', 'old', 'partly')]).tasks).toEqual([
    { kind: 'restore', selector: 'a' },
    { kind: 'restore', selector: 'o' },
  ]);
});

test('nothing signs with a key that a server lacks, and signing never stops', () => {
  const keys = fc.array(
    fc.record({
      selector: fc.constantFrom('a', 'b', 'c', 'd'),
      role: fc.constantFrom(...ROLES),
      kind: fc.constantFrom('rsa' as const, 'ed25519' as const),
      since: fc.integer({ min: NOW - 800 * DAY, max: NOW }),
      publication: fc
        .constantFrom('everywhere' as const, 'partly' as const, 'nowhere' as const, 'unknown' as const)
        .map((state) => publication(state)),
    }),
    { maxLength: 6 },
  );
  fc.assert(
    fc.property(keys, fc.boolean(), (known, now) => {
      for (const step of plan(known, now).steps) {
        if (step.kind !== 'promote') continue;
        const chosen = known.filter(({ selector, role }) => selector === step.selector && role === 'next');
        const underWay = known.some(({ selector, role }) => selector === step.selector && role === 'private');
        expect(underWay || chosen.some(({ publication: { state } }) => state === 'everywhere')).toBe(true);
        expect(step.others).not.toContain(step.selector);
      }
    }),
  );
});

test('names of new keys', () => {
  expect(newSelector('rsa', NOW, new Set())).toBe('20261121-rsa');
  expect(newSelector('rsa', NOW, new Set(['20261121-rsa', '20261121-rsa-2']))).toBe('20261121-rsa-3');
});
