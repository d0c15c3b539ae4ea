import { expect, test } from 'vitest';

import { HOLD_MS } from '../../../src/lmtp-filter/client-stream.ts';
import { BAD_COMMAND_LIMIT } from '../../../src/lmtp-filter/session.ts';
import { FakeDovecot } from '../../support/players/fake-dovecot.ts';
import { LmtpTalk } from '../../support/players/lmtp-talk.ts';
import { metric } from '../../support/metric.ts';
import { HOST, letter, startFilter } from './support.ts';

const SENDER = 'MAIL FROM:<thor@valhalla.local>';
const ZEUS = 'RCPT TO:<zeus@olimpus.local>';
const HERA = 'RCPT TO:<hera@olimpus.local>';
const GO = '354 End data with <CR><LF>.<CR><LF>';

test('LHLO is answered with what both sides can', async () => {
  await using running = await startFilter();
  await using client = await LmtpTalk.open(running.target);
  expect(await client.reply()).toBe(`220 postern.${HOST} LMTP Postern ready`);
  expect(await client.ask('LHLO delphos.olimpus.local')).toBe(
    [
      `250-postern.${HOST}`,
      '250-PIPELINING',
      '250-ENHANCEDSTATUSCODES',
      '250-8BITMIME',
      `250-SIZE ${100 * 1024 * 1024}`,
      '250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE',
    ].join('\n'),
  );
});

test('SMTPUTF8 is announced when Dovecot has it, and then taken through', async () => {
  await using running = await startFilter();
  running.dovecot.capabilities.push('SMTPUTF8');
  await using client = await LmtpTalk.open(running.target);
  await client.reply();
  expect(await client.ask('LHLO x')).toContain('250-SMTPUTF8\n');
  expect(await client.ask('MAIL FROM:<th\u00c3\u00b6r@valhalla.local> SMTPUTF8 BODY=8BITMIME')).toBe(
    '250 2.1.0 OK',
  );
  expect(await client.ask('RCPT TO:<z\u00c3\u00a9us@olimpus.local>')).toBe('250 2.1.5 OK');
  expect(running.dovecot.commands.slice(-2)).toEqual([
    'MAIL FROM:<th\u00c3\u00b6r@valhalla.local> SMTPUTF8 BODY=8BITMIME',
    'RCPT TO:<z\u00c3\u00a9us@olimpus.local>',
  ]);
});

test('SMTPUTF8 that Dovecot lacks is refused for good, and so are its addresses', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  expect(await client.ask('MAIL FROM:<a@b> SMTPUTF8')).toMatch(/^553 5\.6\.7 /);
  expect(await client.ask('MAIL FROM:<th\u00c3\u00b6r@valhalla.local>')).toMatch(/^553 5\.6\.7 /);
  expect(await client.ask(SENDER)).toBe('250 2.1.0 OK');
  expect(await client.ask('RCPT TO:<z\u00c3\u00a9us@olimpus.local>')).toMatch(/^553 5\.6\.7 /);
  expect(running.dovecot.commands.filter((line) => line.startsWith('RCPT'))).toEqual([]);
});

test('commands out of order are refused with 503', async () => {
  await using running = await startFilter();
  await using client = await LmtpTalk.open(running.target);
  await client.reply();
  expect(await client.ask(SENDER)).toBe('503 5.5.1 LHLO first');
  expect(await client.ask('HELO x')).toMatch(/^500 5\.5\.1 /);
  expect(await client.ask('EHLO x')).toMatch(/^500 5\.5\.1 /);
  await client.ask('LHLO x');
  expect(await client.ask(ZEUS)).toBe('503 5.5.1 MAIL first');
  expect(await client.ask('DATA')).toBe('503 5.5.1 MAIL first');
  expect(await client.ask(SENDER)).toBe('250 2.1.0 OK');
  expect(await client.ask(SENDER)).toMatch(/^503 5\.5\.1 /);
  expect(await client.ask('XFORWARD SOURCE=LOCAL')).toMatch(/^503 5\.5\.1 /);
  expect(await client.ask('DATA')).toBe('503 5.5.1 No valid recipients');
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');
  expect(await client.ask('VRFY zeus')).toMatch(/^252 2\.5\.2 /);
  expect(await client.ask('XFORWARD ADDR=nowhere')).toMatch(/^503 /);
  expect(await client.ask('RSET')).toBe('250 2.0.0 OK');
  expect(await client.ask('XFORWARD ADDR=nowhere')).toMatch(/^501 5\.5\.4 /);
  expect(await client.ask(ZEUS)).toBe('503 5.5.1 MAIL first');
  expect(await client.ask('QUIT')).toBe('221 2.0.0 Bye');
  expect(await client.replyOrEnd()).toBeNull();
});

