import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { expect, test } from 'vitest';

import { signWithMailauth, verifyWithMailauth } from '../support/dkim-oracle.ts';
import { SECRET } from '../support/directory.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { startMariadb } from '../support/neighbours/mariadb.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { preparePostern, type RecordedDecision } from '../support/postern.ts';
import {
  HERA,
  ZEUS,
  letter,
  LOKI,
  ODIN,
  PASSWORD,
  SPECIAL_OFFER,
  startSite,
  type Site,
  type SiteOptions,
} from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const PATIENCE = { timeout: 30_000 };

/** What is set for each; the score is between 6 and 20. */
const SETTINGS = {
  ada: {},
  bob: { tag: 'none' },
  cleo: { junk: '5.5' },
  dido: { reject: '6' },
  eris: { allow: 'odin@valhalla.example' },
  faun: { discard: '6' },
  gaia: { language: 'es-MX' },
  hebe: { rewrite_body: '1', subject_tag: 'no' },
  iris: { subject_tag: '[¿Basura?]' },
  juno: { block: 'valhalla.example', tag: 'none' },
  leto: { tag: '20' },
} as const;

type Name = keyof typeof SETTINGS;
const NAMES = [
  'ada',
  'bob',
  'cleo',
  'dido',
  'eris',
  'faun',
  'gaia',
  'hebe',
  'iris',
  'juno',
  'leto',
] as const satisfies readonly Name[];
const FULL = 'full@olimpus.example';
const NOBODY = 'nobody@olimpus.example';

function mailbox(name: string): string {
  return `${name}@olimpus.example`;
}

const COLUMNS = [
  'tag',
  'junk',
  'reject',
  'discard',
  'subject_tag',
  'language',
  'rewrite_body',
  'allow',
  'block',
];

/** A directory in a file of SQLite, as an administrator keeps it. */
function makeDirectory(path: string): void {
  using database = new DatabaseSync(path);
  database.exec(`
    CREATE TABLE users (email TEXT PRIMARY KEY, ${COLUMNS.map((column) => `${column} TEXT`).join(', ')});
    CREATE TABLE aliases (source TEXT, destination TEXT);
    INSERT INTO aliases VALUES ('one@olimpus.example', 'leto@olimpus.example'), ('two@olimpus.example', 'leto@olimpus.example'),
      ('wild@olimpus.example', 'dido@olimpus.example');
  `);
  const insert = database.prepare(`INSERT INTO users VALUES (?, ${COLUMNS.map(() => '?').join(', ')})`);
  const rows: Readonly<Record<string, Readonly<Record<string, string>>>> = { ...SETTINGS, full: {} };
  for (const [name, set] of Object.entries(rows)) {
    insert.run(mailbox(name), ...COLUMNS.map((column) => set[column] ?? null));
  }
}

function directory(path: string): string {
  return `
[directory.sql]
server = "sqlite"
file = ${JSON.stringify(path)}
mailbox_domain = ["SELECT 1 FROM users WHERE email LIKE '%@' || :domain LIMIT 1"]
alias = ["SELECT destination FROM aliases WHERE source = :address"]
mailbox = ["SELECT email FROM users WHERE email = :address"]
account = ["SELECT ${COLUMNS.join(', ')} FROM users WHERE email = :login"]
[checks.settings]
subject_tags = { es = "[NO DESEADO]" }
`;
}

interface Host extends AsyncDisposable {
  readonly site: Site;
  /** A spammy letter of Odin's, signed, to these. */
  send(to: readonly string[]): Promise<Awaited<ReturnType<typeof sendMail>>>;
  /** lmtp-filter's decisions, by recipient, once there is one for each of these. */
  decisions(recipients: readonly string[]): Promise<ReadonlyMap<string, RecordedDecision>>;
}

/** The latest decision of lmtp-filter for each recipient. */
async function byRecipient(site: Site): Promise<ReadonlyMap<string, RecordedDecision>> {
  const decisions = await site.postern.history('--daemon', 'lmtp-filter');
  return new Map(decisions.map((decision) => [decision.recipients.join(), decision]));
}

