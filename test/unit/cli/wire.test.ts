import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { dovecotLines, sieveText } from '../../../src/cli/wire-dovecot.ts';
import { sieveFiles } from '../../../src/cli/wire-dovecot-sieve.ts';
import { wire } from '../../../src/cli/wire.ts';
import { postfixLines } from '../../../src/cli/wire-postfix.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-wire-'));
});

afterAll(() => rm(folder, { recursive: true }));

async function config(content: string): Promise<Config> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, content);
  const result = await loadConfig(path);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

/** Without comments and empty lines. */
function settings(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '' && !line.trimStart().startsWith('#'));
}

describe('Postfix', () => {
  test('TCP', async () => {
    const { mainCf, masterCf } = postfixLines(await config(''));
    expect(settings(mainCf)).toEqual([
      'enable_long_queue_ids = yes',
      'smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination',
      'smtpd_recipient_restrictions =',
      '    reject_unlisted_recipient,',
      '    check_policy_service { inet:127.0.0.1:10040, timeout=10s, default_action=DUNNO }',
      'smtpd_end_of_data_restrictions = check_policy_service { inet:127.0.0.1:10040, timeout=10s, default_action=DUNNO }',
      'smtpd_milters = inet:127.0.0.1:8891',
      'non_smtpd_milters = $smtpd_milters',
      'milter_protocol = 6',
      'milter_default_action = tempfail',
      'virtual_transport = postern:inet:127.0.0.1:10024',
      'postern_destination_concurrency_failed_cohort_limit = 10',
    ]);
    expect(settings(masterCf)).toEqual([
      'postern   unix  -       -       n       -       -       lmtp',
      '    -o lmtp_send_xforward_command=yes',
      '    -o disable_mime_output_conversion=yes',
    ]);
    expect(masterCf).toContain('#    -o milter_macro_daemon_name=ORIGINATING');
    expect(mainCf).toContain('message_size_limit of at most 104857600');
    expect(mainCf).not.toContain('chroot');
  });

  test('unix sockets, of which those below the queue folder are named from there', async () => {
    const { mainCf } = postfixLines(
      await config(
        [
          'policyd.listen = "unix:/run/postern/policyd"',
          'milter.listen = "unix:/var/spool/postfix/postern/milter"',
          'lmtp-filter.listen = "unix:/run/postern/lmtp"',
        ].join('\n'),
      ),
    );
    expect(mainCf).toContain('check_policy_service { unix:/run/postern/policyd, ');
    expect(mainCf).toContain('\nsmtpd_milters = unix:postern/milter\n');
    expect(mainCf).toContain('\nvirtual_transport = postern:unix:/run/postern/lmtp\n');
    expect(mainCf.match(/chrooted in \/var\/spool\/postfix/g)).toHaveLength(1);
  });

  test('IPv6, and addresses that mean all of them', async () => {
    const { mainCf } = postfixLines(
      await config(
        [
          'policyd.listen = "[2001:db8::1]:10040"',
          'milter.listen = "0.0.0.0:8891"',
          'lmtp-filter.listen = "[::]:10024"',
        ].join('\n'),
      ),
    );
    expect(mainCf).toContain('{ inet:[2001:db8::1]:10040, ');
    expect(mainCf).toContain('\nsmtpd_milters = inet:127.0.0.1:8891\n');
    expect(mainCf).toContain('\nvirtual_transport = postern:inet:[::1]:10024\n');
  });

  test('Postfix waits longer than our own deadlines, and by its defaults where these are enough', async () => {
    const long = postfixLines(
      await config(
        'policyd.deadline = "20500ms"\nmilter.deadline = "280s"\nlmtp-filter.deadline = "500s"\nlmtp-filter.upstream_timeout = "90s"\n',
      ),
    );
    expect(long.mainCf).toContain('timeout=23s');
    expect(long.mainCf).toContain('\nmilter_content_timeout = 310s\n');
    expect(long.masterCf).toContain('\n    -o lmtp_data_done_timeout=620s\n');
    const usual = postfixLines(
      await config(
        'milter.deadline = "270s"\nlmtp-filter.deadline = "450s"\nlmtp-filter.upstream_timeout = "120s"\n',
      ),
    );
    expect(usual.mainCf).not.toContain('milter_content_timeout');
    expect(usual.masterCf).not.toContain('lmtp_data_done_timeout');
  });
});

