import { afterAll, beforeAll, expect, test } from 'vitest';

import { EICAR, startClamd, UNWANTED, type Clamd } from '../support/neighbours/clamd.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { letter, ODIN, startSite, ZEUS, type Site } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

function send(site: Site, body: string, fields: Record<string, string> = {}): ReturnType<typeof sendMail> {
  const data = letter({ Subject: 'for you', ...fields }, `${body}\r\n`);
  return sendMail({
    port: site.postfix.smtpPort,
    xclient: ODIN,
    from: 'odin@valhalla.example',
    to: [ZEUS],
    data,
  });
}

function clamdTable({ port }: Clamd): string {
  return `[clamd]\naddresses = ["127.0.0.1:${port}"]\n`;
}

const ATTACHMENT = {
  'MIME-Version': '1.0',
  'Content-Type': 'application/octet-stream',
  'Content-Transfer-Encoding': 'base64',
};

describeWithNeighbours('viruses', () => {
  let clamd: Clamd;

  beforeAll(async () => {
    clamd = await startClamd();
  });

  afterAll(async () => {
    await clamd.stop();
  });

  test('EICAR is refused in session, and the sender is not told what was found', async () => {
    await using site = await startSite({ config: clamdTable(clamd) });
    const encoded = Buffer.from(EICAR).toString('base64');
    for (const [body, fields] of [
      [EICAR, {}],
      [encoded, ATTACHMENT],
    ] as const) {
      const { end } = await send(site, body, fields);
      expect(end).toMatchObject({ code: 554, enhanced: '5.7.1' });
      expect(end?.text).toMatch(/This message was refused because of harmful content \([a-z2-7]{16}\)$/);
      expect(end?.text).not.toMatch(/eicar|clam/i);
    }
    expect(await site.dovecot.mailbox(ZEUS)).toEqual([]);
    const [decision] = await site.postern.history('--verdict', 'reject');
    expect(decision).toMatchObject({ daemon: 'milter', rule: 'virus.found', recipients: [ZEUS] });
    expect(decision?.why).toContain('Eicar-Test-Signature');
    expect((await send(site, 'Hail!')).end).toMatchObject({ code: 250 });
    await site.dovecot.waitForMessages(ZEUS, 1);
    expect(await site.processes[0]?.metrics()).toContain(
      `postern_clamd_up{server="127.0.0.1:${clamd.port}"} 1`,
    );
  });

  test('in shadow it passes, and is recorded', async () => {
    const rules = '[rules]\n"virus.found" = { action = "reject", shadow = true }\n';
    await using site = await startSite({ config: `${clamdTable(clamd)}${rules}` });
    expect((await send(site, EICAR)).end).toMatchObject({ code: 250 });
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    expect(delivered?.toString('latin1')).toContain(EICAR);
    const decisions = await site.postern.history('--verdict', 'accept');
    expect(decisions.find(({ daemon }) => daemon === 'milter')?.shadow).toEqual([
      { rule: 'virus.found', kind: 'reject' },
    ]);
  });

  test('signatures have actions of their own', async () => {
    const signatures = '[[checks.virus.signatures]]\nname = "tools"\npattern = "pua.*"\naction = "discard"\n';
    await using site = await startSite({ config: `${clamdTable(clamd)}${signatures}` });
    expect((await send(site, UNWANTED)).end).toMatchObject({ code: 250 });
    await site.postfix.waitForLog(/milter-discard: END-OF-MESSAGE/);
    const [decision] = await site.postern.history('--verdict', 'discard');
    expect(decision).toMatchObject({ rule: 'virus.tools' });
    expect(await site.dovecot.mailbox(ZEUS)).toEqual([]);
  });

  test('when clamd goes away mail is deferred, and the rule says otherwise if it is to', async () => {
    await using own = await startClamd();
    await using site = await startSite({ config: clamdTable(own) });
    await own.stop();
    const { end } = await send(site, 'Hail!');
    expect(end).toMatchObject({ code: 451, enhanced: '4.7.0' });
    const [decision] = await site.postern.history('--verdict', 'defer');
    expect(decision).toMatchObject({ daemon: 'milter', rule: 'unavailable:virus' });

    await site.postern.configure(`${clamdTable(own)}[unavailable]\nvirus = "ignore"\n`);
    const [postern] = site.processes;
    postern?.signal('SIGHUP');
    await postern?.waitForLog(/"msg":"reloaded"/);
    expect((await send(site, 'Hail again!')).end).toMatchObject({ code: 250 });
  });

  test('a clamd that hangs does so no longer than the deadline', async () => {
    await using own = await startClamd();
    const config = `${clamdTable(own)}[checks.virus]\ndeadline = "2s"\n`;
    await using site = await startSite({ config });
    own.freeze();
    const begun = performance.now();
    const { end } = await send(site, 'Hail!');
    expect(end).toMatchObject({ code: 451 });
    expect(performance.now() - begun).toBeLessThan(10_000);
    const [decision] = await site.postern.history('--verdict', 'defer');
    expect(decision).toMatchObject({ rule: 'virus.timeout' });
    own.thaw();
    expect((await send(site, 'Hail!')).end).toMatchObject({ code: 250 });
  });
});
