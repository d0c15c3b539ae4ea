import { expect, test } from 'vitest';

import { ROUNDS } from '../../../src/lmtp-filter/loops.ts';
import type { Decision } from '../../../src/ports/store.ts';
import { letter, startFilter, type Running } from './support.ts';

const TRACE = 'abcdefghijklmnop';
const DELIVERED = 'Delivered-To: zeus@olimpus.local\r\n';

async function send(running: Running, fields: string, to = 'zeus@olimpus.local'): Promise<string> {
  await using client = await running.client();
  client.send(`MAIL FROM:<>\r\nRCPT TO:<${to}>\r\nDATA\r\n`);
  await client.replies(3);
  client.send(`${letter({ fields })}.\r\n`);
  return await client.reply();
}

/** The record of a message that was delivered to Zeus. */
async function withRecord(reply = '250 2.0.0 Saved'): Promise<Running> {
  const running = await startFilter();
  await send(running, '');
  const [decision] = running.tools.store.decisions;
  if (decision === undefined) throw new Error('nothing was recorded');
  running.tools.store.decisions.splice(0, 1, { ...decision, trace: TRACE, reply } satisfies Decision);
  return running;
}

test('mail that was delivered to the same mailbox, and bears the trace of that, is refused', async () => {
  await using running = await withRecord();
  expect(await send(running, `${DELIVERED}X-Postern-Trace: ${TRACE}\r\n`)).toMatch(/^250 /);
  const fields = `${DELIVERED}X-Postern-Before: ${TRACE}\r\n`;
  expect(await send(running, fields)).toMatch(/^554 5\.4\.6 .* \([a-z2-7]{16}\)$/);
  expect(await send(running, fields, 'Zeus+list@olimpus.local')).toMatch(/^250 /);
  expect(
    running.tools.store.decisions.some(({ rule, verdict }) => rule === 'loop' && verdict === 'reject'),
  ).toBe(true);
});

test('one pass notes the trace of the pass before', async () => {
  await using running = await startFilter();
  await send(
    running,
    `${DELIVERED}X-Postern-Trace: ${TRACE}\r\nX-Postern-Before: ponmlkjihgfedcba nonsense\r\n`,
  );
  const [mail] = running.dovecot.mails;
  expect(mail?.content).toMatch(/^X-Postern-Before: abcdefghijklmnop ponmlkjihgfedcba\r\n/m);
  expect(mail?.content.match(/^X-Postern-Trace:/gm)).toHaveLength(1);
});

test.each([
  ['without the trace', DELIVERED],
  ['with a trace that nobody knows', `${DELIVERED}X-Postern-Before: ponmlkjihgfedcba\r\n`],
  ['to somebody else', `Delivered-To: hera@olimpus.local\r\nX-Postern-Before: ${TRACE}\r\n`],
  [
    'before somebody sent it on',
    `Resent-From: zeus@olimpus.local\r\n${DELIVERED}X-Postern-Before: ${TRACE}\r\n`,
  ],
  ['never', `X-Postern-Before: ${TRACE}\r\n`],
  [`${ROUNDS - 1} times`, DELIVERED.repeat(ROUNDS - 1)],
])('mail that was delivered %s is delivered', async (_, fields) => {
  await using running = await withRecord();
  expect(await send(running, fields)).toMatch(/^250 2\.0\.0 <zeus@/);
});

test('a trace of mail that Zeus was refused proves nothing', async () => {
  await using running = await withRecord('451 4.3.0 not now');
  expect(await send(running, `${DELIVERED}X-Postern-Before: ${TRACE}\r\n`)).toMatch(/^250 /);
});

test(`${ROUNDS} deliveries are a circle without any trace, subaddress and case make no difference`, async () => {
  await using running = await startFilter();
  const fields = `${DELIVERED.repeat(ROUNDS - 1)}Delivered-To: Zeus+more@Olimpus.local\r\n`;
  expect(await send(running, fields)).toMatch(/^554 5\.4\.6 /);
  expect(running.dovecot.mails).toEqual([]);
});

test('null sender, Auto-Submitted and the marks of lists stay as they came', async () => {
  await using running = await startFilter();
  const marks =
    'Auto-Submitted: auto-replied\r\nPrecedence: list\r\nList-Id: <gods.olimpus.local>\r\nList-Unsubscribe: <mailto:leave@olimpus.local>\r\n';
  expect(await send(running, marks)).toMatch(/^250 /);
  const [mail] = running.dovecot.mails;
  expect(mail?.from).toBe('<>');
  expect(mail?.content).toContain(marks);
});
