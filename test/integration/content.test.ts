import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { sendMail, type MailReplies } from '../support/neighbours/smtp-client.ts';
import { attachment, base64Lines, mixed, zipArchive } from '../support/mime.ts';
import {
  HERA,
  letter,
  ODIN,
  PASSWORD,
  startSite,
  ZEUS,
  type Site,
  type SiteOptions,
} from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const AUDIT = 'audit@olimpus.example';
const USERS = [ZEUS, HERA, AUDIT];

/** 这是绝密计划 in HTML, GB18030. */
const GB18030 = Buffer.concat([
  Buffer.from('<html><body><p>'),
  Buffer.from([0xd5, 0xe2, 0xca, 0xc7, 0xbe, 0xf8]),
  Buffer.from('<b>'),
  Buffer.from([0xc3, 0xdc, 0xbc, 0xc6, 0xbb, 0xae]),
  Buffer.from('</b></p></body></html>'),
]);
const UTF_16 = Buffer.from('<p>The Top&nbsp;Secret plan</p>', 'utf16le');

const WORDS = `
[[checks.content.rule]]
name = "secrets"
words = ["绝密", "top secret"]
direction = "out"
logins = ["@olimpus.example"]
`;

function siteWith(config: string, options: SiteOptions = {}): Promise<Site> {
  return startSite({
    config,
    dovecot: { users: Object.fromEntries(USERS.map((user) => [user, PASSWORD])) },
    ...options,
    postfix: { mailboxes: USERS, ...options.postfix },
  });
}

/** Staff mail, with a login. */
function submit(site: Site, data: string | Uint8Array): Promise<MailReplies> {
  return sendMail({
    port: site.postfix.submissionPort,
    auth: { user: ZEUS, password: PASSWORD },
    from: ZEUS,
    to: [HERA],
    data,
  });
}

function htmlIn(octets: Uint8Array, charset: string): string {
  const fields = {
    From: ZEUS,
    To: HERA,
    'MIME-Version': '1.0',
    'Content-Type': `text/html; charset=${charset}`,
    'Content-Transfer-Encoding': 'base64',
  };
  return letter(fields, `${base64Lines(octets)}\r\n`);
}

function plain(body: string): string {
  return letter({ From: ZEUS, To: HERA }, `${body}\r\n`);
}

