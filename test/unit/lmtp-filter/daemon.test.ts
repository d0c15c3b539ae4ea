import { expect, test } from 'vitest';

import { HEADER_LIMIT } from '../../../src/lmtp-filter/intake.ts';
import { HOP_LIMIT } from '../../../src/lmtp-filter/received.ts';
import { RECIPIENT_LIMIT } from '../../../src/lmtp-filter/transaction.ts';
import { FakeDovecot, lenientContent, strictContent, strictEnd } from '../../support/players/fake-dovecot.ts';
import type { LmtpTalk } from '../../support/players/lmtp-talk.ts';
import { metric } from '../../support/metric.ts';
import { letter, spamStub, startFilter } from './support.ts';

const NEVER = new AbortController().signal;

async function data(client: LmtpTalk, ...names: readonly string[]): Promise<void> {
  const rcpts = names.map((name) => `RCPT TO:<${name}@olimpus.local>\r\n`).join('');
  client.send(`MAIL FROM:<thor@valhalla.local>\r\n${rcpts}DATA\r\n`);
  const replies = await client.replies(names.length + 2);
  expect(replies.at(-1)).toMatch(/^354 /);
}

test('a message is stored once, with its trace, counted, logged in one line and recorded for its recipient', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  client.send('XFORWARD NAME=odin.valhalla.local ADDR=192.0.2.20 PORT=43741\r\n');
  client.send('XFORWARD PROTO=ESMTP HELO=odin IDENT=8180B24C465 SOURCE=REMOTE\r\n');
  await client.replies(2);
  await data(client, 'zeus');
  client.send(`${letter({ fields: 'Message-Id: <1@odin>\r\n' })}.\r\n`);
  const saved = '250 2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved';
  expect(await client.reply()).toBe(saved);
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');

  const { store, lines, registry } = running.tools;
  const [decision] = store.decisions;
  expect(store.decisions).toHaveLength(1);
  expect(decision).toMatchObject({
    daemon: 'lmtp-filter',
    stage: 'message',
    direction: 'in',
    queueId: '8180B24C465',
    client: '192.0.2.20',
    helo: 'odin',
    sender: 'thor@valhalla.local',
    recipients: ['zeus@olimpus.local'],
    messageId: '<1@odin>',
    verdict: 'accept',
    rule: 'default',
    reply: saved,
  });
  expect(running.dovecot.mails).toHaveLength(1);
  expect(running.dovecot.mails[0]?.content).toBe(
    `X-Postern-Trace: ${decision?.trace}\r\n${letter({ fields: 'Message-Id: <1@odin>\r\n' })}`,
  );
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({
    level: 'info',
    msg: 'message',
    daemon: 'lmtp-filter',
    trace: decision?.trace,
    qid: '8180B24C465',
    from: 'thor@valhalla.local',
    to: 1,
    verdict: 'accept',
    findings: [],
    recipients: [{ to: 'zeus@olimpus.local', verdict: 'accept', rule: 'default', reply: saved }],
  });
  expect(await metric(registry, 'postern_lmtp_messages_total', { direction: 'in', verdict: 'accept' })).toBe(
    1,
  );
  expect(await metric(registry, 'postern_lmtp_recipients_total', { result: 'delivered' })).toBe(1);
  expect(await metric(registry, 'postern_lmtp_scans_total', { source: 'here' })).toBe(1);
  expect(await metric(registry, 'postern_lmtp_sessions')).toBe(1);
});

test.each([
  ['header and body', 'Subject: x\r\n\r\nbody\r\n', 'Subject: x\r\n\r\nbody\r\n'],
  ['no body', 'Subject: x\r\n', 'Subject: x\r\n'],
  ['an empty body', 'Subject: x\r\n\r\n', 'Subject: x\r\n\r\n'],
  ['no header', '\r\nbody\r\n', '\r\nbody\r\n'],
  ['nothing', '', ''],
  ['8-bit and NUL', 'Subject: \u00ff\0\r\n\r\n\0\u00ff\r\n', 'Subject: \u00ff\0\r\n\r\n\0\u00ff\r\n'],
  ['bare LF in the header', 'Subject: x\nX-Other: y\n\nbody\r\n', 'Subject: x\r\nX-Other: y\r\n\r\nbody\r\n'],
])('a message of %s keeps its lines', async (_, sent, stored) => {
  await using running = await startFilter();
  await using client = await running.client();
  await data(client, 'zeus');
  client.send(`${sent}.\r\n`);
  expect(await client.reply()).toMatch(/^250 /);
  const trace = running.tools.store.decisions[0]?.trace;
  expect(running.dovecot.mails[0]?.content).toBe(`X-Postern-Trace: ${trace}\r\n${stored}`);
});

