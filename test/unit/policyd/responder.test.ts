import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { policydMetrics } from '../../../src/policyd/metrics.ts';
import { Responder } from '../../../src/policyd/responder.ts';
import { TRACE_DEADLINE_MS } from '../../../src/policyd/identity.ts';
import { RECIPIENT_LIMIT } from '../../../src/policyd/transaction.ts';
import { MEMORY_LIMIT, MESSAGE_AGE_MS, MESSAGE_LIMIT } from '../../../src/policyd/transactions.ts';
import { actionText } from '../../../src/policyd/wire.ts';
import type { PolicyAttributes } from '../../support/players/policy-client.ts';
import { metric } from '../../support/metric.ts';
import {
  configOf,
  decoded,
  rcpt,
  spfFinding,
  stubSpf,
  testTools,
  type StubCheck,
  type TestTools,
  type Word,
} from './support.ts';

interface Asked {
  readonly responder: Responder;
  readonly spf: StubCheck;
  readonly tools: TestTools;
  /** The action for a request at RCPT with these changes. */
  readonly ask: (changes?: PolicyAttributes) => Promise<string>;
}

async function start(toml = '', word: Word = 'pass', tools = testTools()): Promise<Asked> {
  const spf = stubSpf();
  spf.run = (facts) => Promise.resolve([spfFinding(word, facts)]);
  const config = await configOf(toml, spf);
  const metrics = policydMetrics(tools.registry, config);
  const responder = new Responder(config, { ...tools, metrics });
  const ask = async (changes: PolicyAttributes = {}): Promise<string> =>
    actionText(await responder.answer(decoded(rcpt(changes))));
  return { responder, spf, tools, ask };
}

const HERA = { recipient: 'hera@olimpus.example' };
const APOLO = { recipient: 'apolo@olimpus.example' };
const DATA = { protocol_state: 'DATA', recipient: '', recipient_count: '2' };
const PREPEND = /^PREPEND Received-SPF: pass /;
const REFUSED = /^550 5\.7\.23 .* \([a-z2-7]{16}\)$/;

describe('one message', () => {
  test('is checked once, and gets its field once, whoever asks and however often', async () => {
    const { ask, spf, tools } = await start();
    expect(await ask()).toMatch(PREPEND);
    expect(await ask()).toBe('DUNNO');
    expect(await ask({ ...HERA, policy_context: 'another list' })).toBe('DUNNO');
    expect(await ask(DATA)).toBe('DUNNO');
    expect(await ask({ ...DATA, protocol_state: 'END-OF-MESSAGE', size: '1000' })).toBe('DUNNO');
    expect(spf.asked).toHaveLength(1);
    expect(tools.store.opened).toHaveLength(1);
    expect(tools.store.decisions).toHaveLength(1);
  });

  test('is answered without a promise once it is known', async () => {
    const { ask, responder } = await start();
    await ask();
    expect(responder.answer(decoded(rcpt(HERA)))).toEqual({ kind: 'DUNNO' });
  });

  test('is checked once when several ask while the check is under way, and only one is given the field', async () => {
    const { ask, spf } = await start();
    const gate = Promise.withResolvers<void>();
    spf.run = async (facts) => {
      await gate.promise;
      return [spfFinding('pass', facts)];
    };
    const answers = Promise.all([ask(), ask(), ask(HERA)]);
    gate.resolve();
    const given = await answers;
    expect(given.filter((action) => PREPEND.test(action))).toHaveLength(1);
    expect(given.filter((action) => action === 'DUNNO')).toHaveLength(2);
    expect(spf.asked).toHaveLength(1);
  });

  test('that is refused is refused at every request', async () => {
    const { ask, spf } = await start('', 'fail');
    const first = await ask();
    expect(first).toMatch(REFUSED);
    expect(await ask()).toBe(first);
    expect(await ask(HERA)).toBe(first);
    expect(await ask(DATA)).toBe(first);
    expect(spf.asked).toHaveLength(1);
  });

  test.for([
    ['another instance', { instance: '74fc.6b01513a.6a32c.1' }],
    ['the same instance of another host', { server_address: '192.0.2.11' }],
    ['the same instance with another client', { client_address: '192.0.2.66' }],
    ['the same instance with another sender', { sender: 'loki@valhalla.example' }],
  ] as const)('is another one with %s', async ([, changes]) => {
    const { ask, spf } = await start();
    await ask();
    expect(await ask(changes)).toMatch(PREPEND);
    expect(spf.asked).toHaveLength(2);
  });

  test('without an instance, nothing joins its requests', async () => {
    const { ask, spf } = await start();
    expect(await ask({ instance: '' })).toMatch(PREPEND);
    expect(await ask({ instance: '' })).toMatch(PREPEND);
    expect(spf.asked).toHaveLength(2);
  });

  test('first seen at its end gets no field, which PREPEND can not give any more', async () => {
    const { ask, tools } = await start();
    const end = { protocol_state: 'END-OF-MESSAGE', size: '1234', queue_id: 'F3B6924C468' };
    expect(await ask(end)).toBe('DUNNO');
    expect(tools.store.decisions).toMatchObject([
      { stage: 'end-of-message', size: 1234, queueId: 'F3B6924C468' },
    ]);
  });
});

