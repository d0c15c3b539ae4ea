import { writeFile } from 'node:fs/promises';

import { expect, test } from 'vitest';

import { loginLines } from '../../src/cli/wire-dovecot.ts';
import { loadConfig } from '../../src/config/load.ts';
import { startDovecot, type Dovecot } from '../support/neighbours/dovecot.ts';
import { ImapClient } from '../support/neighbours/imap.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { sendMail, SmtpClient, type MailReplies } from '../support/neighbours/smtp-client.ts';
import { startWebhook } from '../support/players/webhook.ts';
import { LETTER, startPolicySite, type PolicySite } from '../support/policy-site.ts';
import {
  preparePostern,
  type Postern,
  type PosternProcess,
  type RecordedDecision,
} from '../support/postern.ts';
import { HERA, PASSWORD, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

// Real Postfix with logins that real Dovecot knows; the operator's command works on the same state as policyd.

/** What a login does is kept by the hour. When one ends in the middle of a test, and only then, it may be made once more. */
function withinAnHour(body: () => Promise<void>): () => Promise<void> {
  return async () => {
    const begun = hourNow();
    try {
      await body();
    } catch (error) {
      if (hourNow() === begun) throw error;
      await body();
    }
  };
}

function hourNow(): number {
  return Math.floor(Date.now() / 3_600_000);
}

const USERS = { [ZEUS]: PASSWORD, [HERA]: PASSWORD };
const FRIEND = 'thor@valhalla.example';
/** Hosts in networks of their own, by XCLIENT. */
const OFFICE = { addr: '192.0.2.10' };
const ELSEWHERE = { addr: '198.51.100.7' };
/** The command takes its time on a busy machine, and decisions are written in batches. */
const PATIENCE = { timeout: 20_000 };

const BLOCKED = 'This account may not send mail, please contact your administrator';
const SLOW = 'Too much mail from this account, please try again later';

function stranger(number: number): string {
  return `stranger@d${number}.example`;
}

async function sender(postern: Postern, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await postern.command('sender', ...args);
  if (code !== 0) throw new Error(stderr);
  return stdout === '' ? stderr : stdout;
}

/** `CODE ENHANCED` for each recipient, in one session of a login; then the message, when there is anybody to get it. */
async function replies(site: PolicySite, to: readonly string[], client = OFFICE): Promise<string[]> {
  const { rcpt } = await site.send({ login: ZEUS, client, from: ZEUS, to });
  return rcpt.map(({ code, enhanced }) => `${code} ${enhanced}`);
}

/** The newest of Zeus's that is like this, as soon as it is written down. */
async function decision(
  { postern }: PolicySite,
  like: (decision: RecordedDecision) => boolean,
): Promise<RecordedDecision | undefined> {
  let found: RecordedDecision | undefined;
  const look = async (): Promise<boolean> => {
    found = (await postern.history('--from', ZEUS)).find(like);
    return found !== undefined;
  };
  await expect.poll(look, PATIENCE).toBe(true);
  return found;
}

describeWithNeighbours('compromised accounts', () => {
  test(
    'a login that behaves unlike itself is observed, slowed, held and blocked, each seen by the client and told of once',
    withinAnHour(async () => {
      await using hook = await startWebhook();
      await using site = await startPolicySite({
        users: USERS,
        config: `
notices.webhook = "${hook.url}"
[checks.account]
enabled = true
recipients = 2
domains = 4
new_recipients = 6
networks = 1
slow_recipients = 1
block = 4
`,
      });
      const stages = (): readonly unknown[] => hook.notices.map(({ facts }) => facts['stage']);

      // One message to nine strangers: with the third it is observed, with the fifth slow, with the seventh on hold.
      const to = Array.from({ length: 8 }, (_, index) => stranger(index));
      expect(await replies(site, to.slice(0, 3))).toEqual(Array<string>(3).fill('250 2.1.5'));
      await expect.poll(stages, PATIENCE).toEqual(['observe']);
      await site.postfix.waitForQueueEmpty();

      const slowed = await site.send({ login: ZEUS, client: OFFICE, from: ZEUS, to: to.slice(3, 6) });
      expect(slowed.rcpt.map(({ code }) => code)).toEqual([250, 250, 450]);
      expect(slowed.rcpt[2]).toMatchObject({ code: 450, enhanced: '4.7.1' });
      expect(slowed.rcpt[2]?.text).toContain(SLOW);
      expect(slowed.outcome.code).toBe(250);
      await expect.poll(stages, PATIENCE).toEqual(['observe', 'slow']);
      await site.postfix.waitForQueueEmpty();

      const held = await site.send({ login: ZEUS, client: OFFICE, from: ZEUS, to: to.slice(6, 8) });
      expect(held.rcpt.map(({ code }) => code)).toEqual([250, 250]);
      expect(held.outcome.code).toBe(250);
      const queue = await site.postfix.queue();
      expect(queue).toMatchObject([{ queueName: 'hold', sender: ZEUS }]);
      expect(queue[0]?.recipients.map(({ address }) => address)).toEqual(to.slice(6, 8));
      await expect.poll(stages, PATIENCE).toEqual(['observe', 'slow', 'hold']);

      // A second network is the fourth signal.
      const blocked = await site.send({ login: ZEUS, client: ELSEWHERE, from: ZEUS, to: [FRIEND] });
      expect(blocked.rcpt[0]).toMatchObject({ code: 550, enhanced: '5.7.1' });
      expect(blocked.rcpt[0]?.text).toContain(BLOCKED);
      expect((await site.send({ login: HERA, from: HERA, to: [FRIEND] })).outcome.code).toBe(250);
      await expect.poll(stages, PATIENCE).toEqual(['observe', 'slow', 'hold', 'block']);

      for (const notice of hook.notices) {
        expect(notice).toMatchObject({ event: 'account', subject: ZEUS });
        expect(notice.advice).toContain(`postern sender release ${ZEUS}`);
      }
      const metrics = await site.policyd.metrics();
      for (const channel of ['log', 'webhook'])
        expect(metrics).toContain(
          `postern_notices_total{event="account",channel="${channel}",result="sent"} 4`,
        );
      const refusal = await decision(site, ({ rule }) => rule === 'account.block');
      expect(refusal?.verdict).toBe('reject');
      expect(refusal?.why).toContain('2 networks in this hour, more than 1');

      // The operator: what is held goes when he says so, and the login begins anew.
      expect(await sender(site.postern, 'list')).toMatch(
        new RegExp(
          `Z  block    ${ZEUS}  until released  by postern: 9 recipients in this hour, more than 2; `,
        ),
      );
      expect(await sender(site.postern, 'release', ZEUS.toUpperCase())).toBe(
        `released (it was: block) ${ZEUS.toUpperCase()}\n`,
      );
      expect(await sender(site.postern, 'list')).toBe('postern: nothing stands against any login\n');
      expect(await replies(site, [stranger(20)], ELSEWHERE)).toEqual(['250 2.1.5']);
      await site.postfix.postsuper('-H', 'ALL');
      await site.postfix.flush();
      await site.postfix.waitForQueueEmpty();
      // The same again is the same again.
      expect(await replies(site, [21, 22].map(stranger), ELSEWHERE)).toEqual(['250 2.1.5', '250 2.1.5']);
      expect(await sender(site.postern, 'list')).toContain(`observe  ${ZEUS}`);
    }),
  );

  test.each([
    ['slow', 'account.slow', '450 4.7.1', SLOW],
    ['block', 'account.block', '550 5.7.1', BLOCKED],
  ])('%s, set by an operator: passes in shadow, is refused without', async (stage, rule, code, text) => {
    const checks = '[checks.account]\nenabled = true\nslow_recipients = 1\n';
    await using site = await startPolicySite({
      users: USERS,
      config: `${checks}[rules]\n${rule} = { action = "${rule === 'account.slow' ? 'defer' : 'reject'}", shadow = true }\n`,
    });
    expect(
      await sender(site.postern, 'block', ZEUS, '--stage', stage, '--for', '2h', '--why', 'by phone'),
    ).toBe(`${stage}: ${ZEUS}\n`);
    const listed = JSON.parse(await sender(site.postern, 'list', '--json')) as unknown;
    expect(listed).toMatchObject({ login: ZEUS, kind: stage, by: 'operator', why: 'by phone' });

    expect(await replies(site, [FRIEND])).toEqual(['250 2.1.5']);
    expect(await replies(site, [FRIEND])).toEqual(['250 2.1.5']);
    const shadowed = await decision(site, ({ shadow }) => shadow.some((entry) => entry.rule === rule));
    expect(shadowed?.verdict).toBe('accept');

    await site.reload(checks);
    const { rcpt } = await site.send({ login: ZEUS, from: ZEUS, to: [FRIEND] });
    expect(`${rcpt[0]?.code} ${rcpt[0]?.enhanced}`).toBe(code);
    expect(rcpt[0]?.text).toContain(text);
    expect((await site.send({ login: HERA, from: HERA, to: [FRIEND] })).outcome.code).toBe(250);
    await sender(site.postern, 'release', ZEUS);
    expect(await replies(site, [FRIEND])).toEqual(['250 2.1.5']);
  });

  test('hold, set by an operator: passes in shadow, is put on hold without', async () => {
    const checks = '[checks.account]\nenabled = true\n';
    await using site = await startPolicySite({
      users: USERS,
      config: `${checks}[rules]\naccount.hold = { action = "quarantine", shadow = true }\n`,
    });
    await sender(site.postern, 'block', ZEUS, '--stage', 'hold');
    expect(await replies(site, [FRIEND])).toEqual(['250 2.1.5']);
    await site.postfix.waitForQueueEmpty();
    const shadowed = await decision(site, ({ shadow }) => shadow.some(({ rule }) => rule === 'account.hold'));
    expect(shadowed?.verdict).toBe('accept');

    await site.reload(checks);
    expect(await replies(site, [FRIEND])).toEqual(['250 2.1.5']);
    expect(await site.postfix.queue()).toMatchObject([{ queueName: 'hold', sender: ZEUS }]);
    // The stage that lasts goes on after a restart.
    await site.restart();
    expect(await replies(site, [FRIEND])).toEqual(['250 2.1.5']);
    expect(await site.postfix.queue()).toHaveLength(2);
  });

  test('a recipient that a limit refuses does not count against a slow login', async () => {
    await using site = await startPolicySite({
      users: USERS,
      config: `
[checks.account]
enabled = true
slow_recipients = 2
[[checks.limits.limit]]
name = "full"
per = ["recipient-domain"]
recipients = ["@full.example"]
most = 1
period = "1h"
action = "reject"
`,
    });
    expect(await replies(site, ['a@full.example'])).toEqual(['250 2.1.5']);
    await sender(site.postern, 'block', ZEUS, '--stage', 'slow');
    expect(await replies(site, ['b@full.example', stranger(1), 'c@full.example', stranger(2)])).toEqual([
      '550 5.7.1',
      '250 2.1.5',
      '550 5.7.1',
      '250 2.1.5',
    ]);
    expect(await replies(site, [stranger(3)])).toEqual(['450 4.7.1']);
  });

  test(
    'recipients that Postfix refuses after policyd are a signal',
    withinAnHour(async () => {
      await using site = await startPolicySite({
        users: USERS,
        alsoAt: ['end-of-data'],
        postfix: { mailboxes: [ZEUS, HERA] },
        config: '[checks.account]\nenabled = true\nrefusals = 2\nhold = 1\n',
      });
      const guessed = ['a', 'b', 'c'].map((name) => `${name}@olimpus.example`);
      expect(await replies(site, [HERA, ...guessed])).toEqual([
        '250 2.1.5',
        ...Array<string>(3).fill('550 5.1.1'),
      ]);
      expect(await replies(site, [HERA])).toEqual(['250 2.1.5']);
      expect(await sender(site.postern, 'list')).toContain(
        'by postern: 3 refusals in this hour, more than 2\n',
      );
      expect(await site.postfix.queue()).toMatchObject([{ queueName: 'hold', sender: ZEUS }]);
    }),
  );
});

interface LoginSite extends AsyncDisposable {
  readonly dovecot: Dovecot;
  readonly postfix: Postfix;
  readonly postern: Postern;
  readonly policyd: PosternProcess;
}

/** Dovecot that asks policyd about logins, by the lines of `postern wire dovecot`. */
async function startLoginSite(config: string): Promise<LoginSite> {
  await using cleanup = new AsyncDisposableStack();
  const postern = cleanup.use(await preparePostern());
  await writeFile(`${postern.folder}/logins.key`, `X-API-Key: ${'5e'.repeat(16)}`, { mode: 0o600 });
  await writeFile(`${postern.folder}/nonce`, 'a nonce of this test', { mode: 0o600 });
  await postern.configure(`
[logins]
enabled = true
listen = "127.0.0.1:${await freePort()}"
api_key_file = "logins.key"
exempt_networks = []
deadline = "1s"
${config}`);
  const policyd = await postern.start('policyd');
  const loaded = await loadConfig(postern.configFile);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const extra = loginLines(loaded.config).replace(
    '</etc/dovecot/auth-policy-nonce',
    `<${postern.folder}/nonce`,
  );
  const dovecot = cleanup.use(await startDovecot({ users: USERS, extra }));
  const postfix = cleanup.use(
    await startPostfix({
      domains: ['olimpus.example'],
      mailboxes: [ZEUS, HERA],
      saslSocket: dovecot.authSocket,
      submissionPolicyService: postern.address.policyd,
      main: { default_transport: 'discard:' },
    }),
  );
  const stack = cleanup.move();
  return { dovecot, postfix, postern, policyd, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** `OK`, or what the server said. */
async function imap({ dovecot }: LoginSite, from: string, password = PASSWORD): Promise<string> {
  return ImapClient.login(dovecot.imapPort, { user: ZEUS, password }, from).then(
    async (client) => {
      await client[Symbol.asyncDispose]();
      return 'OK';
    },
    (error: unknown) => (error instanceof Error ? error.message : 'no error'),
  );
}

function submit(site: LoginSite, xclient: { addr: string }): Promise<MailReplies> {
  return sendMail({
    port: site.postfix.submissionPort,
    auth: { user: ZEUS, password: PASSWORD },
    xclient,
    from: ZEUS,
    to: [FRIEND],
    data: LETTER,
  });
}

describeWithNeighbours('logins and accounts', () => {
  test(
    'networks that a login is used from count with those that it sends from',
    withinAnHour(async () => {
      await using site = await startLoginSite(
        '[logins.many-networks]\nobserve = false\nnotify = false\n[checks.account]\nenabled = true\nnetworks = 3\nhold = 1\n',
      );
      for (const from of ['127.0.1.1', '127.0.2.1', '127.0.2.2', '127.0.3.1']) {
        const after = site.policyd.log.mark();
        expect(await imap(site, from)).toBe('OK');
        // Dovecot lets the client in before it reports; a login from a network that is known is not logged.
        if (from !== '127.0.1.1' && from !== '127.0.2.2')
          await site.policyd.waitForLog(/"login.new-network".*"msg":"login succeeded"/, { after });
      }
      expect((await submit(site, OFFICE)).outcome.code).toBe(250);
      expect(await sender(site.postern, 'list')).toContain(
        'by postern: 4 networks in this hour, more than 3\n',
      );
      expect(await site.postfix.queue()).toMatchObject([{ queueName: 'hold', sender: ZEUS }]);
    }),
  );

  test('a guessed password puts the account under observation, which its mail bears from then on', async () => {
    await using hook = await startWebhook();
    await using site = await startLoginSite(
      `[logins.guessed]\nlimit = 2\n[notices]\nwebhook = "${hook.url}"\n[checks.account]\nenabled = true\n`,
    );
    for (const password of ['a', 'b', 'c']) {
      const after = site.policyd.log.mark();
      expect(await imap(site, '127.0.1.1', password)).toContain('AUTHENTICATIONFAILED');
      await site.policyd.waitForLog(/"msg":"login failed"/, { after });
    }
    expect(await imap(site, '127.0.1.1')).toBe('OK');
    await expect.poll(() => hook.notices.length, PATIENCE).toBe(1);
    expect(hook.notices[0]).toMatchObject({
      event: 'account',
      subject: ZEUS,
      text: `${ZEUS} is under observation: a login from 127.0.1.1 succeeded after 3 wrong passwords`,
      facts: { login: ZEUS, remote: '127.0.1.1', protocol: 'imap' },
    });
    expect(await sender(site.postern, 'list')).toContain(`observe  ${ZEUS}`);
    expect((await submit(site, OFFICE)).outcome.code).toBe(250);
    const metrics = await site.policyd.metrics();
    expect(metrics).toMatch(
      /^postern_check_outcomes_total\{check="account",code="account.observe"[^}]*\} 1$/m,
    );
  });

  test('a blocked account can not log in either, until it is released', async () => {
    await using site = await startLoginSite('[checks.account]\nenabled = true\n');
    expect(await imap(site, '127.0.1.1')).toBe('OK');
    expect((await submit(site, OFFICE)).outcome.code).toBe(250);
    await sender(site.postern, 'block', ZEUS);
    expect(await imap(site, '127.0.1.1')).toBe(
      'IMAP: LOGIN: NO [ALERT] This account is blocked, please contact your administrator',
    );
    await using client = await SmtpClient.connect({ port: site.postfix.submissionPort });
    await client.ehlo('client.example');
    const reply = await client.authPlain({ user: ZEUS, password: PASSWORD });
    expect(reply).toMatchObject({ code: 535, enhanced: '5.7.8' });
    expect(reply.text).toContain('This account is blocked, please contact your administrator');
    await sender(site.postern, 'release', ZEUS);
    expect(await imap(site, '127.0.1.1')).toBe('OK');
    expect((await submit(site, OFFICE)).outcome.code).toBe(250);
  });
});