const FORGED =
  'MAIL FROM:<ceo@olimpus.local>\r\nRCPT TO:<hera@olimpus.local>\r\nDATA\r\nSubject: forged\r\n\r\nx\r\n.\r\nQUIT\r\n';

// What a client may send between two pieces of a body to have Dovecot 2.3 take the rest for commands.
const SMUGGLING: readonly (readonly [string, string, string])[] = [
  ['LF.LF', '\n.\n', '\r\n.\r\n'],
  ['LF.CRLF', '\n.\r\n', '\r\n.\r\n'],
  ['CRLF.LF', '\r\n.\n', '\r\n\r\n'],
  ['CR.CR', '\r.\r', '\r.\r'],
  ['CR.CRLF', '\r.\r\n', '\r.\r\n'],
  ['CR.LF', '\r.\n', '\r.\r\n'],
  ['CRLF.CR', '\r\n.\r', '\r\n\r'],
  ['LF.CR', '\n.\r', '\r\n.\r'],
  ['CRLF.CRCRLF', '\r\n.\r\r\n', '\r\n\r\r\n'],
  ['CRLF.NULCRLF', '\r\n.\0\r\n', '\r\n\0\r\n'],
  ['CRLF.NULLF', '\r\n.\0\n', '\r\n\0\r\n'],
  ['CRLF NUL.CRLF', '\r\n\0.\r\n', '\r\n\0.\r\n'],
  ['LFLF.LFLF', '\n\n.\n\n', '\r\n\r\n.\r\n\r\n'],
  ['CRLF..CRLF', '\r\n..\r\n', '\r\n.\r\n'],
  ['CRLF..LF', '\r\n..\n', '\r\n.\r\n'],
  ['LF..LF', '\n..\n', '\r\n..\r\n'],
];

test.each(SMUGGLING)('%s ends no message, to nobody, however it is cut', async (_, trick, meant) => {
  await using running = await startFilter();
  const payload = FORGED.replaceAll('\r\n.\r\nQUIT', '\r\nQUIT');
  const sent = `Subject: one\r\n\r\nfirst${trick}${payload}`;
  const expected = `Subject: one\r\n\r\nfirst${meant}${payload}`;
  const start = sent.indexOf('first') + 'first'.length;
  for (let cut = start - 2; cut <= start + trick.length + 2; cut++) {
    running.dovecot.mails.length = 0;
    await using client = await running.client();
    await data(client, 'zeus');
    await client.sendApart(sent.slice(0, cut));
    client.send(`${sent.slice(cut)}.\r\nQUIT\r\n`);
    const rest = await client.rest();
    expect(rest.map((reply) => reply.slice(0, 3))).toEqual(['250', '221']);
    const [mail, ...others] = running.dovecot.mails;
    expect(others).toEqual([]);
    const wire = mail?.wire ?? '';
    const content = `X-Postern-Trace: ${running.tools.store.decisions.at(-1)?.trace}\r\n${expected}`;
    expect([strictEnd(wire), strictContent(wire), lenientContent(wire)]).toEqual([
      wire.length,
      content,
      content,
    ]);
  }
  expect(running.dovecot.commands.filter((line) => line.includes('ceo@'))).toEqual([]);
});

