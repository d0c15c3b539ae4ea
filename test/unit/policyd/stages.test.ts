import { describe, expect, test } from 'vitest';

import {
  admissionCheck,
  endCheck,
  mailCheck,
  rcptCheck,
  type CheckDefinition,
  type EndFacts,
  type RcptFacts,
} from '../../../src/checks/check.ts';
import { policydMetrics } from '../../../src/policyd/metrics.ts';
import { Responder } from '../../../src/policyd/responder.ts';
import { actionText } from '../../../src/policyd/wire.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import { metric } from '../../support/metric.ts';
import type { PolicyAttributes } from '../../support/players/policy-client.ts';
import { configFor, decoded, rcpt, testTools, type TestTools } from './support.ts';

/** What the checks of this file were asked, in order: `count a@x`, `undo count a@x`. */
interface Journal {
  readonly lines: string[];
  readonly rcpts: RcptFacts[];
  readonly ends: EndFacts[];
}

const CODE = { meaning: 'x', action: 'ignore' } as const;

function mentions(word: string, { recipient }: RcptFacts): readonly Finding[] {
  return recipient.local.includes(word) ? [{ code: `${word}.found`, detail: recipient.raw }] : [];
}

function site(journal: Journal): readonly CheckDefinition[] {
  const common = {
    summary: 'x',
    directions: ['in', 'out'] as const,
    needs: [],
    unavailable: 'defer' as const,
    deadline: '1s',
  };
  return [
    rcptCheck({
      ...common,
      stage: 'rcpt',
      name: 'table',
      options: {},
      codes: {
        'table.found': { meaning: 'x', action: 'reject' },
        'table.friend': { meaning: 'x', action: 'allow' },
      },
      run: ({ facts }) => {
        journal.lines.push(`table ${facts.recipient.raw}`);
        if (facts.recipient.local === 'friend') return [{ code: 'table.friend', detail: 'x' }];
        return mentions('table', facts);
      },
    }),
    mailCheck({
      ...common,
      stage: 'mail',
      name: 'client',
      options: {},
      waivable: true,
      codes: { 'client.bad': { meaning: 'x', action: 'reject' } },
      run: ({ facts }) => (facts.client.helo === 'bad' ? [{ code: 'client.bad', detail: 'helo bad' }] : []),
    }),
    admissionCheck({
      ...common,
      stage: 'admission',
      name: 'count',
      options: {},
      codes: { 'count.found': { meaning: 'x', action: 'defer' } },
      run: async ({ facts }) => {
        journal.lines.push(`count ${facts.recipient.raw}`);
        journal.rcpts.push(facts);
        return mentions('count', facts);
      },
      undo: ({ facts }) => void journal.lines.push(`undo count ${facts.recipient.raw}`),
    }),
    admissionCheck({
      ...common,
      stage: 'admission',
      name: 'room',
      options: {},
      codes: { 'room.found': { meaning: 'x', action: 'reject' }, 'room.seen': CODE },
      needs: ['count', 'client'],
      run: ({ facts, prior }) => {
        journal.lines.push(`room ${facts.recipient.raw} after ${[...prior.keys()].join(' and ')}`);
        return mentions('room', facts);
      },
    }),
    endCheck({
      ...common,
      stage: 'end',
      name: 'whole',
      options: {},
      codes: { 'whole.large': { meaning: 'x', action: 'reject' } },
      run: ({ facts }) => {
        journal.ends.push(facts);
        return (facts.size ?? 0) > 1000 ? [{ code: 'whole.large', detail: `${facts.size}` }] : [];
      },
    }),
  ];
}

interface Started extends Journal {
  readonly tools: TestTools;
  readonly ask: (changes?: PolicyAttributes) => Promise<string>;
}

async function start(toml = ''): Promise<Started> {
  const journal: Journal = { lines: [], rcpts: [], ends: [] };
  const tools = testTools();
  const config = await configFor(toml, site(journal));
  const metrics = policydMetrics(tools.registry, config);
  const responder = new Responder(config, { ...tools, metrics });
  const ask = async (changes: PolicyAttributes = {}): Promise<string> =>
    actionText(await responder.answer(decoded(rcpt(changes))));
  return { ...journal, tools, ask };
}

const to = (local: string): PolicyAttributes => ({ recipient: `${local}@olimpus.example` });

