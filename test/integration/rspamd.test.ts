import { afterAll, beforeAll, expect, it } from 'vitest';

import { createRspamd, type RspamdAddress } from '../../src/adapters/rspamd.ts';
import { CheckRun } from '../../src/checks/runner.ts';
import { spamCheck } from '../../src/checks/spam.ts';
import type { Message } from '../../src/mail/message.ts';
import type { SpamScanner } from '../../src/ports/scanner.ts';
import type { Finding } from '../../src/verdict/finding.ts';
import { checkTools } from '../support/checks.ts';
import { client, envelope, message } from '../support/mail.ts';
import { startRspamd, type Rspamd } from '../support/neighbours/rspamd.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { GTUBE, letter, ODIN, startSite, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const HEADERS =
  'From: Thor <thor@valhalla.example>\r\nTo: zeus@olimpus.example\r\nSubject: hammer\r\n' +
  'Message-ID: <20261121.1@valhalla.example>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n';

function scannerOf(...addresses: readonly RspamdAddress[]): SpamScanner {
  const clock = { now: () => Date.now(), elapsed: () => performance.now() };
  const limits = { maxConcurrent: 2, timeoutMs: 30_000, maxResponse: 1_048_576 };
  return createRspamd({ addresses, ...limits, changed: () => {} }, clock);
}

function deadline(): AbortSignal {
  return AbortSignal.timeout(60_000);
}

/** What the check itself finds. */
async function findingsOf(scanner: SpamScanner, checked: Message): Promise<readonly Finding[]> {
  const checks = new CheckRun([spamCheck.bind({}, 60_000)], checkTools({ scanner }), 'in');
  const { client: from, direction, sender } = checked.envelope;
  checks.startMessage({ client: from, direction, sender, message: checked });
  const [outcome] = await checks.settle();
  if (outcome?.kind !== 'found') throw new Error(`no scan: ${JSON.stringify(outcome)}`);
  return outcome.findings;
}

describeWithNeighbours('rspamd', () => {
  let rspamd: Rspamd;
  let tcp: RspamdAddress;
  let unix: RspamdAddress;

  beforeAll(async () => {
    rspamd = await startRspamd();
    tcp = { kind: 'tcp', host: rspamd.host, port: rspamd.port };
    unix = { kind: 'unix', path: rspamd.socketPath };
  });

  afterAll(async () => {
    await rspamd.stop();
  });

  it('answers ping, over TCP and over its unix socket', async () => {
    await expect(scannerOf(tcp).ping(deadline())).resolves.toBeUndefined();
    await expect(scannerOf(unix).ping(deadline())).resolves.toBeUndefined();
  });

  it('knows GTUBE; its action is a finding of its own', async () => {
    const [scored, action] = await findingsOf(
      scannerOf(unix),
      message({ headers: HEADERS, body: `${GTUBE}\r\n` }),
    );
    expect(scored).toMatchObject({
      code: 'spam.scored',
      score: 15,
      scan: { required: 15, rules: ['GTUBE'], action: 'reject' },
    });
    expect(action).toMatchObject({ code: 'spam.action-reject' });
  });

  it('is told client, login and envelope', async () => {
    const checked = message({
      headers: HEADERS,
      body: 'Hail!\r\n',
      envelope: envelope({
        sender: '<thor@valhalla.example>',
        recipients: ['<zeus@olimpus.example>', '<hera@olimpus.example>'],
        queueId: 'told1',
        client: client({ address: '2001:4860:4860::8888', helo: 'dns.google', login: 'thor' }),
      }),
    });
    const [scored, ...others] = await findingsOf(scannerOf(tcp), checked);
    expect(others).toEqual([]);
    expect(scored?.scan?.rules).toEqual(expect.arrayContaining(['FROM_EQ_ENVFROM']));
    expect(scored?.scan?.score).toBeLessThan(5);
    const line = await rspamd.waitForLog(/rspamd_task_write_log: .*qid: <told1>/);
    expect(line).toContain('ip: 2001:4860:4860::8888');
    expect(line).toContain('user: thor');
    expect(line).toContain('from: <thor@valhalla.example>');
    expect(line).toContain('rcpts: <zeus@olimpus.example,hera@olimpus.example>');
  });

  it('can not be told more by what a client chose', async () => {
    const evil = 'x\r\nUser: root\r\n\r\n"é" <a@b>';
    const [scored] = await findingsOf(
      scannerOf(tcp),
      message({
        headers: HEADERS,
        envelope: envelope({
          sender: `<${evil}>`,
          recipients: [`<${evil}>`],
          queueId: 'evil1',
          client: client({ helo: evil, name: evil, login: null }),
        }),
      }),
    );
    expect(scored?.code).toBe('spam.scored');
    const line = await rspamd.waitForLog(/rspamd_task_write_log: .*qid: <evil1>/);
    expect(line).not.toContain('user: root');
  });

  it('takes every byte of a message, and large ones in pieces', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, code) => code));
    const lines = Buffer.concat([bytes.filter((code) => code !== 10 && code !== 13), Buffer.from('\r\n')]);
    const body = Array.from({ length: 1600 }, () => lines);
    const [scored] = await findingsOf(scannerOf(unix), message({ headers: HEADERS, body }));
    expect(scored?.scan?.required).toBe(15);
  });

  it('scores for the milter; what it would do counts when it is asked to', async () => {
    const config = [
      `[rspamd]\nenabled = true\naddress = ["127.0.0.1:${rspamd.port}"]`,
      ...['spf', 'dkim', 'arc', 'dmarc', 'virus'].map((check) => `[checks.${check}]\nenabled = false`),
    ].join('\n');
    const data = letter({ Subject: 'for you', 'X-Spam-Status': 'No, forged' }, `${GTUBE}\r\n`);
    const mail = { xclient: ODIN, from: 'odin@valhalla.example', to: [ZEUS], data };
    {
      await using site = await startSite({ config });
      expect((await sendMail({ ...mail, port: site.postfix.smtpPort })).outcome.code).toBe(250);
      const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
      const section = delivered?.toString('latin1').split('\r\n\r\n')[0] ?? '';
      const fields = section.split(/\r\n(?![\t ])/);
      expect(fields).toContain('Subject: [SPAM] for you');
      expect(fields.filter((field) => /^X-(?:Spam|Rspamd)/i.test(field))).toEqual([
        'X-Spam-Checker-Version: rspamd/3.4',
        'X-Spam-Flag: YES',
        `X-Spam-Level: ${'*'.repeat(15)}`,
        'X-Spam-Status: Yes, score=15.0 required=5.0 tests=GTUBE',
        'X-Spam-Prev-Subject: for you',
      ]);
    }
    await using strict = await startSite({ config: `${config}\n[rules]\n"spam.action-reject" = "reject"\n` });
    const { end } = await sendMail({ ...mail, port: strict.postfix.smtpPort });
    expect(end).toMatchObject({ code: 550 });
    const [decision] = await strict.postern.history('--verdict', 'reject');
    expect(decision).toMatchObject({ daemon: 'milter', rule: 'spam.action-reject' });
  });
});
