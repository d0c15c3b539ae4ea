import { describe, expect, test } from 'vitest';

import { forFolder } from '../../../src/lmtp-filter/detail.ts';
import type { SpamScan } from '../../../src/mail/spam-scan.ts';
import type { KeptFacts } from '../../../src/ports/store.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import type { MailboxSettings } from '../../../src/verdict/rules.ts';
import { spamFinding } from '../../../src/checks/spam.ts';
import { metric } from '../../support/metric.ts';
import type { LmtpTalk } from '../../support/players/lmtp-talk.ts';
import { letter, SCAN, spamStub, startFilter, stubCheck, type Running, type StubCheck } from './support.ts';

const TRACE = 'abcdefghijklmno2';
const QUEUE_ID = '8180B24C465';

async function deliver(client: LmtpTalk, paths: readonly string[], message: string): Promise<string[]> {
  const rcpts = paths.map((path) => `RCPT TO:<${path}>\r\n`).join('');
  client.send(`MAIL FROM:<thor@valhalla.local>\r\n${rcpts}DATA\r\n`);
  await client.replies(paths.length + 2);
  client.send(`${message}.\r\n`);
  const replies = await client.replies(paths.length);
  expect(await client.ask('NOOP')).toBe('250 2.0.0 OK');
  return replies;
}

/** As the check of the settings finds them. */
function settingsStub(...all: readonly (MailboxSettings | null)[]): StubCheck {
  const findings = all.flatMap((settings, recipient): Finding[] =>
    settings === null ? [] : [{ code: 'settings.own', detail: '', recipient, settings: [settings] }],
  );
  return stubCheck('settings', ['settings.own'], findings);
}

const NAMES = ['a@x.local', 'b+lists@x.local', 'c@x.local'];

function sent({ dovecot }: Running): readonly string[] {
  return dovecot.mails.map(({ to }) => to.join());
}

/** One who has the site's, one with a band for junk, one without marks. */
function threeSettings(): StubCheck {
  return settingsStub(
    null,
    { mailbox: 'b@x.local', thresholds: { junk: 6 } },
    { mailbox: 'c@x.local', thresholds: { tag: null } },
  );
}

