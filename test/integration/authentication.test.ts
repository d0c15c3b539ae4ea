import { expect, test } from 'vitest';

import { arcSealed, rsaKey } from '../support/mailauth-oracle.ts';
import { signWithMailauth } from '../support/dkim-oracle.ts';
import { txtData } from '../support/neighbours/bind.ts';
import { sendMail, type MailReplies } from '../support/neighbours/smtp-client.ts';
import { letter, LOKI, startSite, ZEUS, type Site } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const KEY = rsaKey();

function header(message: Buffer | undefined): string {
  return (message?.toString('latin1').split('\r\n\r\n')[0] ?? '').replaceAll(/\r\n[ \t]+/g, ' ');
}

/** What a mailing list makes of Odin's signed message: the subject is changed, so the signature fails, and the list seals what it found. */
async function throughTheList(site: Site): Promise<MailReplies> {
  await site.bind.setZone(
    'lists.example',
    `@ TXT "v=spf1 ip4:${LOKI.addr} -all"\narc._domainkey TXT ${txtData(KEY.record)}`,
  );
  const signed = await signWithMailauth(letter({}), 'valhalla.example', 'mail', site.senderKey);
  const results =
    'lists.example; dkim=pass header.d=valhalla.example; dmarc=pass header.from=valhalla.example';
  const sealed = await arcSealed(
    signed.replace('Subject: ', 'Subject: [gods] '),
    { domain: 'lists.example', selector: 'arc', key: KEY },
    results,
    'none',
  );
  return sendMail({
    port: site.postfix.smtpPort,
    xclient: LOKI,
    from: 'gods-bounces@lists.example',
    to: [ZEUS],
    data: Buffer.from(sealed, 'latin1'),
  });
}

const STRICT = 'rules."dmarc.fail-reject" = "reject"\n';

describeWithNeighbours('list mail of a domain with p=reject, at a site that follows it', () => {
  test('is refused with the code of RFC 7372, when nobody trusts the list', async () => {
    await using site = await startSite({ config: STRICT });
    const { end } = await throughTheList(site);
    expect(end).toMatchObject({ code: 550, enhanced: '5.7.26' });
    const [decision] = await site.postern.history('--verdict', 'reject');
    expect(decision).toMatchObject({ daemon: 'milter', rule: 'dmarc.fail-reject' });
  });

  test('is delivered on the word of a trusted sealer, and the record names it', async () => {
    const trust = '[checks.arc]\ntrusted_sealers = ["lists.example"]\n';
    await using site = await startSite({ config: `${STRICT}${trust}` });
    expect((await throughTheList(site)).outcome.code).toBe(250);
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    const section = header(delivered);
    expect(section).toMatch(/^Authentication-Results: mx\.olimpus\.example;.* spf=pass .*dkim=fail /m);
    expect(section).toMatch(/ arc=pass .*smtp\.remote-ip=198\.51\.100\.66/);
    const trace = /^X-Postern-Trace: (.*)$/m.exec(section)?.[1] ?? '';
    await expect
      .poll(async () => (await site.postern.command('history', '--trace', trace)).stdout, { timeout: 20_000 })
      .toContain('it passed for lists.example, which is trusted (ARC i=1)');
  });
});
