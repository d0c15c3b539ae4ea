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
/** Where what is asked is who gets it, not how many come at once. */
const FEW = 30;
/** Each look starts a process. */
const PATIENCE = { timeout: 60_000, interval: 200 };

/** Ended with its dot, and the same octets for everybody: a hundred copies would not fit into memory. */
const TEN_MEGABYTES = Buffer.from(`${big(SIZE)}.\r\n`, 'latin1');

interface Sent {
  readonly rcpt: readonly Reply[];
  /** After the dot; null: no recipient was accepted. */
  readonly end: Reply | null;
}

/** @param size announced; null: none */
async function send(
  q: QuotaSite,
  to: readonly string[],
  size: number | null,
  data: Buffer = TEN_MEGABYTES,
): Promise<Sent> {
  await using client = await SmtpClient.connect(
    { host: '127.0.0.1', port: q.site.postfix.smtpPort },
    120_000,
  );
  await client.ehlo(ODIN.helo);
  await client.xclient(ODIN);
  await client.ehlo(ODIN.helo);
  await client.mail('odin@valhalla.example', size === null ? [] : [`SIZE=${size}`]);
  const rcpt: Reply[] = [];
  for (const recipient of to) rcpt.push(await client.rcpt(recipient));
  if (!rcpt.some(({ code }) => code === 250)) return { rcpt, end: null };
  const go = await client.command('DATA');
  if (go.code !== 354) return { rcpt, end: go };
  client.writeRaw(data);
  return { rcpt, end: await client.readReply() };
}

/** A recipient, and the size that is announced. */
type Kind = readonly [to: string, size: number | null];

/** All at once, each in a session of its own, the kinds in turn. */
function storm(q: QuotaSite, count: number, ...kinds: readonly Kind[]): Promise<Sent[]> {
  return Promise.all(
    Array.from({ length: count }, (_, index) => {
      const [to, size] = kinds[index % kinds.length] ?? [ZEUS, SIZE];
      return send(q, [to], size);
    }),
  );
}

/** Messages that were taken. */
function taken(sent: readonly Sent[]): number {
  return sent.filter(({ end }) => end?.code === 250).length;
}

/** Words of all refusals, without trace ids. */
function refusals(sent: readonly Sent[]): string[] {
  const replies = sent.flatMap(({ rcpt, end }) => [...rcpt, ...(end === null ? [] : [end])]);
  const words = replies.filter(({ code }) => code >= 400).map(({ lines }) => lines.join(' '));
  return [...new Set(words.map(withoutTrace))].toSorted();
}

function withoutTrace(line: string): string {
  return line.replace(/ \([a-z2-7]{16}\)$/, '');
}

function bounces(q: QuotaSite): string[] {
  return q.site.postfix
    .log()
    .split('\n')
    .filter((line) => /status=bounced|sender non-delivery|postfix\/bounce/.test(line));
}

/** Every refusal was told in the session: the queue is empty, and never was a delivery put off or given up. */
async function expectNothingLeft(q: QuotaSite): Promise<void> {
  await q.site.postfix.waitForQueueEmpty();
  const lines = q.site.postfix.log().split('\n');
  expect(lines.filter((line) => /status=(?!sent)|sender non-delivery|postfix\/bounce/.test(line))).toEqual(
    [],
  );
}

const FULL_AT_RCPT =
  '452 4.2.2 <zeus@olimpus.example>: Recipient address rejected: The mailbox is full, please try again later';

const FULL_AT_END =
  '452 4.2.2 <END-OF-MESSAGE>: End-of-data rejected: The mailbox is full, please try again later';

/** Of a mailbox of 5 MiB, with its grace. */
async function overfill(q: QuotaSite, user: string): Promise<void> {
  await q.fill(user, 4_900_000);
  await q.fill(user, 700_000);
}

