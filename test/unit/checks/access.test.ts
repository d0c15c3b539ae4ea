import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { accessCheck, SLOW_LIMIT } from '../../../src/checks/access.ts';
import { checkTools } from '../../support/checks.ts';
import { codesAtOnce, HOSTILE, rcptFacts, runCheck, type Case } from './policy-facts.ts';

type Entry = Readonly<Record<string, unknown>>;

function verdict(entries: readonly Entry[], values: Case = {}): string[] {
  return codesAtOnce(accessCheck, { ...values, options: { entry: entries } });
}

function refusal(entries: readonly unknown[]): { path: PropertyKey[]; message: string }[] {
  const result = z.strictObject(accessCheck.options).safeParse({ entry: entries });
  return result.success ? [] : result.error.issues.map(({ path, message }) => ({ path, message }));
}

describe('one kind', () => {
  test.for<[string, Entry, Case]>([
    ['the address', { client: ['192.0.2.20'] }, {}],
    ['a network', { client: ['192.0.2.0/24'] }, {}],
    ['IPv4 within IPv6', { client: ['192.0.2.0/24'] }, { client: { address: '::ffff:192.0.2.20' } }],
    ['an IPv6 network', { client: ['2001:db8::/32'] }, { client: { address: '2001:DB8:1::9' } }],
    ['the verified name', { client_name: ['*.valhalla.example'] }, {}],
    ['upper case', { client_name: ['*.VALHALLA.example'] }, { client: { name: 'ODIN.Valhalla.Example' } }],
    [
      'a name with a dot at its end',
      { client_name: ['odin.valhalla.example'] },
      { client: { name: 'odin.valhalla.example.' } },
    ],
    ['HELO', { helo: ['odin.*'] }, {}],
    ['the sender', { sender: ['odin@valhalla.example'] }, { sender: 'Odin@Valhalla.example' }],
    [
      'the sender with an extension',
      { sender: ['odin@valhalla.example'] },
      { sender: 'odin+raven@valhalla.example' },
    ],
    ['the domain of the sender', { sender: ['@valhalla.example'] }, {}],
    ['a domain below', { sender: ['@*.example'] }, {}],
    ['a pattern', { sender: ['o*n@valh*'] }, {}],
    ['a bounce', { sender: ['<>'] }, { sender: '' }],
    ['the login', { login: ['zeus@*'] }, { client: { login: 'Zeus@olimpus.example' }, direction: 'out' }],
    ['the recipient', { recipients: ['zeus@olimpus.example'] }, { recipient: 'Zeus+folder@olimpus.example' }],
    ['the domain of the recipient', { recipients: ['@olimpus.example'] }, {}],
  ])('%s', ([, entry, values]) => {
    expect(verdict([{ action: 'deny', ...entry }], values)).toEqual(['access.deny']);
    expect(verdict([{ action: 'allow', ...entry }], values)).toEqual(['access.allow']);
  });

  test.for<[string, Entry, Case]>([
    ['another address', { client: ['192.0.2.21'] }, {}],
    ['no address', { client: ['0.0.0.0/0', '::/0'] }, { client: { address: '' } }],
    ['the domain itself is not below itself', { client_name: ['*.odin.valhalla.example'] }, {}],
    ['no name', { client_name: ['*'] }, { client: { name: null, reverseName: null } }],
    ['no HELO', { helo: ['*'] }, { client: { helo: null } }],
    ['another sender', { sender: ['odin@valhalla.example'] }, { sender: 'loki@valhalla.example' }],
    ['a bounce is from no domain', { sender: ['@valhalla.example', '@*'] }, { sender: '' }],
    ['no login', { login: ['*'] }, {}],
    ['another recipient', { recipients: ['hera@olimpus.example', '@asgard.example'] }, {}],
  ])('not %s', ([, entry, values]) => {
    expect(verdict([{ action: 'deny', ...entry }], values)).toEqual([]);
  });
});

test('a name that does not lead back denies, and does not allow', () => {
  const values = { client: { name: null, reverseName: 'odin.valhalla.example' } };
  const names = { client_name: ['*.valhalla.example'] };
  expect(verdict([{ action: 'deny', ...names }], values)).toEqual(['access.deny']);
  expect(verdict([{ action: 'allow', ...names }], values)).toEqual([]);
  // Not even when another condition leads to the entry.
  expect(verdict([{ action: 'allow', client: ['192.0.2.0/24'], ...names }], values)).toEqual([]);
});