test('a message may have so many octets, and one more is too many; the session goes on', async () => {
  await using running = await startFilter({ keys: 'max_message_size = "4KiB"\nmemory_per_message = "1KiB"' });
  await using client = await running.client();
  const body = 'x'.repeat(4096 - letter({ body: '' }).length - 2);
  await data(client, 'zeus');
  client.send(`${letter({ body: `${body}\r\n` })}.\r\n`);
  expect(await client.reply()).toMatch(/^250 /);
  await data(client, 'zeus', 'hera');
  client.send(`${letter({ body: `${body}x\r\n` })}.\r\n`);
  expect(await client.replies(2)).toEqual(Array(2).fill('552 5.3.4 Message size exceeds the limit'));
  await data(client, 'zeus');
  client.send(`${letter()}.\r\n`);
  expect(await client.reply()).toMatch(/^250 /);
  expect(running.dovecot.mails).toHaveLength(2);
  expect(running.dovecot.connections).toBe(1);
  expect(await metric(running.tools.registry, 'postern_lmtp_recipients_total', { result: 'rejected' })).toBe(
    2,
  );
});

test('a header section may have so many octets, and one more is too many', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  const bare = 'X-Long: \r\n\r\n';
  const field = (more: number): string =>
    `X-Long: ${'x'.repeat(HEADER_LIMIT - bare.length + more)}\r\n\r\nbody\r\n`;
  await data(client, 'zeus');
  client.send(`${field(0)}.\r\n`);
  expect(await client.reply()).toMatch(/^250 /);
  await data(client, 'zeus');
  client.send(`${field(1)}.\r\n`);
  expect(await client.reply()).toBe('552 5.3.4 Header section exceeds the limit');
});

test('so many hops are taken, and one more is a loop', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  const hops = 'Received: from a by b; Sat, 21 Nov 2026 08:13:00 +0000\r\n'.repeat(HOP_LIMIT);
  await data(client, 'zeus');
  client.send(`${hops}Subject: x\r\n\r\n.\r\n`);
  expect(await client.reply()).toMatch(/^250 /);
  await data(client, 'zeus');
  client.send(`${letter({ top: hops })}.\r\n`);
  expect(await client.reply()).toMatch(/^554 5\.4\.6 /);
  expect(running.dovecot.mails).toHaveLength(1);
});

test('so many recipients are taken, and one more is deferred', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  client.send(`MAIL FROM:<>\r\n${'RCPT TO:<zeus@olimpus.local>\r\n'.repeat(RECIPIENT_LIMIT + 1)}DATA\r\n`);
  const replies = await client.replies(RECIPIENT_LIMIT + 3);
  expect(replies.filter((reply) => reply === '250 2.1.5 OK')).toHaveLength(RECIPIENT_LIMIT);
  expect(replies.at(-2)).toMatch(/^452 4\.5\.3 /);
  client.send(`${letter()}.\r\nQUIT\r\n`);
  expect(await client.rest()).toHaveLength(RECIPIENT_LIMIT + 1);
});

test('a spool that cannot be written defers every position', async () => {
  await using running = await startFilter({
    keys: 'memory_per_message = "0B"',
    stateFolder: '/nonexistent/postern',
  });
  await using client = await running.client();
  await data(client, 'zeus', 'hera');
  client.send(`${letter({ body: `${'x'.repeat(70)}\r\n`.repeat(3000) })}.\r\n`);
  const replies = await client.replies(2);
  expect(replies.map((reply) => reply.slice(0, 9))).toEqual(['452 4.3.1', '452 4.3.1']);
  expect(running.dovecot.mails).toEqual([]);
  expect(running.tools.lines.at(-1)).toMatchObject({ level: 'error', msg: 'message could not be stored' });
});

test('a large message goes through a spool file as it is', async () => {
  await using running = await startFilter({ keys: 'memory_per_message = "1KiB"' });
  await using client = await running.client();
  const body = Array.from({ length: 50_000 }, (_, i) => `${i % 7 === 0 ? '.' : ''}line ${i}\r\n`).join('');
  await data(client, 'zeus');
  client.send(`${letter({ body: body.replaceAll(/^\./gm, '..') })}.\r\n`);
  expect(await client.reply()).toMatch(/^250 /);
  expect(running.dovecot.mails[0]?.content.endsWith(letter({ body }))).toBe(true);
});