describe('with smtpd_delay_reject=no', () => {
  const MAIL = { protocol_state: 'MAIL', instance: '', recipient: '' };

  test('what MAIL found out holds for RCPT, which has the instance', async () => {
    const { ask, spf, tools } = await start();
    expect(await ask(MAIL)).toMatch(PREPEND);
    expect(await ask()).toBe('DUNNO');
    expect(await ask(HERA)).toBe('DUNNO');
    expect(spf.asked).toHaveLength(1);
    const { decisions } = tools.store;
    expect(decisions).toMatchObject([
      { stage: 'mail', recipients: [] },
      { stage: 'rcpt', recipients: ['zeus@olimpus.example'] },
    ]);
    expect(new Set(decisions.map(({ trace }) => trace)).size).toBe(1);
  });

  test('each MAIL is a new message', async () => {
    const { ask, spf } = await start();
    await ask(MAIL);
    await ask();
    expect(await ask(MAIL)).toMatch(PREPEND);
    expect(await ask({ instance: '74fc.6b01513a.6a32c.1' })).toBe('DUNNO');
    expect(spf.asked).toHaveLength(2);
  });

  test('what MAIL found out holds for one message only', async () => {
    const { ask, spf } = await start();
    await ask(MAIL);
    await ask();
    expect(await ask({ instance: '74fc.6b01513a.6a32c.1' })).toMatch(PREPEND);
    expect(spf.asked).toHaveLength(2);
  });

  test('a message can be refused at MAIL, with the code itself', async () => {
    const { ask } = await start('', 'temperror');
    expect(await ask(MAIL)).toMatch(/^451 4\.7\.24 /);
  });
});

test.for(['CONNECT', 'EHLO', 'HELO', 'VRFY', 'ETRN', 'LATER'])(
  'at %s there is nothing to say',
  async (state) => {
    const { ask, spf, tools } = await start('', 'fail');
    expect(await ask({ protocol_state: state, instance: '' })).toBe('DUNNO');
    expect(spf.asked).toEqual([]);
    expect(tools.store.opened).toEqual([]);
    const label = state === 'LATER' ? 'unknown' : state;
    const labels = { state: label, action: 'DUNNO', rule: 'default' };
    expect(await metric(tools.registry, 'postern_policyd_requests_total', labels)).toBe(1);
  },
);