test('conditions of several kinds all have to hold', () => {
  const entry = {
    action: 'allow',
    sender: ['@valhalla.example'],
    client: ['192.0.2.0/24'],
    recipients: ['@olimpus.example'],
  };
  expect(verdict([entry])).toEqual(['access.allow']);
  expect(verdict([entry], { client: { address: '198.51.100.1' } })).toEqual([]);
  expect(verdict([entry], { sender: 'odin@midgard.example' })).toEqual([]);
  expect(verdict([entry], { recipient: 'thor@asgard.example' })).toEqual([]);
});

test('the first entry that matches counts, however it is found', () => {
  const deny = { action: 'deny', client: ['192.0.2.0/24'] };
  const allow = { action: 'allow', sender: ['@valhalla.example'] };
  expect(verdict([deny, allow])).toEqual(['access.deny']);
  expect(verdict([allow, deny])).toEqual(['access.allow']);
  const other = { action: 'deny', client: ['192.0.2.20'], recipients: ['hera@olimpus.example'] };
  expect(verdict([other, allow, deny])).toEqual(['access.allow']);
});

test('an entry in shadow is told of, and the list goes on below it', () => {
  const shadow = { action: 'deny', name: 'trial', shadow: true, client: ['192.0.2.0/24'] };
  const allow = { action: 'allow', name: 'friends', helo: ['odin.valhalla.example'] };
  expect(verdict([shadow, allow, { action: 'deny', sender: ['@*'] }])).toEqual([
    'access.trial',
    'access.friends',
  ]);
});

test('names give codes, with action, words and shadow', () => {
  const bound = accessCheck.bind(
    {
      entry: [
        { action: 'deny', name: 'old-partner', text: 'Write to sales', sender: ['@a.example'] },
        { action: 'deny', name: 'trial', shadow: true, sender: ['@b.example'] },
        { action: 'allow', name: 'friends', sender: ['@c.example'] },
        { action: 'deny', sender: ['@d.example'] },
      ],
    },
    1000,
  );
  expect(Object.keys(bound.codes).toSorted()).toEqual([
    'access.allow',
    'access.deny',
    'access.friends',
    'access.old-partner',
    'access.trial',
  ]);
  expect(bound.codes).toMatchObject({
    'access.old-partner': { action: 'reject', text: 'Write to sales' },
    'access.trial': { action: 'reject', shadow: true },
    'access.friends': { action: 'allow' },
  });
});

test('the detail names what was compared', async () => {
  const options = {
    entry: [{ action: 'deny', client: ['192.0.2.0/24'], sender: ['@*.example', '@valhalla.example'] }],
  };
  expect(await runCheck(accessCheck, { options })).toEqual([
    { code: 'access.deny', detail: 'denied: client 192.0.2.20, sender odin@valhalla.example' },
  ]);
});

test("the site's recipient delimiter", () => {
  const entry = { action: 'deny', recipients: ['zeus@olimpus.example'] };
  const values = { recipient: 'zeus-folder@olimpus.example' };
  expect(verdict([entry], { ...values, tools: { delimiter: '-' } })).toEqual(['access.deny']);
  expect(verdict([entry], values)).toEqual([]);
});

function withPatterns(count: number): Entry {
  return { action: 'deny', sender: Array.from({ length: count }, (_, index) => `a${index}*@b.example`) };
}

function some<T>(values: readonly T[]): fc.Arbitrary<T[]> {
  return fc.subarray([...values], { maxLength: 2 });
}

describe('mistakes are named at their place', () => {
  test.for<[string, unknown, PropertyKey[]]>([
    ['nothing to compare', { action: 'deny' }, ['entry', 0, 'action']],
    ['a network', { action: 'deny', client: ['192.0.2.0/33'] }, ['entry', 0, 'client', 0]],
    ['a name with a space', { action: 'deny', client_name: ['a b'] }, ['entry', 0, 'client_name', 0]],
    ['a name that is not ASCII', { action: 'deny', helo: ['é'] }, ['entry', 0, 'helo', 0]],
    ['a sender without @', { action: 'deny', sender: ['zeus'] }, ['entry', 0, 'sender', 0]],
    ['a recipient with *', { action: 'deny', recipients: ['*@a.example'] }, ['entry', 0, 'recipients', 0]],
    ['another action', { action: 'reject', client: ['192.0.2.1'] }, ['entry', 0, 'action']],
    ['text without a name', { action: 'deny', client: ['192.0.2.1'], text: 'no' }, ['entry', 0, 'text']],
    [
      'shadow without a name',
      { action: 'deny', client: ['192.0.2.1'], shadow: true },
      ['entry', 0, 'shadow'],
    ],
    [
      'text of two lines',
      { action: 'deny', name: 'x', client: ['192.0.2.1'], text: 'a\nb' },
      ['entry', 0, 'text'],
    ],
    ['a reserved name', { action: 'deny', name: 'allow', client: ['192.0.2.1'] }, ['entry', 0, 'name']],
  ])('%s', ([, entry, path]) => {
    expect(refusal([entry]).map((issue) => issue.path)).toEqual([path]);
  });

  test('one name for two things', () => {
    const first = { action: 'deny', name: 'x', client: ['192.0.2.1'] };
    const second = { action: 'allow', name: 'x', client: ['192.0.2.2'] };
    expect(refusal([first, second]).map(({ path }) => path)).toEqual([['entry', 1, 'action']]);
    expect(refusal([first, { ...second, action: 'deny' }])).toEqual([]);
  });

  test('as many patterns as are tried one by one, and one more', () => {
    expect(refusal([withPatterns(SLOW_LIMIT)])).toEqual([]);
    expect(refusal([withPatterns(SLOW_LIMIT + 1)]).map(({ path }) => path)).toEqual([['entry']]);
  });
});