describe('one recipient', () => {
  test('is looked at once, however many lists ask, and later ones know who was accepted before', async () => {
    const { ask, lines, rcpts } = await start();
    expect(await ask(to('zeus'))).toBe('DUNNO');
    expect(await ask(to('zeus'))).toBe('DUNNO');
    expect(await ask(to('hera'))).toBe('DUNNO');
    expect(lines).toEqual([
      'table zeus@olimpus.example',
      'count zeus@olimpus.example',
      'room zeus@olimpus.example after count and client',
      'table hera@olimpus.example',
      'count hera@olimpus.example',
      'room hera@olimpus.example after count and client',
    ]);
    expect(rcpts.map(({ accepted }) => accepted.map(({ raw }) => raw))).toEqual([
      [],
      ['zeus@olimpus.example'],
    ]);
    expect(rcpts[0]?.identity).toBe(rcpts[1]?.identity);
  });

  test('that is refused takes nothing', async () => {
    const { ask, lines, rcpts } = await start();
    expect(await ask(to('table'))).toMatch(/^550 5\.7\.1 /);
    expect(await ask(to('zeus'))).toBe('DUNNO');
    expect(lines.slice(0, 2)).toEqual(['table table@olimpus.example', 'table zeus@olimpus.example']);
    expect(rcpts[0]?.accepted).toEqual([]);
  });

  test('that a later check refuses gives back what the earlier ones took', async () => {
    const { ask, lines } = await start();
    expect(await ask(to('room'))).toMatch(/^550 /);
    expect(lines).toEqual([
      'table room@olimpus.example',
      'count room@olimpus.example',
      'room room@olimpus.example after count and client',
      'undo count room@olimpus.example',
    ]);
    expect(await ask(to('room'))).toMatch(/^550 /);
    expect(lines).toHaveLength(4);
  });

  test('that one check defers is not shown to the next ones', async () => {
    const { ask, lines } = await start();
    expect(await ask(to('count'))).toMatch(/^DEFER_IF_PERMIT 4\.7\.0 /);
    expect(lines).toEqual(['table count@olimpus.example', 'count count@olimpus.example']);
  });
});

describe('a rule in shadow', () => {
  test('is decided, recorded and counted, and never acted on', async () => {
    const toml = '[rules]\n"room.found" = { action = "reject", shadow = true }\n';
    const { ask, lines, tools } = await start(toml);
    expect(await ask(to('room'))).toBe('DUNNO');
    expect(lines).not.toContain('undo count room@olimpus.example');
    expect(tools.store.decisions[0]?.shadow).toEqual([{ rule: 'room.found', kind: 'reject' }]);
    expect(
      await metric(tools.registry, 'postern_shadow_verdicts_total', {
        daemon: 'policyd',
        rule: 'room.found',
        verdict: 'reject',
      }),
    ).toBe(1);
  });

  test('is recorded for a second recipient too', async () => {
    const { ask, tools } = await start('[rules]\n"room.found" = { action = "reject", shadow = true }\n');
    await ask(to('zeus'));
    await ask(to('room'));
    expect(tools.store.decisions.map(({ recipients, shadow }) => [recipients[0], shadow.length])).toEqual([
      ['zeus@olimpus.example', 0],
      ['room@olimpus.example', 1],
    ]);
  });
});

describe('an allow', () => {
  test('sets aside what waivable checks found, for that recipient only', async () => {
    const { ask } = await start();
    const bad = { helo_name: 'bad' };
    expect(await ask({ ...bad, ...to('zeus') })).toMatch(/^550 /);
    expect(await ask({ ...bad, ...to('friend') })).toBe('DUNNO');
  });

  test('in shadow allows nothing', async () => {
    const { ask } = await start('[rules]\n"table.friend" = { action = "allow", shadow = true }\n');
    expect(await ask({ helo_name: 'bad', ...to('friend') })).toMatch(/^550 /);
  });
});

describe('the end of a message', () => {
  test('is judged once with what was accepted and what it really is', async () => {
    const { ask, ends } = await start();
    await ask({ ...to('zeus'), size: '10' });
    await ask(to('table'));
    const end = { protocol_state: 'END-OF-MESSAGE', recipient: '', recipient_count: '1', size: '1001' };
    expect(await ask(end)).toMatch(/^550 /);
    expect(await ask(end)).toMatch(/^550 /);
    expect(ends).toHaveLength(1);
    expect(ends[0]).toMatchObject({ moment: 'end', size: 1001, recipientCount: 1 });
    expect(ends[0]?.accepted.map(({ raw }) => raw)).toEqual(['zeus@olimpus.example']);
  });
});

describe('policy_context', () => {
  const TOML = `
[[policy]]
contexts = ["submission", "587"]
direction = "out"
checks = ["count"]
rules = { "count.found" = "ignore" }
`;

  test('selects checks, rules and direction; another one has those of the site', async () => {
    const { ask, lines } = await start(TOML);
    expect(await ask({ ...to('count'), policy_context: '587', instance: '1' })).toBe('DUNNO');
    expect(lines).toEqual(['count count@olimpus.example']);
    expect(await ask({ ...to('count'), policy_context: 'mx', instance: '2' })).toMatch(/^DEFER_IF_PERMIT /);
    expect(await ask({ ...to('count'), instance: '3' })).toMatch(/^DEFER_IF_PERMIT /);
  });

  test('of two lists that ask about one message each has its own rules, and the message one identity', async () => {
    const { ask, rcpts, tools } = await start(TOML);
    await ask({ ...to('zeus'), policy_context: 'submission' });
    await ask(to('zeus'));
    expect(rcpts).toHaveLength(2);
    expect(rcpts[0]?.identity).toBe(rcpts[1]?.identity);
    expect(rcpts.map(({ direction }) => direction)).toEqual(['out', 'in']);
    expect(tools.store.opened).toHaveLength(1);
  });
});