test.for([
  ['a login', { sasl_username: 'zeus@olimpus.example' }],
  ['an own network', { client_address: '127.0.0.1' }],
] as const)('mail of %s is outgoing, and not checked as mail from outside', async ([, changes]) => {
  const { ask, spf, tools } = await start('', 'fail');
  expect(await ask(changes)).toBe('DUNNO');
  expect(spf.asked).toEqual([]);
  expect(tools.store.decisions).toMatchObject([{ direction: 'out', verdict: 'accept' }]);
});

function override(action: string): string {
  return `[[override]]\nrecipients = ["hera@olimpus.example"]\nrules = { "spf.fail" = "${action}" }\n`;
}

describe('rules of single recipients', () => {
  test('a refusal is for its recipient; the next one is given the field', async () => {
    const { ask } = await start(`[rules]\n"spf.fail" = "ignore"\n${override('reject')}`, 'fail');
    expect(await ask(HERA)).toMatch(REFUSED);
    expect(await ask()).toMatch(/^PREPEND Received-SPF: fail /);
    expect(await ask(HERA)).toMatch(REFUSED);
  });

  test.for(['quarantine', 'discard'])(
    '%s, which takes the whole message, waits for DATA when another recipient could have milder rules',
    async (action) => {
      const { ask } = await start(
        `[policyd]\nspf_header = "none"\n[rules]\n"spf.fail" = "${action}"\n${override('ignore')}`,
        'fail',
      );
      const taken = new RegExp(`^(HOLD|DISCARD) spf\\.fail `);
      expect(await ask()).toBe('DUNNO');
      expect(await ask(APOLO)).toBe('DUNNO');
      expect(await ask(DATA)).toMatch(taken);
    },
  );

  test('at DATA the mildest verdict of the recipients stands', async () => {
    const toml = `[policyd]\nspf_header = "none"\n[rules]\n"spf.fail" = "discard"\n${override('ignore')}`;
    const { ask } = await start(toml, 'fail');
    await ask();
    await ask(HERA);
    expect(await ask(DATA)).toBe('DUNNO');
    expect(await ask({ ...DATA, ...HERA, recipient_count: '1' })).toBe('DUNNO');
    expect(await ask({ ...DATA, recipient: 'zeus@olimpus.example', recipient_count: '1' })).toMatch(
      /^DISCARD /,
    );
  });

  test('at DATA, recipients that we were not asked about may have any rules', async () => {
    const toml = `[policyd]\nspf_header = "none"\n[rules]\n"spf.fail" = "discard"\n${override('ignore')}`;
    const { ask } = await start(toml, 'fail');
    await ask();
    expect(await ask(DATA)).toBe('DUNNO');
    expect(await ask({ ...DATA, recipient_count: '1' })).toMatch(/^DISCARD /);
  });

  test('of RECIPIENT_LIMIT recipients the rules are remembered, with one more they may be any', async () => {
    const toml = `[policyd]\nspf_header = "none"\n[rules]\n"spf.fail" = "discard"\n${override('ignore')}`;
    const { ask } = await start(toml, 'fail');
    for (let user = 0; user < RECIPIENT_LIMIT; user++) await ask({ recipient: `u${user}@olimpus.example` });
    expect(await ask({ ...DATA, recipient_count: String(RECIPIENT_LIMIT) })).toMatch(/^DISCARD /);
    await ask({ recipient: 'one-more@olimpus.example' });
    expect(await ask({ ...DATA, recipient_count: String(RECIPIENT_LIMIT + 1) })).toBe('DUNNO');
  });

  test('at MAIL, where no recipient is known, the mildest of all rules stands', async () => {
    const { ask } = await start(`[policyd]\nspf_header = "none"\n${override('ignore')}`, 'fail');
    expect(await ask({ protocol_state: 'MAIL', instance: '', recipient: '' })).toBe('DUNNO');
    expect(await ask()).toMatch(REFUSED);
  });

  test('the whole message is held at RCPT when nobody has milder rules', async () => {
    const { ask } = await start(`[rules]\n"spf.fail" = "quarantine"\n${override('discard')}`, 'fail');
    expect(await ask()).toMatch(/^HOLD spf\.fail \([a-z2-7]{16}\)$/);
    // For hera alone it would be discarded.
    expect(await ask(HERA)).toMatch(/^HOLD /);
  });
});

