import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import { spfCheck } from '../../../src/checks/spf.ts';
import type { SpfQuery, SpfResult, SpfResultWord } from '../../../src/ports/mail-auth.ts';
import { client, envelope } from '../../support/mail.ts';
import { Zone } from '../../support/zone.ts';
import { CLOCK, messageFacts, outcome, toolsWith } from './auth-facts.ts';

const WORDS: readonly SpfResultWord[] = [
  'none',
  'neutral',
  'pass',
  'fail',
  'softfail',
  'temperror',
  'permerror',
];

function saying(
  words: Partial<Record<SpfQuery['identity'], SpfResultWord>>,
  asked: SpfQuery[] = [],
): ReturnType<typeof toolsWith> {
  return toolsWith({
    spf: (query): Promise<SpfResult> => {
      asked.push(query);
      const result = words[query.identity] ?? 'none';
      return Promise.resolve({
        result,
        domain: 'd.example',
        detail: `the ${query.identity}`,
        explanation: null,
      });
    },
  });
}

function run(tools: ReturnType<typeof toolsWith>): unknown {
  const check = spfCheck.bind({}, 5000);
  if (check.stage !== 'mail') throw new Error('another stage');
  return check.run({
    facts: messageFacts(),
    tools,
    prior: new Map(),
    signal: new AbortController().signal,
  });
}

describe('spf', () => {
  test('HELO, then the sender, each with its result for Authentication-Results', async () => {
    const asked: SpfQuery[] = [];
    const facts = messageFacts({
      envelope: envelope({ client: client({ helo: 'h.example' }), sender: '<"a b"@d.example>' }),
    });
    const found = await outcome(spfCheck, {
      facts,
      tools: saying({ helo: 'pass', mailfrom: 'softfail' }, asked),
    });
    expect(found).toMatchObject({
      kind: 'found',
      findings: [
        {
          code: 'spf.helo-pass',
          detail: 'the helo',
          auth: { method: 'spf', result: 'pass', properties: [['smtp.helo', 'h.example']] },
        },
        {
          code: 'spf.softfail',
          detail: 'the mailfrom',
          auth: { method: 'spf', result: 'softfail', properties: [['smtp.mailfrom', '"a b"@d.example']] },
        },
      ],
    });
    expect(asked.map(({ identity, client: address, helo }) => [identity, address, helo])).toEqual([
      ['helo', '192.0.2.20', 'h.example'],
      ['mailfrom', '192.0.2.20', 'h.example'],
    ]);
  });

  test('without HELO when it is switched off', async () => {
    const tools = saying({ mailfrom: 'pass' });
    const found = await outcome(spfCheck, { facts: messageFacts(), tools, options: { helo: false } });
    expect(found).toMatchObject({ findings: [{ code: 'spf.pass' }] });
  });

  test('the null path is checked once, as the sender, by the HELO name', async () => {
    const facts = messageFacts({
      envelope: envelope({ client: client({ helo: 'h.example' }), sender: '<>' }),
    });
    const asked: SpfQuery[] = [];
    const found = await outcome(spfCheck, { facts, tools: saying({ mailfrom: 'fail' }, asked) });
    expect(found).toMatchObject({
      findings: [{ code: 'spf.fail', auth: { properties: [['smtp.helo', 'h.example']] } }],
    });
    expect(asked).toHaveLength(1);
  });

  test('a client that has not said HELO', async () => {
    const facts = messageFacts({ envelope: envelope({ client: client({ helo: null }), sender: '<>' }) });
    const asked: SpfQuery[] = [];
    await outcome(spfCheck, { facts, tools: saying({}, asked) });
    expect(asked).toMatchObject([{ helo: '' }]);
  });

  test('a HELO name that is not known is no identity', async () => {
    const facts = messageFacts({
      envelope: envelope({ client: client({ helo: null }), sender: '<a@d.example>' }),
    });
    const asked: SpfQuery[] = [];
    const found = await outcome(spfCheck, { facts, tools: saying({ mailfrom: 'pass' }, asked) });
    expect(found).toMatchObject({ findings: [{ code: 'spf.pass' }] });
    expect(asked.map(({ identity }) => identity)).toEqual(['mailfrom']);
  });

  test("the domain owner's explanation is told as such", async () => {
    const tools = toolsWith({
      spf: () => ({ result: 'fail', domain: 'd.example', detail: 'no', explanation: 'Go away' }),
    });
    const found = await outcome(spfCheck, { facts: messageFacts(), tools, options: { helo: false } });
    expect(found).toMatchObject({
      findings: [
        { detail: 'no; d.example explains: Go away', explanation: { by: 'd.example', text: 'Go away' } },
      ],
    });
  });

  test('the explanation stays out of refusals when it is switched off, and in the record', async () => {
    const tools = toolsWith({
      spf: () => ({ result: 'fail', domain: 'd.example', detail: 'no', explanation: 'Go away' }),
    });
    const options = { helo: false, explanation: false };
    const found = await outcome(spfCheck, { facts: messageFacts(), tools, options });
    const [finding] = found.kind === 'found' ? found.findings : [];
    expect(finding?.detail).toBe('no; d.example explains: Go away');
    expect(finding).not.toHaveProperty('explanation');
  });

  test('results that are known are told without a promise; one that is not makes it one', async () => {
    const known: SpfResult = { result: 'pass', domain: 'd.example', detail: 'yes', explanation: null };
    expect(run(toolsWith({ spf: () => known }))).toMatchObject([
      { code: 'spf.helo-pass' },
      { code: 'spf.pass' },
    ]);
    const later = run(
      toolsWith({ spf: ({ identity }) => (identity === 'helo' ? known : Promise.resolve(known)) }),
    );
    expect(later).toBeInstanceOf(Promise);
    expect(await later).toMatchObject([{ code: 'spf.helo-pass' }, { code: 'spf.pass' }]);
  });

  test('every result has its code in the manual, and only fail rejects', async () => {
    for (const word of WORDS) {
      const found = await outcome(spfCheck, {
        facts: messageFacts(),
        tools: saying({ helo: word, mailfrom: word }),
      });
      expect(found).toMatchObject({ findings: [{ code: `spf.helo-${word}` }, { code: `spf.${word}` }] });
      const expected = word === 'fail' ? 'reject' : 'ignore';
      expect([spfCheck.codes[`spf.helo-${word}`]?.action, spfCheck.codes[`spf.${word}`]?.action]).toEqual([
        expected,
        expected,
      ]);
    }
    expect(Object.keys(spfCheck.codes)).toHaveLength(2 * WORDS.length);
  });

  test('a name server that is silent makes a temperror, not an outcome that is unavailable', async () => {
    const zone = new Zone({ 'valhalla.example': 'never', 'odin.valhalla.example': 'never' });
    const mailAuth = createMailAuth(zone, { hostname: 'mx.example', clock: CLOCK });
    const found = await outcome(spfCheck, {
      facts: messageFacts(),
      tools: toolsWith(mailAuth),
      deadlineMs: 500,
    });
    expect(found).toMatchObject({
      kind: 'found',
      findings: [{ code: 'spf.helo-temperror' }, { code: 'spf.temperror' }],
    });
  });
});