describe('Dovecot', () => {
  test("its own socket by its name, that nobody but Postern's user can write to", async () => {
    const lines = settings(dovecotLines(await config('lmtp-filter.upstream = "unix:/run/dovecot/lmtp"')));
    expect(lines.slice(0, 6)).toEqual([
      'service lmtp {',
      '  unix_listener lmtp {',
      '    mode = 0600',
      '    user = postern',
      '  }',
      '}',
    ]);
  });

  test('another socket by its path', async () => {
    const lines = dovecotLines(await config('lmtp-filter.upstream = "unix:/run/postern/dovecot"'));
    expect(lines).toContain('\n  unix_listener /run/postern/dovecot {\n');
  });

  test('TCP', async () => {
    const lines = settings(dovecotLines(await config('lmtp-filter.upstream = "[::1]:24"')));
    expect(lines.slice(0, 6)).toEqual([
      'service lmtp {',
      '  inet_listener postern {',
      '    address = ::1',
      '    port = 24',
      '  }',
      '}',
    ]);
  });
});

describe('junk and feedback', () => {
  test('off: no line of imapsieve, one script', async () => {
    const off = await config('');
    expect(settings(dovecotLines(off)).join('\n')).not.toContain('imapsieve');
    expect(sieveFiles(off, 'header').map(({ name }) => name)).toEqual(['postern.sieve']);
    expect(sieveFiles(off, 'folder')).toEqual([]);
    expect(sieveText(off, 'folder')).toBe('');
  });

  test('on: into the folder, out of it, and the socket as Dovecot finds it', async () => {
    const on = await config(
      '[feedback]\nenabled = true\nlisten = "unix:/run/postern/learn/mail"\njunk = "INBOX.Spam"\ntrash = ["Bin"]\n',
    );
    const lines = settings(dovecotLines(on, 'header', '/sieve'));
    expect(lines.slice(lines.indexOf('protocol imap {'))).toEqual([
      'protocol imap {',
      '  mail_plugins = $mail_plugins imap_sieve',
      '}',
      'plugin {',
      '  sieve_plugins = sieve_imapsieve sieve_extprograms',
      '  sieve_global_extensions = +vnd.dovecot.pipe +vnd.dovecot.environment',
      '  sieve_pipe_socket_dir = ../postern/learn',
      '  imapsieve_mailbox1_name = INBOX.Spam',
      '  imapsieve_mailbox1_causes = COPY APPEND',
      '  imapsieve_mailbox1_before = file:/sieve/postern-spam.sieve',
      '  imapsieve_mailbox2_name = *',
      '  imapsieve_mailbox2_from = INBOX.Spam',
      '  imapsieve_mailbox2_causes = COPY',
      '  imapsieve_mailbox2_before = file:/sieve/postern-ham.sieve',
      '}',
    ]);
    const [junk, spam, ham] = sieveFiles(on, 'detail').map(({ content }) => content);
    expect(junk).toContain('envelope :detail :is "to" "INBOX.Spam"');
    expect(junk).toContain('fileinto :create "INBOX.Spam";');
    expect(spam).toContain('pipe :copy "mail" ["spam"];');
    expect(ham).toContain('"imap.mailbox" ["Bin", "INBOX.Spam"]');
  });

  test('every script is shown between lines that name it', async () => {
    const text = sieveText(await config('feedback.enabled = true'), 'header');
    const names = Array.from(
      text.matchAll(/^# ---- (begin|end) (\S+) ----$/gm),
      ([, edge, path]) => `${edge} ${path}`,
    );
    expect(names).toEqual(
      ['postern', 'postern-spam', 'postern-ham'].flatMap((name) =>
        ['begin', 'end'].map((edge) => `${edge} /etc/dovecot/sieve/${name}.sieve`),
      ),
    );
    expect(settings(text)).toEqual([]);
  });

  test.each([
    ['feedback.listen = "127.0.0.1:99"'],
    ['feedback.listen = "unix:/run/postern/a b"'],
    ['feedback.junk = "Ju\\"nk"'],
    ['feedback.junk = "${HOME}"'],
    ['feedback.trash = []'],
  ])('refused: %s', async (line) => {
    await expect(config(line)).rejects.toThrow('feedback');
  });

  test.each([
    [['dovecot', '--filing', 'elsewhere'], '--filing elsewhere'],
    [['postfix', '--filing', 'header'], 'for dovecot'],
    [['postfix', '--write', '/tmp'], 'for dovecot'],
  ])('refused: wire %j', async (args, why) => {
    await expect(wire(args)).rejects.toThrow(why);
  });
});
