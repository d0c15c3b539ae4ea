import { describe, expect, test } from 'vitest';

import { dnsblCheck, watchedLists } from '../../../src/checks/dnsbl.ts';
import { LISTS_LIMIT } from '../../../src/checks/dnsbl-lists.ts';
import type { ListAnswer, ListHealth } from '../../../src/ports/list-health.ts';
import type { DnsAnswer, RecordType, Resolver } from '../../../src/ports/resolver.ts';
import { parseReversePath } from '../../../src/mail/address.ts';
import type { Client } from '../../../src/mail/envelope.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { client } from '../../support/mail.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';

const BAD = '192.0.2.66';
const DEADLINE_MS = 5000;

/** Notes what it is told; lists in `ill` are not believed. */
class Health implements ListHealth {
  readonly answers: [string, ListAnswer][] = [];
  readonly #ill: readonly string[];

  constructor(...ill: readonly string[]) {
    this.#ill = ill;
  }

  trusted(list: string): boolean {
    return !this.#ill.includes(list);
  }

  noted(list: string, answer: ListAnswer): void {
    this.answers.push([list, answer]);
  }
}

/** A resolver all of whose answers are in memory. */
function remembered(
  zone: Readonly<Record<string, readonly string[]>>,
): Resolver & { readonly asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    cached(name: string, type: RecordType): DnsAnswer {
      const texts = zone[`${type} ${name}`];
      if (texts === undefined || type === 'MX') return { kind: 'nxdomain', ttl: 60 };
      return { kind: 'records', records: texts.map((text) => ({ type, text })), ttl: 60 };
    },
    query(name, type) {
      asked.push(`${type} ${name}`);
      return Promise.reject(new Error('asked for what is in memory'));
    },
  };
}

