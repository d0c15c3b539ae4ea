import { expect, test } from 'vitest';

import type { LmtpTalk } from '../../support/players/lmtp-talk.ts';
import { STORE_DEADLINE_MS } from '../../../src/lmtp-filter/origin.ts';
import { spamFinding } from '../../../src/checks/spam.ts';
import type { KeptFacts } from '../../../src/ports/store.ts';
import { metric } from '../../support/metric.ts';
import { letter, SCAN, spamStub, startFilter, stubCheck, type Running } from './support.ts';

const QUEUE_ID = '8180B24C465';
const TRACE = 'abcdefghijklmno2';
const ON_TOP = `X-Postern-Trace: ${TRACE}\r\n`;

/** One message to these users; the replies after the dot. */
async function deliver(
  client: LmtpTalk,
  names: readonly string[],
  message: string,
  forward = '',
): Promise<string[]> {
  if (forward !== '') await client.ask(`XFORWARD ${forward}`);
  const rcpts = names.map((name) => `RCPT TO:<${name}@olimpus.local>\r\n`).join('');
  client.send(`MAIL FROM:<thor@valhalla.local>\r\n${rcpts}DATA\r\n`);
  await client.replies(names.length + 2);
  client.send(`${message}.\r\n`);
  const replies = await client.replies(names.length);
  // Answered when the message is done with.
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');
  return replies;
}

function contentFor(running: Running, name: string): string {
  return running.dovecot.mails.find(({ to }) => to.includes(`<${name}@olimpus.local>`))?.content ?? '';
}

test('each recipient gets what the rules for it say; equal content shares a transaction', async () => {
  await using running = await startFilter({
    checks: [spamStub(7)],
    toml: [
      '[thresholds]\ntag = 5',
      '[[override]]\nrecipients = ["reject@olimpus.local"]\nthresholds = { reject = 6 }',
      '[[override]]\nrecipients = ["junk@olimpus.local"]\nthresholds = { junk = 6 }',
      '[[override]]\nrecipients = ["plain@olimpus.local", "clear@olimpus.local"]\nthresholds = { tag = false }',
      '[[override]]\nrecipients = ["gone@olimpus.local"]\nrules = { "spam.scored" = "discard" }',
      '[[override]]\nrecipients = ["held@olimpus.local"]\nrules = { "spam.scored" = "quarantine" }',
    ].join('\n'),
  });
  await using client = await running.client();
  const names = ['zeus', 'reject', 'plain', 'junk', 'gone', 'clear', 'held', 'hera'];
  const replies = await deliver(client, names, letter());
  const trace = running.tools.store.decisions[0]?.trace ?? '';
  expect(replies).toEqual([
    '250 2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved',
    `550 5.7.1 This message was classified as spam (${trace})`,
    '250 2.0.0 <plain@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved',
    '250 2.0.0 <junk@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved',
    `250 2.0.0 Message discarded by the rules of this site (${trace})`,
    '250 2.0.0 <clear@olimpus.local> kMpbMDdUAWueEwAApsd9UA:R2 Saved',
    '250 2.0.0 <held@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved',
    '250 2.0.0 <hera@olimpus.local> kMpbMDdUAWueEwAApsd9UA:R2 Saved',
  ]);
  expect(running.dovecot.mails.map(({ to }) => to.join())).toEqual([
    '<zeus@olimpus.local>,<hera@olimpus.local>',
    '<plain@olimpus.local>,<clear@olimpus.local>',
    '<junk@olimpus.local>',
    '<held@olimpus.local>',
  ]);
  expect(running.dovecot.connections).toBe(1);
  expect(contentFor(running, 'zeus')).toContain('Subject: [SPAM] one\r\n');
  expect(contentFor(running, 'zeus')).toContain('X-Spam-Flag: YES\r\n');
  expect(contentFor(running, 'plain')).not.toContain('X-Spam-Flag');
  expect(contentFor(running, 'plain')).toContain('\r\nSubject: one\r\n');
  expect(contentFor(running, 'junk')).toMatch(/^X-Postern-Verdict: junk; reason=score>=6\r\n/m);
  // No quarantine is there: nothing is lost, and it looks like nothing else.
  expect(contentFor(running, 'held')).toMatch(/^X-Postern-Verdict: quarantine; reason=spam\.scored\r\n/m);
  expect(contentFor(running, 'held')).toContain('X-Spam-Flag: YES\r\n');
  for (const { content } of running.dovecot.mails) {
    expect(content.endsWith('\r\n\r\nHello from the lab.\r\n')).toBe(true);
    expect(content.match(new RegExp(`^X-Postern-Trace: ${trace}\r$`, 'gm'))).toHaveLength(1);
  }
  expect(
    running.tools.store.decisions.map(({ recipients, verdict, reply }) => [
      recipients.join(),
      verdict,
      reply,
    ]),
  ).toEqual(
    names.map((name, i) => [
      `${name}@olimpus.local`,
      ['accept', 'reject', 'accept', 'junk', 'discard', 'accept', 'quarantine', 'accept'][i],
      replies[i],
    ]),
  );
  const { registry, lines } = running.tools;
  const count = (result: string): Promise<number | undefined> =>
    metric(registry, 'postern_lmtp_recipients_total', { result });
  expect([
    await count('delivered'),
    await count('spam_filed'),
    await count('rejected'),
    await count('discarded'),
  ]).toEqual([2, 4, 1, 1]);
  expect(await metric(registry, 'postern_lmtp_messages_total', { direction: 'in', verdict: 'discard' })).toBe(
    1,
  );
  expect(lines).toHaveLength(1);
});