describeWithNeighbours('content rules', () => {
  test('staff mail with a sensitive word is held, however it is encoded, and released as it was', async () => {
    await using site = await siteWith(`${WORDS}action = "quarantine"\n`);
    expect((await submit(site, plain('Nothing to see.'))).end).toMatchObject({ code: 250 });
    await site.dovecot.waitForMessages(HERA, 1);

    const held = [htmlIn(GB18030, 'GB18030'), htmlIn(UTF_16, 'utf-16le')];
    for (const data of held) expect((await submit(site, data)).end).toMatchObject({ code: 250 });
    const queue = await site.postfix.queue();
    expect(queue.map(({ queueName }) => queueName)).toEqual(['hold', 'hold']);
    expect(await site.dovecot.mailbox(HERA)).toHaveLength(1);

    const decisions = await site.postern.history('--verdict', 'quarantine');
    const whys = decisions.map(({ why }) => why);
    expect(decisions.map(({ rule }) => rule)).toEqual(['content.secrets', 'content.secrets']);
    expect(whys.toSorted()).toEqual(['1 match: body "the t********t plan"', '1 match: body "这是**计划"']);
    expect(whys.join('\n')).not.toMatch(/top secret|绝密/i);

    await site.postfix.postsuper('-H', 'ALL');
    await site.postfix.flush();
    const delivered = await site.dovecot.waitForMessages(HERA, 3);
    const bodies = delivered.map((message) => message.toString('latin1'));
    for (const octets of [GB18030, UTF_16]) {
      expect(bodies.some((body) => body.includes(base64Lines(octets)))).toBe(true);
    }
  });

  test('it is refused in session where that is the rule, and the sender is not told why', async () => {
    await using site = await siteWith(`${WORDS}action = "reject"\n`);
    const { end } = await submit(site, htmlIn(GB18030, 'gb2312'));
    expect(end).toMatchObject({ code: 550, enhanced: '5.7.1' });
    expect(end?.text).toMatch(
      /This message was refused because its content is not allowed here \([a-z2-7]{16}\)$/,
    );
    // The same from outside is not staff mail.
    const incoming = await sendMail({
      port: site.postfix.smtpPort,
      xclient: ODIN,
      from: 'odin@valhalla.example',
      to: [HERA],
      data: letter({ To: HERA }, 'top secret\r\n'),
    });
    expect(incoming.end).toMatchObject({ code: 250 });
    const [delivered] = await site.dovecot.waitForMessages(HERA, 1);
    expect(delivered?.toString('latin1')).toContain('top secret');
  });

  test('in shadow it passes, is recorded, and nobody gets a copy', async () => {
    const rules = '[rules]\n"content.secrets" = { action = "reject", shadow = true }\n';
    await using site = await siteWith(`${WORDS}copy_to = ["${AUDIT}"]\n${rules}`);
    expect((await submit(site, plain('top secret'))).end).toMatchObject({ code: 250 });
    await site.dovecot.waitForMessages(HERA, 1);
    await site.postfix.waitForQueueEmpty();
    expect(await site.dovecot.mailbox(AUDIT)).toEqual([]);
    const decisions = await site.postern.history('--verdict', 'accept');
    const milter = decisions.find(({ daemon, shadow }) => daemon === 'milter' && shadow.length > 0);
    expect(milter?.shadow).toEqual([{ rule: 'content.secrets', kind: 'reject' }]);
  });

  test.each([6, 2])('an audit copies to the auditor, unseen (milter_protocol = %i)', async (protocol) => {
    await using site = await siteWith(`${WORDS}copy_to = ["${AUDIT}"]\n`, {
      postfix: { milterProtocol: protocol },
    });
    const data = plain('all of it is top secret');
    expect((await submit(site, data)).end).toMatchObject({ code: 250 });
    expect((await submit(site, plain('harmless'))).end).toMatchObject({ code: 250 });
    await site.dovecot.waitForMessages(HERA, 2);
    const [copy, ...others] = await site.dovecot.waitForMessages(AUDIT, 1);
    expect(copy?.toString('latin1')).toContain('all of it is top secret');
    await site.postfix.waitForQueueEmpty();
    expect(others).toEqual([]);
    expect(await site.dovecot.mailbox(AUDIT)).toHaveLength(1);
    for (const message of await site.dovecot.mailbox(HERA)) {
      expect(message.toString('latin1')).not.toContain('audit@');
    }
    const decisions = await site.postern.history('--verdict', 'accept');
    expect(decisions.map(({ reply }) => reply)).toContain(`SMFIR_CONTINUE (copy to ${AUDIT})`);
  });

  test('a copy that can not be delivered is not told to the sender', async () => {
    const nobody = 'nobody@olimpus.example';
    await using site = await siteWith(`${WORDS}copy_to = ["${nobody}"]\n`);
    expect((await submit(site, plain('top secret'))).end).toMatchObject({ code: 250 });
    await site.dovecot.waitForMessages(HERA, 1);
    await site.postfix.waitForLog(new RegExp(`to=<${nobody}>.*status=bounced`));
    await site.postfix.waitForQueueEmpty();
    expect(await site.dovecot.mailbox(ZEUS)).toEqual([]);
  });

  test('dangerous attachments are refused, harmless ones are not', async () => {
    const rule = `
[[checks.content.rule]]
name = "attachments"
double_extension = true
encrypted = ["archive"]
types = ["executable", "office-macro"]
action = "reject"
`;
    await using site = await siteWith(rule);
    const send = async (part: Buffer): Promise<number | undefined> => {
      const fields = { From: 'odin@valhalla.example', To: ZEUS, Date: 'Sat, 21 Nov 2026 09:00:00 +0000' };
      const { end } = await sendMail({
        port: site.postfix.smtpPort,
        xclient: ODIN,
        from: 'odin@valhalla.example',
        to: [ZEUS],
        data: mixed([part], fields),
      });
      return end?.code;
    };
    const text = Buffer.from('harmless');
    expect(await send(attachment('eicar.pdf.exe', text))).toBe(550);
    expect(
      await send(attachment('a.zip', zipArchive([{ name: 'a.txt', encrypted: true }]), 'application/zip')),
    ).toBe(550);
    expect(
      await send(attachment('a.zip', zipArchive([{ name: 'deep/eicar.pdf.com' }]), 'application/zip')),
    ).toBe(550);
    expect(await send(attachment('a.txt', Buffer.concat([Buffer.from('MZ'), Buffer.alloc(100)])))).toBe(550);
    expect(await send(attachment('a.zip', zipArchive([{ name: 'a.txt' }]), 'application/zip'))).toBe(250);
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    expect(delivered?.toString('latin1')).toContain('filename="a.zip"');
    const whys = (await site.postern.history('--verdict', 'reject')).map(({ why }) => why);
    expect(whys.toSorted()).toEqual([
      'attachment "a.txt": type executable',
      'attachment "a.zip": encrypted archive',
      'attachment "eicar.pdf.com": double extension',
      'attachment "eicar.pdf.exe": double extension',
    ]);
  });

  test('words come from a file, and a reload takes what is new in it', async () => {
    await using site = await siteWith('');
    const rule = '[[checks.content.rule]]\nname = "codes"\nwords = ["file:codes.txt"]\naction = "reject"\n';
    await writeFile(join(site.postern.folder, 'codes.txt'), '# project names\nMjölnir\n');
    await site.postern.configure(rule);
    const [postern] = site.processes;
    postern?.signal('SIGHUP');
    await postern?.waitForLog(/"msg":"reloaded"/);
    const data = letter({ From: ZEUS, To: HERA, Subject: '=?utf-8?q?about_MJO=CC=88LNIR?=' });
    expect((await submit(site, data)).end).toMatchObject({ code: 550 });
    expect(await postern?.metrics()).toMatch(/postern_content_scan_seconds_count 1/);
  });
});
