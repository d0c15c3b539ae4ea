import { expect, test } from 'vitest';

import { sendMail, SmtpClient, type Reply } from '../support/neighbours/smtp-client.ts';
import { big, startQuotaSite, type QuotaSite } from '../support/quota-site.ts';
import { HERA, ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const SIZE = 10_000_000;
/** Of a quota of 40 MiB this leaves some 15 MB. */
const FILLED = 27_000_000;
/** This leaves less than a message of 10 MB needs, grace and all. */
const TIGHT = 38_000_000;
const PARALLEL = 100;
const PATIENCE = { timeout: 60_000 };

/** Ended with its dot, and the same octets for everybody: a hundred copies would not fit into memory. */
const TEN_MEGABYTES = Buffer.from(`${big(SIZE)}.\r\n`, 'latin1');

interface Sent {
  readonly rcpt: readonly Reply[];
  /** After the dot; null: no recipient was accepted. */
  readonly end: Reply | null;
}

async function send(q: QuotaSite, to: readonly string[], announced: boolean): Promise<Sent> {
  await using client = await SmtpClient.connect(
    { host: '127.0.0.1', port: q.site.postfix.smtpPort },
    120_000,
  );
  await client.ehlo(ODIN.helo);
  await client.xclient(ODIN);
  await client.ehlo(ODIN.helo);
  await client.mail('odin@valhalla.example', announced ? [`SIZE=${SIZE}`] : []);
  const rcpt: Reply[] = [];
  for (const recipient of to) rcpt.push(await client.rcpt(recipient));
  if (!rcpt.some(({ code }) => code === 250)) return { rcpt, end: null };
  const go = await client.command('DATA');
  if (go.code !== 354) return { rcpt, end: go };
  client.writeRaw(TEN_MEGABYTES);
  return { rcpt, end: await client.readReply() };
}

function storm(q: QuotaSite, to: readonly string[], announced: boolean): Promise<Sent[]> {
  return Promise.all(Array.from({ length: PARALLEL }, () => send(q, to, announced)));
}

/** Messages that were taken. */
function taken(sent: readonly Sent[]): number {
  return sent.filter(({ end }) => end?.code === 250).length;
}

/** Words of all refusals, without trace ids. */
function refusals(sent: readonly Sent[]): string[] {
  const replies = sent.flatMap(({ rcpt, end }) => [...rcpt, ...(end === null ? [] : [end])]);
  const words = replies.filter(({ code }) => code >= 400).map(({ lines }) => lines.join(' '));
  return [...new Set(words.map((line) => line.replace(/ \([a-z2-7]{16}\)$/, '')))].toSorted();
}

function bounces(q: QuotaSite): string[] {
  return q.site.postfix
    .log()
    .split('\n')
    .filter((line) => /status=bounced|sender non-delivery|postfix\/bounce/.test(line));
}

const FULL_AT_RCPT =
  '452 4.2.2 <zeus@olimpus.example>: Recipient address rejected: The mailbox is full, please try again later';

/** Of a mailbox of 5 MiB, with its grace. */
async function overfill(q: QuotaSite, user: string): Promise<void> {
  await q.fill(user, 4_900_000);
  await q.fill(user, 700_000);
}

describeWithNeighbours('a mailbox with 15 MB left', () => {
  test('and 100 parallel messages of 10 MB that announce their size: one is taken, nobody gets a bounce', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, [ZEUS], true);
    expect(taken(sent)).toBe(1);
    expect(refusals(sent)).toEqual([FULL_AT_RCPT]);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await q.site.postfix.waitForQueueEmpty();
    expect(bounces(q)).toEqual([]);
    expect(await q.used(ZEUS)).toBeLessThan(40 * 1024 ** 2);
  });

  test('and 100 that do not announce it: refused at their end, but for one', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, [ZEUS], false);
    expect(taken(sent)).toBe(1);
    expect(refusals(sent)).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^452 4\.2\.2 .*The mailbox is full, please try again later$/),
      ]),
    );
    expect(refusals(sent).every((line) => line.includes('The mailbox is full, please try again later'))).toBe(
      true,
    );
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await q.site.postfix.waitForQueueEmpty();
    expect(bounces(q)).toEqual([]);
  });

  test.for([true, false])('and 100 through an alias, size announced: %s', async (announced) => {
    await using q = await startQuotaSite({ aliases: { 'sky@olimpus.example': ZEUS } });
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, ['sky+weather@olimpus.example'], announced);
    expect(taken(sent)).toBe(1);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await q.site.postfix.waitForQueueEmpty();
    expect(bounces(q)).toEqual([]);
  });

  test.for([true, false])(
    'and 100 through an alias for it and one that is full: it gets one, the other copy waits in the queue, size announced: %s',
    async (announced) => {
      await using q = await startQuotaSite({
        aliases: { 'all@olimpus.example': `${ZEUS}, ${HERA}` },
        quotas: { [HERA]: '5M' },
      });
      await q.fill(ZEUS, FILLED);
      await overfill(q, HERA);
      const sent = await storm(q, ['all@olimpus.example'], announced);
      expect(taken(sent)).toBe(1);
      await q.site.dovecot.waitForMessages(ZEUS, 7);
      await q.site.postfix.waitForLog(/to=<hera@olimpus\.example>.*dsn=4\.2\.2, status=deferred/);
      await expect
        .poll(
          async () =>
            (await q.site.postfix.queue()).flatMap(({ recipients }) =>
              recipients.map(({ address }) => address),
            ),
          PATIENCE,
        )
        .toEqual([HERA]);
      expect(bounces(q)).toEqual([]);
    },
  );

  test('whose grace is as large as itself: one goes over, and only once nothing else is on its way', async () => {
    await using q = await startQuotaSite({ grace: '100%' });
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, [ZEUS], true);
    expect(taken(sent)).toBe(1);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    // The room stays held until Dovecot has surely told of it; then the grace is there for one more.
    await expect
      .poll(async () => (await send(q, [ZEUS], true)).end?.code, { timeout: 40_000, interval: 1000 })
      .toBe(250);
    const after = await storm(q, [ZEUS], true);
    expect(taken(after)).toBe(0);
    await q.site.dovecot.waitForMessages(ZEUS, 8);
    await q.site.postfix.waitForQueueEmpty();
    expect(bounces(q)).toEqual([]);
    expect(await q.used(ZEUS)).toBeGreaterThan(40 * 1024 ** 2);
  });

  test('of which doveadm tells alone', async () => {
    await using q = await startQuotaSite({ clone: false });
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, [ZEUS], true);
    expect(taken(sent)).toBe(1);
    expect(refusals(sent)).toEqual([FULL_AT_RCPT]);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await q.site.postfix.waitForQueueEmpty();
    expect(bounces(q)).toEqual([]);
    const metrics = (await q.site.processes[0]?.metrics()) ?? '';
    // A hundred messages, and few questions.
    expect(
      Number(/^postern_quota_lookups_total\{result="doveadm"\} (\d+)$/m.exec(metrics)?.[1]),
    ).toBeLessThan(PARALLEL);
  });
});