test('Dovecot gets no parameter that it did not announce, and every path byte for byte', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  await client.ask('MAIL FROM:<"a b>"+x@Valhalla.LOCAL> SIZE=500 BODY=8BITMIME RET=HDRS ENVID=env+2B1');
  await client.ask(
    'RCPT TO:<Zeus+Detail@Olimpus.local> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;zeus@olimpus.local',
  );
  expect(running.dovecot.commands.slice(-2)).toEqual([
    'MAIL FROM:<"a b>"+x@Valhalla.LOCAL> BODY=8BITMIME',
    'RCPT TO:<Zeus+Detail@Olimpus.local> ORCPT=rfc822;zeus@olimpus.local',
  ]);
});

test('BODY= is kept from a server without 8BITMIME', async () => {
  await using running = await startFilter();
  running.dovecot.capabilities = [];
  await using client = await running.client();
  await client.ask(`${SENDER} BODY=8BITMIME`);
  await client.ask(ZEUS);
  expect(running.dovecot.commands).toEqual([`LHLO ${HOST}`, 'RSET', SENDER, ZEUS]);
});

test.each([
  [`${SENDER} SIZE=${100 * 1024 * 1024}`, /^250 /],
  [`${SENDER} SIZE=${100 * 1024 * 1024 + 1}`, /^552 5\.3\.4 /],
  [`${SENDER} SIZE=123456789012345678901`, /^501 5\.5\.4 /],
  [`${SENDER} SIZE`, /^501 5\.5\.4 /],
  [`${SENDER} BODY=BINARYMIME`, /^501 5\.5\.4 /],
  [`${SENDER} SMTPUTF8=1`, /^501 5\.5\.4 /],
  [`${SENDER} AUTH=<>`, /^555 5\.5\.4 /],
])('%s', async (line, reply) => {
  await using running = await startFilter();
  await using client = await running.client();
  expect(await client.ask(line)).toMatch(reply);
});

test("Dovecot's refusals at RCPT are given at RCPT, in its words; DATA without a recipient is 503", async () => {
  await using running = await startFilter();
  const { refused } = running.dovecot;
  refused.set(
    '<zeus@olimpus.local>',
    "550 5.1.1 <zeus@olimpus.local> User doesn't exist: zeus@olimpus.local",
  );
  refused.set(
    '<hera@olimpus.local>',
    '452 4.2.2 <hera@olimpus.local> Quota exceeded (mailbox for user is full)',
  );
  await using client = await running.client();
  client.send(`${SENDER}\r\n${ZEUS}\r\n${HERA}\r\nDATA\r\n`);
  expect(await client.replies(4)).toEqual([
    '250 2.1.0 OK',
    refused.get('<zeus@olimpus.local>'),
    refused.get('<hera@olimpus.local>'),
    '503 5.5.1 No valid recipients',
  ]);
  client.send('RSET\r\nQUIT\r\n');
  expect(await client.rest()).toEqual(['250 2.0.0 OK', '221 2.0.0 Bye']);
});

