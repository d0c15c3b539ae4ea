import { expect, test } from 'vitest';

import { sendMail } from '../support/neighbours/smtp-client.ts';
import { GTUBE, HERA, letter, ODIN, SPECIAL_OFFER, startSite, ZEUS, type Site } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

function send(site: Site, body: string, to: readonly string[]): ReturnType<typeof sendMail> {
  const data = letter({ Subject: 'for you' }, `${body}\r\n`);
  return sendMail({ port: site.postfix.smtpPort, xclient: ODIN, from: 'odin@valhalla.example', to, data });
}

function header(message: Buffer | undefined): string {
  return (message?.toString('latin1').split('\r\n\r\n')[0] ?? '').replaceAll(/\r\n[ \t]+/g, ' ');
}

describeWithNeighbours('spam', () => {
  test('GTUBE is tagged as SpamAssassin tags it, and scanned once', async () => {
    await using site = await startSite({ spamd: true });
    expect((await send(site, GTUBE, [ZEUS])).outcome.code).toBe(250);
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    const section = header(delivered);
    expect(section).toMatch(/^Subject: \[SPAM\] for you$/m);
    expect(section).toMatch(/^X-Spam-Prev-Subject: for you$/m);
    expect(section).toMatch(/^X-Spam-Flag: YES$/m);
    expect(section).toMatch(/^X-Spam-Level: \*{50}$/m);
    expect(section).toMatch(/^X-Spam-Status: Yes, score=\d{4}\.\d required=5\.0 tests=.*GTUBE/m);
    expect(section).toMatch(/^X-Spam-Checker-Version: SpamAssassin 4/m);
    expect(section).toMatch(/^X-Spam-Report: /m);
    // lmtp-filter took the milter's score: spamd saw one message.
    const scans = site.spamd?.log().match(/spamd: (?:identified spam|clean message)/g) ?? [];
    expect(scans).toHaveLength(1);
  });

  test('GTUBE is refused in session above the second threshold', async () => {
    await using site = await startSite({ spamd: true, config: 'thresholds.reject = 20' });
    const { end } = await send(site, GTUBE, [ZEUS]);
    expect(end).toMatchObject({ code: 550, enhanced: '5.7.1' });
    const [decision] = await site.postern.history('--verdict', 'reject');
    expect(decision).toMatchObject({ daemon: 'milter', rule: 'score>=20', recipients: [ZEUS] });
    expect(await site.dovecot.mailbox(ZEUS)).toEqual([]);
  });

  test('two recipients of one message each have their own threshold', async () => {
    const config = `[[override]]\nrecipients = ["${HERA}"]\nthresholds = { tag = 50 }\n`;
    await using site = await startSite({ spamd: true, config });
    expect((await send(site, SPECIAL_OFFER, [ZEUS, HERA])).outcome.code).toBe(250);
    const [strict] = await site.dovecot.waitForMessages(ZEUS, 1);
    const [lenient] = await site.dovecot.waitForMessages(HERA, 1);
    expect(header(strict)).toMatch(/^Subject: \[SPAM\] for you$/m);
    expect(header(strict)).toMatch(/^X-Spam-Status: Yes, score=.* required=5\.0/m);
    expect(header(lenient)).toMatch(/^Subject: for you$/m);
    expect(header(lenient)).not.toMatch(/^X-Spam-Flag:/m);
    expect(header(lenient)).toMatch(/^X-Spam-Status: No, score=.* required=50\.0/m);
    const scans = site.spamd?.log().match(/spamd: (?:identified spam|clean message)/g) ?? [];
    expect(scans).toHaveLength(1);
  });

  test('without the milter, lmtp-filter scores by itself', async () => {
    await using site = await startSite({ spamd: true, postfix: { smtpdMilters: '', nonSmtpdMilters: '' } });
    expect((await send(site, GTUBE, [ZEUS])).outcome.code).toBe(250);
    const [delivered] = await site.dovecot.waitForMessages(ZEUS, 1);
    expect(header(delivered)).toMatch(/^Subject: \[SPAM\] for you$/m);
  });

  test('when spamd goes away, mail is deferred and nothing passes unscored', async () => {
    await using site = await startSite({ spamd: true });
    await site.spamd?.stop();
    const { end } = await send(site, 'hello', [ZEUS]);
    expect(end?.code).toBe(451);
    const [decision] = await site.postern.history('--verdict', 'defer');
    expect(decision).toMatchObject({ daemon: 'milter', rule: 'unavailable:spam' });
  });
});
