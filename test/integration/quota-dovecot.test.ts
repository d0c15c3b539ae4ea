import { expect, test } from 'vitest';

import { sendMail, type MailReplies } from '../support/neighbours/smtp-client.ts';
import { startWebhook } from '../support/players/webhook.ts';
import { big, PREFIX, startQuotaSite, type QuotaSite } from '../support/quota-site.ts';
import { HERA, ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/** For SMTP and a busy machine. */
const SLACK_S = 8;
const PATIENCE = { timeout: 60_000 };

/** A message of so many octets, announced. */
function send(q: QuotaSite, to: string, octets: number): Promise<MailReplies> {
  return sendMail({
    port: q.site.postfix.smtpPort,
    xclient: ODIN,
    from: 'odin@valhalla.example',
    to: [to],
    mailParameters: [`SIZE=${octets}`],
    data: big(octets),
  });
}

async function code(q: QuotaSite, to: string, octets = 2000): Promise<number> {
  return (await send(q, to, octets)).outcome.code;
}

/** How often each source was asked with success. */
async function looks(q: QuotaSite): Promise<Record<string, number>> {
  const metrics = (await q.site.processes[0]?.metrics()) ?? '';
  const lines = metrics.matchAll(/^postern_quota_lookups_total\{result="(\w+)"\} (\d+)$/gm);
  return Object.fromEntries(Array.from(lines, ([, result = '', count]) => [result, Number(count)]));
}

describeWithNeighbours('Dovecot’s grace', () => {
  test('is given and refused as Dovecot does', async () => {
    // 5 MiB and a tenth.
    await using q = await startQuotaSite({ quotas: { [ZEUS]: '5M' } });
    await q.fill(ZEUS, 4_900_000);
    expect(await code(q, ZEUS, 1_100_000)).toBe(452);
    await expect(q.fill(ZEUS, 1_100_000)).rejects.toThrow('not stored: 4.2.2');
    expect(await code(q, ZEUS, 700_000)).toBe(250);
    await q.site.dovecot.waitForMessages(ZEUS, 2);
    expect(await q.used(ZEUS)).toBeGreaterThan(5 * 1024 ** 2);
    expect(await code(q, ZEUS)).toBe(452);
    await expect(q.fill(ZEUS, 2000)).rejects.toThrow('not stored');
    await q.site.postfix.waitForQueueEmpty();
    expect(q.site.postfix.log()).not.toMatch(/status=(?!sent)/);
  });

  test('is there again once what is on its way has arrived', async () => {
    await using q = await startQuotaSite({ quotas: { [ZEUS]: '5M' }, grace: '100%' });
    await q.fill(ZEUS, 4_000_000);
    expect(await code(q, ZEUS, 500_000)).toBe(250);
    // Would be within the grace; but it might arrive first, and leave no room for the other.
    expect(await code(q, ZEUS, 1_500_000)).toBe(452);
    // The room stays held until Dovecot has surely told of it.
    await expect.poll(() => code(q, ZEUS, 1_500_000), { timeout: 40_000, interval: 1000 }).toBe(250);
    await q.site.dovecot.waitForMessages(ZEUS, 3);
    expect(await code(q, ZEUS)).toBe(452);
  });
});

describeWithNeighbours('who tells of usage', () => {
  test('Redis; while it is away, doveadm', async () => {
    await using q = await startQuotaSite();
    await Promise.all([q.fill(ZEUS, 1_000_000), q.fill(HERA, 1_000_000)]);
    await expect
      .poll(() => q.redis.command('GET', `${PREFIX}${ZEUS}/quota/storage`), PATIENCE)
      .toEqual([expect.stringMatching(/^\d{6,7}$/)]);
    expect(await code(q, ZEUS)).toBe(250);
    // At RCPT, and at the end of the message.
    expect(await looks(q)).toMatchObject({ redis: 2, doveadm: 0, failed: 0 });
    await q.redis.kill();
    expect(await code(q, HERA)).toBe(250);
    const after = await looks(q);
    expect(after).toMatchObject({ redis: 2, failed: 0 });
    expect(after['doveadm']).toBeGreaterThan(0);
  });

  test('Redis alone: what hangs, is away or answers nonsense counts as unavailable, in time', async () => {
    await using q = await startQuotaSite({
      doveadm: false,
      config: `${UNAVAILABLE}\n[[account]]\nnames = ["@olimpus.example"]\nquota = "40MiB"`,
    });
    await q.fill(ZEUS, 1_000_000);
    await q.fill(HERA, 1_000_000);
    await expect
      .poll(() => q.redis.command('GET', `${PREFIX}${HERA}/quota/storage`), PATIENCE)
      .toEqual([expect.stringMatching(/^\d{6,7}$/)]);
    expect(await code(q, ZEUS)).toBe(250);
    await q.site.dovecot.waitForMessages(ZEUS, 2);

    q.redis.freeze();
    await expectUnavailable(q);
    q.redis.thaw();
    await expect.poll(() => code(q, ZEUS), PATIENCE).toBe(250);
    await q.site.dovecot.waitForMessages(ZEUS, 3);

    for (const user of [ZEUS, HERA]) await q.redis.command('SET', `${PREFIX}${user}/quota/storage`, 'lots');
    await expectUnavailable(q);

    await q.redis.kill();
    await expectUnavailable(q);
    // What it knew is gone: how full the mailbox is is unknown, and no failure.
    await q.redis.restart();
    await expect.poll(() => code(q, ZEUS), PATIENCE).toBe(250);
  });

  test('doveadm alone: what hangs, is away or answers nonsense counts as unavailable, in time', async () => {
    await using q = await startQuotaSite({ clone: false, config: UNAVAILABLE });
    for (const conduct of [
      'hang',
      'refuse',
      'close',
      { say: 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}' },
      { say: 'Greetings!\r\n' },
    ] as const) {
      await q.doveadm.become(conduct);
      await expectUnavailable(q);
    }
    await q.doveadm.become('pass');
    expect(await code(q, ZEUS)).toBe(250);
    expect((await looks(q))['doveadm']).toBeGreaterThan(0);
  });
});

const DEADLINE_S = 1;

/** Mail for Zeus waits when it is not known how full his mailbox is, that for Hera does not. */
const UNAVAILABLE = `[checks.quota]
deadline = "${DEADLINE_S}s"

[unavailable]
quota = "defer"

[[override]]
recipients = ["${HERA}"]
unavailable = { quota = "ignore" }
`;

async function expectUnavailable(q: QuotaSite): Promise<void> {
  const { postern } = q.site;
  const begun = performance.now();
  const { outcome } = await send(q, ZEUS, 2000);
  expect((performance.now() - begun) / 1000).toBeLessThan(DEADLINE_S + SLACK_S);
  expect(outcome.code).toBe(450);
  const trace = /\(([a-z2-7]{16})\)/.exec(outcome.text)?.[1] ?? '';
  await expect
    .poll(async () => await postern.history('--trace', trace), PATIENCE)
    .toEqual([expect.objectContaining({ verdict: 'defer', rule: 'unavailable:quota' })]);
  expect(await code(q, HERA)).toBe(250);
}

describeWithNeighbours('what is told', () => {
  test('of a mailbox that gets full: one notice for each threshold; and by postern quota', async () => {
    await using hook = await startWebhook();
    await using q = await startQuotaSite({
      aliases: { 'all@olimpus.example': `${ZEUS}, ${HERA}` },
      quotas: { [ZEUS]: '5M' },
      config: `notices.webhook = "${hook.url}"`,
    });
    await q.fill(ZEUS, 4_400_000);
    for (let message = 0; message < 3; message += 1) expect(await code(q, ZEUS)).toBe(250);
    await q.fill(ZEUS, 700_000);
    for (let message = 0; message < 3; message += 1) await code(q, ZEUS);
    await expect.poll(() => hook.notices.length, PATIENCE).toBe(2);
    expect(hook.notices.map(({ event, subject, facts }) => [event, subject, facts['threshold']])).toEqual([
      ['quota', ZEUS, 80],
      ['quota', ZEUS, 95],
    ]);
    expect(hook.notices[0]?.text).toMatch(
      /^The mailbox zeus@olimpus\.example is 8\d % full: 4\.\d MiB of 5 MiB\.$/,
    );
    expect(hook.notices[0]?.advice[0]).toBe(`postern quota ${ZEUS}`);
    const [process] = q.site.processes;
    await process?.waitForLog(/"event":"quota".*"msg":"notice"/);
    expect(await process?.metrics()).toContain(
      'postern_notices_total{event="quota",channel="webhook",result="sent"} 2',
    );

    const told = await q.site.postern.command('quota', 'all+x@olimpus.example', '--size', '2MiB');
    expect(told).toMatchObject({ code: 0, stderr: '' });
    expect(told.stdout).toContain(`all+x@olimpus.example leads to ${ZEUS}, ${HERA}\n`);
    expect(told.stdout).toMatch(/\n {2}used {8}4\.\d MiB \(9\d %\), from redis\n/);
    expect(told.stdout).toContain('\n  limit       5 MiB, and 512 KiB of grace for the last message\n');
    expect(told.stdout).toContain('\nA message of 2 MiB now: accepted, as far as quota is concerned\n');
    const alone = await q.site.postern.command('quota', ZEUS, '--size', '2MiB', '--json');
    expect(JSON.parse(alone.stdout)).toMatchObject({
      code: 'quota.full',
      answer: '452 4.2.2 The mailbox is full, please try again later',
    });
  });
});