function never(): Promise<never> {
  return new Promise(() => {});
}

describe('what goes wrong', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  const SHORT = '[policyd]\ndeadline = "2s"\n';

  test('a check that takes longer than the whole answer may is unavailable, and the rule for that stands', async () => {
    const { ask, spf, tools } = await start(SHORT);
    spf.run = never;
    const answer = ask();
    await vi.advanceTimersByTimeAsync(2000);
    expect(await answer).toMatch(/^DEFER_IF_PERMIT 4\.7\.0 .* \([a-z2-7]{16}\)$/);
    expect(tools.store.decisions).toMatchObject([
      { verdict: 'defer', rule: 'unavailable:spf', outcomes: [{ kind: 'unavailable', reason: 'deadline' }] },
    ]);
    // The other recipients need not wait again.
    expect(await ask(HERA)).toMatch(/^DEFER_IF_PERMIT /);
    expect(spf.asked).toHaveLength(1);
  });

  test('the answer is not given up one millisecond early', async () => {
    const { ask, spf } = await start(SHORT);
    const gate = Promise.withResolvers<void>();
    spf.run = async (facts) => {
      await gate.promise;
      return [spfFinding('pass', facts)];
    };
    const answer = ask();
    await vi.advanceTimersByTimeAsync(1999);
    gate.resolve();
    expect(await answer).toMatch(PREPEND);
  });

  test('the operator may let mail pass that could not be checked', async () => {
    const { ask, spf } = await start(`${SHORT}[unavailable]\nspf = "ignore"\n`);
    spf.run = never;
    const answer = ask();
    await vi.advanceTimersByTimeAsync(2000);
    expect(await answer).toBe('DUNNO');
  });

  test('the signal of a check that is given up is aborted', async () => {
    const { ask, spf } = await start(SHORT);
    const signals: AbortSignal[] = [];
    spf.run = (_facts, signal) => {
      signals.push(signal);
      return never();
    };
    const answer = ask();
    await vi.advanceTimersByTimeAsync(2000);
    await answer;
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  });

  test('a check that throws defers', async () => {
    const { ask, spf } = await start();
    spf.run = () => Promise.reject(new TypeError('undefined is not a function'));
    expect(await ask()).toMatch(/^DEFER_IF_PERMIT 4\.7\.0 /);
  });

  test('mail does not stop for a store that fails', async () => {
    const { ask, tools } = await start();
    tools.store.openTrace = () => Promise.reject(new Error('disk full'));
    expect(await ask()).toMatch(PREPEND);
    expect(tools.store.decisions[0]?.trace).toMatch(/^[a-z2-7]{16}$/);
    expect(tools.lines).toContainEqual(
      expect.objectContaining({ level: 'warn', msg: 'trace could not be opened in the store' }),
    );
  });

  test('nor for one that does not answer', async () => {
    const { ask, tools } = await start();
    tools.store.openTrace = never;
    const answer = ask();
    await vi.advanceTimersByTimeAsync(TRACE_DEADLINE_MS);
    expect(await answer).toMatch(PREPEND);
  });

  test('checks under way end with the daemon', async () => {
    const { ask, spf, responder } = await start();
    spf.run = never;
    const answer = ask();
    responder.abort();
    expect(await answer).toMatch(/^DEFER_IF_PERMIT 4\.7\.0 /);
  });
});