test('a refusal by Dovecot of one group leaves the others alone', async () => {
  await using running = await startFilter({
    checks: [spamStub(7)],
    toml: '[thresholds]\ntag = 5\n[[override]]\nrecipients = ["plain@olimpus.local"]\nthresholds = { tag = false }',
  });
  // Accepted at first, and full when it comes to its own transaction.
  let asked = 0;
  running.dovecot.fault = ({ step, argument }) =>
    step === 'RCPT' && argument === '<plain@olimpus.local>' && ++asked > 1
      ? { text: '452 4.2.2 <plain@olimpus.local> Quota exceeded\r\n' }
      : null;
  await using client = await running.client();
  expect((await deliver(client, ['plain', 'zeus'], letter())).map((reply) => reply.slice(0, 9))).toEqual([
    '452 4.2.2',
    '250 2.0.0',
  ]);
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');
});

test('a connection lost with one group leaves the others alone', async () => {
  await using running = await startFilter({
    checks: [spamStub(7)],
    toml: '[thresholds]\ntag = 5\n[[override]]\nrecipients = ["plain@olimpus.local"]\nthresholds = { tag = false }',
  });
  running.dovecot.fault = ({ step, argument }) =>
    step === 'dot' && argument === '<plain@olimpus.local>' ? { text: '', after: 'close' } : null;
  await using client = await running.client();
  const replies = await deliver(client, ['zeus', 'plain', 'hera'], letter());
  expect(replies.map((reply) => reply.slice(0, 9))).toEqual(['250 2.0.0', '451 4.4.2', '250 2.0.0']);
  expect(await metric(running.tools.registry, 'postern_lmtp_possible_duplicates_total')).toBe(1);
});

test('a check that cannot be made defers by default', async () => {
  const spam = spamStub();
  spam.run = () => Promise.reject(new Error('no scanner'));
  await using running = await startFilter({ checks: [spam] });
  await using client = await running.client();
  const [reply] = await deliver(client, ['zeus'], letter());
  expect(reply).toMatch(/^451 4\.7\.0 .* \([a-z2-7]{16}\)$/);
  expect(running.dovecot.mails).toEqual([]);
  expect(running.dovecot.commands.at(-1)).toBe('RSET');
  expect(running.tools.store.decisions[0]).toMatchObject({ verdict: 'defer', rule: 'unavailable:spam' });
});

test('checks that outlast the deadline count as unavailable', async () => {
  const spam = spamStub();
  spam.run = (_, signal) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('aborted')));
    });
  await using running = await startFilter({ checks: [spam], keys: 'deadline = "50ms"' });
  await using client = await running.client();
  expect((await deliver(client, ['zeus'], letter()))[0]).toMatch(/^451 4\.7\.0 /);
  expect(running.tools.store.decisions[0]?.outcomes).toMatchObject([
    { kind: 'unavailable', reason: 'deadline' },
  ]);
});

