import { readFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { procmailWithSpamc } from '../support/neighbours/procmail.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import type { Spamd } from '../support/neighbours/spamd.ts';
import { GTUBE, HERA, letter, ODIN, startSite, ZEUS, type Site } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const EXAMPLES = '/usr/share/doc/spamassassin/examples';

/** Nothing but the score is to count. */
const CONFIG = ['spf', 'dkim', 'arc', 'dmarc', 'virus']
  .map((check) => `[checks.${check}]\nenabled = false\n`)
  .join('');

async function example(name: string): Promise<string> {
  const text = await readFile(`${EXAMPLES}/${name}`, 'latin1');
  return text.replaceAll(/\r?\n/g, '\r\n');
}

const MAILS: readonly (readonly [string, () => Promise<string> | string])[] = [
  ['sample-spam.txt', () => example('sample-spam.txt')],
  ['sample-nonspam.txt', () => example('sample-nonspam.txt')],
  ['GTUBE in a plain letter', () => letter({ Subject: 'for you' }, `${GTUBE}\r\n`)],
  ['GTUBE without a subject', () => letter({ Subject: 'x' }, `${GTUBE}\r\n`).replace('Subject: x\r\n', '')],
  [
    'GTUBE with a folded, encoded subject and octets beyond ASCII',
    () =>
      letter({ Subject: '=?UTF-8?Q?h=C3=A4mmer?=\r\n =?UTF-8?Q?_und?=' }, `h\xc3\xa4mmer\r\n${GTUBE}\r\n`),
  ],
  ['GTUBE that was tagged before', () => letter({ Subject: '[SPAM] for you' }, `${GTUBE}\r\n`)],
  [
    'ham that claims to be spam',
    () =>
      letter({
        Subject: 'hail',
        'X-Spam-Flag': 'YES',
        'X-Spam-Status': 'Yes, score=99',
        'X-Spam-Extra': '1',
      }),
  ],
  [
    'GTUBE that claims to be ham',
    () =>
      letter(
        {
          Subject: 'hail',
          'X-Spam-Flag': 'NO',
          'X-Spam-Status': 'No, score=-99',
          'X-Spam-Report': 'all is well',
        },
        `${GTUBE}\r\n`,
      ),
  ],
];

interface Parts {
  readonly fields: readonly string[];
  readonly body: string;
}

/** Header fields, each with its folds, and body; lines end in LF. */
function partsOf(message: Buffer | string): Parts {
  const text = (typeof message === 'string' ? message : message.toString('latin1')).replaceAll('\r\n', '\n');
  const end = text.indexOf('\n\n');
  return { fields: text.slice(0, end).split(/\n(?![\t ])/), body: text.slice(end + 2) };
}

function named(fields: readonly string[], name: RegExp): string[] {
  return fields.filter((field) => name.test(field));
}

function firstLine(field: string): string {
  return field.replace(/\n[^]*/, '');
}

/** What is between the boundaries of a report. */
function attachments({ fields, body }: Parts): string[] {
  const [type = ''] = named(fields, /^Content-Type:/i);
  const boundary = /^Content-Type: multipart\/mixed; boundary="([^"]+)"$/.exec(type)?.[1];
  if (boundary === undefined) throw new Error(`no report: ${type}`);
  expect(body.startsWith(`This is a multi-part message in MIME format.\n\n--${boundary}\n`)).toBe(true);
  expect(body.trimEnd().endsWith(`\n--${boundary}--`)).toBe(true);
  return body.trimEnd().slice(0, -`\n--${boundary}--`.length).split(`--${boundary}\n`).slice(1);
}

function expectAsSent(ours: Parts, _: Parts, sent: Parts): void {
  expect(ours.body.trimEnd()).toBe(sent.body.trimEnd());
}

function headOf(part: string): string {
  return part.slice(0, part.indexOf('\n\n'));
}