describeWithNeighbours('what a sender sees', () => {
  test('of a mailbox that has been full for too long, of a message that is too large, and at the end', async () => {
    await using q = await startQuotaSite({
      quotas: { [ZEUS]: '40M', [HERA]: '5M' },
      config: '[checks.quota]\ntemporary_for = "0s"',
    });
    await q.fill(ZEUS, TIGHT);
    const port = q.site.postfix.smtpPort;
    const common = { port, xclient: ODIN, from: 'odin@valhalla.example', data: big(2000) };
    const large = await sendMail({ ...common, to: [HERA], mailParameters: ['SIZE=9000000'] });
    expect(large.rcpt[0]?.lines[0]).toMatch(
      /^552 5\.2\.2 <hera@olimpus\.example>: Recipient address rejected: The message is larger than the mailbox may become \([a-z2-7]{16}\)$/,
    );
    await overfill(q, HERA);
    const full = await sendMail({ ...common, to: [HERA] });
    expect(full.rcpt[0]?.lines[0]).toMatch(
      /^552 5\.2\.2 <hera@olimpus\.example>: Recipient address rejected: The mailbox is full \([a-z2-7]{16}\)$/,
    );
    const late = await send(q, [ZEUS], false);
    expect(late.rcpt[0]?.code).toBe(250);
    expect(late.end?.lines[0]).toMatch(
      /^552 5\.2\.2 <END-OF-MESSAGE>: End-of-data rejected: The mailbox is full \([a-z2-7]{16}\)$/,
    );
    // Nothing was delivered after all.
    expect(await q.site.postfix.queue()).toEqual([]);
  });

  test('with an unknown size a second recipient is asked to come separately, whichever is nearly full', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, TIGHT);
    const first = await send(q, [ZEUS, HERA], false);
    expect(first.rcpt[0]?.code).toBe(250);
    expect(first.rcpt[1]?.lines[0]).toMatch(
      /^452 4\.5\.3 <hera@olimpus\.example>: Recipient address rejected: Please send to this recipient separately \(/,
    );
    expect(first.end?.lines[0]).toMatch(
      /^452 4\.2\.2 <END-OF-MESSAGE>: End-of-data rejected: The mailbox is full/,
    );
    const second = await send(q, [HERA, ZEUS], false);
    expect(second.rcpt.map(({ code }) => code)).toEqual([250, 452]);
    expect(second.rcpt[1]?.enhanced).toBe('4.5.3');
    expect(second.end?.code).toBe(250);
    await q.site.dovecot.waitForMessages(HERA, 1);
    expect(bounces(q)).toEqual([]);
  });

  test('with the rules in shadow: nothing, and the history says what would have been', async () => {
    await using q = await startQuotaSite({
      config:
        '[rules]\nquota.full = { action = "defer", shadow = true }\nquota.alone = { action = "defer", shadow = true }',
    });
    await q.fill(ZEUS, TIGHT);
    const sent = await send(q, [ZEUS], true);
    expect(sent.rcpt[0]?.code).toBe(250);
    expect(sent.end?.code).toBe(250);
    await q.site.postfix.waitForLog(/to=<zeus@olimpus\.example>.*dsn=4\.2\.2, status=deferred/);
    expect(bounces(q)).toEqual([]);
    await expect
      .poll(async () => await q.site.postern.history('--daemon', 'policyd', '--to', ZEUS), PATIENCE)
      .toEqual(
        expect.arrayContaining([
          expect.objectContaining({ verdict: 'accept', shadow: [{ rule: 'quota.full', kind: 'defer' }] }),
        ]),
      );
  });

  test('postmaster is not refused', async () => {
    await using q = await startQuotaSite({
      quotas: { [ZEUS]: '5M' },
      aliases: { 'postmaster@olimpus.example': ZEUS },
    });
    await overfill(q, ZEUS);
    const { rcpt } = await sendMail({
      port: q.site.postfix.smtpPort,
      xclient: ODIN,
      from: '',
      to: [ZEUS, 'Postmaster@olimpus.example'],
      data: big(2000),
    });
    expect(rcpt.map(({ code }) => code)).toEqual([452, 250]);
  });
});