describe('filing', () => {
  test.each(['detail', 'folder'])('"%s" names the junk folder in RCPT, for junk alone', async (filing) => {
    await using running = await startFilter({
      checks: [threeSettings(), spamStub(7)],
      keys: `filing = "${filing}"`,
      toml: '[thresholds]\ntag = 5\njunk = 20',
    });
    await using client = await running.client();
    const replies = await deliver(client, NAMES, letter());
    expect(replies.every((reply) => reply.startsWith('250 2.0.0'))).toBe(true);
    expect(sent(running)).toEqual(['<a@x.local>', '<b+Junk@x.local>', '<c@x.local>']);
    // The record names the recipient as Postfix gave it.
    expect(running.tools.store.decisions.map(({ recipients }) => recipients.join())).toEqual(NAMES);
    expect(running.tools.lines.find(({ msg }) => msg === 'message')).toMatchObject({
      recipients: [
        { to: 'a@x.local', verdict: 'accept', tagged: true },
        { to: 'b+lists@x.local', verdict: 'junk', setting: 'directory', folder: 'Junk' },
        { to: 'c@x.local', verdict: 'accept', tagged: false },
      ],
    });
  });

  test('without a band for junk, what is marked as spam is filed; a folder of another name', async () => {
    await using running = await startFilter({
      checks: [spamStub(7)],
      keys: 'filing = "folder"',
      toml: '[feedback]\njunk = "Spam"\n[thresholds]\ntag = 5',
    });
    await using client = await running.client();
    // All recipients of the transaction that RCPT opened: it is not used, as it names no folder.
    await deliver(client, ['a@x.local'], letter());
    expect(sent(running)).toEqual(['<a+Spam@x.local>']);
  });

  test('a mail store that knows no details: it goes to the inbox, and the log says so', async () => {
    await using running = await startFilter({
      checks: [threeSettings(), spamStub(7)],
      keys: 'filing = "folder"',
      toml: '[thresholds]\ntag = 5',
    });
    running.dovecot.fault = ({ step, argument }) =>
      step === 'RCPT' && argument.includes('+Junk') ? { text: "550 5.1.1 User doesn't exist\r\n" } : null;
    await using client = await running.client();
    const replies = await deliver(client, NAMES, letter());
    expect(replies.map((reply) => reply.slice(0, 9))).toEqual(['250 2.0.0', '250 2.0.0', '250 2.0.0']);
    expect(sent(running).toSorted()).toEqual(['<a@x.local>', '<b+lists@x.local>', '<c@x.local>']);
    expect(running.dovecot.mails.find(({ to }) => to.includes('<b+lists@x.local>'))?.content).toContain(
      'X-Postern-Verdict: junk;',
    );
    const warnings = running.tools.lines.filter(({ msg }) => msg === 'delivery to upstream failed');
    expect(warnings).toHaveLength(2);
    expect(JSON.stringify(warnings[0])).toContain('the upstream knows no recipients with');
  });

  test('a full mailbox stays full, whatever the folder', async () => {
    await using running = await startFilter({
      checks: [spamStub(7)],
      keys: 'filing = "folder"',
      toml: '[thresholds]\ntag = 5',
    });
    running.dovecot.fault = ({ step, argument }) =>
      step === 'RCPT' && argument.includes('+Junk') ? { text: '452 4.2.2 Quota exceeded\r\n' } : null;
    await using client = await running.client();
    expect(await deliver(client, ['a@x.local'], letter())).toEqual([expect.stringMatching(/^452 4\.2\.2 /)]);
    expect(sent(running)).toEqual([]);
  });

  test('"header" leaves RCPT alone', async () => {
    await using running = await startFilter({
      checks: [threeSettings(), spamStub(7)],
      toml: '[thresholds]\ntag = 5',
    });
    await using client = await running.client();
    await deliver(client, NAMES, letter());
    expect(sent(running)).toEqual(['<a@x.local>', '<b+lists@x.local>', '<c@x.local>']);
  });

  test.each([
    ['<zeus@olimpus.local>', '<zeus+Junk@olimpus.local>'],
    ['<Zeus+Lists+x@Olimpus.local>', '<Zeus+Junk@Olimpus.local>'],
    ['<"a b"@olimpus.local>', '<"a b+Junk"@olimpus.local>'],
    ['<"a\\"b"@olimpus.local>', '<"a\\"b+Junk"@olimpus.local>'],
    ['<+x@olimpus.local>', '<+x+Junk@olimpus.local>'],
    ['<postmaster>', '<postmaster+Junk>'],
    ['<j\xc3\xb6rg@olimpus.local>', '<j\xc3\xb6rg+Junk@olimpus.local>'],
  ])('%s becomes %s', (path, expected) => {
    const parameters = [{ keyword: 'ORCPT', value: 'rfc822;x' }];
    expect(forFolder({ path, parameters }, 'Junk', '+')).toEqual({ path: expected, parameters });
  });
});

describe('settings', () => {
  test('are looked up where the milter judged the message, for our recipients', async () => {
    const settings = settingsStub({ mailbox: 'a@x.local', thresholds: { reject: 6 } });
    await using running = await startFilter({ checks: [settings, spamStub()] });
    const kept: KeptFacts = {
      direction: 'in',
      outcomes: [{ kind: 'found', check: 'spam', elapsed: 1, findings: [spamFinding(SCAN)] }],
    };
    running.tools.store.facts.set(`${TRACE} ${QUEUE_ID}`, kept);
    await using client = await running.client();
    await client.ask(`XFORWARD IDENT=${QUEUE_ID}`);
    const top = `X-Postern-Trace: ${TRACE}\r\n`;
    expect(await deliver(client, ['a@x.local', 'b@x.local'], letter({ top }))).toEqual([
      expect.stringMatching(/^550 5\.7\.1 /),
      expect.stringMatching(/^250 2\.0\.0 /),
    ]);
    const { registry } = running.tools;
    const verdicts = (verdict: string, setting: string): Promise<number | undefined> =>
      metric(registry, 'postern_lmtp_verdicts_total', { verdict, setting });
    expect([await verdicts('reject', 'directory'), await verdicts('accept', 'site')]).toEqual([1, 1]);
    const [first, second] = running.tools.store.decisions;
    expect(first?.why).toMatch(/\(a@x\.local: reject from 6\)$/);
    // Each record holds what concerns its own recipient.
    expect(JSON.stringify(first?.outcomes)).toContain('"settings":[{"mailbox":"a@x.local"');
    expect(JSON.stringify(second?.outcomes)).not.toContain('a@x.local');
  });

  test('of [[override]] are told as such', async () => {
    await using running = await startFilter({
      checks: [spamStub(7)],
      toml: '[[override]]\nrecipients = ["a@x.local"]\nthresholds = { junk = 6 }',
    });
    await using client = await running.client();
    await deliver(client, ['a@x.local'], letter());
    expect(
      await metric(running.tools.registry, 'postern_lmtp_verdicts_total', {
        verdict: 'junk',
        setting: 'override',
      }),
    ).toBe(1);
  });
});

