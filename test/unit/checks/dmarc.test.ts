import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import type { CheckDefinition } from '../../../src/checks/check.ts';
import { arcCheck } from '../../../src/checks/arc.ts';
import { dkimCheck } from '../../../src/checks/dkim.ts';
import { dmarcCheck } from '../../../src/checks/dmarc.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import { spfCheck } from '../../../src/checks/spf.ts';
import type {
  ArcHop,
  ArcResult,
  DkimResultWord,
  DmarcPolicy,
  DmarcQuery,
  DmarcResult,
  MailAuth,
  SpfResultWord,
} from '../../../src/ports/mail-auth.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { client, envelope } from '../../support/mail.ts';
import { Zone } from '../../support/zone.ts';
import { CLOCK, known, messageFacts, outcomes, toolsWith } from './auth-facts.ts';

const NO_CHAIN: ArcResult = { result: 'none', detail: '', hops: [], oldestPass: null };

interface World {
  readonly spf?: SpfResultWord | 'unavailable';
  readonly helo?: SpfResultWord;
  readonly dkim?: readonly (readonly [domain: string, result: DkimResultWord])[] | 'unavailable';
  /** What DMARC says; `aligned`: pass when example.com is among the domains, else fail with p=reject. */
  readonly dmarc?: DmarcResult | 'aligned';
  readonly sender?: string;
  /** What the chain comes to, and whose word is taken. */
  readonly arc?: ArcResult;
  readonly trusted?: readonly string[];
  readonly checks?: readonly CheckDefinition[];
}

function dmarcResult(
  result: DmarcResult['result'],
  policy: DmarcPolicy = 'none',
  domain = 'example.com',
): DmarcResult {
  return { result, policy, domain, detail: `it is ${result}` };
}

function auth(world: World, asked: DmarcQuery[]): MailAuth {
  const { spf = 'none', helo = 'none', dkim = [], dmarc = 'aligned' } = world;
  return {
    spf: ({ identity }) => {
      if (spf === 'unavailable') return Promise.reject(new Error('broken'));
      const result = identity === 'helo' ? helo : spf;
      return Promise.resolve({ result, domain: 'x', detail: '', explanation: null });
    },
    dkim: () => {
      if (dkim === 'unavailable') throw new Error('broken');
      return known(
        dkim.map(([domain, result]) => ({
          result,
          domain,
          selector: 's',
          detail: '',
          auth: { method: 'dkim', result, properties: [['header.d', domain]] },
        })),
      );
    },
    arc: () => known(world.arc ?? NO_CHAIN),
    dmarc: (query) => {
      asked.push(query);
      if (dmarc !== 'aligned') return Promise.resolve(dmarc);
      const passes = [...query.spfDomains, ...query.dkimDomains].includes('example.com');
      return Promise.resolve(passes ? dmarcResult('pass', 'reject') : dmarcResult('fail', 'reject'));
    },
  };
}

async function made(world: World, asked: DmarcQuery[] = []): Promise<Outcome> {
  const checks = world.checks ?? [spfCheck, dkimCheck, dmarcCheck];
  const facts = messageFacts({
    envelope: envelope({
      client: client({ helo: 'example.com' }),
      sender: world.sender ?? '<a@example.com>',
    }),
    headers: 'From: a@example.com\r\n',
  });
  const arc = arcCheck.bind({ trusted_sealers: world.trusted ?? [] }, 5000);
  const bound = checks.flatMap((check) => [...(check === dmarcCheck ? [arc] : []), check.bind({}, 5000)]);
  const run = new CheckRun(bound, toolsWith(auth(world, asked)), facts.direction);
  run.startMail(facts);
  run.startMessage(facts);
  const all = await run.settle();
  const own = all.find(({ check }) => check === 'dmarc');
  if (own === undefined) throw new Error('there is no outcome');
  return own;
}

/** The code found, or why there is none. */
async function verdict(world: World): Promise<string> {
  const own = await made(world);
  return own.kind === 'found' ? own.findings.map(({ code }) => code).join() : `${own.reason}: ${own.detail}`;
}

