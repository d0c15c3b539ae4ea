import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';

import { releaseListener } from '../../src/cli/wire-postfix.ts';
import { signWithMailauth, verifyWithMailauth } from '../support/dkim-oracle.ts';
import { startClamd, UNWANTED, type Clamd } from '../support/neighbours/clamd.ts';
import { opendkimVerify } from '../support/neighbours/opendkim.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { run, type RunResult } from '../support/neighbours/process.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { HERA, letter, ODIN, startSite, ZEUS, type Site, type SiteOptions } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

const LISTED = z.object({
  id: z.string(),
  where: z.string(),
  sender: z.string(),
  recipients: z.array(z.string()),
  rule: z.string().optional(),
  subject: z.string().optional(),
});

type Listed = z.infer<typeof LISTED>;

const BODY = `Dear all,\r\n.\r\n..dots\r\ntrailing blanks  \r\n${UNWANTED}\r\n\xe4\xf6\r\n\r\n\r\nbye\r\n`;

/** As it is sent: UTF-8, one character for each octet. */
function octets(text: string): string {
  return Buffer.from(text).toString('latin1');
}

interface QuarantineSite extends Site {
  readonly releasePort: number;
}

async function signed(site: Site, fields: Readonly<Record<string, string>> = {}): Promise<string> {
  return await signWithMailauth(
    letter({ Subject: 'toolbar', ...fields }, BODY),
    'valhalla.example',
    'mail',
    site.senderKey,
  );
}

function send(site: Site, data: string, to: readonly string[] = [ZEUS]): ReturnType<typeof sendMail> {
  return sendMail({ port: site.postfix.smtpPort, xclient: ODIN, from: 'odin@valhalla.example', to, data });
}

function command(site: Site, ...args: string[]): Promise<RunResult> {
  const { configFile, folder } = site.postern;
  return run(process.execPath, [MAIN, 'quarantine', ...args, '--config', configFile], {
    cwd: folder,
    env: { MAIL_CONFIG: site.postfix.configDirectory },
  });
}

async function list(site: Site): Promise<Listed[]> {
  const { code, stdout, stderr } = await command(site, 'list', '--json');
  expect({ code, stderr: stderr.replace(/^postern: nothing.*\n/, '') }).toEqual({ code: 0, stderr: '' });
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => LISTED.parse(JSON.parse(line)));
}