/** spf, dkim, dmarc and spam, as their names go. */
function allChecks(): readonly ReturnType<typeof stubCheck>[] {
  return [
    stubCheck('spf', ['spf.fail']),
    stubCheck('dkim', ['dkim.pass']),
    stubCheck('dmarc', ['dmarc.fail']),
    spamStub(7),
  ];
}

function askedOf(checks: readonly ReturnType<typeof stubCheck>[]): number[] {
  return checks.map(({ asked }) => asked.length);
}

/** What the milter kept, with that score. */
function kept(score: number, direction: KeptFacts['direction'] = 'in'): KeptFacts {
  return {
    direction,
    outcomes: [
      { kind: 'found', check: 'spf', findings: [], elapsed: 1 },
      { kind: 'found', check: 'dmarc', findings: [{ code: 'dmarc.fail', detail: 'x' }], elapsed: 1 },
      { kind: 'found', check: 'spam', findings: [spamFinding({ ...SCAN, score })], elapsed: 1 },
    ],
  };
}

const REMOTE = `ADDR=192.0.2.20 PORT=43741 HELO=odin IDENT=${QUEUE_ID} SOURCE=REMOTE`;

test("the milter's findings are used, its scan too, and nothing is asked again", async () => {
  const checks = allChecks();
  await using running = await startFilter({
    checks,
    toml: '[rules]\n"dmarc.fail" = "junk"\n[thresholds]\ntag = 5',
  });
  const { store, registry } = running.tools;
  store.facts.set(`${TRACE} ${QUEUE_ID}`, kept(9));
  await using client = await running.client();
  await deliver(client, ['zeus'], letter({ top: ON_TOP }), REMOTE);
  // Without XFORWARD the queue id is that of the topmost Received.
  await deliver(client, ['zeus'], letter({ top: ON_TOP }));
  expect(askedOf(checks)).toEqual([0, 0, 0, 0]);
  expect(store.joined).toEqual([]);
  expect(store.decisions).toHaveLength(2);
  for (const decision of store.decisions) {
    expect(decision).toMatchObject({
      trace: TRACE,
      verdict: 'junk',
      rule: 'dmarc.fail',
      score: 9,
      tagged: true,
    });
    expect(decision.outcomes.map(({ check }) => check)).toEqual(['spf', 'dmarc', 'spam']);
  }
  expect(await metric(registry, 'postern_lmtp_scans_total', { source: 'milter' })).toBe(2);
});

test('mail that the milter took for outgoing is outgoing', async () => {
  const checks = allChecks();
  await using running = await startFilter({ checks });
  running.tools.store.facts.set(`${TRACE} ${QUEUE_ID}`, { direction: 'out', outcomes: [] });
  await using client = await running.client();
  await deliver(client, ['zeus'], letter({ top: ON_TOP }), REMOTE);
  expect(askedOf(checks)).toEqual([0, 0, 0, 0]);
  expect(running.tools.store.decisions[0]).toMatchObject({
    trace: TRACE,
    direction: 'out',
    verdict: 'accept',
  });
});

test('without kept facts the message is scanned, and authenticated only where the client is known', async () => {
  const checks = allChecks();
  await using running = await startFilter({ checks });
  await using client = await running.client();
  await deliver(client, ['zeus'], letter(), REMOTE);
  expect(askedOf(checks)).toEqual([1, 1, 1, 1]);
  expect(checks[0]?.asked[0]?.client).toMatchObject({ address: '192.0.2.20', helo: 'odin', port: 43_741 });
  expect(checks[3]?.asked[0]?.message).toMatchObject({ received: true, envelope: { queueId: QUEUE_ID } });
  await deliver(client, ['zeus'], letter());
  expect(askedOf(checks)).toEqual([1, 1, 1, 2]);
});