/** What Authentication-Results says when DMARC came to that. */
async function reported(dmarc: DmarcResult): Promise<unknown> {
  const own = await made({ dmarc });
  return own.kind === 'found' ? own.findings[0]?.auth : own;
}

describe('what DMARC is told', () => {
  test.each<readonly [string, World, Pick<DmarcQuery, 'spfDomains' | 'dkimDomains'>]>([
    ['SPF of the sender', { spf: 'pass' }, { spfDomains: ['example.com'], dkimDomains: [] }],
    [
      'the domain of a quoted sender in upper case',
      { spf: 'pass', sender: '<"a@b"@EXAMPLE.com>' },
      { spfDomains: ['example.com'], dkimDomains: [] },
    ],
    [
      'SPF of HELO, for the null path',
      { spf: 'pass', sender: '<>' },
      { spfDomains: ['example.com'], dkimDomains: [] },
    ],
    [
      'not SPF of HELO beside a sender',
      { helo: 'pass', spf: 'neutral' },
      { spfDomains: [], dkimDomains: [] },
    ],
    ['no softfail', { spf: 'softfail' }, { spfDomains: [], dkimDomains: [] }],
    [
      'the signatures that passed',
      {
        dkim: [
          ['a.example', 'pass'],
          ['b.example', 'fail'],
          ['c.example', 'policy'],
          ['d.example', 'pass'],
          ['e.example', 'neutral'],
        ],
      },
      { spfDomains: [], dkimDomains: ['a.example', 'd.example'] },
    ],
  ])('%s', async (_, world, expected) => {
    const asked: DmarcQuery[] = [];
    await made({ ...world, dmarc: dmarcResult('none') }, asked);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject(expected);
  });
});

describe('what is found', () => {
  test.each<readonly [DmarcResult, string, string]>([
    [dmarcResult('pass', 'reject'), 'dmarc.pass', 'ignore'],
    [dmarcResult('none'), 'dmarc.none', 'ignore'],
    [dmarcResult('fail', 'none'), 'dmarc.fail', 'ignore'],
    [dmarcResult('fail', 'quarantine'), 'dmarc.fail-quarantine', 'junk'],
    [dmarcResult('fail', 'reject'), 'dmarc.fail-reject', 'junk'],
    [dmarcResult('temperror'), 'dmarc.temperror', 'ignore'],
    [dmarcResult('permerror', 'none', ''), 'dmarc.permerror', 'ignore'],
  ])('%o: %s, %s', async (dmarc, code, action) => {
    expect(await verdict({ dmarc })).toBe(code);
    expect(dmarcCheck.codes[code]?.action).toBe(action);
  });

  test('for Authentication-Results: the author domain, and the policy as evaluated', async () => {
    expect(await reported(dmarcResult('fail', 'quarantine'))).toEqual({
      method: 'dmarc',
      result: 'fail',
      properties: [
        ['header.from', 'example.com'],
        ['policy.dmarc', 'quarantine'],
      ],
    });
    expect(await reported(dmarcResult('none'))).toEqual({
      method: 'dmarc',
      result: 'none',
      properties: [['header.from', 'example.com']],
    });
    expect(await reported(dmarcResult('permerror', 'none', ''))).toMatchObject({ properties: [] });
  });
});