test('stop: between messages the next command gets 421, and nothing after it', async () => {
  await using running = await startFilter();
  await using idle = await running.client();
  await using open = await running.client();
  open.send('MAIL FROM:<thor@valhalla.local>\r\nRCPT TO:<zeus@olimpus.local>\r\n');
  await open.replies(2);
  const stopped = running.daemon.stop(NEVER);
  idle.send('RSET\r\nMAIL FROM:<a@b>\r\nQUIT\r\n');
  expect(await idle.rest()).toEqual(['421 4.3.2 Service is being restarted, please try again']);
  open.send('DATA\r\n');
  expect((await open.rest()).map((reply) => reply.slice(0, 9))).toEqual(['421 4.3.2']);
  await stopped;
  expect(running.dovecot.mails).toEqual([]);
});

test('stop: a message past its dot is delivered, and all its replies are sent', async () => {
  const spam = spamStub(0);
  await using running = await startFilter({ checks: [spam] });
  const asked = Promise.withResolvers<void>();
  const scanned = Promise.withResolvers<[]>();
  spam.run = () => {
    asked.resolve();
    return scanned.promise;
  };
  await using client = await running.client();
  await data(client, 'zeus', 'hera');
  const stopped = running.daemon.stop(NEVER);
  client.send(`${letter()}.\r\nQUIT\r\n`);
  await asked.promise;
  scanned.resolve([]);
  expect((await client.rest()).map((reply) => reply.slice(0, 3))).toEqual(['250', '250', '221']);
  await stopped;
  expect(running.dovecot.mails).toHaveLength(1);
});

test('stop at its deadline: open positions get 451, and nothing goes to Dovecot any more', async () => {
  const spam = spamStub(0);
  await using running = await startFilter({ checks: [spam] });
  const asked = Promise.withResolvers<void>();
  spam.run = (_, signal) => {
    asked.resolve();
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('aborted')));
    });
  };
  await using client = await running.client();
  await using idle = await running.client();
  await data(client, 'zeus', 'hera');
  client.send(`${letter()}.\r\nQUIT\r\n`);
  await asked.promise;
  const stop = new AbortController();
  const stopped = running.daemon.stop(stop.signal);
  stop.abort();
  await stopped;
  const rest = await client.rest();
  expect(rest.slice(0, 2).map((reply) => reply.slice(0, 9))).toEqual(['451 4.3.2', '451 4.3.2']);
  expect(rest.slice(2).every((reply) => reply.startsWith('221 ') || reply.startsWith('421 '))).toBe(true);
  expect((await idle.rest()).map((reply) => reply.slice(0, 9))).toEqual(['421 4.3.2']);
  expect(running.dovecot.mails).toEqual([]);
});

test('stop at its deadline while Dovecot is silent', async () => {
  await using running = await startFilter();
  const silent = Promise.withResolvers<void>();
  running.dovecot.fault = ({ step }) => {
    if (step !== 'dot') return null;
    silent.resolve();
    return { after: 'hang' };
  };
  await using client = await running.client();
  await data(client, 'zeus');
  client.send(`${letter()}.\r\n`);
  await silent.promise;
  const stop = new AbortController();
  const stopped = running.daemon.stop(stop.signal);
  stop.abort();
  await stopped;
  expect((await client.rest()).map((reply) => reply.slice(0, 9))[0]).toBe('451 4.3.2');
  expect(await metric(running.tools.registry, 'postern_lmtp_possible_duplicates_total')).toBe(1);
});

test('a reload is for new sessions; those under way keep their configuration', async () => {
  await using running = await startFilter();
  await using other = await FakeDovecot.open();
  await using before = await running.client();
  const { file } = running.config;
  const upstream = [{ kind: 'tcp', host: '127.0.0.1', port: other.port }] as const;
  running.daemon.reload({
    ...running.config,
    file: { ...file, 'lmtp-filter': { ...file['lmtp-filter'], upstream, max_message_size: 12_345 } },
  });
  await using after = await running.client();
  expect(await after.ask('LHLO x')).toContain('SIZE 12345');
  expect(await before.ask('LHLO x')).toContain(`SIZE ${100 * 1024 * 1024}`);
  for (const client of [before, after]) {
    await data(client, 'zeus');
    client.send(`${letter()}.\r\n`);
    expect(await client.reply()).toMatch(/^250 /);
  }
  expect([running.dovecot.mails.length, other.mails.length]).toEqual([1, 1]);
});
