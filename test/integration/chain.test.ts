import { expect, test } from 'vitest';

import { signWithMailauth, verifyWithMailauth } from '../support/dkim-oracle.ts';
import { opendkimVerify } from '../support/neighbours/opendkim.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { HERA, letter, LOKI, ODIN, PASSWORD, startSite, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/** Decisions are written in batches, and the command takes its time on a busy machine. */
const PATIENCE = { timeout: 20_000 };

/** A field's value on one line; all of that name, top first. */
function fields(message: Buffer, name: string): string[] {
  const section = message.toString('latin1').split('\r\n\r\n')[0] ?? '';
  const lines = section.replaceAll(/\r\n[ \t]+/g, ' ').split('\r\n');
  const prefix = `${name.toLowerCase()}:`;
  return lines
    .filter((line) => line.toLowerCase().startsWith(prefix))
    .map((line) => line.slice(prefix.length).trim());
}

describeWithNeighbours('the chain', () => {
  test.for([
    { name: 'TCP, milter_protocol 6', unix: false, milterProtocol: 6 },
    { name: 'TCP, milter_protocol 2', unix: false, milterProtocol: 2 },
    { name: 'unix sockets, milter_protocol 6', unix: true, milterProtocol: 6 },
  ])(
    'mail from outside goes through policy, milter and LMTP to IMAP: $name',
    async ({ unix, milterProtocol }) => {
      await using site = await startSite({ unix, postfix: { milterProtocol } });
      const forged = { 'Authentication-Results': 'mx.olimpus.example; dkim=pass header.d=bank.example' };
      const message = await signWithMailauth(letter(forged), 'valhalla.example', 'mail', site.senderKey);
      const { outcome } = await sendMail({
        port: site.postfix.smtpPort,
        xclient: ODIN,
        from: 'odin@valhalla.example',
        to: [ZEUS],
        data: message,
      });
      expect(outcome.code).toBe(250);

      const [delivered = Buffer.alloc(0)] = await site.dovecot.waitForMessages(ZEUS, 1);
      const results = fields(delivered, 'Authentication-Results');
      expect(results).toHaveLength(1);
      expect(results[0]).toMatch(/^mx\.olimpus\.example;.*spf=pass.*dkim=pass.*dmarc=pass/);
      expect(results[0]).not.toContain('bank.example');
      expect(fields(delivered, 'Received-SPF')[0]).toMatch(/^pass/i);
      expect(delivered.toString('latin1')).toContain('\r\n\r\nHello from the other side.\r\n');

      // One trace through all three daemons.
      const [trace = ''] = fields(delivered, 'X-Postern-Trace');
      await expect.poll(async () => (await site.postern.history('--trace', trace)).length, PATIENCE).toBe(3);
      const decisions = await site.postern.history('--trace', trace);
      expect(decisions.map(({ daemon }) => daemon).toSorted()).toEqual(['lmtp-filter', 'milter', 'policyd']);
      expect(decisions.every(({ verdict }) => verdict === 'accept')).toBe(true);
    },
  );

  test('a sender that SPF does not allow is refused at RCPT, with the code of RFC 7372', async () => {
    await using site = await startSite();
    const { rcpt } = await sendMail({
      port: site.postfix.smtpPort,
      xclient: LOKI,
      from: 'odin@valhalla.example',
      to: [ZEUS],
      data: letter({}),
    });
    expect(rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.23' });
    const trace = /\(([a-z2-7]{16})\)/.exec(rcpt[0]?.text ?? '')?.[1] ?? '';
    await expect.poll(async () => (await site.postern.history('--trace', trace)).length, PATIENCE).toBe(1);
    const [decision] = await site.postern.history('--trace', trace);
    expect(decision).toMatchObject({
      daemon: 'policyd',
      verdict: 'reject',
      rule: 'spf.fail',
      recipients: [ZEUS],
    });
  });

  test('submitted mail is signed with both keys; OpenDKIM and mailauth verify it', async () => {
    await using site = await startSite();
    const { outcome } = await sendMail({
      port: site.postfix.submissionPort,
      auth: { user: ZEUS, password: PASSWORD },
      from: ZEUS,
      to: [HERA],
      data: letter({ From: `Zeus <${ZEUS}>`, To: HERA }),
    });
    expect(outcome.code).toBe(250);
    const [delivered = Buffer.alloc(0)] = await site.dovecot.waitForMessages(HERA, 1);
    expect(fields(delivered, 'DKIM-Signature')).toHaveLength(2);
    const verified = await verifyWithMailauth(delivered, site.bind);
    expect(verified.toSorted()).toEqual([
      'olimpus.example ed ed25519-sha256: pass',
      'olimpus.example mail rsa-sha256: pass',
    ]);
    // OpenDKIM of Debian knows no Ed25519: it is shown the RSA signature alone.
    const text = delivered.toString('latin1');
    const rsaOnly = text.replace(
      /^DKIM-Signature:(?:(?!\r\n\S)[\s\S])*?s=ed;(?:(?!\r\n\S)[\s\S])*\r\n(?=\S)/m,
      '',
    );
    expect(fields(Buffer.from(rsaOnly, 'latin1'), 'DKIM-Signature')).toHaveLength(1);
    expect(await opendkimVerify(Buffer.from(rsaOnly, 'latin1'), site.bind)).toEqual({ pass: true, text: '' });
  });

  test('sendmail(1) goes through non_smtpd_milters and is signed', async () => {
    await using site = await startSite();
    const message = letter({ From: `Zeus <${ZEUS}>`, To: HERA });
    await site.postfix.sendmail(message, { from: ZEUS, to: [HERA] });
    const [delivered = Buffer.alloc(0)] = await site.dovecot.waitForMessages(HERA, 1);
    const verified = await verifyWithMailauth(delivered, site.bind);
    expect(verified).toHaveLength(2);
    expect(verified.every((line) => line.endsWith(': pass'))).toBe(true);
  });
});