describe('what it rests on is not complete', () => {
  test.each<readonly [string, World, string]>([
    ['SPF unavailable, DKIM aligned', { spf: 'unavailable', dkim: [['example.com', 'pass']] }, 'dmarc.pass'],
    [
      'SPF unavailable, DKIM not aligned',
      { spf: 'unavailable', dkim: [['other.example', 'pass']] },
      'needs: spf could not be checked (failed), and nothing else passes for example.com',
    ],
    ['DKIM unavailable, SPF aligned', { spf: 'pass', dkim: 'unavailable' }, 'dmarc.pass'],
    [
      'DKIM unavailable, SPF not',
      { spf: 'fail', dkim: 'unavailable' },
      'needs: dkim could not be checked (failed), and nothing else passes for example.com',
    ],
    [
      'nothing is needed when there is no policy',
      { spf: 'unavailable', dkim: 'unavailable', dmarc: dmarcResult('none') },
      'dmarc.none',
    ],
    [
      'nor when there is no author domain',
      { spf: 'unavailable', dmarc: dmarcResult('permerror') },
      'dmarc.permerror',
    ],
    ['SPF switched off: DKIM alone counts', { checks: [dkimCheck, dmarcCheck] }, 'dmarc.fail-reject'],
    ['SPF temperror for an aligned domain', { spf: 'temperror' }, 'dmarc.temperror'],
    [
      'SPF temperror for another domain',
      { spf: 'temperror', sender: '<a@other.example>' },
      'dmarc.fail-reject',
    ],
    ['SPF temperror, DKIM aligned', { spf: 'temperror', dkim: [['example.com', 'pass']] }, 'dmarc.pass'],
    ['DKIM temperror for an aligned domain', { dkim: [['example.com', 'temperror']] }, 'dmarc.temperror'],
    [
      'DKIM temperror for another domain: anyone can add that',
      { dkim: [['evil.example', 'temperror']] },
      'dmarc.fail-reject',
    ],
    ['SPF permerror is a failure', { spf: 'permerror' }, 'dmarc.fail-reject'],
  ])('%s: %s', async (_, world, expected) => {
    expect(await verdict(world)).toBe(expected);
  });

  test('a name server that is silent makes a temperror, not an outcome that is unavailable', async () => {
    const zone = new Zone({ '_dmarc.example.com': 'never' });
    const tools = toolsWith(createMailAuth(zone, { hostname: 'mx.example', clock: CLOCK }));
    const facts = messageFacts({ headers: 'From: a@example.com\r\n' });
    const [own] = await outcomes([dmarcCheck], { facts, tools, deadlineMs: 500 });
    expect(own).toMatchObject({ kind: 'found', findings: [{ code: 'dmarc.temperror' }] });
  });
});

/** A chain with these sets, the newest first: who sealed, and what he recorded. */
function chain(...hops: readonly (readonly [sealer: string, results: string, signer?: string])[]): ArcResult {
  const listed = hops.map(([sealer, results, signer = sealer], index): ArcHop => {
    const instance = hops.length - index;
    return { instance, sealer, signer, results: ` i=${instance}; ${sealer}; ${results}` };
  });
  return { result: 'pass', detail: 'sealed', hops: listed, oldestPass: 0 };
}

const REFUSED = 'dmarc.fail-reject,dmarc.both-fail';
const PASSED = 'dmarc=pass header.from=example.com';
const TRUSTED = { spf: 'fail', trusted: ['lists.example', 'big.example'] } as const;

