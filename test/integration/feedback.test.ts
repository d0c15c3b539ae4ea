import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { startDovecot, type Dovecot } from '../support/neighbours/dovecot.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import type { ImapClient } from '../support/neighbours/imap.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { run } from '../support/neighbours/process.ts';
import { startSpamd, type Spamd, type SpamdOptions } from '../support/neighbours/spamd.ts';
import { LmtpClient } from '../support/players/lmtp-client.ts';
import { preparePostern, type Postern, type PosternProcess } from '../support/postern.ts';
import { HERA, PASSWORD, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/** For processes on a busy machine. */
const POLL = { timeout: 30_000, interval: 500 };
const PATIENCE = { timeout: 180_000 };

interface FeedbackSite extends AsyncDisposable {
  readonly spamdPort: number;
  readonly dovecot: Dovecot;
  readonly postern: Postern;
  readonly process: PosternProcess;
  /** Delivers by lmtp-filter, as Postfix would. */
  deliver(to: readonly string[], subject: string): Promise<void>;
  /** "user says" lines of the journey of that message. */
  labels(subject: string): Promise<string[]>;
  /** Where Dovecot leaves what it can't tell. */
  readonly spool: string;
  /** Names of files that wait to be learned. */
  waiting(): Promise<string[]>;
}

/** lmtp-filter with feedback, and Dovecot set up by what `postern wire dovecot --write` wrote. */
async function startFeedbackSite(filing = 'header', config: readonly string[] = []): Promise<FeedbackSite> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('feedback'));
  const sockets = folder.join('sockets');
  await mkdir(sockets);
  await chmod(sockets, 0o755);
  const spool = folder.join('spool');
  const [upstream, spamdPort] = [await freePort(), await freePort()];
  const postern = cleanup.use(
    await preparePostern({
      upstream: `127.0.0.1:${upstream}`,
      spamdPort,
      config: [
        'checks.spam.user = "recipient"',
        'feedback.enabled = true',
        `feedback.listen = "unix:${sockets}/feedback"`,
        'feedback.mode = "0666"',
        ...config.map((line) => line.replace('SPOOL', spool)),
      ].join('\n'),
    }),
  );
  const sieve = folder.join('sieve');
  await mkdir(sieve);
  await chmod(sieve, 0o755);
  const written = await postern.command('wire', 'dovecot', '--write', sieve, '--filing', filing);
  if (written.code !== 0) throw new Error(written.stderr);
  const lines = await readFile(join(sieve, '99-postern.conf'), 'utf8');
  const dovecot = cleanup.use(
    await startDovecot({
      users: { [ZEUS]: PASSWORD, [HERA]: PASSWORD },
      // The lines count from Dovecot's usual base_dir; this one's is deeper, and has another place.
      extra: lines.replace(/(sieve_(?:pipe|execute)_socket_dir = ).*/, `$1../../../../..${sockets}`),
    }),
  );
  const compiled = await run('sievec', ['-c', join(dovecot.folder, 'dovecot.conf'), sieve]);
  if (compiled.code !== 0) throw new Error(compiled.stderr);
  const process = await postern.start('lmtp-filter');
  const target = { port: postern.port['lmtp-filter'] };
  const stack = cleanup.move();
  return {
    spamdPort,
    dovecot,
    postern,
    process,
    spool,
    async deliver(to, subject) {
      await using client = await LmtpClient.open(target);
      const { delivered } = await client.send({
        from: '<odin@valhalla.example>',
        to: to.map((address) => `<${address}>`),
        content: message(subject),
        forward: { IDENT: `Q${subject}`, SOURCE: 'LOCAL' },
      });
      expect(delivered.map((reply) => reply.slice(0, 3))).toEqual(to.map(() => '250'));
    },
    async labels(subject) {
      const { stdout } = await postern.command('history', '--queue-id', `Q${subject}`);
      const found = stdout.match(/(?<=^ {2}label: ).*(?= \()/gm) ?? [];
      return [...new Set(found)].toSorted();
    },
    async waiting() {
      return await readdir(join(postern.folder, 'state', 'lessons'));
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function message(subject: string): Buffer {
  return Buffer.from(
    [
      'From: Odin <odin@valhalla.example>',
      'To: all@olimpus.example',
      `Subject: ${subject}`,
      `Message-ID: <${subject}@valhalla.example>`,
      'Date: Sat, 21 Nov 2026 10:00:00 +0000',
      '',
      `The runes of ${subject} say: mead, ravens, and the wolf that will come at the end.`,
      '',
    ].join('\r\n'),
    'latin1',
  );
}

/** Prints the numbers of messages that a Bayes database knows, as `sa-learn --dump magic` does (which takes seconds to load SpamAssassin). */
const COUNTS = String.raw`
  tie my %db, "DB_File", $ARGV[0], O_RDONLY, 0600 or die "$ARGV[0]: $!";
  print join " ", map { $db{"\015\001\007\011\003$_"} // 0 } qw(NSPAM NHAM);`;

/** What a user's Bayes database knows; null: there is none. */
async function bayes(spamd: Spamd, user: string): Promise<{ spam: number; ham: number } | null> {
  const [local = '', domain = ''] = user.split('@');
  const folder = join(spamd.folder, 'home', domain, local);
  const files = await readdir(folder).catch((): string[] => []);
  if (!files.includes('bayes_toks')) return null;
  const { stdout } = await run('perl', ['-MDB_File', '-MFcntl', '-e', COUNTS, join(folder, 'bayes_toks')]);
  const [spam, ham] = stdout.split(' ').map(Number);
  return { spam: spam ?? -1, ham: ham ?? -1 };
}

function spamdFor(site: FeedbackSite, options: SpamdOptions = {}): Promise<Spamd> {
  return startSpamd({ port: site.spamdPort, perUser: true, rules: ['body RUNES /runes/'], ...options });
}

/** As a mail program moves the one message of a subject. */
async function move(
  imap: ImapClient,
  subject: string,
  from: string,
  to: string,
  how = 'MOVE',
): Promise<void> {
  await imap.select(from);
  const [found] = await imap.command(`UID SEARCH SUBJECT ${subject}`);
  const uid = /^\* SEARCH (\d+)$/.exec(found?.text ?? '')?.[1];
  if (uid === undefined) throw new Error(`no message ${subject} in ${from}: ${found?.text ?? ''}`);
  await imap.command(`UID ${how} ${uid} "${to}"`);
}

describeWithNeighbours('feedback', () => {
  test(
    'moves teach spamd, for the user alone, and label the record; the last word stands',
    PATIENCE,
    async () => {
      await using site = await startFeedbackSite();
      await using spamd = await spamdFor(site);
      const { dovecot } = site;
      await dovecot.doveadm('mailbox', 'create', '-u', ZEUS, 'Trash', 'Friends');
      for (const subject of ['first', 'second', 'third']) await site.deliver([ZEUS, HERA], subject);
      await using imap = await dovecot.imap(ZEUS);

      await move(imap, 'first', 'INBOX', 'Junk');
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 1, ham: 0 });
      expect(await site.labels('first')).toEqual([`spam, says ${ZEUS}`]);

      await move(imap, 'second', 'INBOX', 'Junk', 'COPY');
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 2, ham: 0 });
      await move(imap, 'second', 'Junk', 'Trash');
      await move(imap, 'first', 'Junk', 'Friends');
      // Another user's word about the same message.
      await using hers = await dovecot.imap(HERA);
      await move(hers, 'first', 'INBOX', 'Junk');
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 1, ham: 1 });
      await expect.poll(() => bayes(spamd, HERA), POLL).toEqual({ spam: 1, ham: 0 });
      expect(await site.labels('first')).toEqual([`ham, says ${ZEUS}`, `spam, says ${HERA}`]);
      expect(await site.labels('second')).toEqual([`spam, says ${ZEUS}`]);
      expect(await site.labels('third')).toEqual([]);

      // What a mail program files itself.
      await imap.append('Junk', message('filed'));
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 2, ham: 1 });
      await expect.poll(() => site.waiting()).toEqual([]);
      const metrics = await site.process.metrics();
      expect(metrics).toContain('postern_feedback_labels_total{label="spam"} 4');
      expect(metrics).toContain('postern_feedback_labels_total{label="ham"} 1');
      expect(metrics).toContain('postern_feedback_lessons_total{result="learned"} 5');
      expect(metrics).toContain('postern_feedback_waiting 0');
      expect(dovecot.log()).not.toMatch(/Error: sieve/);
      expect(spamd.log()).not.toContain('X-Postern');
    },
  );

  test(
    'without spamd, and with one that refuses, the label is there and the lesson waits',
    PATIENCE,
    async () => {
      await using site = await startFeedbackSite();
      await site.deliver([ZEUS], 'fourth');
      await using imap = await site.dovecot.imap(ZEUS);
      await move(imap, 'fourth', 'INBOX', 'Junk');
      await site.process.waitForLog(/ECONNREFUSED.*could not be taught/);
      expect(await site.labels('fourth')).toEqual([`spam, says ${ZEUS}`]);
      await expect.poll(() => site.waiting()).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.lesson$/)]);
      {
        await using refusing = await spamdFor(site, { refusesTell: true });
        await refusing.waitForLog(/TELL/i);
        await expect.poll(() => site.process.metrics()).toMatch(/lessons_total\{result="failed"\} [2-9]/);
      }
      // Killed, it has forgotten nothing.
      await site.process.kill();
      const again = await site.postern.start('lmtp-filter');
      await using spamd = await spamdFor(site);
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 1, ham: 0 });
      await expect.poll(() => site.waiting()).toEqual([]);
      expect(await again.metrics()).toContain('lessons_total{result="learned"} 1');
    },
  );

  test('while Postern is down the move is made, and Dovecot says what was lost', PATIENCE, async () => {
    await using site = await startFeedbackSite();
    await site.deliver([ZEUS], 'fifth');
    await site.process.kill();
    await using imap = await site.dovecot.imap(ZEUS);
    await move(imap, 'fifth', 'INBOX', 'Junk');
    expect(await site.dovecot.mailbox(ZEUS, 'Junk')).toHaveLength(1);
    expect(site.dovecot.log()).toMatch(/failed to pipe message to program `feedback'/);
  });

  test.each(['stop', 'kill'] as const)(
    'what users say between %s and start is kept, and taught once',
    PATIENCE,
    async (end) => {
      await using site = await startFeedbackSite('header', ['feedback.spool = "SPOOL"']);
      await using spamd = await spamdFor(site);
      const { dovecot, spool, postern } = site;
      for (const subject of ['ninth', 'tenth', 'eleventh']) await site.deliver([ZEUS], subject);
      await using imap = await dovecot.imap(ZEUS);
      // It answers: nothing has to be kept.
      await move(imap, 'ninth', 'INBOX', 'Junk');
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 1, ham: 0 });
      expect(await readdir(spool)).toEqual([]);

      await site.process[end]();
      await move(imap, 'tenth', 'INBOX', 'Junk');
      await move(imap, 'eleventh', 'INBOX', 'Junk');
      // The last word about it.
      await move(imap, 'eleventh', 'Junk', 'INBOX');
      const kept = await readdir(spool);
      expect(kept).toHaveLength(3);
      for (const name of kept) {
        expect(name).toMatch(/^\w{16}\.kept$/);
        expect((await stat(join(spool, name))).mode & 0o7777).toBe(0o640);
      }
      expect(await site.labels('tenth')).toEqual([]);

      const again = await postern.start('lmtp-filter');
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 2, ham: 1 });
      await expect.poll(() => site.waiting()).toEqual([]);
      expect(await readdir(spool)).toEqual([]);
      expect(await site.labels('tenth')).toEqual([`spam, says ${ZEUS}`]);
      expect(await site.labels('eleventh')).toEqual([`ham, says ${ZEUS}`]);
      const metrics = await again.metrics();
      expect(metrics).toContain('postern_feedback_spooled_total 3');
      expect(metrics).toMatch(/postern_feedback_lessons_total\{result="learned"\} [23]\n/);

      // Nothing of it comes a second time, and the socket is used again.
      await again.stop();
      const last = await postern.start('lmtp-filter');
      await move(imap, 'ninth', 'Junk', 'INBOX');
      await expect.poll(() => bayes(spamd, ZEUS), POLL).toEqual({ spam: 1, ham: 2 });
      expect(await last.metrics()).toContain('postern_feedback_spooled_total 0');
    },
  );

  test('by hand: files, a Message-ID, and a spamd that is not there', PATIENCE, async () => {
    await using site = await startFeedbackSite();
    const { postern } = site;
    await site.deliver([ZEUS], 'sixth');
    const file = join(postern.folder, 'sixth.eml');
    await writeFile(file, message('sixth'));
    const large = join(postern.folder, 'large.eml');
    await writeFile(large, Buffer.concat([message('large'), Buffer.alloc(500 * 1024)]));
    const learn = async (...args: readonly string[]): Promise<[number | null, string]> => {
      const { code, stderr } = await postern.command('learn', ...args);
      return [code, stderr];
    };
    expect(await learn('ham', '--message-id', '<sixth@valhalla.example>')).toEqual([0, '']);
    expect(await site.labels('sixth')).toEqual(['ham, says the operator']);
    expect(await learn('ham', '--user', HERA, file)).toEqual([
      0,
      expect.stringContaining('waits to be learned'),
    ]);
    expect(await site.labels('sixth')).toEqual(['ham, says hera@olimpus.example', 'ham, says the operator']);
    expect(await learn('spam', large)).toEqual([0, expect.stringContaining('larger than feedback.max_size')]);
    expect(await learn('spam', postern.configFile)).toEqual([65, expect.stringContaining('no message')]);
    expect(await learn('spam', join(postern.folder, 'none'))).toEqual([
      65,
      expect.stringContaining('ENOENT'),
    ]);
    expect(await site.waiting()).toHaveLength(1);

    await using spamd = await spamdFor(site);
    // The last word: what waits was said before.
    expect(await learn('spam', '--user', HERA, file)).toEqual([0, '']);
    expect(await site.waiting()).toEqual([]);
    expect(await bayes(spamd, HERA)).toEqual({ spam: 1, ham: 0 });
  });

  test.each(['detail', 'folder'])('filing by %s', PATIENCE, async (filing) => {
    await using site = await startFeedbackSite(filing);
    await site.deliver([ZEUS.replace('@', '+Junk@')], 'seventh');
    await site.deliver([ZEUS], 'eighth');
    expect((await site.dovecot.mailbox(ZEUS, 'Junk')).map(subjectOf)).toEqual(['seventh']);
    expect((await site.dovecot.mailbox(ZEUS)).map(subjectOf)).toEqual(['eighth']);
    expect(site.dovecot.log()).not.toMatch(/Error: sieve/);
  });
});

function subjectOf(mail: Buffer): string | undefined {
  return /^Subject: (.*?)\r?$/m.exec(mail.toString('latin1'))?.[1];
}