async function startHost(
  options: { config?: string; dovecot?: SiteOptions['dovecot']; main?: Record<string, string> } = {},
): Promise<Host> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('settings'));
  const path = join(folder.path, 'users.sqlite');
  makeDirectory(path);
  const users = Object.fromEntries(NAMES.map((name) => [mailbox(name), PASSWORD]));
  const site = cleanup.use(
    await startSite({
      spamd: { localCf: ['report_safe 1'] },
      config: `${options.config ?? ''}${directory(path)}`,
      dovecot: { users: { ...users, [FULL]: { password: PASSWORD, quota: '1K' } }, ...options.dovecot },
      postfix: {
        mailboxes: [...NAMES.map(mailbox), FULL, NOBODY],
        aliases: {
          [mailbox('one')]: mailbox('leto'),
          [mailbox('two')]: mailbox('leto'),
          [mailbox('wild')]: mailbox('dido'),
        },
        ...(options.main === undefined ? {} : { main: options.main }),
      },
    }),
  );
  const stack = cleanup.move();
  return {
    site,
    async send(to) {
      const text = letter({ Subject: 'for you' }, `${SPECIAL_OFFER}\r\n`);
      const data = await signWithMailauth(text, 'valhalla.example', 'mail', site.senderKey);
      return await sendMail({
        port: site.postfix.smtpPort,
        xclient: ODIN,
        from: 'odin@valhalla.example',
        to,
        data,
      });
    },
    async decisions(recipients) {
      await expect
        .poll(async () => [...(await byRecipient(site)).keys()], PATIENCE)
        .toEqual(expect.arrayContaining([...recipients]));
      return await byRecipient(site);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function header(message: Buffer | undefined): string {
  return (message?.toString('latin1').split('\r\n\r\n')[0] ?? '').replaceAll(/\r\n[ \t]+/g, ' ');
}

/** The record has one decision for each try. */
function verdictsIn(metrics: string, labels: string): number {
  return Number(new RegExp(`^postern_lmtp_verdicts_total\\{${labels}\\} (\\d+)$`, 'm').exec(metrics)?.[1]);
}

/** Junk has a band of its own, so that what is marked alone stays in the inbox. */
const BANDS = '[thresholds]\njunk = 30\n';

describeWithNeighbours('settings of single recipients', () => {
  test('one message to eleven mailboxes, a full one and nobody: each gets what is set for them', async () => {
    await using host = await startHost({
      config: `lmtp-filter.filing = "folder"\n${BANDS}`,
      dovecot: { extra: 'lmtp_save_to_detail_mailbox = yes\n' },
    });
    const { dovecot, bind, processes } = host.site;
    const to = [
      ...NAMES.filter((name) => name !== 'leto').map(mailbox),
      mailbox('one'),
      mailbox('two'),
      FULL,
      NOBODY,
    ];
    expect((await host.send(to)).outcome.code).toBe(250);
    const decided = await host.decisions([...NAMES.map(mailbox), FULL, NOBODY]);
    const of = (name: string): RecordedDecision | undefined => decided.get(mailbox(name));
    const inbox = async (name: Name): Promise<Buffer> =>
      (await dovecot.waitForMessages(mailbox(name), 1))[0] ?? Buffer.alloc(0);
    const junk = async (name: Name): Promise<Buffer> =>
      (await dovecot.waitForMessages(mailbox(name), 1, 'Junk'))[0] ?? Buffer.alloc(0);

    expect(header(await inbox('ada'))).toMatch(/^Subject: \[SPAM\] for you$/m);
    expect(header(await inbox('ada'))).toMatch(/^X-Postern-Verdict: tag; reason=score>=5$/m);
    expect(of('ada')).toMatchObject({ verdict: 'accept', tagged: true, rule: 'score>=5' });

    for (const name of ['bob', 'leto'] as const) {
      const untouched = await inbox(name);
      expect(header(untouched)).toMatch(/^Subject: for you$/m);
      expect(header(untouched)).not.toMatch(/^X-Spam-Flag:/m);
      expect(await verifyWithMailauth(untouched, bind)).toEqual(['valhalla.example mail rsa-sha256: pass']);
      expect(of(name)).toMatchObject({ verdict: 'accept', tagged: false, rule: 'default' });
    }
    // Two aliases of it were in the message.
    expect(await dovecot.mailbox(mailbox('leto'))).toHaveLength(1);

    expect(header(await junk('cleo'))).toMatch(/^X-Postern-Verdict: junk; reason=score>=5\.5$/m);
    expect(await dovecot.mailbox(mailbox('cleo'))).toEqual([]);
    expect(of('cleo')).toMatchObject({ verdict: 'junk', rule: 'score>=5.5' });
    expect(of('cleo')?.why).toMatch(/\(cleo@olimpus\.example: junk from 5\.5\)$/);

    expect(of('dido')).toMatchObject({ verdict: 'reject', rule: 'score>=6' });
    expect(of('dido')?.reply).toMatch(/^550 5\.7\.1 /);
    expect(await dovecot.mailbox(mailbox('dido'))).toEqual([]);

    // Proven by DMARC, and wanted.
    expect(header(await inbox('eris'))).toMatch(/^Subject: for you$/m);
    expect(header(await inbox('eris'))).not.toMatch(/^X-Spam-Flag:/m);
    expect(of('eris')).toMatchObject({ verdict: 'accept', tagged: false, rule: 'lists.allow' });

    expect(of('faun')).toMatchObject({ verdict: 'discard', rule: 'score>=6' });
    expect(await dovecot.mailbox(mailbox('faun'))).toEqual([]);

    expect(header(await inbox('gaia'))).toMatch(/^Subject: \[NO DESEADO\] for you$/m);
    expect(header(await inbox('iris'))).toMatch(/^Subject: =\?UTF-8\?B\?\S+\?= for you$/m);
    expect(header(await junk('juno'))).toMatch(/^X-Postern-Verdict: junk; reason=lists\.block$/m);

    // report_safe 1 for one of them: the report, with the original attached as it came.
    const report = (await inbox('hebe')).toString('latin1');
    expect(header(Buffer.from(report, 'latin1'))).toMatch(/^Content-Type: multipart\/mixed;/m);
    expect(header(Buffer.from(report, 'latin1'))).toMatch(/^Subject: for you$/m);
    expect(header(Buffer.from(report, 'latin1'))).toMatch(/^X-Postern-Trace: [a-z2-7]{16}$/m);
    expect(header(Buffer.from(report, 'latin1'))).toMatch(/^Authentication-Results: .*dmarc=pass/m);
    expect(report).toContain('Content preview:');
    const attached =
      /\r\nContent-Type: message\/rfc822[^]*?\r\n\r\n([^]*?)\r\n\r\n--/.exec(report)?.[1] ?? '';
    expect(attached).toMatch(/^DKIM-Signature:/m);
    expect(attached).toContain(SPECIAL_OFFER);
    expect((await inbox('ada')).toString('latin1')).not.toContain('Content preview:');

    expect(of('nobody')).toMatchObject({ verdict: 'reject', rule: 'mailbox.unknown' });
    expect(of('full')?.reply).toMatch(/^452 4\.2\.2 /);
    // Each recipient's own outcomes, and nobody else's.
    expect(of('bob')?.outcomes.map(({ check }) => check)).toContain('settings');
    const metrics = (await processes[0]?.metrics()) ?? '';
    expect(verdictsIn(metrics, 'verdict="junk",setting="directory"')).toBe(2);
    expect(verdictsIn(metrics, 'verdict="reject",setting="directory"')).toBe(1);
    expect(verdictsIn(metrics, 'verdict="discard",setting="directory"')).toBe(1);
    const line = await processes[0]?.waitForLog(/"to":"dido@olimpus\.example"/);
    expect(line).toContain('"setting":"directory"');
    expect(line).toContain('dido@olimpus.example: reject from 6');
  });

  test('the milter goes by the same settings: one recipient, an alias too, is refused in session', async () => {
    await using host = await startHost({ config: '[rules]\n"spf.fail" = "ignore"\n' });
    for (const to of ['dido', 'wild', 'dido+news']) {
      const { end } = await host.send([mailbox(to)]);
      expect([to, end?.code, end?.enhanced]).toEqual([to, 550, '5.7.1']);
    }
    // With another in the same message nobody may lose it by her threshold.
    expect((await host.send([mailbox('dido'), mailbox('bob')])).outcome.code).toBe(250);
    const refused = await host.site.postern.history('--verdict', 'reject', '--daemon', 'milter');
    expect(refused.map(({ rule }) => rule)).toEqual(['score>=6', 'score>=6', 'score>=6']);
    expect(refused[0]?.why).toContain('(dido@olimpus.example: reject from 6)');
    // Nobody else's letter passes for a friend's.
    const forged = await sendMail({
      port: host.site.postfix.smtpPort,
      xclient: LOKI,
      from: 'odin@valhalla.example',
      to: [mailbox('eris')],
      data: letter({ Subject: 'for you' }, `${SPECIAL_OFFER}\r\n`),
    });
    expect(forged.outcome.code).toBe(250);
    const decided = await host.decisions([mailbox('eris')]);
    expect(decided.get(mailbox('eris'))).toMatchObject({ verdict: 'junk', rule: 'dmarc.fail-reject' });
  });

  test.for(['header', 'detail', 'folder'] as const)(
    'filing = "%s", with the lines that "postern wire dovecot" prints',
    async (filing) => {
      const config = `lmtp-filter.filing = "${filing}"\n${BANDS}`;
      await using prepared = await preparePostern({ config });
      const written = await prepared.command('wire', 'dovecot', '--write', prepared.folder);
      expect(written.code).toBe(0);
      const lines = await readFile(join(prepared.folder, '99-postern.conf'), 'utf8');
      expect(lines.includes('lmtp_save_to_detail_mailbox = yes')).toBe(filing === 'folder');
      const sieve =
        filing === 'folder' ? null : await readFile(join(prepared.folder, 'postern.sieve'), 'utf8');
      await using host = await startHost({
        config,
        dovecot: sieve === null ? { extra: 'lmtp_save_to_detail_mailbox = yes\n' } : { sieve },
      });
      const { dovecot } = host.site;
      // Whoever has a detail already finds junk among the junk, and the rest where it is wanted.
      await host.send([mailbox('cleo+offers'), mailbox('ada+offers'), mailbox('bob+offers')]);
      const [junk = Buffer.alloc(0)] = await dovecot.waitForMessages(mailbox('cleo'), 1, 'Junk');
      expect(header(junk)).toMatch(/^X-Postern-Verdict: junk; /m);
      expect(header(junk)).toMatch(/^Return-Path: <odin@valhalla\.example>$/m);
      const own = filing === 'header' ? 'cleo+offers' : 'cleo+Junk';
      expect(header(junk)).toContain(`Delivered-To: ${mailbox(own)}`);
      const place = filing === 'folder' ? 'offers' : 'INBOX';
      expect(header((await dovecot.waitForMessages(mailbox('ada'), 1, place))[0])).toMatch(
        /^Subject: \[SPAM\]/m,
      );
      expect(header((await dovecot.waitForMessages(mailbox('bob'), 1, place))[0])).toMatch(/^Subject: for/m);
    },
  );

  test('policyd.split: who could be refused comes alone, and is refused in session', async () => {
    await using host = await startHost({ config: 'policyd.split = true\n' });
    const together = await host.send([mailbox('bob'), mailbox('dido'), mailbox('gaia')]);
    expect(together.rcpt.map(({ code, enhanced }) => `${code} ${enhanced}`)).toEqual([
      '250 2.1.5',
      '452 4.5.3',
      '250 2.1.5',
    ]);
    expect(together.end?.code).toBe(250);
    const alone = await host.send([mailbox('dido')]);
    expect([alone.end?.code, alone.end?.enhanced]).toEqual([550, '5.7.1']);
    await host.decisions([mailbox('bob'), mailbox('gaia')]);
    expect(await host.site.postern.history('--backscatter')).toEqual([]);
    expect(await host.site.postern.history('--daemon', 'policyd', '--verdict', 'defer')).toMatchObject([
      { rule: 'split', recipients: [mailbox('dido')] },
    ]);
  });

  test('a directory that is away: what is remembered counts, and nothing is lost for the rest', async () => {
    await using maria = await startMariadb();
    await maria.sql('CREATE DATABASE settings');
    await maria.sql(
      `CREATE TABLE users (email varchar(80) PRIMARY KEY, reject varchar(10));
       INSERT INTO users VALUES ('${ZEUS}', '6'), ('@olimpus.example', 'none');
       CREATE USER 'postern'@'%' IDENTIFIED BY '${SECRET}';
       GRANT SELECT ON settings.users TO 'postern'@'%';`,
      'settings',
    );
    await using folder = await privateFolder('secret');
    const file = folder.join('password');
    await writeFile(file, SECRET, { mode: 0o600 });
    await using site = await startSite({
      spamd: true,
      config: `[thresholds]
reject = 7
[directory.sql]
address = "127.0.0.1:${maria.port}"
database = "settings"
password_file = ${JSON.stringify(file)}
account = ["SELECT reject FROM users WHERE email = :login"]
[directory.cache]
ttl = "1ms"
negative_ttl = "1ms"
`,
    });
    const codeFor = async (to: string, body = SPECIAL_OFFER): Promise<string> => {
      const data = letter({ Subject: 'for you' }, `${body}\r\n`);
      const { port, from } = { port: site.postfix.smtpPort, from: 'odin@valhalla.example' };
      const { outcome } = await sendMail({ port, xclient: ODIN, from, to: [to], data });
      return `${outcome.code} ${outcome.enhanced}`;
    };
    expect(await codeFor(ZEUS)).toBe('550 5.7.1');
    maria.freeze();
    // Old answers stand in.
    expect(await codeFor(ZEUS)).toBe('550 5.7.1');
    // Of Hera nothing is known yet: her domain has "none", and the site's threshold must not count in its place.
    expect(await codeFor(HERA)).toBe('451 4.7.0');
    const [deferred] = await site.postern.history('--verdict', 'defer', '--daemon', 'milter');
    expect(deferred).toMatchObject({ rule: 'unavailable:settings', recipients: [HERA] });
    maria.thaw();
    await expect.poll(() => codeFor(HERA), PATIENCE).toMatch(/^250 /);
    expect(await codeFor(ZEUS)).toBe('550 5.7.1');
  });

  test('SMTPUTF8: Dovecot 2.3 has none, so that only mail that needs it bounces', async () => {
    await using site = await startSite();
    const send = async (from: string, fields: Record<string, string>): Promise<number> => {
      const { outcome } = await sendMail({
        port: site.postfix.smtpPort,
        xclient: ODIN,
        from,
        to: [ZEUS],
        mailParameters: ['SMTPUTF8'],
        data: Buffer.from(letter(fields), 'utf8'),
      });
      return outcome.code;
    };
    expect(await send('odin@valhalla.example', { Subject: 'plain' })).toBe(250);
    await site.dovecot.waitForMessages(ZEUS, 1);
    const after = site.postfix.mark();
    expect(await send('odin@valhalla.example', { Subject: 'h\u00e4mmer' })).toBe(250);
    await site.postfix.waitForLog(
      /to=<zeus@olimpus\.example>.* dsn=5\.6\.7, status=bounced .*SMTPUTF8 is required/,
      { after },
    );
    expect(await site.dovecot.mailbox(ZEUS)).toHaveLength(1);
  });

  test('each user is scanned for once, with their own preferences and their own report_safe', async () => {
    await using site = await startSite({
      spamd: { perUser: true },
      config: '[checks.spam]\nuser = "recipient"\nrewrite_body = true\n',
    });
    const prefs = async (name: string, lines: readonly string[]): Promise<void> => {
      const folder = join(site.spamd?.folder ?? '', 'home', 'olimpus.example', name);
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, 'user_prefs'), `${lines.join('\n')}\n`);
    };
    await prefs('zeus', ['report_safe 1']);
    await prefs('hera', ['score POSTERN_OFFER -5']);
    const { outcome } = await sendMail({
      port: site.postfix.smtpPort,
      xclient: ODIN,
      from: 'odin@valhalla.example',
      to: ['zeus+a@olimpus.example', ZEUS, HERA],
      data: letter({ Subject: 'for you' }, `${SPECIAL_OFFER}\r\n`),
    });
    expect(outcome.code).toBe(250);
    for (const message of await site.dovecot.waitForMessages(ZEUS, 2)) {
      expect(message.toString('latin1')).toContain('Content preview:');
      expect(header(message)).toMatch(/^X-Spam-Flag: YES$/m);
    }
    const [plain = Buffer.alloc(0)] = await site.dovecot.waitForMessages(HERA, 1);
    expect(plain.toString('latin1')).toContain(`\r\n\r\n${SPECIAL_OFFER}\r\n`);
    expect(header(plain)).toMatch(/^Subject: for you$/m);
    expect(header(plain)).not.toMatch(/^X-Spam-Flag:/m);
    // The milter's, which is for all of them, and one for each user.
    const scans = site.spamd?.log().match(/(?:identified spam|clean message) \([^)]*\) for \S+:/g) ?? [];
    expect(new Set(scans.map((line) => / for (\S+):/.exec(line)?.[1]))).toEqual(
      new Set(['(unknown)', HERA, ZEUS]),
    );
    expect(scans).toHaveLength(3);
  });
});
