import { expect, test } from 'vitest';

import { fullMailboxReply, isFull } from '../../../src/lmtp-filter/full-mailbox.ts';
import { metric } from '../../support/metric.ts';
import type { LmtpTalk } from '../../support/players/lmtp-talk.ts';
import { letter, startFilter, type Running } from './support.ts';

const HOUR = 3_600_000;
const QID = '8180B24C465';
const FULL = '552 5.2.2 <zeus@olimpus.local> Quota exceeded (mailbox for user is full)';

async function send(client: LmtpTalk, users: readonly string[]): Promise<readonly string[]> {
  expect(await client.ask(`XFORWARD IDENT=${QID} SOURCE=REMOTE ADDR=192.0.2.20`)).toMatch(/^250 /);
  client.send(
    `MAIL FROM:<thor@valhalla.local>\r\n${users.map((user) => `RCPT TO:<${user}@olimpus.local>\r\n`).join('')}DATA\r\n`,
  );
  const [, ...rcpt] = await client.replies(users.length + 1);
  const go = await client.reply();
  if (go.startsWith('503')) {
    await client.ask('RSET');
    return rcpt;
  }
  client.send(`${letter()}.\r\n`);
  return [
    ...rcpt.filter((reply) => !reply.startsWith('2')),
    ...(await client.replies(rcpt.filter((reply) => reply.startsWith('2')).length)),
  ];
}

/** As if the tries so far had been so long ago. */
function age(running: Running, ms: number): void {
  const { decisions } = running.tools.store;
  const older = decisions.map((decision) => ({ ...decision, time: decision.time - ms }));
  decisions.splice(0, decisions.length, ...older);
}

function counted(running: Running, kind: string): Promise<number | undefined> {
  return metric(running.tools.registry, 'postern_lmtp_backscatter_total', { kind });
}

test.each([
  ['after the dot', 'full'],
  ['at RCPT', 'refused'],
] as const)(
  'a full mailbox, told %s: put off for so long from the first try on, then refused; both are counted',
  async (_, how) => {
    await using running = await startFilter({ keys: 'full_mailbox_wait = "2h"' });
    running.dovecot[how].set('<zeus@olimpus.local>', FULL);
    await using client = await running.client();
    const deferred = FULL.replace('552 5.', '452 4.');
    expect(await send(client, ['zeus'])).toEqual([deferred]);
    age(running, 2 * HOUR - 60_000);
    expect(await send(client, ['zeus'])).toEqual([deferred]);
    age(running, 60_000);
    expect(await send(client, ['zeus'])).toEqual([FULL]);
    expect(
      running.tools.store.decisions.map(({ reply, recipients }) => [reply.slice(0, 9), recipients[0]]),
    ).toEqual([
      ['452 4.2.2', 'zeus@olimpus.local'],
      ['452 4.2.2', 'zeus@olimpus.local'],
      ['552 5.2.2', 'zeus@olimpus.local'],
    ]);
    expect(await counted(running, 'full_deferred')).toBe(2);
    expect(await counted(running, 'full_refused')).toBe(1);
    // The queue id belongs to another message some day.
    expect(await send(client, ['zeus'])).toEqual([deferred]);
  },
);

test('each recipient waits for itself', async () => {
  await using running = await startFilter({ keys: 'full_mailbox_wait = "2h"' });
  running.dovecot.full.set('<zeus@olimpus.local>', FULL);
  await using client = await running.client();
  await send(client, ['zeus', 'hera']);
  age(running, 2 * HOUR);
  running.dovecot.full.set('<hera@olimpus.local>', FULL.replace('zeus', 'hera'));
  expect((await send(client, ['zeus', 'hera'])).map((reply) => reply.slice(0, 3))).toEqual(['552', '452']);
});

test('"0s" leaves it to Dovecot', async () => {
  await using running = await startFilter({ keys: 'full_mailbox_wait = "0s"' });
  running.dovecot.full.set('<zeus@olimpus.local>', FULL);
  await using client = await running.client();
  expect(await send(client, ['zeus'])).toEqual([FULL]);
});

const REPLY = { code: 552, lines: ['5.2.2 <z@x> full'] };
const CLOCK = { now: () => 0, elapsed: () => 0 };

test('without a queue id Dovecot decides; without the record mail waits on', async () => {
  await using running = await startFilter();
  const { store, log } = running.tools;
  const tools = { store, log, clock: CLOCK };
  expect(await fullMailboxReply(REPLY, { queueId: null, recipient: 'z@x', wait: HOUR }, tools)).toBe(REPLY);
  const broken = { ...store, history: () => Promise.reject(new Error('the disk is full')) };
  const mailbox = { queueId: QID, recipient: 'z@x', wait: HOUR };
  expect(await fullMailboxReply(REPLY, mailbox, { ...tools, store: broken })).toEqual({
    code: 452,
    lines: ['4.2.2 <z@x> full'],
  });
  expect(running.tools.lines.at(-1)).toMatchObject({ level: 'warn' });
});

test.each([
  [{ code: 552, lines: ['5.2.2 x'] }, true],
  [{ code: 452, lines: ['4.2.2 x'] }, true],
  [{ code: 250, lines: ['2.0.0 4.2.2'] }, false],
  [{ code: 552, lines: ['5.2.20 x'] }, false],
  [{ code: 552, lines: ['5.3.4 x'] }, false],
])('%j is a full mailbox: %s', (reply, expected) => {
  expect(isFull(reply)).toBe(expected);
});

test('refusals at RCPT are in the ledger once DATA comes; a probe sends none', async () => {
  await using running = await startFilter();
  running.dovecot.refused.set(
    '<nobody@olimpus.local>',
    "550 5.1.1 <nobody@olimpus.local> User doesn't exist",
  );
  await using client = await running.client();
  await client.ask('MAIL FROM:<double-bounce@olimpus.local>');
  expect(await client.ask('RCPT TO:<nobody@olimpus.local>')).toMatch(/^550 5\.1\.1 /);
  await client.ask('RSET');
  expect(running.tools.store.decisions).toEqual([]);
  await send(client, ['nobody', 'zeus']);
  expect(
    running.tools.store.decisions.map(({ stage, rule, verdict, recipients }) => [
      stage,
      rule,
      verdict,
      recipients,
    ]),
  ).toEqual(
    expect.arrayContaining([
      ['rcpt', 'mailbox.unknown', 'reject', ['nobody@olimpus.local']],
      ['message', 'default', 'accept', ['zeus@olimpus.local']],
    ]),
  );
  expect(await counted(running, 'unknown_user')).toBe(1);
  expect(await counted(running, 'other')).toBe(0);
});
