import { describe, expect, test } from 'vitest';

import type { CheckDefinition } from '../../../src/checks/check.ts';
import { CHECKS } from '../../../src/checks/index.ts';
import { settingsRcptCheck } from '../../../src/checks/settings.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { companyOf } from '../../../src/policyd/company.ts';
import { policydMetrics } from '../../../src/policyd/metrics.ts';
import { Responder } from '../../../src/policyd/responder.ts';
import { actionText } from '../../../src/policyd/wire.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import type { Account, Directory } from '../../../src/ports/directory.ts';
import type { Rules } from '../../../src/verdict/rules.ts';
import { checkTools, NO_DIRECTORY } from '../../support/checks.ts';
import { found, points, rule, rules } from '../../support/judgement.ts';
import { metric } from '../../support/metric.ts';
import { configOf, decoded, rcpt, stubSpf, testTools } from './support.ts';

const TOML = `
[policyd]
spf_header = "none"
split = true
[[override]]
recipients = ["strict@olimpus.example", "stern@olimpus.example"]
thresholds = { reject = 8 }
[[override]]
recipients = ["marked@olimpus.example"]
thresholds = { tag = 2, junk = 4 }
`;

async function start(toml = TOML) {
  const spf = stubSpf();
  const tools = testTools();
  const config = await configOf(toml, spf);
  const metrics = policydMetrics(tools.registry, config);
  const responder = new Responder(config, { ...tools, metrics });
  const ask = async (recipient: string, changes = {}): Promise<string> =>
    actionText(
      await responder.answer(decoded(rcpt({ recipient: `${recipient}@olimpus.example`, ...changes }))),
    );
  return { ask, tools };
}

describe('recipients of one message', () => {
  test('come together when the same could be refused for them, and apart when not', async () => {
    const { ask, tools } = await start();
    const apart = /^452 4\.5\.3 Please send to this recipient separately \([a-z2-7]{16}\)$/;
    expect(await ask('strict')).toBe('DUNNO');
    expect(await ask('zeus')).toMatch(apart);
    expect(await ask('stern')).toBe('DUNNO');
    // Asked again by another restriction list, it is the same.
    expect(await ask('zeus')).toMatch(apart);
    const instance = 'another.message';
    expect(await ask('zeus', { instance })).toBe('DUNNO');
    // Marks alone can't refuse anything.
    expect(await ask('marked', { instance })).toBe('DUNNO');
    expect(await ask('strict', { instance })).toMatch(apart);
    // RFC 5321 §4.5.1
    expect(await ask('postmaster', { instance })).toBe('DUNNO');
    const decision = tools.store.decisions.find(({ rule: by }) => by === 'split');
    expect(decision).toMatchObject({
      verdict: 'defer',
      recipients: ['zeus@olimpus.example'],
      why: 'zeus@olimpus.example has other rules of refusal than strict@olimpus.example, which is there already',
    });
    expect(
      await metric(tools.registry, 'postern_policyd_requests_total', {
        state: 'RCPT',
        action: '4xx',
        rule: 'split',
      }),
    ).toBe(3);
  });

  test('postmaster at first keeps nobody away', async () => {
    const { ask } = await start();
    expect([await ask('postmaster'), await ask('strict'), await ask('stern')]).toEqual([
      'DUNNO',
      'DUNNO',
      'DUNNO',
    ]);
  });

  test('all come together unless the operator wants it otherwise, and when it goes out', async () => {
    const { ask } = await start(TOML.replace('split = true', ''));
    expect([await ask('strict'), await ask('zeus')]).toEqual(['DUNNO', 'DUNNO']);
    const split = await start();
    const login = { sasl_username: 'hera@olimpus.example', sasl_method: 'PLAIN' };
    expect([await split.ask('strict', login), await split.ask('zeus', login)]).toEqual(['DUNNO', 'DUNNO']);
  });
});