test('one reply for each accepted position, a recipient given twice included', async () => {
  await using running = await startFilter();
  running.dovecot.refused.set('<hera@olimpus.local>', '550 5.1.1 no');
  running.dovecot.full.set('<apolo@olimpus.local>', '552 5.2.2 <apolo@olimpus.local> Quota exceeded');
  await using client = await running.client();
  client.send(`${SENDER}\r\n${ZEUS}\r\n${HERA}\r\n${ZEUS}\r\nRCPT TO:<apolo@olimpus.local>\r\nDATA\r\n`);
  expect(await client.replies(6)).toHaveLength(6);
  client.send(`${letter()}.\r\nQUIT\r\n`);
  expect(await client.rest()).toEqual([
    '250 2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA Saved',
    '250 2.0.0 <zeus@olimpus.local> kMpbMDdUAWueEwAApsd9UA:R2 Saved',
    // Was accepted when there was room: see full-mailbox.test.ts.
    '452 4.2.2 <apolo@olimpus.local> Quota exceeded',
    '221 2.0.0 Bye',
  ]);
});

test('words of several lines, 421 and odd characters come through as they may', async () => {
  await using running = await startFilter();
  running.dovecot.fault = ({ step }) =>
    step === 'dot'
      ? { text: '250-2.0.0 multi\r\n250 2.0.0 line\u00ff\u001b\r\n421 4.3.2 shutting down\r\n' }
      : null;
  await using client = await running.client();
  client.send(`${SENDER}\r\n${ZEUS}\r\n${HERA}\r\nDATA\r\n`);
  await client.replies(4);
  client.send(`${letter()}.\r\nQUIT\r\n`);
  expect(await client.rest()).toEqual([
    '250-2.0.0 multi\n250 2.0.0 line??',
    '451 4.3.2 shutting down',
    '221 2.0.0 Bye',
  ]);
});

test('an address probe leaves no trace: no message is counted, recorded or logged', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  client.send(`${SENDER}\r\n${ZEUS}\r\n`);
  expect(await client.replies(2)).toEqual(['250 2.1.0 OK', '250 2.1.5 OK']);
  client.send('RSET\r\nQUIT\r\n');
  expect(await client.rest()).toEqual(['250 2.0.0 OK', '221 2.0.0 Bye']);
  const { registry, store, lines } = running.tools;
  expect(await metric(registry, 'postern_lmtp_messages_total', { direction: 'in', verdict: 'accept' })).toBe(
    0,
  );
  expect(await metric(registry, 'postern_lmtp_recipients_total', { result: 'delivered' })).toBe(0);
  expect(await metric(registry, 'postern_lmtp_upstream_connects_total')).toBe(1);
  expect(store.decisions).toEqual([]);
  expect(store.joined).toEqual([]);
  expect(lines).toEqual([]);
  expect(running.dovecot.commands.at(-1)).toBe('RSET');
});

test('replies to pipelined commands leave in one segment', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  const segments: string[] = [];
  client.socket.on('data', (piece: Buffer) => segments.push(piece.toString('latin1')));
  client.send(`${SENDER}\r\n${ZEUS}\r\n${HERA}\r\nDATA\r\n`);
  await client.replies(4);
  expect(segments).toEqual([`250 2.1.0 OK\r\n250 2.1.5 OK\r\n250 2.1.5 OK\r\n${GO}\r\n`]);
});

test('a session for many messages asks Dovecot on one connection, with RSET between', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  for (let i = 0; i < 3; i++) {
    client.send(`RSET\r\n${SENDER}\r\n${ZEUS}\r\nDATA\r\n`);
    await client.replies(4);
    client.send(`${letter()}.\r\n`);
    expect(await client.reply()).toMatch(/^250 2\.0\.0 <zeus@olimpus\.local> /);
  }
  expect(running.dovecot.connections).toBe(1);
  expect(running.dovecot.mails).toHaveLength(3);
  expect(running.dovecot.commands.filter((line) => line === 'RSET')).toHaveLength(3);
});

test('what XFORWARD said is forgotten after the message', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  client.send(
    'XFORWARD ADDR=192.0.2.20 PORT=43741\r\nXFORWARD HELO=odin IDENT=8180B24C465 SOURCE=REMOTE\r\n',
  );
  expect(await client.replies(2)).toEqual(['250 2.0.0 OK', '250 2.0.0 OK']);
  for (let i = 0; i < 2; i++) {
    client.send(`${SENDER}\r\n${ZEUS}\r\nDATA\r\n`);
    await client.replies(3);
    client.send(`${letter()}.\r\n`);
    await client.reply();
  }
  expect(running.tools.store.decisions.map(({ client: address, helo }) => [address, helo])).toEqual([
    ['192.0.2.20', 'odin'],
    ['', null],
  ]);
  expect(running.tools.store.joined[0]).toEqual({
    session: '192.0.2.20:43741',
    sender: 'thor@valhalla.local',
    instance: null,
    queueId: '8180B24C465',
  });
});