test('a scan that the milter could not make is made here', async () => {
  const checks = allChecks();
  await using running = await startFilter({ checks });
  running.tools.store.facts.set(`${TRACE} ${QUEUE_ID}`, {
    direction: 'in',
    outcomes: [
      { kind: 'unavailable', check: 'spf', reason: 'deadline', detail: 'x', elapsed: 1 },
      { kind: 'unavailable', check: 'spam', reason: 'neighbour', detail: 'x', elapsed: 1 },
    ],
  });
  await using client = await running.client();
  await deliver(client, ['zeus'], letter({ top: ON_TOP }), REMOTE);
  expect(askedOf(checks)).toEqual([0, 0, 0, 1]);
  expect(running.tools.store.decisions[0]?.outcomes.map(({ kind, check }) => `${kind} ${check}`)).toEqual([
    'unavailable spf',
    'found spam',
  ]);
});

test.each([
  ['below the topmost Received', letter({ fields: ON_TOP }), REMOTE],
  ['with the queue id of another message', letter({ top: ON_TOP }), REMOTE.replace(QUEUE_ID, 'F00DF00D')],
  ['without any queue id', `${ON_TOP}Received: from x by y; date\r\nSubject: x\r\n\r\n`, ''],
  ['that is no trace', letter({ top: 'X-Postern-Trace: (forged)\r\n' }), REMOTE],
])('a trace %s is a forgery: the message is judged here', async (_, message, forward) => {
  const checks = allChecks();
  await using running = await startFilter({ checks });
  running.tools.store.facts.set(`${TRACE} ${QUEUE_ID}`, kept(-100));
  await using client = await running.client();
  await deliver(client, ['zeus'], message, forward);
  expect(checks[3]?.asked).toHaveLength(1);
  expect(running.tools.store.decisions[0]).toMatchObject({ score: 7 });
  expect(running.tools.store.decisions[0]?.trace).not.toBe(TRACE);
});

test('mail does not stop for the store', async () => {
  await using running = await startFilter({ checks: [spamStub(1)] });
  const { store, lines } = running.tools;
  store.joinTrace = () => Promise.reject(new Error('database is locked'));
  store.keptFacts = () => Promise.reject(new Error('database is locked'));
  await using client = await running.client();
  expect((await deliver(client, ['zeus'], letter({ top: ON_TOP }), REMOTE))[0]).toMatch(/^250 /);
  expect(lines.filter(({ level }) => level === 'warn').map(({ msg }) => msg)).toEqual([
    'what the milter found could not be read',
    'trace could not be joined in the store',
  ]);
});

test('nor for a store that does not answer', async () => {
  await using running = await startFilter();
  const { store, lines } = running.tools;
  store.joinTrace = () => new Promise(() => {});
  await using client = await running.client();
  const begun = performance.now();
  expect((await deliver(client, ['zeus'], letter()))[0]).toMatch(/^250 /);
  expect(performance.now() - begun).toBeGreaterThan(STORE_DEADLINE_MS / 2);
  expect(lines[0]).toMatchObject({ level: 'warn', msg: 'trace could not be joined in the store' });
});

test.each([
  ['from outside', REMOTE, letter(), 'in'],
  ['from this machine', `SOURCE=LOCAL IDENT=${QUEUE_ID}`, letter(), 'out'],
  ['from an own network', 'ADDR=127.0.0.9 SOURCE=REMOTE', letter(), 'out'],
  ['by a login', REMOTE, letter().replace('with ESMTP ', 'with ESMTPSA '), 'out'],
  ['by a login with SMTPUTF8', REMOTE, letter().replace('with ESMTP ', 'with UTF8SMTPSA '), 'out'],
  ['over TLS without a login', REMOTE, letter().replace('with ESMTP ', 'with ESMTPS '), 'in'],
  [
    'by a login, as far as a stranger says',
    REMOTE.replace(QUEUE_ID, 'F00D'),
    letter().replace('with ESMTP ', 'with ESMTPSA '),
    'in',
  ],
  [
    'by a login, for all that is known without XFORWARD',
    '',
    letter().replace('with ESMTP ', 'with ESMTPSA '),
    'in',
  ],
])('mail %s', async (_, forward, message, direction) => {
  const spam = spamStub(1);
  await using running = await startFilter({ checks: [spam] });
  await using client = await running.client();
  await deliver(client, ['zeus'], message, forward);
  expect(running.tools.store.decisions[0]?.direction).toBe(direction);
  expect(spam.asked).toHaveLength(direction === 'in' ? 1 : 0);
});