test('by thresholds of the directory', async () => {
  const accounts: Readonly<Record<string, Partial<Account>>> = {
    'strict@olimpus.example': { thresholds: { reject: 8 } },
    'info@olimpus.example': { thresholds: { junk: 3 } },
  };
  const directory: Directory = {
    ...NO_DIRECTORY,
    keepsSettings: true,
    destination: () => ({ kind: 'unknown' }),
    account: (name) => ({ limits: new Map(), senders: [], ...accounts[name] }),
  };
  const definitions: readonly CheckDefinition[] = [
    settingsRcptCheck,
    ...CHECKS.filter(({ name }) => name === 'settings'),
  ];
  const loaded = await loadConfig(null, definitions);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const { config } = loaded;
  const policyd = { ...config.file.policyd, split: true, spf_header: 'none' as const };
  const tools = testTools();
  const metrics = policydMetrics(tools.registry, config);
  const responder = new Responder(
    { ...config, file: { ...config.file, policyd } },
    { ...tools, checks: checkTools({ directory }), metrics },
  );
  const ask = async (recipient: string): Promise<string> =>
    actionText(await responder.answer(decoded(rcpt({ recipient: `${recipient}@olimpus.example` }))));
  expect(await ask('zeus')).toBe('DUNNO');
  expect(await ask('info')).toBe('DUNNO');
  expect(await ask('strict')).toMatch(/^452 4\.5\.3 /);
});

describe('the company of a recipient', () => {
  const spam = CHECKS.filter(({ name }) => ['spam', 'lists'].includes(name)).map((check) =>
    check.bind({}, 1000),
  );
  const company = (made: Rules, own = found('settings-rcpt')): string | null =>
    companyOf(parseMailbox('zeus@olimpus.example'), [made], [own], spam);
  const plain = company(rules());

  test.each<[string, Rules, boolean]>([
    ['a threshold for refusals', rules({ thresholds: { reject: 8 } }), true],
    [
      'thresholds for marks, junk and discarding',
      rules({ thresholds: { tag: 1, junk: 2, discard: 3 } }),
      false,
    ],
    [
      'a rule that refuses what is seen in the content',
      rules({ findings: { 'spam.too-large': rule('reject') } }),
      true,
    ],
    ['one that is in shadow', rules({ findings: { 'spam.too-large': rule('reject', 'shadow') } }), false],
    ['one for what policyd sees itself', rules({ findings: { 'spf.fail': rule('reject') } }), false],
    ['what is done when a check can not be made', rules({ unavailable: { spam: rule('defer') } }), true],
    [
      'points, where nothing can be refused by them',
      rules({ findings: { 'spam.too-large': points(3) } }),
      false,
    ],
  ])('%s', (_, made, differs) => {
    expect(company(made) !== plain).toBe(differs);
  });

  test('points and lists count where they could make the difference', () => {
    const strict = rules({ thresholds: { reject: 8 } });
    const scored = rules({ thresholds: { reject: 8 }, findings: { 'spam.too-large': points(3) } });
    expect(company(scored)).not.toBe(company(strict));
    const wanted = found('settings-rcpt', { code: 'settings-rcpt.allow', detail: '' });
    expect(company(strict, wanted)).not.toBe(company(strict));
    expect(company(rules(), wanted)).toBe(plain);
    const blocked = found('settings-rcpt', { code: 'settings-rcpt.block', detail: '' });
    const refusing = rules({ findings: { 'lists.block': rule('reject') } });
    expect(company(refusing, blocked)).not.toBe(company(refusing));
    expect(company(rules(), blocked)).toBe(plain);
    // A rule about the list alone keeps nobody apart who is not on it.
    expect(company(refusing)).toBe(plain);
  });

  test('abuse and postmaster come with everybody', () => {
    for (const name of ['postmaster', 'ABUSE'])
      expect(companyOf(parseMailbox(`${name}@x.example`), [rules()], [], spam)).toBeNull();
  });
});
