import fc from 'fast-check';
import { expect, test } from 'vitest';

import { FakeDovecot, type Answer, type Step } from '../../support/players/fake-dovecot.ts';
import { metric } from '../../support/metric.ts';
import { letter, spamStub, startFilter, type Running } from './support.ts';

const NAMES = ['apolo', 'hera', 'zeus', 'hera'];

interface Delivered {
  readonly rcpt: readonly string[];
  /** Replies after the dot; null when it did not come so far. */
  readonly dot: readonly string[] | null;
}

/** A whole transaction by a client that pipelines like Postfix, and counts like it. */
async function deliverTo(running: Running, names: readonly string[]): Promise<Delivered> {
  await using client = await running.client();
  client.send('MAIL FROM:<thor@valhalla.local>\r\n');
  const mail = await client.reply();
  client.send(names.map((name) => `RCPT TO:<${name}@olimpus.local>\r\n`).join(''));
  const rcpt = await client.replies(names.length);
  client.send('DATA\r\n');
  const go = await client.reply();
  const accepted = rcpt.filter((reply) => reply.startsWith('2')).length;
  expect(go.slice(0, 3)).toBe(mail.startsWith('2') && accepted > 0 ? '354' : '503');
  if (accepted === 0) return { rcpt, dot: null };
  client.send(`${letter()}.\r\nQUIT\r\n`);
  const rest = await client.rest();
  // Exactly one for each position, and then the answer to QUIT.
  expect(rest.map((reply) => reply.slice(0, 3))).toHaveLength(accepted + 1);
  expect(rest.at(-1)).toBe('221 2.0.0 Bye');
  return { rcpt, dot: rest.slice(0, -1) };
}

/** `SAVED`: Dovecot's word for that recipient; otherwise the class of the reply. */
function gist(reply: string): string {
  if (/^250 2\.0\.0 <\w+@olimpus\.local> \S+ Saved$/.test(reply)) return 'SAVED';
  return /^4\d\d 4\./.test(reply) ? '4xx' : reply;
}

const STEPS: readonly Step[] = ['greeting', 'LHLO', 'RSET', 'MAIL', 'RCPT', 'DATA', 'content', 'dot'];
const FAULTS: readonly (readonly [string, Answer])[] = [
  ['closes', { after: 'close' }],
  ['resets', { after: 'reset' }],
  ['hangs', { after: 'hang' }],
  ['talks garbage', { text: 'hello\r\n' }],
  ['says 354', { text: '354 go\r\n' }],
  ['says 999', { text: '999 what\r\n' }],
  ['says half a reply and closes', { text: '250 2.0', after: 'close' }],
  ['says half a reply and hangs', { text: '250-2.0.0 half\r\n', after: 'hang' }],
  ['says 421 and closes', { text: '421 4.3.2 shutting down\r\n', after: 'close' }],
  ['says too much', { text: '250 2.0.0 OK\r\n'.repeat(9) }],
  ['talks without end', { text: 'x'.repeat(20_000) }],
];

/** What is to be seen, when Dovecot behaves like that at that step. */
function expected(
  step: Step,
  fault: string,
  after: Answer['after'],
): { gist: string; stored: number; duplicates: boolean } {
  const saved = { gist: 'SAVED', stored: 1, duplicates: false };
  // 354 is what DATA is to be answered with; a connection that does not take RSET is replaced by another.
  if (step === 'DATA' && fault === 'says 354') return saved;
  if (step === 'RSET' && after !== 'hang') return saved;
  // A small message leaves in one piece with its dot: it may be stored as long as nothing else is said.
  const duplicates = step === 'dot' || step === 'content';
  const stored = step === 'dot' || (step === 'content' && after === undefined) ? 1 : 0;
  return { gist: '4xx', stored, duplicates };
}

test.each(STEPS.flatMap((step) => FAULTS.map(([name, answer]) => [step, name, answer] as const)))(
  'at %s Dovecot %s: one reply for each position, and no 250 that is not its own',
  async (step, name, answer) => {
    await using running = await startFilter({ keys: 'upstream_timeout = "100ms"' });
    running.dovecot.fault = (context) => (context.step === step ? answer : null);
    const { rcpt, dot } = await deliverTo(running, NAMES);
    const wanted = expected(step, name, answer.after);
    expect([...new Set((dot ?? rcpt).map(gist))]).toEqual([wanted.gist]);
    expect(running.dovecot.mails).toHaveLength(wanted.stored);
    const duplicates = await metric(running.tools.registry, 'postern_lmtp_possible_duplicates_total');
    expect((duplicates ?? 0) > 0).toBe(wanted.duplicates);
  },
);

