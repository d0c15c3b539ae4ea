import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import type { CheckDefinition } from '../../../src/checks/check.ts';
import { dkimCheck } from '../../../src/checks/dkim.ts';
import { dmarcCheck } from '../../../src/checks/dmarc.ts';
import { spfCheck } from '../../../src/checks/spf.ts';
import type {
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
import { CLOCK, messageFacts, outcomes, toolsWith } from './auth-facts.ts';

interface World {
  readonly spf?: SpfResultWord | 'unavailable';
  readonly helo?: SpfResultWord;
  readonly dkim?: readonly (readonly [domain: string, result: DkimResultWord])[] | 'unavailable';
  /** What DMARC says; `aligned`: pass when example.com is among the domains, else fail with p=reject. */
  readonly dmarc?: DmarcResult | 'aligned';
  readonly sender?: string;
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
      if (dkim === 'unavailable') return Promise.reject(new Error('broken'));
      return Promise.resolve(
        dkim.map(([domain, result]) => ({
          result,
          domain,
          selector: 's',
          detail: '',
          auth: { method: 'dkim', result, properties: [['header.d', domain]] },
        })),
      );
    },
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
  const all = await outcomes(checks, { facts, tools: toolsWith(auth(world, asked)) });
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