test.for(HOSTILE)('whatever a client says is compared and no more: %j', (text) => {
  const entries = [
    { action: 'deny', sender: ['odin*@*.nowhere.example', '<>'] },
    { action: 'deny', helo: ['*.nowhere.example'], client_name: ['nowhere.example'] },
    { action: 'deny', client: ['203.0.113.0/24'] },
    { action: 'deny', login: ['nobody'] },
    { action: 'deny', recipients: ['nobody@nowhere.example'] },
  ];
  const client = { address: text, name: text, reverseName: text, helo: text, login: text };
  const codes = verdict(entries, { client, sender: `${text}@${text}`, recipient: `${text}@${text}` });
  expect(codes).toEqual([]);
});

test('finds what comparing each entry in turn finds', () => {
  const entry = fc.record({
    action: fc.constantFrom('allow', 'deny'),
    client: some(['192.0.2.0/24', '192.0.2.20', '198.51.100.0/24']),
    sender: some(
      ['@valhalla.example', 'odin@valhalla.example', '@*.example', 'o*', '@asgard.example'].filter(
        (value) => value.includes('@') || value.includes('*'),
      ),
    ),
    helo: some(['odin.valhalla.example', '*.valhalla.example', 'thor*']),
    recipients: some(['@olimpus.example', 'zeus@olimpus.example', 'hera@olimpus.example']),
  });
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 8 }), (entries) => {
      const usable = entries.filter(({ client, sender, helo, recipients }) =>
        [client, sender, helo, recipients].some((list) => list.length > 0),
      );
      const alone = usable.map((one) => verdict([one])[0]);
      const expected = alone.find((code) => code !== undefined);
      expect(verdict(usable)).toEqual(expected === undefined ? [] : [expected]);
    }),
  );
});

/** Milliseconds for ten thousand recipients, of whom no entry says anything. */
function timeOf(entries: readonly Entry[]): number {
  const bound = accessCheck.bind({ entry: entries }, 1000);
  if (bound.stage !== 'rcpt') throw new Error('made per recipient');
  const context = {
    tools: checkTools(),
    prior: new Map<string, never>(),
    signal: new AbortController().signal,
  };
  const begun = performance.now();
  for (let round = 0; round < 10_000; round++) {
    const facts = rcptFacts({ sender: `user${round}@domain${round % 500}.example` });
    void bound.run({ ...context, facts });
  }
  return performance.now() - begun;
}

function clients(count: number): Entry[] {
  return Array.from({ length: count }, (_, index) => ({
    action: 'deny',
    client: [`10.${index >> 8}.${index & 255}.0/24`],
  }));
}

function senders(count: number): Entry[] {
  return Array.from({ length: count }, (_, index) => ({
    action: 'deny',
    sender: [`user${index}@domain${index % 500}.example`],
    recipients: [`rcpt${index}@olimpus.example`],
  }));
}

test('a long list costs no more than a short one', () => {
  const long = [...clients(10_000), ...senders(10_000)];
  expect(verdict(long, { client: { address: '10.39.15.9' } })).toEqual(['access.deny']);
  const late = { sender: 'user9999@domain499.example', recipient: 'rcpt9999@olimpus.example' };
  expect(verdict(long, late)).toEqual(['access.deny']);
  expect(verdict(long, { ...late, recipient: 'rcpt1@olimpus.example' })).toEqual([]);
  // Ten thousand times as many entries; looked at one by one they would take some thousand times as long.
  expect(timeOf(long)).toBeLessThan(100 * timeOf([...clients(1), ...senders(1)]));
});
