import { generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { neighboursAvailable } from '../support/neighbours/available.ts';
import { startBind, txtData } from '../support/neighbours/bind.ts';
import { Connection, type Endpoint } from '../support/neighbours/connection.ts';
import { startDovecot } from '../support/neighbours/dovecot.ts';
import { opendkimSign, opendkimVerify } from '../support/neighbours/opendkim.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { type PostfixOptions, startPostfix } from '../support/neighbours/postfix.ts';
import { processesUsing, startProcess } from '../support/neighbours/process.ts';
import { SmtpClient, sendMail } from '../support/neighbours/smtp-client.ts';
import { startSpamd } from '../support/neighbours/spamd.ts';

const GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X';
const ANTONIO = 'antonio@olimpus.test';
const OUTSIDE = { addr: '192.0.2.67', name: 'odin.valhalla.test', helo: 'odin.valhalla.test' };

const available = neighboursAvailable();
const whyNot = available.ok ? '' : ` (skipped: ${available.reason})`;

const STARTED = z.object({ ports: z.array(z.number()), folders: z.array(z.string()) });

/** Postfix for olimpus.test, delivering straight to a Dovecot of its own. */
async function startPair(options: PostfixOptions = {}) {
  await using cleanup = new AsyncDisposableStack();
  const dovecot = cleanup.use(await startDovecot({ users: { [ANTONIO]: 'secret' } }));
  const postfix = cleanup.use(
    await startPostfix({
      hostname: 'delphos.olimpus.test',
      domains: ['olimpus.test'],
      mailboxes: [ANTONIO],
      virtualTransport: `lmtp:inet:127.0.0.1:${dovecot.lmtpPort}`,
      saslSocket: dovecot.authSocket,
      ...options,
    }),
  );
  const owned = cleanup.move();
  return { dovecot, postfix, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function askSpamd(endpoint: Endpoint, message: string): Promise<string> {
  await using connection = await Connection.open(endpoint);
  connection.write(`SYMBOLS SPAMC/1.5\r\nContent-length: ${Buffer.byteLength(message)}\r\n\r\n${message}`);
  connection.endWriting();
  return (await connection.readToEnd()).toString();
}

function moduleOf(neighbour: string): string {
  return JSON.stringify(fileURLToPath(import.meta.resolve(`../support/neighbours/${neighbour}.ts`)));
}

function mail(subject: string, body: string): string {
  const header = `From: thor@valhalla.test\r\nTo: ${ANTONIO}\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nSubject: ${subject}`;
  return `${header}\r\n\r\n${body}\r\n`;
}

describe.skipIf(!available.ok)(`the harness of real neighbours${whyNot}`, () => {
  test('BIND answers its zones, NXDOMAIN for the rest, and takes a new zone', async () => {
    await using bind = await startBind({ zones: { 'olimpus.test': '@ TXT "v=spf1 -all"' } });
    const resolver = new Resolver({ timeout: 2_000, tries: 1 });
    resolver.setServers([`${bind.host}:${bind.port}`]);
    expect(await resolver.resolveTxt('olimpus.test')).toEqual([['v=spf1 -all']]);
    await expect(resolver.resolveTxt('valhalla.test')).rejects.toThrow('ENOTFOUND');
    const long = `v=DKIM1; p=${'A'.repeat(400)}`;
    await bind.setZone('valhalla.test', `mail._domainkey TXT ${txtData(long)}`);
    const [strings] = await resolver.resolveTxt('mail._domainkey.valhalla.test');
    expect(strings?.join('')).toBe(long);
    await expect(startBind({ zones: { 'broken.test': '@ A not-an-address' } })).rejects.toThrow(
      'broken.test',
    );
  });

  test('spamd scores GTUBE over TCP and its unix socket', async () => {
    await using spamd = await startSpamd();
    for (const endpoint of [{ port: spamd.port }, { path: spamd.socketPath }]) {
      const answer = await askSpamd(endpoint, mail('gtube', GTUBE));
      expect(answer).toMatch(/^Spam: True ; 1?\d{3}\.\d \/ 5\.0/m);
      expect(answer).toContain('GTUBE');
    }
    expect(await askSpamd({ port: spamd.port }, mail('lunch', 'At noon?'))).toMatch(/^Spam: False ;/m);
  });

  test('Postfix delivers an outside client’s message to Dovecot, byte for byte', async () => {
    await using pair = await startPair();
    const { dovecot, postfix } = pair;
    const body = Buffer.from('.dot\r\n..dots\r\n8-bit \xfc and UTF-8 ü\r\n', 'latin1');
    const replies = await sendMail({
      port: postfix.smtpPort,
      xclient: OUTSIDE,
      from: 'thor@valhalla.test',
      to: [ANTONIO, 'nobody@olimpus.test', 'zeus@elsewhere.test'],
      data: Buffer.concat([Buffer.from('Subject: hail\r\n\r\n'), body]),
      mailParameters: ['BODY=8BITMIME'],
    });
    expect(replies.rcpt.map(({ code, enhanced }) => [code, enhanced])).toEqual([
      [250, '2.1.5'],
      [550, '5.1.1'],
      [554, '5.7.1'],
    ]);
    expect(replies.outcome.code).toBe(250);
    const [message] = await dovecot.waitForMessages(ANTONIO, 1);
    expect(message?.subarray(-body.length)).toEqual(body);
    expect(message?.toString()).toContain('from odin.valhalla.test (odin.valhalla.test [192.0.2.67])');
    await postfix.waitForQueueEmpty();
  });

  test('submission asks Dovecot for the password, sendmail(1) needs none', async () => {
    await using pair = await startPair();
    const { dovecot, postfix } = pair;
    const common = { port: postfix.submissionPort, from: ANTONIO, to: [ANTONIO], data: mail('sasl', 'x') };
    const refused = await sendMail({ ...common, auth: { user: ANTONIO, password: 'wrong' } });
    expect([refused.auth?.code, refused.outcome.code]).toEqual([535, 554]);
    const sent = await sendMail({ ...common, xclient: OUTSIDE, auth: { user: ANTONIO, password: 'secret' } });
    expect([sent.auth?.code, sent.outcome.code]).toEqual([235, 250]);
    await postfix.waitForLog(/sasl_username=antonio@olimpus\.test/);
    await dovecot.waitForMessages(ANTONIO, 1);
    await postfix.sendmail('Subject: local\n\nx\n', { from: ANTONIO, to: [ANTONIO] });
    const messages = await dovecot.waitForMessages(ANTONIO, 2);
    expect(messages.map((message) => /^Subject: (.*)\r$/m.exec(message.toString())?.[1])).toEqual([
      'sasl',
      'local',
    ]);
  });

  test('mail waits in the queue while Dovecot is down, and comes when it is back', async () => {
    await using pair = await startPair();
    const { dovecot, postfix } = pair;
    await dovecot.stop();
    await sendMail({ port: postfix.smtpPort, from: ANTONIO, to: [ANTONIO], data: mail('late', 'x') });
    await postfix.waitForLog(/status=deferred/);
    const [queued] = await postfix.queue();
    expect(queued?.recipients[0]?.delayReason).toContain('Connection refused');
    await dovecot.start();
    expect(await dovecot.waitForMessages(ANTONIO, 1)).toHaveLength(1);
    await postfix.waitForQueueEmpty();
  });

  test('Postfix asks the policy service at RCPT, and milters over SMTP and for sendmail(1)', async () => {
    const requests: string[] = [];
    const policy = createServer((socket) => {
      socket.on('data', (chunk) => {
        requests.push(chunk.toString());
        socket.write('action=450 4.7.1 not yet\n\n');
      });
    });
    const policyPort = await freePort();
    policy.listen(policyPort, '127.0.0.1');
    await once(policy, 'listening');
    const milter = `inet:127.0.0.1:${await freePort()}`;
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => void policy.close());
    await using pair = await startPair({ policyService: `inet:127.0.0.1:${policyPort}` });
    const { postfix } = pair;
    const message = {
      port: postfix.smtpPort,
      xclient: OUTSIDE,
      from: 'thor@valhalla.test',
      to: [ANTONIO],
      data: mail('policy', 'x'),
    };
    const deferred = await sendMail(message);
    expect(deferred.outcome.lines.join()).toMatch(/^450 4\.7\.1 .*not yet/);
    expect(requests.join()).toMatch(/^protocol_state=RCPT$[^]*^client_address=192\.0\.2\.67$/m);

    await postfix.reload({
      domains: ['olimpus.test'],
      mailboxes: [ANTONIO],
      smtpdMilters: milter,
      nonSmtpdMilters: milter,
    });
    const tempfail = await sendMail(message);
    expect(tempfail.mail.code).toBe(451);
    await postfix.sendmail('Subject: local\n\nx\n', { from: ANTONIO, to: [ANTONIO] });
    await postfix.waitForLog(/cleanup\[\d+\]: warning: connect to Milter service .*: Connection refused/);
  });

  test('OpenDKIM and Postfix ask our BIND', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const record = `v=DKIM1; k=rsa; p=${publicKey.export({ type: 'spki', format: 'der' }).toString('base64')}`;
    await using bind = await startBind({
      zones: { 'olimpus.test': `@ MX 0 mail\nmail A 192.0.2.20\nmail._domainkey TXT ${txtData(record)}` },
    });
    const keyFile = `${bind.folder}/private.pem`;
    await writeFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const key = { domain: 'olimpus.test', selector: 'mail', keyFile };
    const signed = await opendkimSign(mail('signed', 'x'), key);
    expect(signed).toContain('DKIM-Signature:');
    expect(await opendkimVerify(signed, bind)).toEqual({ pass: true, text: '' });
    expect(await opendkimVerify(signed.replace('\r\n\r\nx', '\r\n\r\ny'), bind)).toMatchObject({
      pass: false,
    });

    const main = { smtpd_sender_restrictions: 'reject_unknown_sender_domain' };
    await using pair = await startPair({ resolvConf: bind.resolvConf, main });
    const common = { port: pair.postfix.smtpPort, to: [ANTONIO], data: mail('x', 'x') };
    expect((await sendMail({ ...common, from: 'x@valhalla.test' })).outcome.code).toBe(450);
    expect((await sendMail({ ...common, from: ANTONIO })).outcome.code).toBe(250);
  });

  test('two pairs work side by side, and leave nothing', async () => {
    const folders: string[] = [];
    {
      await using first = await startPair();
      await using second = await startPair();
      const pairs = [first, second];
      for (const { postfix, dovecot } of pairs) folders.push(postfix.folder, dovecot.folder);
      await Promise.all(
        pairs.map(({ postfix }, index) =>
          sendMail({ port: postfix.smtpPort, from: '', to: [ANTONIO], data: mail(`pair ${index}`, 'x') }),
        ),
      );
      for (const [index, { dovecot }] of pairs.entries()) {
        const messages = await dovecot.waitForMessages(ANTONIO, 1);
        expect(messages.map(String)).toEqual([expect.stringContaining(`Subject: pair ${index}\r\n`)]);
      }
      for (const folder of folders) expect((await processesUsing(folder)).length).toBeGreaterThan(0);
    }
    for (const folder of folders) {
      expect(await processesUsing(folder)).toEqual([]);
      expect(existsSync(folder)).toBe(false);
    }
  });

  test('neighbours end with a test run that is killed', async () => {
    const script = `
      const [{ startPostfix }, { startDovecot }, { startSpamd }, { startBind }] = await Promise.all(
        [${['postfix', 'dovecot', 'spamd', 'bind'].map(moduleOf).join()}].map((file) => import(file)));
      const all = await Promise.all([startPostfix(), startDovecot({ users: {} }), startSpamd(), startBind({ zones: {} })]);
      const ports = [all[0].smtpPort, all[1].imapPort, all[2].port, all[3].port];
      console.log(JSON.stringify({ ports, folders: all.map(({ folder }) => folder) }));
      setInterval(() => undefined, 1000);`;
    await using runner = startProcess(process.execPath, ['--input-type=module', '--eval', script]);
    const started = STARTED.parse(JSON.parse(await runner.waitForLine(/^\{/)));
    try {
      const connections = await Promise.all(started.ports.map((port) => Connection.open({ port })));
      runner.signal('SIGKILL');
      await Promise.all(connections.map((connection) => connection.readToEnd()));
      // The runner's end is known, too.
      expect(await runner.exited).toEqual({ code: null, signal: 'SIGKILL' });
    } finally {
      await Promise.all(started.folders.map((folder) => rm(folder, { recursive: true, force: true })));
    }
  });

  test('the SMTP client speaks LMTP and hides no reply', async () => {
    await using dovecot = await startDovecot({
      users: { [ANTONIO]: { password: 'secret', quota: '1K' } },
      quotaAtRcpt: true,
    });
    await using client = await SmtpClient.connect({ path: dovecot.lmtpSocket });
    expect((await client.lhlo('client.test')).lines.at(0)).toMatch(/^250-/);
    await client.mail('thor@valhalla.test');
    expect((await client.rcpt(ANTONIO)).code).toBe(250);
    expect((await client.rcpt('nobody@olimpus.test')).enhanced).toBe('5.1.1');
    expect((await client.rcpt(ANTONIO)).code).toBe(250);
    const { replies } = await client.data(mail('large', 'x'.repeat(2_000)));
    expect(replies.map(({ enhanced }) => enhanced)).toEqual(['5.2.2', '5.2.2']);
  });
});