describe('the record', () => {
  test('holds what was asked, found and said', async () => {
    const { ask, tools } = await start('', 'fail');
    tools.store.openTrace = (keys) => {
      tools.store.opened.push(keys);
      return Promise.resolve('abcdefgh234567ab');
    };
    const said = await ask({ size: '1000', queue_id: 'F3B6924C468', helo_name: 'odin' });
    expect(said).toBe(
      '550 5.7.23 SPF: the sending host is not allowed to send for this domain (abcdefgh234567ab)',
    );
    expect(tools.store.opened).toEqual([
      {
        session: '192.0.2.20:40235',
        sender: 'thor@valhalla.example',
        instance: '74fc.6b01513a.6a32c.0',
        queueId: 'F3B6924C468',
      },
    ]);
    expect(tools.store.decisions).toEqual([
      {
        trace: 'abcdefgh234567ab',
        time: 1_000_000,
        daemon: 'policyd',
        stage: 'rcpt',
        direction: 'in',
        queueId: 'F3B6924C468',
        client: '192.0.2.20',
        helo: 'odin',
        login: null,
        sender: 'thor@valhalla.example',
        recipients: ['zeus@olimpus.example'],
        messageId: null,
        size: 1000,
        verdict: 'reject',
        rule: 'spf.fail',
        why: 'thor@valhalla.example from 192.0.2.20: fail',
        score: null,
        tagged: false,
        reply: said,
        shadow: [],
        outcomes: [expect.objectContaining({ kind: 'found', check: 'spf' })],
        elapsed: 0,
      },
    ]);
  });

  test('has one entry for each refused recipient, however many lists ask, and one line each', async () => {
    const { ask, tools } = await start('', 'temperror');
    for (const recipient of ['zeus@olimpus.example', 'hera@olimpus.example']) {
      for (let list = 0; list < 4; list++) await ask({ recipient });
    }
    const recipients = tools.store.decisions.map((decision) => decision.recipients);
    expect(recipients).toEqual([['zeus@olimpus.example'], ['hera@olimpus.example']]);
    const levels = tools.lines.map(({ level }) => level);
    expect(levels.filter((level) => level === 'info')).toHaveLength(2);
    expect(levels.filter((level) => level === 'debug')).toHaveLength(6);
  });

  test('has one entry for a message that passes', async () => {
    const { ask, tools } = await start();
    for (const recipient of ['zeus@olimpus.example', 'hera@olimpus.example', 'apolo@olimpus.example']) {
      await ask({ recipient });
    }
    expect(tools.store.decisions).toHaveLength(1);
  });

  test('says what a rule in shadow would have done', async () => {
    const { ask, tools } = await start(
      '[rules]\n"spf.fail" = { action = "reject", shadow = true }\n',
      'fail',
    );
    expect(await ask()).toMatch(/^PREPEND Received-SPF: fail /);
    expect(tools.store.decisions).toMatchObject([
      { verdict: 'accept', shadow: [{ rule: 'spf.fail', kind: 'reject' }] },
    ]);
  });

  test('the log line has no control characters, whatever was sent', async () => {
    const { ask, tools } = await start('', 'fail');
    await ask({ helo_name: '\x1b[2J\x9b31m\0', sender: '\x07\x85@valhalla.example', recipient: '\x7f@\xe9' });
    const [line] = tools.lines;
    expect(line).toMatchObject({
      level: 'info',
      msg: 'request answered',
      daemon: 'policyd',
      helo: '?[2J?31m?',
      from: '"??"@valhalla.example',
      verdict: 'reject',
      findings: ['spf.fail'],
    });
    expect(JSON.stringify(line)).toMatch(/^[\x20-\x7e]+$/);
  });

  test('answers are counted by state, action and rule', async () => {
    const { ask, tools } = await start('', 'temperror');
    await ask();
    const requests = (labels: Record<string, string>): Promise<number | undefined> =>
      metric(tools.registry, 'postern_policyd_requests_total', labels);
    expect(await requests({ state: 'RCPT', action: 'DEFER_IF_PERMIT', rule: 'spf.temperror' })).toBe(1);
    // Known from the rules before they happen.
    expect(await requests({ state: 'RCPT', action: '5xx', rule: 'spf.fail' })).toBe(0);
    expect(await requests({ state: 'MAIL', action: '4xx', rule: 'unavailable:spf' })).toBe(0);
    expect(await requests({ state: 'RCPT', action: 'HOLD' })).toBeUndefined();
  });

  test('thresholds do not make labels', async () => {
    const toml = '[rules]\n"spf.fail" = "score 7"\n[thresholds]\nreject = 6.5\n';
    const { ask, tools } = await start(toml, 'fail');
    expect(await ask()).toMatch(/^550 5\.7\.1 /);
    expect(tools.store.decisions).toMatchObject([{ rule: 'score>=6.5', score: 7 }]);
    const labels = { state: 'RCPT', action: '5xx', rule: 'score' };
    expect(await metric(tools.registry, 'postern_policyd_requests_total', labels)).toBe(1);
  });
});