/** Both made a report of what was sent; ours has as its attachment the very message, without what it claimed of itself. */
function expectReport(ours: Parts, theirs: Parts, sent: Parts, reportSafe: number): void {
  const [report, original = ''] = attachments(ours);
  const [theirReport, theirOriginal = ''] = attachments(theirs);
  expect(report).toBe(theirReport);
  expect(headOf(original)).toBe(headOf(theirOriginal));
  const type = reportSafe === 1 ? 'message/rfc822' : 'text/plain';
  expect(headOf(original)).toContain(`Content-Type: ${type};`);
  const attached = partsOf(original.slice(headOf(original).length + 2));
  expect(attached.fields).toEqual(sent.fields.filter((field) => !/^X-Spam-/i.test(field)));
  expect(attached.body.trimEnd()).toBe(sent.body.trimEnd());
  expect(named(ours.fields, /^X-Envelope-/i)).toEqual([]);
  for (const name of [/^From:/, /^Date:/, /^Message-ID:/i])
    expect(named(ours.fields, name)).toEqual(named(sent.fields, name));
  expect(named(ours.fields, /^MIME-Version:/i)).toEqual(['MIME-Version: 1.0']);
  expect(named(ours.fields, /^Received: from localhost by .*\n\twith SpamAssassin/)).toHaveLength(1);
}

describeWithNeighbours("in procmail's and spamc's place", () => {
  describe.each([0, 1, 2])('with report_safe %i', (reportSafe) => {
    let site: Site;
    let plain: Postfix;
    let spamd: Spamd;

    beforeAll(async () => {
      const localCf = [`report_safe ${reportSafe}`, 'bayes_auto_learn 0'];
      const config = `${CONFIG}[checks.spam]\nrewrite_body = ${reportSafe > 0}\n`;
      site = await startSite({ spamd: { localCf }, config });
      if (site.spamd === null) throw new Error('no spamd');
      spamd = site.spamd;
      plain = await startPostfix({
        hostname: 'mx.olimpus.example',
        domains: ['olimpus.example'],
        mailboxes: [ZEUS, HERA],
        virtualTransport: `lmtp:inet:127.0.0.1:${site.dovecot.lmtpPort}`,
      });
    });

    afterAll(async () => {
      await plain.stop();
      await site[Symbol.asyncDispose]();
    });

    it.each(MAILS)('%s', async (_, made) => {
      const data = await made();
      const before = {
        zeus: (await site.dovecot.mailbox(ZEUS)).length,
        hera: (await site.dovecot.mailbox(HERA)).length,
      };
      const mail = { xclient: ODIN, from: 'odin@valhalla.example', data: Buffer.from(data, 'latin1') };
      const ends = [
        await sendMail({ ...mail, port: site.postfix.smtpPort, to: [ZEUS] }),
        await sendMail({ ...mail, port: plain.smtpPort, to: [HERA] }),
      ];
      expect(ends.map(({ outcome }) => outcome.code)).toEqual([250, 250]);
      const ours = partsOf((await site.dovecot.waitForMessages(ZEUS, before.zeus + 1)).at(-1) ?? '');
      const unscored = (await site.dovecot.waitForMessages(HERA, before.hera + 1)).at(-1) ?? Buffer.of();
      const delivered = Buffer.from(unscored.toString('latin1').replaceAll('\r\n', '\n'), 'latin1');
      const theirs = partsOf(await procmailWithSpamc(spamd, delivered));

      const own = /^X-Spam-(?!Prev-)/i;
      expect(named(ours.fields, own).length).toBeGreaterThanOrEqual(3);
      expect(named(ours.fields, own)).toEqual(named(theirs.fields, own));
      // Of a folded subject SpamAssassin keeps the first line; we keep all of it.
      expect(named(ours.fields, /^X-Spam-Prev-/i).map(firstLine)).toEqual(
        named(theirs.fields, /^X-Spam-Prev-/i),
      );
      expect(named(ours.fields, /^Subject:/i)).toEqual(named(theirs.fields, /^Subject:/i));

      const sent = partsOf(data);
      const isSpam = theirs.fields.includes('X-Spam-Flag: YES');
      const expectBody = reportSafe > 0 && isSpam ? expectReport : expectAsSent;
      expectBody(ours, theirs, sent, reportSafe);
    });
  });
});
