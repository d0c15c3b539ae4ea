import { expect, test } from 'vitest';

import { startPostfix } from '../support/neighbours/postfix.ts';
import { startPolicySite, LETTER, type PolicyMail, type PolicySite } from '../support/policy-site.ts';
import { HERA, LOKI, ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const FROM = 'odin@valhalla.example';
const MAIL: PolicyMail = { client: ODIN, from: FROM, to: [ZEUS] };

/** Two networks of one provider, as its SPF record says. */
const ZONES = { 'valhalla.example': '@ TXT "v=spf1 ip4:192.0.2.0/24 ip4:203.0.113.0/24 -all"\n@ A 1.1.1.1' };
const ELSEWHERE = { addr: '203.0.113.20', name: 'out.valhalla.example', helo: 'out.valhalla.example' };

const GREYLIST = 'checks.greylist = { enabled = true, delay = "1s" }\n';
const LONG_WAIT = 'checks.greylist = { enabled = true, delay = "10m" }\n';

/** As an MTA does: tries again until the wait is over. */
async function retry(site: PolicySite, mail: PolicyMail): Promise<void> {
  await expect
    .poll(async () => (await site.send(mail)).outcome.code, { timeout: 60_000, interval: 250 })
    .toBe(250);
}

async function codeOf(site: PolicySite, mail: PolicyMail): Promise<number> {
  return (await site.send(mail)).outcome.code;
}

describeWithNeighbours('greylisting', () => {
  test('deferred, remembered over a restart of policyd, passed, known', async () => {
    await using site = await startPolicySite({ config: GREYLIST, zones: ZONES });
    const first = await site.send(MAIL);
    expect(first.rcpt[0]).toMatchObject({ code: 450, enhanced: '4.7.1' });
    expect(first.rcpt[0]?.text).toContain('Greylisted, please try again later');
    await site.restart();
    await retry(site, MAIL);
    await site.restart(LONG_WAIT);
    expect(await codeOf(site, MAIL)).toBe(250);
    expect(await codeOf(site, { ...MAIL, from: 'thor@valhalla.example' })).toBe(450);
  });

  test('the provider comes back from another network', async () => {
    await using site = await startPolicySite({ config: GREYLIST, zones: ZONES });
    expect(await codeOf(site, MAIL)).toBe(450);
    await retry(site, { ...MAIL, client: ELSEWHERE });
    await site.reload(LONG_WAIT);
    expect(await codeOf(site, { ...MAIL, client: ELSEWHERE })).toBe(250);
  });

  test('a real Postfix is deferred, tries again, and delivers', async () => {
    await using site = await startPolicySite({
      // The sender is on loopback, which would otherwise be one of our own.
      config: `site.own_networks = ["192.0.2.10"]\n${GREYLIST}`,
      zones: { 'midgard.example': '@ A 1.1.1.1' },
      postfix: { mynetworks: '192.0.2.10/32' },
    });
    await using sender = await startPostfix({
      hostname: 'mail.midgard.example',
      transports: { 'olimpus.example': `smtp:[127.0.0.1]:${site.postfix.smtpPort}` },
    });
    await sender.sendmail(LETTER, { from: 'loki@midgard.example', to: [ZEUS] });
    const deferred = await sender.waitForLog(/status=deferred/);
    expect(deferred).toContain('450 4.7.1 <zeus@olimpus.example>: Recipient address rejected: Greylisted');
    // Postfix tries again by itself; now and then its queue run comes while the message is still being put away.
    const left = async (): Promise<number> => {
      await sender.flush();
      return (await sender.queue()).length;
    };
    await expect.poll(left, { timeout: 60_000, interval: 1000 }).toBe(0);
    expect(sender.log()).toMatch(/to=<zeus@olimpus\.example>.*status=sent/);
    expect(sender.log()).not.toContain('status=bounced');
  });

  test('single recipients, shadow and learning', async () => {
    const override = `[[override]]\nrecipients = ["${HERA}"]\nrules = { "greylist.wait" = "ignore" }\n`;
    await using site = await startPolicySite({ config: `${LONG_WAIT}${override}`, zones: ZONES });
    const both = await site.send({ ...MAIL, to: [ZEUS, HERA] });
    expect(both.rcpt.map(({ code }) => code)).toEqual([450, 250]);
    await site.reload(
      'checks.greylist = { enabled = true, delay = "10m", recipients = ["!zeus@olimpus.example"] }\n',
    );
    expect((await site.send({ ...MAIL, to: [ZEUS, HERA] })).rcpt.map(({ code }) => code)).toEqual([250, 450]);
    await site.reload(`${LONG_WAIT}rules.greylist.wait = { action = "defer", shadow = true }\n`);
    expect(await codeOf(site, MAIL)).toBe(250);
    await site.reload('checks.greylist = { enabled = true, delay = "10m", learn = true }\n');
    expect(await codeOf(site, { ...MAIL, from: 'frigg@valhalla.example' })).toBe(250);
    await site.reload(LONG_WAIT);
    expect(await codeOf(site, { ...MAIL, from: 'frigg@valhalla.example' })).toBe(250);
    expect(await codeOf(site, { ...MAIL, from: 'baldr@valhalla.example' })).toBe(450);
  });

  test('whom one of ours wrote to may answer at once; logins and own networks never wait', async () => {
    const spf = 'rules.spf.fail = "ignore"\n';
    await using site = await startPolicySite({
      config: `${LONG_WAIT}${spf}`,
      zones: ZONES,
      users: { [ZEUS]: 'nectar' },
    });
    expect(await codeOf(site, { login: ZEUS, from: ZEUS, to: [FROM] })).toBe(250);
    expect(await codeOf(site, { from: FROM, to: [HERA] })).toBe(250);
    expect(await codeOf(site, MAIL)).toBe(250);
    // From wherever he answers.
    expect(await codeOf(site, { ...MAIL, client: LOKI })).toBe(250);
    expect(await codeOf(site, { ...MAIL, to: [HERA] })).toBe(450);
    expect(await codeOf(site, { ...MAIL, from: 'thor@valhalla.example' })).toBe(450);
  });

  test('only what is suspicious waits', async () => {
    const config = 'checks.greylist = { enabled = true, delay = "10m", mode = "suspicious" }\n';
    await using site = await startPolicySite({ config, zones: ZONES });
    expect(await codeOf(site, MAIL)).toBe(250);
    expect(await codeOf(site, { ...MAIL, client: { ...ODIN, name: '192-0-2-20.dsl.example' } })).toBe(450);
  });
});