const REWRITING = {
  fields: [{ name: 'Content-Type', value: ' multipart/mixed; boundary="x"' }],
  body: '--x\r\n\r\nreport\r\n--x--\r\n',
};
const KEPT: KeptFacts = {
  direction: 'in',
  outcomes: [{ kind: 'found', check: 'spam', elapsed: 1, findings: [spamFinding(SCAN)] }],
};

async function judged(scan: SpamScan, kept: KeptFacts): Promise<{ running: Running; scans: number }> {
  const spam = spamStub();
  spam.run = () => Promise.resolve([{ ...spamFinding(scan), score: 99 }]);
  const running = await startFilter({
    checks: [settingsStub({ mailbox: 'a@x.local', rewriteBody: true }), spam],
    toml: '[thresholds]\ntag = 5\nreject = 50',
  });
  running.tools.store.facts.set(`${TRACE} ${QUEUE_ID}`, kept);
  await using client = await running.client();
  await client.ask(`XFORWARD IDENT=${QUEUE_ID}`);
  const top = `X-Postern-Trace: ${TRACE}\r\nAuthentication-Results: mx.olimpus.example; spf=pass\r\n`;
  await deliver(client, ['a@x.local', 'b@x.local'], letter({ top }));
  return { running, scans: spam.asked.length };
}

describe('the report of the scanner', () => {
  test('is fetched by a second scan for who wants it, whose verdict stays that of the first', async () => {
    const { running, scans } = await judged({ ...SCAN, rewriting: REWRITING }, KEPT);
    await using _ = running;
    expect(scans).toBe(1);
    const [report, plain] = running.dovecot.mails;
    expect(report?.to).toEqual(['<a@x.local>']);
    expect(report?.content).toMatch(/\r\n\r\n--x\r\n\r\nreport\r\n--x--\r\n$/);
    expect(report?.content).toMatch(/^Content-Type: multipart\/mixed; boundary="x"\r$/m);
    expect(report?.content).toMatch(new RegExp(`^X-Postern-Trace: ${TRACE}\r$`, 'm'));
    expect(report?.content).toMatch(/^Authentication-Results: mx\.olimpus\.example; spf=pass\r$/m);
    expect(plain?.to).toEqual(['<b@x.local>']);
    expect(plain?.content).toMatch(/\r\n\r\nHello from the lab\.\r\n$/);
    expect(JSON.stringify(running.tools.store.decisions)).not.toContain('rewriting');
  });

  test('that can not be had leaves the message as it is, with its marks', async () => {
    const { running, scans } = await judged(SCAN, KEPT);
    await using _ = running;
    expect(scans).toBe(1);
    expect(sent(running)).toEqual(['<a@x.local>,<b@x.local>']);
    expect(running.dovecot.mails[0]?.content).toContain('X-Spam-Flag: YES\r\n');
  });

  test('that the milter has put in place of the message already is not made again', async () => {
    const rewritten = { ...SCAN, rewritten: true };
    const kept: KeptFacts = {
      direction: 'in',
      outcomes: [{ kind: 'found', check: 'spam', elapsed: 1, findings: [spamFinding(rewritten)] }],
    };
    const { running, scans } = await judged({ ...SCAN, rewriting: REWRITING }, kept);
    await using _ = running;
    expect(scans).toBe(0);
    expect(sent(running)).toEqual(['<a@x.local>,<b@x.local>']);
  });

  test('is not fetched for ham', async () => {
    const ham: KeptFacts = {
      direction: 'in',
      outcomes: [
        { kind: 'found', check: 'spam', elapsed: 1, findings: [spamFinding({ ...SCAN, score: 1 })] },
      ],
    };
    const { running, scans } = await judged({ ...SCAN, rewriting: REWRITING }, ham);
    await using _ = running;
    expect(scans).toBe(0);
  });
});