describeWithNeighbours('a mailbox with 15 MB left', () => {
  test('and 100 parallel messages of 10 MB that announce their size: one is taken, nobody gets a bounce', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, PARALLEL, [ZEUS, SIZE]);
    expect(taken(sent)).toBe(1);
    expect(refusals(sent)).toEqual([FULL_AT_RCPT]);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await expectNothingLeft(q);
    expect(await q.used(ZEUS)).toBeLessThan(40 * 1024 ** 2);
  });

  test('and 100 that do not announce it: refused at their end, but for one', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, PARALLEL, [ZEUS, null]);
    expect(taken(sent)).toBe(1);
    expect(refusals(sent)).toContain(FULL_AT_END);
    expect([FULL_AT_RCPT, FULL_AT_END]).toEqual(expect.arrayContaining(refusals(sent)));
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await expectNothingLeft(q);
  });

  test('and 100 of all kinds: with a size, with none, with a wrong one, and through an alias', async () => {
    await using q = await startQuotaSite({ aliases: { 'sky@olimpus.example': ZEUS } });
    await q.fill(ZEUS, FILLED);
    const sent = await storm(
      q,
      PARALLEL,
      [ZEUS, SIZE],
      [ZEUS, null],
      ['zeus+thunder@olimpus.example', 1000],
      ['sky+weather@olimpus.example', SIZE],
      ['sky@olimpus.example', null],
    );
    expect(taken(sent)).toBe(1);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await expectNothingLeft(q);
  });

  test('and many through an alias for it and another with as much: both get one', async () => {
    await using q = await startQuotaSite({ aliases: { 'all@olimpus.example': `${ZEUS}, ${HERA}` } });
    await Promise.all([q.fill(ZEUS, FILLED), q.fill(HERA, FILLED)]);
    const sent = await storm(q, FEW, ['all+gods@olimpus.example', SIZE], ['all+gods@olimpus.example', null]);
    expect(taken(sent)).toBe(1);
    await Promise.all([q.site.dovecot.waitForMessages(ZEUS, 7), q.site.dovecot.waitForMessages(HERA, 7)]);
    await expectNothingLeft(q);
  });

  test('and many through an alias for it and an empty one, both of which must have room: both get one', async () => {
    await using q = await startQuotaSite({
      aliases: { 'all@olimpus.example': `${ZEUS}, ${HERA}` },
      config: 'checks.quota.alias_room = "all"',
    });
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, FEW, ['all@olimpus.example', SIZE], ['all@olimpus.example', null]);
    expect(taken(sent)).toBe(1);
    await Promise.all([q.site.dovecot.waitForMessages(ZEUS, 7), q.site.dovecot.waitForMessages(HERA, 1)]);
    await expectNothingLeft(q);
  });

  test('and many through an alias for it and one that is full: it gets one, the other copy waits in the queue', async () => {
    await using q = await startQuotaSite({
      aliases: { 'all@olimpus.example': `${ZEUS}, ${HERA}` },
      quotas: { [HERA]: '5M' },
    });
    await q.fill(ZEUS, FILLED);
    await overfill(q, HERA);
    const sent = await storm(q, FEW, ['all@olimpus.example', SIZE], ['all@olimpus.example', null]);
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
  });

  test('of which doveadm tells alone', async () => {
    await using q = await startQuotaSite({ clone: false });
    await q.fill(ZEUS, FILLED);
    const sent = await storm(q, PARALLEL, [ZEUS, SIZE]);
    expect(taken(sent)).toBe(1);
    expect(refusals(sent)).toEqual([FULL_AT_RCPT]);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    await expectNothingLeft(q);
    const metrics = (await q.site.processes[0]?.metrics()) ?? '';
    // A hundred messages, and few questions.
    expect(
      Number(/^postern_quota_lookups_total\{result="doveadm"\} (\d+)$/m.exec(metrics)?.[1]),
    ).toBeLessThan(PARALLEL);
  });
});

