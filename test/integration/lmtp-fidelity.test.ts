import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { startLmtpSite, type LmtpSite } from '../support/lmtp-site.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { run } from '../support/neighbours/process.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { FakeDovecot } from '../support/players/fake-dovecot.ts';
import { LmtpClient } from '../support/players/lmtp-client.ts';
import { LmtpTalk } from '../support/players/lmtp-talk.ts';
import { preparePostern } from '../support/postern.ts';
import { big } from '../support/quota-site.ts';
import { HERA, letter, ODIN, startSite, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const PATIENCE = { timeout: 60_000 };

/** What Dovecot would do if it took the rest of the message for commands. */
const FORGED = `MAIL FROM:<ceo@olimpus.example>\r\nRCPT TO:<${HERA}>\r\nDATA\r\nSubject: forged\r\n\r\nx\r\n.\r\n`;

/** What a client may send to have that, and what the reader has to see there. */
const TRICKS: readonly (readonly [name: string, sent: string, stored: string])[] = [
  ['LF.LF', 'a\n.\n', 'a\r\n.\r\n'],
  ['LF.CRLF', 'a\n.\r\n', 'a\r\n.\r\n'],
  ['CRLF.LF', 'a\r\n.\n', 'a\r\n\r\n'],
  ['CR.CR', 'a\r.\r', 'a\r.\r'],
  ['CRLF.CR', 'a\r\n.\r', 'a\r\n\r'],
  ['CR.CRLF', 'a\r.\r\n', 'a\r.\r\n'],
  ['LF.CR', 'a\n.\r', 'a\r\n.\r'],
  ['CRLF.NUL', 'a\r\n.\0\r\n', 'a\r\n\0\r\n'],
  ['NUL.CRLF', 'a\r\n\0.\r\n', 'a\r\n\0.\r\n'],
  ['a stuffed dot', 'a\r\n..\r\n', 'a\r\n.\r\n'],
  ['two stuffed dots', 'a\r\n...\r\n', 'a\r\n..\r\n'],
  // Dovecot keeps no CR before CRLF.
  ['CR CRLF.CR CRLF', 'a\r\r\n.\r\r\n', 'a\r\n\r\n'],
];

/** Sends the pieces, each in a packet of its own where the kernel lets it, and the end of the message behind them. */
async function smuggle(site: LmtpSite, pieces: readonly string[]): Promise<string> {
  await using talk = await LmtpTalk.introduced(site.target);
  await talk.ask('XFORWARD SOURCE=LOCAL IDENT=SMUGGLED');
  talk.send(`MAIL FROM:<odin@valhalla.example>\r\nRCPT TO:<${ZEUS}>\r\nDATA\r\n`);
  await talk.replies(3);
  for (const piece of pieces) await talk.sendApart(piece);
  await talk.sendApart('\r\n.\r\nQUIT\r\n');
  const [reply = '', bye, ...more] = await talk.rest();
  expect(bye).toBe('221 2.0.0 Bye');
  expect(more).toEqual([]);
  return reply;
}

describeWithNeighbours('before real Dovecot', () => {
  test('no end-of-data trick becomes a second message, whole or cut anywhere', async () => {
    await using site = await startLmtpSite();
    const { dovecot } = site;
    let count = 0;
    for (const [name, trick, stored] of TRICKS) {
      const head = `Subject: ${name}\r\n\r\n`;
      // The dot that begins FORGED's end would end our message too, so that it is stuffed as a client must.
      const rest = FORGED.replace('\r\n.\r\n', '\r\n..\r\n');
      const wholes = [[`${head}${trick}${rest}`]];
      const cuts = Array.from(trick.slice(1), (_, at) => [
        head + trick.slice(0, at + 1),
        trick.slice(at + 1) + rest,
      ]);
      for (const pieces of [...wholes, ...cuts]) {
        expect([name, await smuggle(site, pieces)]).toEqual([name, expect.stringMatching(/^250 2\.0\.0 /)]);
        count += 1;
      }
      const messages = await dovecot.waitForMessages(ZEUS, count);
      expect([name, messages.length]).toEqual([name, count]);
      for (const message of messages.slice(-1 - cuts.length)) {
        const text = message.toString('latin1');
        const body = text.slice(text.indexOf('\r\n\r\n') + 4);
        // IMAP has no NUL in a literal: Dovecot shows 0x80 there.
        expect([name, body.replaceAll('\x80', '\0')]).toEqual([name, `${stored}${FORGED}\r\n`]);
      }
    }
    expect(await dovecot.mailbox(HERA)).toEqual([]);
  });

  test('Return-Path, Delivered-To and the fields of the message are as Dovecot has them without us', async () => {
    await using site = await startLmtpSite();
    const marks = {
      'Auto-Submitted': 'auto-generated',
      'List-Id': '<gods.olimpus.example>',
      Precedence: 'list',
    };
    expect(await site.send([ZEUS], letter(marks))).toEqual([expect.stringMatching(/ Saved$/)]);
    expect(await site.send([`zeus+a@olimpus.example`, `Zeus@olimpus.example`], letter(marks))).toHaveLength(
      2,
    );
    const [alone = '', ...together] = (await site.dovecot.waitForMessages(ZEUS, 3)).map((message) =>
      message.toString('latin1'),
    );
    expect(alone.match(/^Return-Path: <odin@valhalla\.example>\r$/gm)).toHaveLength(1);
    expect(alone.match(/^Delivered-To: .*$/gm)).toEqual([`Delivered-To: ${ZEUS}\r`.trimEnd()]);
    expect(alone).toContain(`for <${ZEUS}>`);
    for (const message of together) {
      expect(message.match(/^Delivered-To:/gm)).toBeNull();
      expect(message.match(/^Return-Path: <odin@valhalla\.example>\r$/gm)).toHaveLength(1);
    }
    for (const message of [alone, ...together]) {
      for (const [name, value] of Object.entries(marks))
        expect(message).toContain(`\r\n${name}: ${value}\r\n`);
    }
  });

  test('what Dovecot does not have is not announced; its refusals come at RCPT in its words', async () => {
    await using site = await startLmtpSite();
    await using client = await LmtpClient.open(site.target);
    expect(client.offers).toEqual(expect.arrayContaining(['PIPELINING', 'ENHANCEDSTATUSCODES', '8BITMIME']));
    expect(client.offers.filter((offer) => /^(?:SMTPUTF8|DSN|CHUNKING|STARTTLS)/.test(offer))).toEqual([]);
    expect(await site.send(['nobody@olimpus.example', ZEUS], letter({}))).toEqual([
      "550 5.1.1 <nobody@olimpus.example> User doesn't exist: nobody@olimpus.example",
      expect.stringMatching(/^250 2\.0\.0 <zeus@olimpus\.example> \S+ Saved$/),
    ]);
    await using talk = await LmtpTalk.introduced(site.target);
    expect(await talk.ask('MAIL FROM:<odin@valhalla.example> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x')).toBe(
      '250 2.1.0 OK',
    );
    expect(await talk.ask(`RCPT TO:<${ZEUS}> ORCPT=rfc822;z@x NOTIFY=NEVER`)).toBe('250 2.1.5 OK');
  });

  test('50 MiB arrive octet by octet, and memory stays small', async () => {
    await using site = await startLmtpSite();
    const content = big(50 * 1024 ** 2, { Subject: 'large' });
    const [reply] = await site.send([ZEUS, HERA], content);
    expect(reply).toMatch(/^250 2\.0\.0 /);
    // Dovecot keeps lines with LF alone (mail_save_crlf = no).
    const kept = content.slice(content.indexOf('\r\n\r\n')).replaceAll('\r\n', '\n');
    for (const user of ['zeus', 'hera']) {
      const message = await newestFile(
        join(site.dovecot.folder, 'mail/olimpus.example', user, 'Maildir/new'),
      );
      expect(digest(message.subarray(message.indexOf('\n\n')))).toBe(digest(Buffer.from(kept, 'latin1')));
    }
    // Chunks that wait for the garbage collector are in the first peak. Three more at once, 150 MiB, add little to it.
    const first = await peakMiB(site.process.pid);
    const more = await Promise.all(Array.from({ length: 3 }, () => site.send([ZEUS, HERA], content)));
    expect(more.flat().map((each) => each.slice(0, 9))).toEqual(Array.from({ length: 6 }, () => '250 2.0.0'));
    const peak = await peakMiB(site.process.pid);
    expect(peak - first).toBeLessThan(75);
    expect(peak).toBeLessThan(300);
  });

  test('STARTTLS: mail goes only to a Dovecot that proves who it is', async () => {
    await using folder = await privateFolder('lmtp-tls');
    const [key, certificate, other] = [
      folder.join('key.pem'),
      folder.join('cert.pem'),
      folder.join('other.pem'),
    ];
    await certify(key, certificate, 'dovecot.olimpus.example');
    await certify(folder.join('other.key'), other, 'dovecot.olimpus.example');
    const ssl = `ssl = yes\nssl_cert = <${certificate}\nssl_key = <${key}\n`;
    await using site = await startLmtpSite({
      dovecot: { extra: ssl },
      config: tlsKeys(certificate, 'dovecot.olimpus.example'),
    });
    expect(await site.send([ZEUS], letter({}))).toEqual([expect.stringMatching(/^250 2\.0\.0 /)]);
    const [message = Buffer.alloc(0)] = await site.dovecot.waitForMessages(ZEUS, 1);
    expect(message.toString('latin1')).toMatch(/\(using TLSv1\.[23] [\s\S]* with LMTPS\r\n/);
    for (const [ca, name] of [
      [other, 'dovecot.olimpus.example'],
      [certificate, 'imap.olimpus.example'],
    ] as const) {
      const after = site.process.log.mark();
      await site.postern.configure(tlsKeys(ca, name));
      site.process.signal('SIGHUP');
      await site.process.waitForLog(/"msg":"reloaded"/, { after });
      expect(await site.send([ZEUS], letter({}))).toEqual([expect.stringMatching(/^451 4\.7\.5 /)]);
    }
    expect(await site.process.metrics()).toMatch(
      /^postern_lmtp_upstream_failures_total\{kind="tls"\} [2-9]$/m,
    );
    expect(await site.dovecot.mailbox(ZEUS)).toHaveLength(1);
  });
});

describeWithNeighbours('a slow Dovecot', () => {
  test('makes its senders wait, and takes no memory', async () => {
    await using dovecot = await FakeDovecot.open();
    dovecot.fault = ({ step }) => (step === 'content' ? { after: 'hang' } : null);
    await using postern = await preparePostern({
      upstream: `127.0.0.1:${dovecot.port}`,
      // Its answers to RCPT come within that, whatever else the machine has to do.
      config: 'lmtp-filter.upstream_timeout = "6s"',
    });
    const process = await postern.start('lmtp-filter');
    const before = await peakMiB(process.pid);
    const content = Buffer.from(big(20 * 1024 ** 2), 'latin1');
    const wave = async (): Promise<(string | undefined)[]> => {
      const outcomes = await Promise.all(
        Array.from({ length: 10 }, async (_, index) => {
          await using client = await LmtpClient.open({ port: postern.port['lmtp-filter'] });
          const forward = { IDENT: `SLOW${index}`, SOURCE: 'LOCAL' };
          return await client.send({ from: '<odin@valhalla.example>', to: [`<${ZEUS}>`], content, forward });
        }),
      );
      return outcomes.map(({ delivered }) => delivered[0]?.slice(0, 9));
    };
    const slow = Array.from({ length: 10 }, () => '451 4.4.2');
    expect(await wave()).toEqual(slow);
    // 200 MiB came in.
    const first = await peakMiB(process.pid);
    expect(first - before).toBeLessThan(150);
    expect(await wave()).toEqual(slow);
    expect((await peakMiB(process.pid)) - first).toBeLessThan(40);
    await process.kill();
  });
});

describeWithNeighbours('behind real Postfix', () => {
  test('Dovecot down, then up; unknown user; full mailbox; two aliases of one mailbox', async () => {
    await using site = await startSite({
      dovecot: {
        users: { [ZEUS]: 'x', [HERA]: { password: 'x', quota: '20K' } },
      },
      postfix: {
        mailboxes: [ZEUS, HERA, 'ghost@olimpus.example'],
        aliases: { 'king@olimpus.example': ZEUS, 'father@olimpus.example': ZEUS },
      },
      config: 'lmtp-filter.full_mailbox_wait = "3s"',
    });
    const { postfix, dovecot, postern } = site;
    const send = async (to: readonly string[], body?: string): Promise<void> => {
      const { outcome } = await sendMail({
        port: postfix.smtpPort,
        xclient: ODIN,
        from: 'odin@valhalla.example',
        to,
        data: letter({}, body),
      });
      expect(outcome.code).toBe(250);
    };
    await dovecot.kill();
    const mark = postfix.mark();
    await send(['king@olimpus.example', 'father@olimpus.example']);
    await postfix.waitForLog(/status=deferred \(host .* said: 451 4\.4\.1 /, { after: mark });
    await dovecot.start();
    await postfix.flush();
    await postfix.waitForQueueEmpty(60_000);
    expect(await dovecot.waitForMessages(ZEUS, 1)).toHaveLength(1);

    await send(['ghost@olimpus.example']);
    await postfix.waitForLog(/to=<ghost@olimpus\.example>.*status=bounced .*550 5\.1\.1 /);

    await send([HERA, ZEUS], `${'0123456789'.repeat(7)}\r\n`.repeat(400));
    await postfix.waitForLog(/to=<hera@olimpus\.example>.*status=deferred .*452 4\.2\.2 .*Quota exceeded/);
    await dovecot.waitForMessages(ZEUS, 2);
    await expect
      .poll(
        async () => {
          await postfix.flush();
          return /to=<hera@olimpus\.example>.*status=bounced .*552 5\.2\.2 .*Quota exceeded/.test(
            postfix.log(),
          );
        },
        { ...PATIENCE, interval: 1500 },
      )
      .toBe(true);

    await expect
      .poll(async () => {
        const ledger = await postern.history('--backscatter');
        return new Set(ledger.map(({ recipients, reply }) => `${recipients.join()} ${reply.slice(0, 9)}`));
      }, PATIENCE)
      .toEqual(
        new Set([
          'ghost@olimpus.example 550 5.1.1',
          'hera@olimpus.example 452 4.2.2',
          'hera@olimpus.example 552 5.2.2',
        ]),
      );
    const shown = await postern.command('history', '--backscatter', '--to', HERA);
    expect(shown.stdout).toMatch(/\n {2}answer: 452 4\.2\.2 <hera@olimpus\.example> Quota exceeded/);
    expect(await site.processes[0]?.metrics()).toMatch(
      /^postern_lmtp_backscatter_total\{kind="full_refused"\} 1$/m,
    );
  });
});

function tlsKeys(ca: string, name: string): string {
  return [
    'lmtp-filter.upstream_tls = "always"',
    `lmtp-filter.upstream_ca_file = "${ca}"`,
    `lmtp-filter.upstream_tls_name = "${name}"`,
  ].join('\n');
}

async function newestFile(folder: string): Promise<Buffer> {
  const [name = 'none'] = (await readdir(folder)).toSorted().toReversed();
  return await readFile(join(folder, name));
}

function digest(octets: Buffer): string {
  return createHash('sha256').update(octets).digest('hex');
}

/** The highest that the process's memory was. proc(5): VmHWM. */
async function peakMiB(pid: number): Promise<number> {
  const status = await readFile(join('/proc', String(pid), 'status'), 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

async function certify(key: string, certificate: string, name: string): Promise<void> {
  const made = await run('openssl', [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '2',
    '-keyout',
    key,
    '-out',
    certificate,
    '-subj',
    `/CN=${name}`,
    '-addext',
    `subjectAltName=DNS:${name}`,
  ]);
  if (made.code !== 0) throw new Error(made.stderr);
}