describe('reload', () => {
  test('a message that has begun is judged by the rules it began with, the next one by the new ones', async () => {
    const { ask, responder, spf } = await start('', 'fail');
    expect(await ask()).toMatch(REFUSED);
    responder.reload(await configOf('[rules]\n"spf.fail" = "quarantine"\n', spf));
    expect(await ask(HERA)).toMatch(REFUSED);
    expect(await ask({ instance: 'next' })).toMatch(/^HOLD /);
  });
});

describe('memory', () => {
  test('a message is forgotten MESSAGE_AGE_MS after its last request, not before', async () => {
    const { ask, spf, tools } = await start();
    await ask();
    tools.time.ms += MESSAGE_AGE_MS;
    expect(await ask()).toBe('DUNNO');
    tools.time.ms += MESSAGE_AGE_MS;
    expect(await ask()).toBe('DUNNO');
    tools.time.ms += MESSAGE_AGE_MS + 1;
    expect(await ask()).toMatch(PREPEND);
    expect(spf.asked).toHaveLength(2);
  });

  test('MESSAGE_LIMIT messages are remembered, the oldest goes for one more', async () => {
    const { ask, spf, tools } = await start();
    tools.log.level = 'silent';
    for (let message = 0; message < MESSAGE_LIMIT; message++) await ask({ instance: `m${message}` });
    await ask({ instance: 'm0' });
    expect(spf.asked).toHaveLength(MESSAGE_LIMIT);
    await ask({ instance: 'one more' });
    await ask({ instance: 'm0' });
    expect(spf.asked).toHaveLength(MESSAGE_LIMIT + 1);
    await ask({ instance: 'm1' });
    expect(spf.asked).toHaveLength(MESSAGE_LIMIT + 2);
  }, 120_000);

  test('long texts make it fewer', async () => {
    const { ask, spf, tools } = await start();
    tools.log.level = 'silent';
    const sender = `${'x'.repeat(8000)}@valhalla.example`;
    const most = Math.ceil(MEMORY_LIMIT / (4 * sender.length));
    for (let message = 0; message < most; message++) await ask({ instance: `m${message}`, sender });
    await ask({ instance: 'm0', sender });
    expect(spf.asked).toHaveLength(most + 1);
  });

  test('many recipients make it fewer', async () => {
    const { ask, spf, tools } = await start();
    tools.log.level = 'silent';
    const recipients = 1000;
    const most = Math.ceil(MEMORY_LIMIT / (2048 * recipients));
    for (let message = 0; message <= most; message++) {
      for (let index = 0; index < recipients; index++) {
        await ask({ instance: `m${message}`, recipient: `u${index}@example.org` });
      }
    }
    expect(spf.asked).toHaveLength(most + 1);
    await ask({ instance: 'm0' });
    expect(spf.asked).toHaveLength(most + 2);
    await ask({ instance: `m${most}` });
    expect(spf.asked).toHaveLength(most + 2);
  }, 120_000);
});
