import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { sendMail } from '../support/neighbours/smtp-client.ts';
import { startPolicySite } from '../support/policy-site.ts';
import { HERA, letter, PASSWORD, startSite, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const USERS = { [ZEUS]: PASSWORD, [HERA]: PASSWORD };
const FRIEND = 'thor@valhalla.example';

const ALIASES = [
  'info@olimpus.example zeus@olimpus.example, hera@olimpus.example',
  '@heaven.example @olimpus.example',
  'storm@olimpus.example lightning@olimpus.example',
  'lightning@olimpus.example zeus+weather@olimpus.example',
].join('\n');

const CONFIG = `
[checks.sender]
enabled = true

[[checks.sender.allow]]
logins = ["zeus@olimpus.example"]
senders = ["*@news.olimpus.example"]

[directory]
mailbox_domains = ["olimpus.example"]
aliases = ["aliases"]

[[account]]
names = ["hera@olimpus.example"]
senders = ["queen@*"]
`;

describeWithNeighbours('sender and login', () => {
  test('own address, extension, alias, alias domain, table and account; everything else is refused with 553 5.7.1', async () => {
    await using site = await startPolicySite({ users: USERS });
    await writeFile(join(site.postern.folder, 'aliases'), `${ALIASES}\n`);
    await site.reload(CONFIG);
    const codeFor = async (login: string, from: string): Promise<string> => {
      const { rcpt } = await site.send({ login, from, to: [FRIEND] });
      return `${rcpt[0]?.code} ${rcpt[0]?.enhanced}`;
    };
    const zeus: [from: string, code: string][] = [
      [ZEUS, '250 2.1.5'],
      ['Zeus+thunder@Olimpus.Example', '250 2.1.5'],
      ['info@olimpus.example', '250 2.1.5'],
      ['storm@olimpus.example', '250 2.1.5'],
      ['zeus@heaven.example', '250 2.1.5'],
      ['july@news.olimpus.example', '250 2.1.5'],
      ['', '250 2.1.5'],
      [HERA, '553 5.7.1'],
      ['hera@heaven.example', '553 5.7.1'],
      ['queen@asgard.example', '553 5.7.1'],
      ['zeus@elsewhere.example', '553 5.7.1'],
      ['x@olimpus.example', '553 5.7.1'],
    ];
    for (const [from, code] of zeus) expect([from, await codeFor(ZEUS, from)]).toEqual([from, code]);
    const hera: [from: string, code: string][] = [
      ['info@olimpus.example', '250 2.1.5'],
      ['storm@olimpus.example', '553 5.7.1'],
      ['queen@asgard.example', '250 2.1.5'],
      ['july@news.olimpus.example', '553 5.7.1'],
    ];
    for (const [from, code] of hera) expect([from, await codeFor(HERA, from)]).toEqual([from, code]);

    const { rcpt } = await site.send({ login: ZEUS, from: HERA, to: [FRIEND] });
    expect(rcpt[0]?.text).toContain('This login may not send as this address');

    await site.reload(
      `${CONFIG}\n[rules]\nsender.not-owned = { action = "reject", shadow = true }\nsender.null = "reject"\n`,
    );
    expect(await codeFor(ZEUS, HERA)).toBe('250 2.1.5');
    expect(await codeFor(ZEUS, '')).toBe('553 5.7.1');
  });

  test('off until it is enabled', async () => {
    await using site = await startPolicySite({ users: USERS });
    expect((await site.send({ login: ZEUS, from: HERA, to: [FRIEND] })).outcome.code).toBe(250);
  });

  test('mail from outside in the name of one of our domains', async () => {
    await using site = await startPolicySite({ zones: { 'olimpus.example': '@ MX 10 mx\nmx A 192.0.2.10' } });
    await writeFile(join(site.postern.folder, 'aliases'), `${ALIASES}\n`);
    const client = { addr: '192.0.2.20', name: 'odin.valhalla.example', helo: 'odin.valhalla.example' };
    const send = () => site.send({ client, from: ZEUS, to: [HERA] });
    await site.reload(CONFIG);
    expect((await send()).outcome.code).toBe(250);
    await site.reload(`${CONFIG}\n[rules]\nsender.own-domain = "reject"\n`);
    expect((await send()).rcpt[0]).toMatchObject({ code: 553, enhanced: '5.7.1' });
    expect((await site.send({ client, from: '', to: [HERA] })).outcome.code).toBe(250);
  });
});

describeWithNeighbours('author and login', () => {
  test("the milter refuses From addresses that are not the login's, and signs what it lets through", async () => {
    await using site = await startSite({
      config: [
        '[checks.sender]\nenabled = true',
        `[[checks.sender.allow]]\nlogins = ["${ZEUS}"]\nsenders = ["oracle@olimpus.example"]`,
      ].join('\n'),
    });
    const send = (from: string) =>
      sendMail({
        port: site.postfix.submissionPort,
        auth: { user: ZEUS, password: PASSWORD },
        from: ZEUS,
        to: [HERA],
        data: letter({ From: from, To: HERA }),
      });
    expect((await send(`Zeus <${ZEUS}>`)).outcome.code).toBe(250);
    expect((await send(`"${HERA}" <oracle@olimpus.example>, zeus+x@olimpus.example`)).outcome.code).toBe(250);
    for (const forged of [
      `Hera <${HERA}>`,
      `${ZEUS}, ${HERA}`,
      `${HERA}, <${ZEUS}`,
      `${ZEUS}\r\nFrom: ${HERA}`,
    ]) {
      const { outcome } = await send(forged);
      expect([forged, outcome.code, outcome.enhanced]).toEqual([forged, 550, '5.7.1']);
      expect(outcome.text).toContain('This login may not send as the address in From');
    }
    const delivered = await site.dovecot.waitForMessages(HERA, 2);
    expect(delivered.every((message) => message.includes('DKIM-Signature:'))).toBe(true);
  });
});