test('Dovecot goes after k of n replies: the k stand, the others are deferred', async () => {
  for (let k = 0; k <= NAMES.length; k++) {
    await using running = await startFilter();
    running.dovecot.fault = ({ step, argument }) => {
      if (step !== 'dot') return null;
      const replies = argument.split(' ').map((path) => `250 2.0.0 ${path} Saved\r\n`);
      return { text: replies.slice(0, k).join(''), after: 'close' };
    };
    const { dot } = await deliverTo(running, NAMES);
    expect(dot?.map((reply) => reply.slice(0, 3))).toEqual(NAMES.map((_, i) => (i < k ? '250' : '451')));
    expect(await metric(running.tools.registry, 'postern_lmtp_possible_duplicates_total')).toBe(
      NAMES.length - k,
    );
  }
});

test('replies that come octet by octet are the same', async () => {
  await using running = await startFilter();
  running.dovecot.pieces = 1;
  const { dot } = await deliverTo(running, NAMES);
  expect(dot?.every((reply) => /^250 2\.0\.0 <\w+@olimpus\.local> \S+ Saved$/.test(reply))).toBe(true);
});

test('a connection that Dovecot closed while it was idle costs nobody anything', async () => {
  await using running = await startFilter();
  await deliverTo(running, ['zeus']);
  // Not told: the next use finds out.
  running.dovecot.fault = ({ step, connection }) =>
    step === 'RSET' && connection === 0 ? { after: 'reset' } : null;
  const { dot } = await deliverTo(running, ['zeus']);
  expect(dot?.[0]).toMatch(/^250 2\.0\.0 <zeus@/);
  expect(running.dovecot.connections).toBe(2);
  expect(running.dovecot.mails).toHaveLength(2);
});

test('a connection lost between RCPT and the dot is replaced', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  client.send('MAIL FROM:<thor@valhalla.local>\r\nRCPT TO:<zeus@olimpus.local>\r\nDATA\r\n');
  await client.replies(3);
  const closed = running.dovecot.closed();
  running.dovecot.closeAll();
  await closed;
  client.send(`${letter()}.\r\n`);
  expect(await client.reply()).toMatch(/^250 2\.0\.0 <zeus@/);
  expect(running.dovecot.connections).toBe(2);
});

test('a message that is half sent is given up by closing, never by its dot', async () => {
  await using running = await startFilter({ keys: 'upstream_timeout = "100ms"' });
  running.dovecot.fault = ({ step }) => (step === 'content' ? { after: 'hang' } : null);
  await using client = await running.client();
  client.send('MAIL FROM:<thor@valhalla.local>\r\nRCPT TO:<zeus@olimpus.local>\r\nDATA\r\n');
  await client.replies(3);
  client.send(letter({ body: `${'x'.repeat(70)}\r\n`.repeat(400_000) }));
  client.send('.\r\n');
  expect(await client.reply()).toMatch(/^451 4\.4\.2 /);
  expect(running.dovecot.mails).toEqual([]);
  expect(await metric(running.tools.registry, 'postern_lmtp_possible_duplicates_total')).toBe(0);
});

test('a client that leaves within its message has sent none', async () => {
  await using running = await startFilter();
  {
    await using client = await running.client();
    client.send('MAIL FROM:<thor@valhalla.local>\r\nRCPT TO:<zeus@olimpus.local>\r\nDATA\r\n');
    await client.replies(3);
    client.send(letter());
  }
  // The next session finds Dovecot's connection in order.
  await deliverTo(running, ['hera']);
  expect(running.dovecot.mails.map(({ to }) => to)).toEqual([['<hera@olimpus.local>']]);
  expect(running.tools.store.decisions).toHaveLength(1);
});

test('a client that leaves before the message is judged gets it delivered by its next try only', async () => {
  const spam = spamStub(0);
  await using running = await startFilter({ checks: [spam] });
  const asked = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  spam.run = (_, signal) => {
    asked.resolve();
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        ended.resolve();
        reject(new Error('aborted'));
      });
    });
  };
  const client = await running.client();
  client.send('MAIL FROM:<thor@valhalla.local>\r\nRCPT TO:<zeus@olimpus.local>\r\nDATA\r\n');
  await client.replies(3);
  client.send(`${letter()}.\r\n`);
  await asked.promise;
  client.socket.destroy();
  await ended.promise;
  await running.daemon.stop(new AbortController().signal);
  expect(running.dovecot.mails).toEqual([]);
  expect(running.tools.store.decisions).toEqual([]);
});