describeWithNeighbours('quarantine', () => {
  let clamd: Clamd;

  beforeAll(async () => {
    clamd = await startClamd();
  });

  afterAll(async () => {
    await clamd.stop();
  });

  /** A site that quarantines what holds UNWANTED; a listener for releases as `postern wire postfix` prints it. */
  async function quarantineSite(
    where: 'postfix' | 'folder',
    more = '',
    options: SiteOptions = {},
  ): Promise<QuarantineSite> {
    const releasePort = await freePort();
    const listener = releaseListener({ kind: 'tcp', host: '127.0.0.1', port: releasePort });
    const config = [
      `[clamd]\naddresses = ["127.0.0.1:${clamd.port}"]`,
      '[[checks.virus.signatures]]\nname = "pua"\npattern = "PUA.*"\naction = "quarantine"',
      `[quarantine]\nwhere = "${where}"\nrelease_to = "127.0.0.1:${releasePort}"`,
      more,
    ].join('\n');
    const site = await startSite({
      config: `${config}\n`,
      ...options,
      postfix: {
        ...options.postfix,
        master: listener.filter((line) => line !== '' && !line.startsWith('#')),
      },
    });
    return { ...site, releasePort };
  }

  test('folder: quarantined, listed, shown, and released as it was', async () => {
    await using site = await quarantineSite('folder');
    const data = await signed(site, { 'X-Evil': '\x1b[2J\x9b31m' });
    expect((await send(site, data, [ZEUS, HERA])).end).toMatchObject({ code: 250 });
    await site.postfix.waitForLog(/milter-discard: END-OF-MESSAGE/);
    await site.postfix.waitForQueueEmpty();
    // Sent once more, by a client that did not hear our answer: still one.
    expect((await send(site, data, [ZEUS, HERA])).end).toMatchObject({ code: 250 });
    const [entry, ...others] = await list(site);
    expect(others).toEqual([]);
    expect(entry).toMatchObject({
      where: 'folder',
      sender: 'odin@valhalla.example',
      recipients: [ZEUS, HERA],
      rule: 'virus.pua',
      subject: 'toolbar',
    });
    const id = entry?.id ?? '';
    const folder = join(site.postern.folder, 'state', 'quarantine');
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect((await stat(join(folder, id))).mode & 0o777).toBe(0o700);
    for (const name of await readdir(join(folder, id))) {
      expect((await stat(join(folder, id, name))).mode & 0o777).toBe(0o600);
    }

    const shown = await command(site, 'show', id.slice(0, 8));
    expect(shown.stdout).toContain('X-Evil: ?[2J??31m');
    expect(shown.stdout).toContain('virus.pua, by milter');
    expect(shown.stdout).toMatch(/^[\n -~]*$/);

    const released = await command(site, 'release', id);
    expect(released).toMatchObject({ code: 0, stdout: `released ${id} to 2 of 2 recipients\n`, stderr: '' });
    for (const user of [ZEUS, HERA]) {
      const [delivered] = await site.dovecot.waitForMessages(user, 1);
      const text = delivered?.toString('latin1') ?? '';
      expect(text.endsWith(octets(data))).toBe(true);
      expect(text).not.toMatch(/^X-Postern-(?:Release|Verdict)/m);
      // The hop from outside is told of, though Postfix dropped the field of its own.
      expect(text).toMatch(/^Received: from odin\.valhalla\.example \(.*\[192\.0\.2\.20\]\)/m);
      expect(await verifyWithMailauth(Buffer.from(text, 'latin1'), site.bind)).toEqual([
        'valhalla.example mail rsa-sha256: pass',
      ]);
      expect(await opendkimVerify(Buffer.from(text, 'latin1'), site.bind)).toEqual({ pass: true, text: '' });
    }
    expect(await list(site)).toEqual([]);
    const deliveries = await site.postern.history('--daemon', 'lmtp-filter');
    expect(deliveries.map(({ rule, verdict, outcomes }) => ({ rule, verdict, outcomes }))).toEqual([
      { rule: 'released', verdict: 'accept', outcomes: [] },
      { rule: 'released', verdict: 'accept', outcomes: [] },
    ]);
  });

  test('folder: a sender can not say that a message was released', async () => {
    await using site = await quarantineSite('folder');
    const seal = `X-Postern-Release: id=${'0'.repeat(32)}; t=4000000000; s=${'0'.repeat(64)}\r\n`;
    const data = `${seal}${letter({}, BODY)}`;
    expect((await send(site, data)).end).toMatchObject({ code: 250 });
    await site.postfix.waitForLog(/milter-discard: END-OF-MESSAGE/);
    expect(await list(site)).toHaveLength(1);
    // Not even one who is on this host, and knows the listener.
    const local = { port: site.releasePort, from: 'loki@valhalla.example', to: [ZEUS], data };
    expect((await sendMail(local)).end).toMatchObject({ code: 250 });
    await site.processes[0]?.waitForLog(/says that it was released from the quarantine, and was not/);
    await site.postfix.waitForLog(/Message is in the quarantine as/);
    expect((await list(site)).map(({ sender }) => sender)).toEqual([
      'odin@valhalla.example',
      'loki@valhalla.example',
    ]);
    expect(await site.dovecot.mailbox(ZEUS)).toEqual([]);
  });

  test('folder: lmtp-filter keeps there too, for those recipients whose rules say so', async () => {
    const override = `[[override]]\nrecipients = ["${HERA}"]\nrules = { "virus.pua" = "ignore" }\n`;
    const postfix = { smtpdMilters: '', nonSmtpdMilters: '' };
    await using site = await quarantineSite('folder', override, { postfix });
    const data = await signed(site);
    expect((await send(site, data, [ZEUS, HERA])).end).toMatchObject({ code: 250 });
    await site.dovecot.waitForMessages(HERA, 1);
    await site.postfix.waitForQueueEmpty();
    const [entry] = await list(site);
    expect(entry).toMatchObject({ recipients: [ZEUS], rule: 'virus.pua' });
    expect((await command(site, 'release', entry?.id ?? '')).code).toBe(0);
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    expect(delivered?.toString('latin1').endsWith(octets(data))).toBe(true);
    expect(await site.dovecot.mailbox(HERA)).toHaveLength(1);
  });

  test('folder: deleted, and what could not be released stays', async () => {
    await using site = await quarantineSite('folder', '', {
      processes: [['policyd', 'milter', 'lmtp-filter']],
    });
    const first = await signed(site, { Subject: 'one' });
    expect((await send(site, first)).end).toMatchObject({ code: 250 });
    const [entry] = await list(site);
    const id = entry?.id ?? '';
    expect(await command(site, 'delete', id)).toMatchObject({ code: 0, stdout: `deleted ${id}\n` });
    expect(await list(site)).toEqual([]);
    expect(await command(site, 'delete', id)).toMatchObject({ code: 1 });

    expect((await send(site, await signed(site, { Subject: 'two' }))).end).toMatchObject({ code: 250 });
    const [second] = await list(site);
    await site.postfix.stop();
    const failed = await command(site, 'release', second?.id ?? '');
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/did not take the message: .*ECONNREFUSED/);
    const folder = join(site.postern.folder, 'state', 'quarantine');
    expect(await readdir(folder)).toContain(second?.id);
  });

  test('postfix: on hold, listed, shown, released and deleted', async () => {
    await using site = await quarantineSite('postfix');
    const data = await signed(site);
    expect((await send(site, data)).end).toMatchObject({ code: 250 });
    expect((await send(site, await signed(site, { Subject: 'two' }))).end).toMatchObject({ code: 250 });
    const [first, second] = await list(site);
    expect(first).toMatchObject({ where: 'postfix', recipients: [ZEUS], sender: 'odin@valhalla.example' });
    const shown = await command(site, 'show', first?.id ?? '');
    expect(shown.stdout).toContain('on hold in Postfix');
    expect(shown.stdout).toContain('Subject: toolbar');
    expect(await command(site, 'delete', second?.id ?? '')).toMatchObject({ code: 0 });
    expect(await command(site, 'release', first?.id ?? '')).toMatchObject({ code: 0 });
    // lmtp-filter knows what the milter found, and files it as junk, having no folder.
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    expect(delivered?.toString('latin1')).toContain(octets(BODY));
    expect(await list(site)).toEqual([]);
  });
});
