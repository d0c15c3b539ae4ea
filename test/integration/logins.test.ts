import { readFile, writeFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { loginLines } from '../../src/cli/wire-dovecot.ts';
import { loadConfig } from '../../src/config/load.ts';
import { neighboursAvailable } from '../support/neighbours/available.ts';
import { Connection } from '../support/neighbours/connection.ts';
import { startDovecot, type Dovecot } from '../support/neighbours/dovecot.ts';
import { ImapClient } from '../support/neighbours/imap.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { startPostfix, type Postfix } from '../support/neighbours/postfix.ts';
import { SmtpClient, type Reply } from '../support/neighbours/smtp-client.ts';
import { startWebhook } from '../support/players/webhook.ts';
import { preparePostern, type Postern, type PosternProcess } from '../support/postern.ts';
import { HERA, PASSWORD, ZEUS } from '../support/site.ts';

// Real Dovecot, with the lines of `postern wire dovecot`, and real Postfix, which authenticates through it.

const available = neighboursAvailable();
const whyNot = available.ok ? '' : ` (skipped: ${available.reason})`;

const SECRET = 'b8e7f3a0d1c24596b8e7f3a0d1c24596';
/** Loopback addresses, each a network of its own. */
const HOME = '127.0.0.2';
const THIEF = '127.0.0.3';

interface LoginSite extends AsyncDisposable {
  readonly dovecot: Dovecot;
  readonly postfix: Postfix;
  readonly postern: Postern;
  readonly policyd: PosternProcess;
}

function table(port: number, rules: string): string {
  return `
[logins]
enabled = true
listen = "127.0.0.1:${port}"
api_key_file = "logins.key"
exempt_networks = []
prefix_ipv4 = 32
deadline = "1s"
${rules}`;
}

async function startLoginSite(rules: string, dovecotExtra = ''): Promise<LoginSite> {
  await using cleanup = new AsyncDisposableStack();
  const postern = cleanup.use(await preparePostern());
  await writeSecrets(postern);
  await postern.configure(table(await freePort(), rules));
  const policyd = await postern.start('policyd');
  const dovecot = cleanup.use(
    await startDovecot({
      users: { [ZEUS]: PASSWORD, [HERA]: PASSWORD },
      extra: `${await dovecotLines(postern)}\n${dovecotExtra}`,
    }),
  );
  const postfix = cleanup.use(
    await startPostfix({ domains: ['olimpus.example'], mailboxes: [ZEUS], saslSocket: dovecot.authSocket }),
  );
  const stack = cleanup.move();
  return { dovecot, postfix, postern, policyd, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function writeSecrets({ folder }: Postern): Promise<void> {
  await writeFile(`${folder}/logins.key`, `X-API-Key: ${SECRET}`, { mode: 0o600 });
  await writeFile(`${folder}/nonce`, 'a nonce of this test', { mode: 0o600 });
}

/** As `postern wire dovecot` prints them, with the nonce in a file of this test. */
async function dovecotLines({ configFile, folder }: Postern): Promise<string> {
  const loaded = await loadConfig(configFile);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  return loginLines(loaded.config).replace('</etc/dovecot/auth-policy-nonce', `<${folder}/nonce`);
}

interface Tried {
  /** What the server said; `OK` when the login succeeded. */
  readonly said: string;
  readonly ms: number;
}

async function imap(site: LoginSite, from: string, password: string, user = ZEUS): Promise<Tried> {
  const begin = performance.now();
  const said = await ImapClient.login(site.dovecot.imapPort, { user, password }, from).then(
    async (client) => {
      await client[Symbol.asyncDispose]();
      return 'OK';
    },
    (error: unknown) => (error instanceof Error ? error.message : 'no error'),
  );
  return { said, ms: performance.now() - begin };
}

async function submission(site: LoginSite, from: string, password: string, user = ZEUS): Promise<Reply> {
  await using client = await SmtpClient.connect({ port: site.postfix.submissionPort });
  await client.ehlo('client.example');
  await client.xclient({ addr: from });
  await client.ehlo('client.example');
  const reply = await client.authPlain({ user, password });
  await client.quit();
  return reply;
}

/** Wrong passwords, each another, and each counted when this resolves: Dovecot answers the client before it reports. */
async function guess(
  site: LoginSite,
  from: string,
  passwords: readonly string[],
  user = ZEUS,
): Promise<Tried[]> {
  const all: Tried[] = [];
  for (const password of passwords) {
    const after = site.policyd.log.mark();
    all.push(await imap(site, from, password, user));
    await site.policyd.waitForLog(/"msg":"login failed"/, { after });
  }
  return all;
}

const WRONG = 'IMAP: LOGIN: NO [AUTHENTICATIONFAILED] Authentication failed.';
const REFUSED = 'IMAP: LOGIN: NO [ALERT] Too many failed logins, please try again later';
const NET_REFUSED =
  'IMAP: LOGIN: NO [ALERT] Too many failed logins from your network, please try again later';

describe.skipIf(!available.ok)(`logins${whyNot}`, () => {
  describe('with rules that are enforced', () => {
    let site: LoginSite;

    beforeAll(async () => {
      site = await startLoginSite(
        [
          '[logins.failures]\nlimit = 1\naction = "delay 2s"',
          '[logins.pair-failures]\nlimit = 3',
          '[logins.spraying]\nlimit = 2',
        ].join('\n'),
        // Lets clients choose as much as Dovecot ever lets them.
        'imap_id_retain = yes\nauth_username_chars =',
      );
    });
    afterAll(() => site[Symbol.asyncDispose]());

    test('wrong passwords are delayed, then refused, with words that an IMAP client sees; another network goes on', async () => {
      expect(await imap(site, HOME, PASSWORD)).toMatchObject({ said: 'OK' });
      const [first, second, third, fourth] = await guess(site, THIEF, ['a', 'b', 'c', 'd']);
      for (const tried of [first, second, third, fourth]) expect(tried?.said).toBe(WRONG);
      expect(first?.ms).toBeLessThan(900);
      expect(third?.ms).toBeGreaterThan(990);
      expect(fourth?.ms).toBeGreaterThan(1990);

      const begin = site.policyd.log.mark();
      expect(await imap(site, THIEF, PASSWORD)).toMatchObject({ said: REFUSED });
      const refused = JSON.parse(
        await site.policyd.waitForLog(/"msg":"login refused"/, { after: begin }),
      ) as unknown;
      expect(refused).toMatchObject({
        login: ZEUS,
        client: THIEF,
        protocol: 'imap',
        rule: 'login.pair-failures',
        why: `4 wrong passwords for ${ZEUS} from ${THIEF}/32 (limit 3)`,
      });
      expect(await imap(site, THIEF, PASSWORD, HERA)).toMatchObject({ said: 'OK' });
      // Where Zeus is at home nothing has changed, not even by a delay.
      const home = await imap(site, HOME, PASSWORD);
      expect(home.said).toBe('OK');
      expect(home.ms).toBeLessThan(900);
    });

    test('an SMTP client is told as well, and the refusal is no further wrong password', async () => {
      const reply = await submission(site, THIEF, PASSWORD);
      expect([reply.code, reply.enhanced]).toEqual([535, '5.7.8']);
      expect(reply.text).toContain('authentication failed: Too many failed logins, please try again later');
      const metrics = await site.policyd.metrics();
      expect(metrics).toMatch(
        /^postern_logins_requests_total\{command="allow",protocol="smtp",result="refuse",rule="login.pair-failures"\} 1$/m,
      );
      expect(metrics).toMatch(
        /^postern_logins_requests_total\{command="report",protocol="imap",result="failure",rule="none"\} 4$/m,
      );
      expect((await submission(site, HOME, PASSWORD)).code).toBe(235);
    });

    test('`postern logins` lists who is over a limit, and releases', async () => {
      const listed = await site.postern.command('logins', 'list');
      expect(listed.code).toBe(0);
      expect(listed.stdout).toMatch(
        new RegExp(`Z  ${ZEUS} from ${THIEF}/32  4 of 3 \\(login\\.pair-failures\\)  refuse\n`),
      );
      expect(listed.stdout).toMatch(
        new RegExp(`Z  ${ZEUS}  4 of 1 \\(login\\.failures\\)  delay up to 2 s\n`),
      );
      const released = await site.postern.command('logins', 'release', ZEUS);
      expect(released).toMatchObject({ code: 0, stdout: `released ${ZEUS}\n` });
      expect(await site.postern.command('logins', 'list')).toMatchObject({
        stdout: '',
        stderr: 'postern: nobody is over a limit\n',
      });
      const tried = await imap(site, THIEF, PASSWORD);
      expect(tried.said).toBe('OK');
      expect(tried.ms).toBeLessThan(900);
    });

    test('one guess at each of many logins is refused for the whole network', async () => {
      const sprayer = '127.0.0.4';
      for (const user of ['ares@olimpus.example', 'iris@olimpus.example', 'nobody'])
        expect(await guess(site, sprayer, ['summer'], user)).toMatchObject([{ said: WRONG }]);
      expect(await imap(site, sprayer, PASSWORD, HERA)).toMatchObject({ said: NET_REFUSED });
      const reply = await submission(site, sprayer, PASSWORD, HERA);
      expect(reply.text).toContain('Too many failed logins from your network');
      expect(await imap(site, HOME, PASSWORD, HERA)).toMatchObject({ said: 'OK' });
    });

    test('a device that repeats its old password is not locked out', async () => {
      const phone = '127.0.0.5';
      for (const tried of await guess(site, phone, Array<string>(6).fill('last year'), HERA))
        expect(tried.said).toBe(WRONG);
      expect(await imap(site, phone, PASSWORD, HERA)).toMatchObject({ said: 'OK' });
    });

    test('however long a login is, and whatever the client calls itself, the question is answered and counted', async () => {
      const before = await site.policyd.metrics();
      const after = site.policyd.log.mark();
      await using client = await Connection.open({ port: site.dovecot.imapPort, localAddress: '127.0.0.6' });
      const answer = async (tag: string): Promise<string> => {
        for (;;) {
          const line = (await client.readLine()).toString('latin1');
          if (line.startsWith(`${tag} `)) return line;
        }
      };
      client.write(`a ID ("name" "${'\x02'.repeat(1000)}")\r\n`);
      expect(await answer('a')).toMatch(/^a OK/);
      const login = '\x02'.repeat(6000);
      client.write('b AUTHENTICATE PLAIN\r\n');
      client.write(`${Buffer.from(`\0${login}\0wrong`).toString('base64')}\r\n`);
      expect(await answer('b')).toMatch(/^b NO \[AUTHENTICATIONFAILED\]/);
      await site.policyd.waitForLog(/127\.0\.0\.6.*"msg":"login failed"/, { after });
      const errors = /^postern_logins_protocol_errors_total\{.*$/gm;
      expect((await site.policyd.metrics()).match(errors)).toEqual(before.match(errors));
    });

    test('policyd down: Dovecot lets logins go on, the right ones only', async () => {
      expect(await site.policyd.stop()).toBe(0);
      expect(await imap(site, THIEF, PASSWORD)).toMatchObject({ said: 'OK' });
      expect(await imap(site, THIEF, 'wrong')).toMatchObject({ said: WRONG });
      expect((await submission(site, THIEF, PASSWORD)).code).toBe(235);
    });
  });

  test('the first excess is told by webhook; with another secret nothing is asked or told, and both logs say so', async () => {
    await using hook = await startWebhook();
    const rules = `[logins.pair-failures]\nlimit = 1\nnotify = true\n[notices]\nwebhook = "${hook.url}"`;
    await using site = await startLoginSite(rules);
    await guess(site, THIEF, ['a', 'b']);
    expect(await imap(site, THIEF, PASSWORD)).toMatchObject({ said: REFUSED });
    await expect.poll(() => hook.notices.length, { timeout: 20_000 }).toBe(1);
    expect(hook.notices[0]).toMatchObject({
      event: 'login',
      subject: `${ZEUS}|${THIEF}/32`,
      text: `login.pair-failures: ${ZEUS}|${THIEF}/32 is over its limit, 2 of 1`,
      advice: ['postern logins list', `postern logins release ${ZEUS}`],
      facts: { code: 'login.pair-failures', limit: 1, login: ZEUS, remote: THIEF, protocol: 'imap' },
    });

    // Dovecot keeps the secret that it was started with.
    await writeFile(`${site.postern.folder}/logins.key`, `X-API-Key: ${'00'.repeat(16)}`, { mode: 0o600 });
    const after = site.policyd.log.mark();
    site.policyd.signal('SIGHUP');
    await site.policyd.waitForLog(/"msg":"reloaded"/, { after });
    expect(await imap(site, THIEF, PASSWORD)).toMatchObject({ said: 'OK' });
    expect((await submission(site, THIEF, PASSWORD)).code).toBe(235);
    expect(await imap(site, THIEF, 'wrong')).toMatchObject({ said: WRONG });
    await site.policyd.waitForLog(/"msg":"a request without the right X-API-Key"/, { after });
    await site.dovecot.waitForLog(/policy.*401/);
    const metrics = await site.policyd.metrics();
    expect(metrics).toMatch(/^postern_logins_protocol_errors_total\{reason="no-key"\} [1-9]\d*$/m);
    expect(metrics).toMatch(
      /^postern_logins_requests_total\{command="report",protocol="imap",result="failure",rule="none"\} 2$/m,
    );
  });

  test('in shadow the same is decided and counted, and nobody is refused', async () => {
    await using site = await startLoginSite('[logins.pair-failures]\nlimit = 2\nshadow = true');
    await guess(site, THIEF, ['a', 'b', 'c', 'd']);
    expect(await imap(site, THIEF, PASSWORD)).toMatchObject({ said: 'OK' });
    await site.policyd.waitForLog(/"shadow":\["login.pair-failures refuse"\].*"msg":"login may go on"/);
    const metrics = await site.policyd.metrics();
    // The fourth guess, and the right password.
    expect(metrics).toMatch(/^postern_logins_shadow_total\{rule="login.pair-failures",result="refuse"\} 2$/m);
    const listed = await site.postern.command('logins', 'list', '--json');
    expect(listed.stdout).toBe('');
  });

  test('two policyd share what they know, and a guessed password puts the account under observation', async () => {
    const rules = '[logins.pair-failures]\nlimit = 3\n[logins.guessed]\nlimit = 1';
    await using site = await startLoginSite(rules);
    await using other = await preparePostern();
    await writeSecrets(other);
    await other.configure(table(await freePort(), rules));
    const text = await readFile(other.configFile, 'utf8');
    await writeFile(
      other.configFile,
      text.replace(/^state\.folder = .*$/m, `state.folder = "${site.postern.folder}/state"`),
    );
    const second = await other.start('policyd');
    await using elsewhere = await startDovecot({
      users: { [ZEUS]: PASSWORD },
      extra: await dovecotLines(other),
    });

    await guess(site, THIEF, ['a', 'b', 'c']);
    expect(await imap(site, THIEF, PASSWORD)).toMatchObject({ said: 'OK' });
    await site.policyd.waitForLog(/"notes":\["login.guessed"\],"msg":"login succeeded"/);
    await guess(site, HOME, ['e', 'f', 'g', 'h']);
    expect(await imap({ ...site, dovecot: elsewhere, policyd: second }, HOME, PASSWORD)).toMatchObject({
      said: REFUSED,
    });
    await second.waitForLog(/"rule":"login.pair-failures".*"msg":"login refused"/);
    const accounts = await site.postern.command('sender', 'list');
    expect(accounts.stdout).toContain(ZEUS);
    expect(accounts.stdout).toContain('succeeded after 3 wrong passwords');
  });
});