test('a client that leaves while Dovecot stores: what it was not told counts as a possible duplicate', async () => {
  await using running = await startFilter();
  const client = await running.client();
  running.dovecot.fault = ({ step }) => {
    if (step !== 'dot') return null;
    client.socket.destroy();
    return { text: '' };
  };
  client.send(
    'MAIL FROM:<thor@valhalla.local>\r\nRCPT TO:<zeus@olimpus.local>\r\nRCPT TO:<hera@olimpus.local>\r\nDATA\r\n',
  );
  await client.replies(4);
  const closed = new Promise((resolve) => client.socket.once('close', resolve));
  client.send(`${letter()}.\r\n`);
  await closed;
  const stop = new AbortController();
  const stopped = running.daemon.stop(stop.signal);
  stop.abort();
  await stopped;
  expect(await metric(running.tools.registry, 'postern_lmtp_possible_duplicates_total')).toBe(2);
});

test('every mix of recipients: one reply for each accepted position, with what became of it', async () => {
  const dovecot = await FakeDovecot.open();
  await using running = await startFilter({
    dovecot,
    checks: [spamStub(7)],
    toml: [
      '[thresholds]\ntag = 5',
      '[[override]]\nrecipients = ["reject@olimpus.local"]\nthresholds = { reject = 6 }',
      '[[override]]\nrecipients = ["junk@olimpus.local"]\nthresholds = { junk = 6 }',
      '[[override]]\nrecipients = ["plain@olimpus.local"]\nthresholds = { tag = false }',
      '[[override]]\nrecipients = ["discard@olimpus.local"]\nrules = { "spam.scored" = "discard" }',
      '[[override]]\nrecipients = ["defer@olimpus.local"]\nrules = { "spam.scored" = "defer" }',
    ].join('\n'),
  });
  dovecot.refused.set('<unknown@olimpus.local>', '550 5.1.1 <unknown@olimpus.local> no such user');
  dovecot.refused.set('<later@olimpus.local>', '451 4.3.0 <later@olimpus.local> Temporary internal error');
  dovecot.full.set('<full@olimpus.local>', '552 5.2.2 <full@olimpus.local> Quota exceeded');
  const expectedReply: Readonly<Record<string, RegExp>> = {
    zeus: /^250 2\.0\.0 <zeus@olimpus\.local> /,
    plain: /^250 2\.0\.0 <plain@olimpus\.local> /,
    junk: /^250 2\.0\.0 <junk@olimpus\.local> /,
    full: /^452 4\.2\.2 <full@/,
    reject: /^550 5\.7\.1 .* \([a-z2-7]{16}\)$/,
    defer: /^451 4\.7\.0 .* \([a-z2-7]{16}\)$/,
    discard: /^250 2\.0\.0 Message discarded .* \([a-z2-7]{16}\)$/,
  };
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...Object.keys(expectedReply), 'unknown', 'later'), {
        minLength: 1,
        maxLength: 12,
      }),
      fc.constantFrom(0, 7),
      async (names, pieces) => {
        dovecot.mails.length = 0;
        dovecot.pieces = pieces;
        const { rcpt, dot } = await deliverTo(running, names);
        expect(rcpt.map((reply) => reply.slice(0, 3))).toEqual(
          names.map((name) => ({ unknown: '550', later: '451' })[name] ?? '250'),
        );
        const accepted = names.filter((name) => name !== 'unknown' && name !== 'later');
        expect(dot?.length ?? 0).toBe(accepted.length);
        expect(accepted.filter((name, i) => expectedReply[name]?.test(dot?.[i] ?? '') !== true)).toEqual([]);
        // Everybody's mail was stored as often as promised, and nobody else's.
        const stored = dovecot.mails.flatMap(({ to }) => to).toSorted();
        const promised = accepted.filter((name) => ['zeus', 'plain', 'junk'].includes(name));
        expect(stored).toEqual(promised.map((name) => `<${name}@olimpus.local>`).toSorted());
      },
    ),
    { numRuns: 60 },
  );
});