describe('a trusted sealer says that it passed', () => {
  test.each<readonly [string, World, string]>([
    ['the only one', { arc: chain(['lists.example', PASSED]) }, 'dmarc.override'],
    [
      'the one before a trusted one',
      { arc: chain(['big.example', 'arc=pass'], ['lists.example', PASSED]) },
      'dmarc.override',
    ],
    ['by DKIM alone', { arc: chain(['lists.example', 'dkim=pass header.d=example.com']) }, 'dmarc.override'],
    [
      'by DKIM, told by i=',
      { arc: chain(['lists.example', 'dkim=pass header.i=@example.com']) },
      'dmarc.override',
    ],
    [
      'by SPF alone',
      { arc: chain(['lists.example', 'spf=pass smtp.mailfrom=a@example.com']) },
      'dmarc.override',
    ],
    [
      'it has no policy',
      { arc: chain(['lists.example', PASSED]), dmarc: dmarcResult('fail') },
      'dmarc.override',
    ],
    [
      'though its policy is quarantine',
      { arc: chain(['lists.example', PASSED]), dmarc: dmarcResult('fail', 'quarantine') },
      'dmarc.override',
    ],
    ['it passes without him', { spf: 'pass', arc: chain(['lists.example', PASSED]) }, 'dmarc.pass'],
    ['nobody is trusted', { trusted: [], arc: chain(['lists.example', PASSED]) }, REFUSED],
    [
      'another sealed after him',
      { arc: chain(['evil.example', 'arc=pass'], ['lists.example', PASSED]) },
      REFUSED,
    ],
    [
      'another signed the message for him',
      { arc: chain(['lists.example', PASSED, 'evil.example']) },
      REFUSED,
    ],
    ['a subdomain of his', { arc: chain(['a.lists.example', PASSED]) }, REFUSED],
    ['of another author', { arc: chain(['lists.example', 'dmarc=pass header.from=evil.example']) }, REFUSED],
    ['of nobody', { arc: chain(['lists.example', 'dmarc=pass']) }, REFUSED],
    ['that it failed', { arc: chain(['lists.example', 'dmarc=fail header.from=example.com']) }, REFUSED],
    [
      'that another domain signed it',
      { arc: chain(['lists.example', 'dkim=pass header.d=evil.example']) },
      REFUSED,
    ],
    ['in a comment', { arc: chain(['lists.example', `spf=fail (; ${PASSED})`]) }, REFUSED],
    ['in quotes', { arc: chain(['lists.example', `spf=fail smtp.helo="; ${PASSED}"`]) }, REFUSED],
    ['by no grammar', { arc: chain(['lists.example', `spf; ${PASSED}`]) }, REFUSED],
    ['in a chain that is broken', { arc: { ...chain(['lists.example', PASSED]), result: 'fail' } }, REFUSED],
    [
      'in a chain whose key is not there just now',
      { arc: { ...chain(['lists.example', PASSED]), result: 'temperror' } },
      'dmarc.temperror',
    ],
    [
      'nothing, in such a chain',
      { arc: { ...chain(['lists.example', 'none']), result: 'temperror' } },
      REFUSED,
    ],
  ])('%s: %s', async (_, world, expected) => {
    expect(await verdict({ ...TRUSTED, ...world })).toBe(expected);
  });

  test('it is recorded with his name', async () => {
    const own = await made({
      ...TRUSTED,
      arc: chain(['big.example', 'arc=pass'], ['lists.example', PASSED]),
    });
    expect(own).toMatchObject({
      findings: [
        {
          code: 'dmarc.override',
          detail: 'it is fail; but it passed for lists.example, which is trusted (ARC i=1)',
          auth: {
            method: 'dmarc',
            result: 'fail',
            comment: 'overridden: arc=pass, sealed by lists.example (i=1)',
          },
        },
      ],
    });
  });
});

describe('both fail', () => {
  test.each<readonly [string, World, string]>([
    ['SPF, and no signature', { spf: 'fail', dmarc: dmarcResult('none') }, 'dmarc.none,dmarc.both-fail'],
    [
      'SPF, and a broken signature',
      { spf: 'fail', dkim: [['a.example', 'fail']] },
      'dmarc.fail-reject,dmarc.both-fail',
    ],
    ['SPF softly', { spf: 'softfail', dmarc: dmarcResult('none') }, 'dmarc.none'],
    [
      'SPF, and another domain signed',
      { spf: 'fail', dkim: [['a.example', 'pass']], dmarc: dmarcResult('none') },
      'dmarc.none',
    ],
    [
      'SPF, and a key is not there just now',
      { spf: 'fail', dkim: [['a.example', 'temperror']], dmarc: dmarcResult('none') },
      'dmarc.none',
    ],
    [
      'SPF, and DKIM is not checked',
      { spf: 'fail', checks: [spfCheck, dmarcCheck], dmarc: dmarcResult('none') },
      'dmarc.none',
    ],
  ])('%s: %s', async (_, world, expected) => {
    expect(await verdict(world)).toBe(expected);
  });
});