test('so many bad commands are answered, and one more ends the session', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  for (let i = 0; i < BAD_COMMAND_LIMIT; i++)
    expect(await client.ask('FROB')).toBe('500 5.5.1 Unknown command');
  expect(await client.ask('FROB')).toMatch(/^421 4\.7\.0 /);
  expect(await client.replyOrEnd()).toBeNull();
});

test('a command line that is too long is refused, and the next one is taken', async () => {
  await using running = await startFilter();
  await using client = await running.client();
  expect(await client.ask(`NOOP ${'x'.repeat(5000)}`)).toMatch(/^500 5\.5\.2 /);
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');
});

test('a connection above max_connections gets 421', async () => {
  await using running = await startFilter({ keys: 'max_connections = 1' });
  await using first = await running.client();
  await using second = await LmtpTalk.open(running.target);
  expect(await second.reply()).toMatch(/^421 4\.3\.2 /);
  expect(await second.replyOrEnd()).toBeNull();
  expect(await first.ask('NOOP')).toBe('250 2.0.0 OK');
  expect(await metric(running.tools.registry, 'postern_lmtp_refused_connections_total')).toBe(1);
});

test('without Dovecot MAIL and every RCPT behind it are deferred, and the session goes on', async () => {
  const dovecot = await FakeDovecot.open();
  await using running = await startFilter({ dovecot });
  await dovecot[Symbol.asyncDispose]();
  await using client = await LmtpTalk.open(running.target);
  await client.reply();
  // Whether it can do SMTPUTF8 is not known: Postfix must not bounce what can be deferred.
  expect(await client.ask('LHLO x')).toContain('SMTPUTF8');
  client.send(`${SENDER}\r\n${ZEUS}\r\n${HERA}\r\nDATA\r\n`);
  const replies = await client.replies(4);
  expect(replies.slice(0, 3).every((reply) => reply.startsWith('451 4.4.1 '))).toBe(true);
  expect(replies[3]).toBe('503 5.5.1 No valid recipients');
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');
  expect(await client.ask(SENDER)).toMatch(/^451 4\.4\.1 /);
});

test('a reply does not wait for a slow one behind it longer than HOLD_MS', async () => {
  await using running = await startFilter();
  running.dovecot.fault = ({ step, argument }) =>
    step === 'RCPT' && argument === '<hera@olimpus.local>' ? { after: 'hang' } : null;
  await using client = await running.client();
  const begun = performance.now();
  client.send(`${SENDER}\r\n${ZEUS}\r\n${HERA}\r\n`);
  expect(await client.replies(2)).toEqual(['250 2.1.0 OK', '250 2.1.5 OK']);
  expect(performance.now() - begun).toBeGreaterThan(HOLD_MS / 2);
});

test('Dovecot is asked about all recipients at once', async () => {
  await using running = await startFilter();
  running.dovecot.refused.set('<zeus@olimpus.local>', '550 5.1.1 no');
  await using client = await running.client();
  client.send(`${SENDER}\r\n${ZEUS}\r\nRCPT TO:<x@y> FOO=1\r\n${HERA}\r\nNOOP\r\n${ZEUS}\r\nDATA\r\n`);
  expect(await client.replies(7)).toEqual([
    '250 2.1.0 OK',
    '550 5.1.1 no',
    '555 5.5.4 Unsupported parameter',
    '250 2.1.5 OK',
    '250 2.0.0 OK',
    '550 5.1.1 no',
    GO,
  ]);
  expect(running.dovecot.commands).toEqual([`LHLO ${HOST}`, 'RSET', SENDER, ZEUS, HERA, ZEUS]);
});