interface Given {
  readonly options: unknown;
  readonly resolver: Resolver;
  readonly health?: ListHealth;
  readonly client?: Partial<Client>;
  readonly sender?: string;
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

function run(given: Given): readonly Finding[] | Promise<readonly Finding[]> {
  const bound = dnsblCheck.bind(given.options, given.deadlineMs ?? DEADLINE_MS);
  if (bound.stage !== 'mail') throw new Error('another stage');
  return bound.run({
    facts: {
      client: client({ address: BAD, ...given.client }),
      direction: 'in',
      sender: parseReversePath(given.sender ?? '<thor@valhalla.example>'),
    },
    tools: checkTools({ resolver: given.resolver, blockLists: given.health ?? new Health() }),
    prior: new Map(),
    signal: given.signal ?? new AbortController().signal,
  });
}

const A = { name: 'one', zone: 'one.example' };
const B = { name: 'two', zone: 'two.example' };
const WELCOME = { name: 'good', zone: 'good.example', weight: -2 };

function served(entries: Readonly<Record<string, ZoneEntry>>): Zone {
  return new Zone(entries);
}

const IN_ONE = '66.2.0.192.one.example';
const IN_TWO = '66.2.0.192.two.example';
const IN_GOOD = '66.2.0.192.good.example';

describe('dnsbl: the sum of all lists', () => {
  test('without a list nothing is asked, and at once', () => {
    const resolver = served({});
    expect(run({ options: {}, resolver })).toEqual([]);
    expect(resolver.asked).toEqual([]);
  });

  test.each([
    [{}, 'dnsbl.reject', `${BAD} on one (127.0.0.2: 1); 1 point`],
    [{ reject: 2 }, 'dnsbl.listed', `${BAD} on one (127.0.0.2: 1); 1 point`],
    [{ reject: false }, 'dnsbl.listed', `${BAD} on one (127.0.0.2: 1); 1 point`],
    [{ reject: 2, greylist: 1 }, 'dnsbl.greylist', `${BAD} on one (127.0.0.2: 1); 1 point`],
    [{ reject: 2, greylist: 1.001 }, 'dnsbl.listed', `${BAD} on one (127.0.0.2: 1); 1 point`],
  ])('%j: %s', async (thresholds, code, detail) => {
    const options = { ...thresholds, list: [A] };
    const found = await run({ options, resolver: served({ [IN_ONE]: { A: ['127.0.0.2'] } }) });
    expect(found).toEqual([{ code, detail }]);
  });

  test('points of several lists add up, those of welcome lists are taken away', async () => {
    const listed = {
      [IN_ONE]: { A: ['127.0.0.2'] },
      [IN_TWO]: { A: ['127.0.0.2'] },
      [IN_GOOD]: { A: ['127.0.9.1'] },
    };
    const two = { ...B, weight: 1.7 };
    const both = await run({ options: { reject: 2.7, list: [A, two] }, resolver: served(listed) });
    expect(both).toMatchObject([{ code: 'dnsbl.reject' }]);
    const three = await run({ options: { reject: 2.7, list: [A, two, WELCOME] }, resolver: served(listed) });
    expect(three).toEqual([
      {
        code: 'dnsbl.listed',
        detail: `${BAD} on one (127.0.0.2: 1), ${BAD} on two (127.0.0.2: 1.7), ${BAD} on good (127.0.9.1: -2); 0.7 points`,
      },
    ]);
  });

  test.each([
    [-2, [{ code: 'dnsbl.welcome', detail: `${BAD} on good (127.0.9.1: -2); -2 points` }]],
    [-2.5, []],
    [false, []],
  ])('a welcome list alone, with welcome at %s', async (welcome, expected) => {
    const options = { welcome, list: [WELCOME] };
    expect(await run({ options, resolver: served({ [IN_GOOD]: { A: ['127.0.9.1'] } }) })).toEqual(expected);
  });

  test('a client that is on no list', async () => {
    const health = new Health();
    expect(await run({ options: { list: [A, B] }, resolver: served({}), health })).toEqual([]);
    expect(health.answers).toEqual([
      ['one', 'unlisted'],
      ['two', 'unlisted'],
    ]);
  });
});

describe('dnsbl: answers', () => {
  const codes = ['127.0.0.2-3 5', '127.0.0.4'];

  test.each([
    [['127.0.0.4'], 'dnsbl.listed', 1],
    [['127.0.0.3'], 'dnsbl.reject', 5],
    [['127.0.0.4', '127.0.0.3'], 'dnsbl.reject', 5],
    [['127.0.0.4', '127.0.0.4', '127.0.0.4', '127.0.0.4', '127.0.0.4'], 'dnsbl.listed', 1],
  ])('%j', async (answers, code, points) => {
    const options = { reject: 5, list: [{ ...A, codes }] };
    const [found] = await run({ options, resolver: served({ [IN_ONE]: { A: answers } }) });
    expect(found?.code).toBe(code);
    expect(found?.detail).toContain(`; ${points} point`);
  });

  test('one that is not among the codes is not counted', async () => {
    const health = new Health();
    const options = { list: [{ ...A, codes }] };
    expect(await run({ options, resolver: served({ [IN_ONE]: { A: ['127.0.0.9'] } }), health })).toEqual([]);
    expect(health.answers).toEqual([['one', 'uncounted']]);
  });

  test.each([
    ['127.255.255.254', 'blocked', 'one does not serve our name server (127.255.255.254)'],
    ['127.0.0.1', 'blocked', 'one does not serve our name server (127.0.0.1)'],
    ['127.0.0.255', 'blocked', 'one does not serve our name server (127.0.0.255)'],
    ['203.0.113.7', 'broken', 'one answers 203.0.113.7'],
  ])('%s never counts as being listed, not even beside a listing', async (answer, result, detail) => {
    const health = new Health();
    const resolver = served({ [IN_ONE]: { A: ['127.0.0.2', answer] } });
    const found = await run({ options: { list: [A] }, resolver, health });
    expect(found).toEqual([{ code: 'dnsbl.unavailable-list', detail }]);
    expect(health.answers).toEqual([['one', result]]);
  });

  test('one list that fails does not silence the others', async () => {
    const health = new Health();
    const resolver = served({ [IN_ONE]: 'servfail', [IN_TWO]: { A: ['127.0.0.2'] } });
    const found = await run({ options: { list: [A, B] }, resolver, health });
    expect(found).toEqual([
      { code: 'dnsbl.reject', detail: `${BAD} on two (127.0.0.2: 1); 1 point` },
      { code: 'dnsbl.unavailable-list', detail: `one ${IN_ONE}: servfail` },
    ]);
    expect(health.answers).toContainEqual(['one', 'failed']);
  });

  test('one that is silent costs no more than the deadline, and the others count', async () => {
    const health = new Health();
    const resolver = served({ [IN_ONE]: 'never', [IN_TWO]: { A: ['127.0.0.2'] } });
    const found = await run({ options: { list: [A, B] }, resolver, health, deadlineMs: 200 });
    expect(found).toEqual([
      { code: 'dnsbl.reject', detail: `${BAD} on two (127.0.0.2: 1); 1 point` },
      { code: 'dnsbl.unavailable-list', detail: 'one did not answer in time' },
    ]);
    expect(health.answers).toContainEqual(['one', 'timeout']);
  });

  test('a list that is not in order is not asked', async () => {
    const health = new Health('one');
    const resolver = served({ [IN_ONE]: { A: ['127.0.0.2'] } });
    const found = await run({ options: { list: [A] }, resolver, health });
    expect(found).toEqual([{ code: 'dnsbl.unavailable-list', detail: 'one is not in order' }]);
    expect(resolver.asked).toEqual([]);
    expect(health.answers).toEqual([['one', 'skipped']]);
  });

  test('a message that is given up has no findings', async () => {
    const gone = new AbortController();
    const found = run({
      options: { list: [A] },
      resolver: served({ [IN_ONE]: 'never' }),
      signal: gone.signal,
    });
    gone.abort(new Error('gone'));
    await expect(found).rejects.toThrow('gone');
  });
});

describe('dnsbl: subjects', () => {
  const list = { ...A, subjects: ['helo', 'sender', 'ptr'] };

  test('each name is asked for once, and the list counts once', async () => {
    const resolver = served({ 'bad.example.one.example': { A: ['127.0.1.2'] } });
    const found = await run({
      options: { reject: 2, list: [list] },
      resolver,
      client: { helo: 'bad.example', name: 'bad.example' },
      sender: '<user@BAD.example>',
    });
    expect(resolver.asked).toEqual(['A bad.example.one.example']);
    expect(found).toEqual([{ code: 'dnsbl.listed', detail: 'bad.example on one (127.0.1.2: 1); 1 point' }]);
  });

  test('several names on one list: the weightiest counts', async () => {
    const weighed = { ...list, codes: ['127.0.1.2 0.5', '127.0.1.3 3'] };
    const resolver = served({
      'a.example.one.example': { A: ['127.0.1.2'] },
      'b.example.one.example': { A: ['127.0.1.3'] },
    });
    const found = await run({
      options: { list: [weighed] },
      resolver,
      client: { helo: 'a.example', name: null },
      sender: '<u@b.example>',
    });
    expect(found).toEqual([{ code: 'dnsbl.reject', detail: 'b.example on one (127.0.1.3: 3); 3 points' }]);
  });

  test('nothing to ask about: at once, and nothing', () => {
    const resolver = served({});
    const found = run({
      options: { list: [list] },
      resolver,
      client: { helo: '[192.0.2.66]', name: null },
      sender: '<>',
    });
    expect(found).toEqual([]);
    expect(resolver.asked).toEqual([]);
  });
});

describe('dnsbl: what is in memory', () => {
  test('is answered without a promise', () => {
    const resolver = remembered({ [`A ${IN_ONE}`]: ['127.0.0.2'] });
    expect(run({ options: { list: [A, B] }, resolver })).toMatchObject([{ code: 'dnsbl.reject' }]);
    expect(resolver.asked).toEqual([]);
  });
});

describe('dnsbl: reasons', () => {
  const reason = 'see https://one.example/192.0.2.66';

  test('of the lists that list it, for the record and the refusal', async () => {
    const resolver = served({ [IN_ONE]: { A: ['127.0.0.2'], TXT: [reason, 'another'] } });
    const found = await run({ options: { reasons: true, list: [A, B] }, resolver });
    expect(found).toEqual([
      {
        code: 'dnsbl.reject',
        detail: `${BAD} on one (127.0.0.2: 1, "${reason}"); 1 point`,
        explanation: { by: 'one.example', text: reason },
      },
    ]);
    expect(resolver.asked).toEqual([`A ${IN_ONE}`, `A ${IN_TWO}`, `TXT ${IN_ONE}`]);
  });

  test('are not asked for where nobody wants them', async () => {
    const resolver = served({ [IN_ONE]: { A: ['127.0.0.2'], TXT: [reason] } });
    const [found] = await run({ options: { list: [A] }, resolver });
    expect(found?.detail).toBe(`${BAD} on one (127.0.0.2: 1); 1 point`);
    expect(resolver.asked).toEqual([`A ${IN_ONE}`]);
  });

  test('are printable and short', async () => {
    const resolver = served({ [IN_ONE]: { A: ['127.0.0.2'], TXT: [`\r\nEvil: ${'x'.repeat(1000)}`] } });
    const [found] = await run({ options: { reasons: true, list: [A] }, resolver });
    expect(found?.explanation?.text).toMatch(/^\?\?Evil: x+\.\.\.$/);
    expect(found?.explanation?.text).toHaveLength(200);
  });
});

function problems(...list: readonly unknown[]): string[] {
  try {
    dnsblCheck.bind({ list }, DEADLINE_MS);
    return [];
  } catch (error) {
    return error instanceof Error ? [error.message] : ['?'];
  }
}

describe('dnsbl: configuration', () => {
  test.each([
    [[A, { ...B, name: 'one' }], 'a name of its own'],
    [[{ ...A, subjects: ['client', 'sender'] }], 'either addresses or domains'],
    [[{ ...A, subjects: [] }], 'subjects'],
    [[{ ...A, codes: ['127.0.0'] }], 'expected an answer such as'],
    [[{ ...A, blocked: ['1.2.3.4'] }], 'expected an answer such as'],
    [[{ ...A, zone: 'a b' }], 'expected the domain of a list'],
    [[{ ...A, name: 'a b' }], 'expected a short name'],
    [[{ ...A, weight: 1001 }], 'weight'],
  ])('%j', (list, problem) => {
    expect(problems(...list).join()).toContain(problem);
  });

  test(`${LISTS_LIMIT} lists, and one more`, () => {
    const lists = Array.from({ length: LISTS_LIMIT + 1 }, (_, index) => ({ ...A, name: `list-${index}` }));
    expect(problems(...lists.slice(1))).toEqual([]);
    expect(problems(...lists)).toHaveLength(1);
  });

  test('what is watched: the lists of a table that the schema has read, when the check is made', () => {
    const table = {
      enabled: true,
      deadline: 4000,
      reject: 1,
      list: [
        A,
        { ...B, subjects: ['sender'] },
        { ...WELCOME, subjects: ['client-ipv6'] },
        { name: 'none', zone: 'n.example', probe: false },
      ],
    };
    expect(
      watchedLists(table).map(({ name, probes }) => [
        name,
        probes.map(({ name: asked, listed }) => `${listed} ${asked}`),
      ]),
    ).toEqual([
      [
        'one',
        [
          'true 2.0.0.127.one.example',
          'false 1.0.0.127.one.example',
          'false 1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.one.example',
        ],
      ],
      ['two', ['true test.two.example', 'false invalid.two.example']],
      [
        'good',
        [
          'true 2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.good.example',
          'false 1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.good.example',
        ],
      ],
      ['none', []],
    ]);
    expect(watchedLists({ ...table, enabled: false })).toEqual([]);
    expect(watchedLists(undefined)).toEqual([]);
  });
});