describeWithNeighbours('what a sender sees', () => {
  test('of a full mailbox: to come back, then after a while that it is for good, at RCPT and at the end', async () => {
    await using q = await startQuotaSite({
      quotas: { [HERA]: '5M' },
      config: 'checks.quota.temporary_for = "3s"',
    });
    await Promise.all([q.fill(ZEUS, TIGHT), overfill(q, HERA)]);
    const common = { port: q.site.postfix.smtpPort, xclient: ODIN, from: 'odin@valhalla.example' };
    const words = async (): Promise<string[]> => {
      const rcpt = await sendMail({ ...common, to: [HERA], data: big(2000) });
      const end = await send(q, [ZEUS], null);
      expect(end.rcpt[0]?.code).toBe(250);
      return [rcpt.rcpt[0]?.lines[0] ?? '', end.end?.lines[0] ?? ''].map(withoutTrace);
    };
    expect(await words()).toEqual([FULL_AT_RCPT.replace(ZEUS, HERA), FULL_AT_END]);
    await expect
      .poll(words, PATIENCE)
      .toEqual([
        '552 5.2.2 <hera@olimpus.example>: Recipient address rejected: The mailbox is full',
        '552 5.2.2 <END-OF-MESSAGE>: End-of-data rejected: The mailbox is full',
      ]);
    const large = await sendMail({ ...common, to: [HERA], data: '', mailParameters: ['SIZE=9000000'] });
    expect(withoutTrace(large.rcpt[0]?.lines[0] ?? '')).toBe(
      '552 5.2.2 <hera@olimpus.example>: Recipient address rejected: The message is larger than the mailbox may become',
    );
    // Nothing was delivered after all.
    expect(await q.site.postfix.queue()).toEqual([]);
  });

  test('who announces less than comes: refused at the end, and then for all recipients', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, TIGHT);
    for (const to of [[ZEUS], [HERA, ZEUS]]) {
      const sent = await send(q, to, 1000);
      expect(sent.rcpt.map(({ code }) => code)).toEqual(to.map(() => 250));
      expect(withoutTrace(sent.end?.lines[0] ?? '')).toBe(FULL_AT_END);
    }
    expect((await send(q, [HERA], 1000)).end?.code).toBe(250);
    await q.site.dovecot.waitForMessages(HERA, 1);
    await expectNothingLeft(q);
  });

  test('with an unknown size a second recipient is asked to come separately, whichever is nearly full', async () => {
    await using q = await startQuotaSite();
    await q.fill(ZEUS, TIGHT);
    const first = await send(q, [ZEUS, HERA], null);
    expect(first.rcpt[0]?.code).toBe(250);
    expect(first.rcpt[1]?.lines[0]).toMatch(
      /^452 4\.5\.3 <hera@olimpus\.example>: Recipient address rejected: Please send to this recipient separately \(/,
    );
    expect(first.end?.lines[0]).toMatch(
      /^452 4\.2\.2 <END-OF-MESSAGE>: End-of-data rejected: The mailbox is full/,
    );
    const second = await send(q, [HERA, ZEUS], null);
    expect(second.rcpt.map(({ code }) => code)).toEqual([250, 452]);
    expect(second.rcpt[1]?.enhanced).toBe('4.5.3');
    expect(second.end?.code).toBe(250);
    await q.site.dovecot.waitForMessages(HERA, 1);
    expect(bounces(q)).toEqual([]);
  });

  test('with the rule in shadow: nothing, the mail arrives, and the history says what would have been', async () => {
    // Dovecot has more room than is said here.
    await using q = await startQuotaSite({
      config: [
        `[[account]]\nnames = ["@olimpus.example"]\nquota = "1MiB"`,
        `[[override]]\nrecipients = ["${HERA}"]\nrules = { "quota.full" = { action = "defer", shadow = true } }`,
      ].join('\n'),
    });
    await Promise.all([q.fill(ZEUS, 2_000_000), q.fill(HERA, 2_000_000)]);
    const { rcpt } = await sendMail({
      port: q.site.postfix.smtpPort,
      xclient: ODIN,
      from: 'odin@valhalla.example',
      to: [ZEUS, HERA],
      mailParameters: ['SIZE=2000'],
      data: big(2000),
    });
    expect(rcpt.map(({ code }) => code)).toEqual([452, 250]);
    await q.site.dovecot.waitForMessages(HERA, 2);
    await expectNothingLeft(q);
    await expect
      .poll(async () => await q.site.postern.history('--daemon', 'policyd', '--to', HERA), PATIENCE)
      .toEqual(
        expect.arrayContaining([
          expect.objectContaining({ verdict: 'accept', shadow: [{ rule: 'quota.full', kind: 'defer' }] }),
        ]),
      );
  });

  test('what the milter refuses, defers, discards or keeps gives its room back at once', async () => {
    const actions = { reject: 550, defer: 451, discard: 250, quarantine: 250 };
    await using q = await startQuotaSite({
      config: [
        'quarantine.where = "folder"',
        ...Object.keys(actions).map(
          (action) =>
            `[[checks.content.rule]]\nname = "to-${action}"\ndirection = "both"\nwords = ["xyzzy${action}"]\nwhere = ["subject"]\naction = "${action}"`,
        ),
      ].join('\n'),
    });
    await q.fill(ZEUS, FILLED);
    const onItsWay = async (): Promise<unknown> => {
      const { stdout } = await q.site.postern.command('quota', ZEUS);
      return /on its way +(.*)/.exec(stdout)?.[1];
    };
    for (const [action, code] of Object.entries(actions)) {
      const data = Buffer.from(`${big(SIZE, { Subject: `xyzzy${action}` })}.\r\n`, 'latin1');
      // Twice: each needs the room that the one before had.
      for (const time of [1, 2]) {
        const sent = await send(q, [ZEUS], SIZE, data);
        expect([action, time, sent.rcpt[0]?.code, sent.end?.code]).toEqual([action, time, 250, code]);
        await expect.poll(onItsWay, PATIENCE).toBe('nothing');
      }
    }
    expect((await send(q, [ZEUS], SIZE)).end?.code).toBe(250);
    await q.site.dovecot.waitForMessages(ZEUS, 7);
    expect(bounces(q)).toEqual([]);
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
