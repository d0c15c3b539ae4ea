import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { dovecotLines, sieveText } from '../../src/cli/wire-dovecot.ts';
import { sieveFiles } from '../../src/cli/wire-dovecot-sieve.ts';
import { postfixLines } from '../../src/cli/wire-postfix.ts';
import type { Config } from '../../src/config/config.ts';
import { loadConfig } from '../../src/config/load.ts';

// Real Postfix and Dovecot read the lines of `postern wire`: no complaint, and the values that were meant.

const POSTCONF = '/usr/sbin/postconf';
const DOVECONF = '/usr/bin/doveconf';
const SIEVEC = '/usr/bin/sievec';
const execute = promisify(execFile);

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-wire-lines-'));
});

afterAll(() => rm(folder, { recursive: true }));

const FORMS = {
  tcp: '[lmtp-filter]\nupstream = "127.0.0.1:24"\n',
  unix: [
    'policyd.listen = "unix:/run/postern/policyd"',
    'milter.listen = "unix:/var/spool/postfix/postern/milter"',
    'milter.deadline = "290s"',
    'lmtp-filter.listen = "unix:/run/postern/lmtp"',
    'lmtp-filter.upstream_timeout = "520s"',
  ].join('\n'),
  feedback: 'feedback.enabled = true\n[lmtp-filter]\nupstream = "127.0.0.1:24"\n',
  ipv6: 'policyd.listen = "[::1]:10040"\nlmtp-filter.listen = "[::1]:10024"\nlmtp-filter.upstream = "[::1]:24"\n',
};

async function config(name: keyof typeof FORMS): Promise<Config> {
  const path = join(folder, `${name}.toml`);
  await writeFile(path, FORMS[name]);
  const result = await loadConfig(path);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

const names = ['tcp', 'unix', 'feedback', 'ipv6'] as const satisfies readonly (keyof typeof FORMS)[];
const needs = (...programs: string[]): { title: string; missing: boolean } => {
  const absent = programs.filter((program) => !existsSync(program));
  return {
    title: absent.length === 0 ? '' : ` (skipped: not installed: ${absent.join(', ')})`,
    missing: absent.length > 0,
  };
};

/** A configuration folder that holds what a package installs, as far as postconf looks at it, and our lines. */
async function postfixFolder(name: keyof typeof FORMS): Promise<string> {
  const path = join(folder, `postfix-${name}`);
  await mkdir(path);
  const { mainCf, masterCf } = postfixLines(await config(name));
  await writeFile(join(path, 'main.cf'), `compatibility_level = 3.6\n${mainCf}`);
  // The option for the submission services is a comment in the lines; here it is in force, as the comment says.
  const option = /^#(\s+-o milter_macro_daemon_name=ORIGINATING)$/m.exec(masterCf)?.[1];
  const submission = `submission inet n - y - - smtpd\n${option}\n`;
  await writeFile(join(path, 'master.cf'), `smtp inet n - y - - smtpd\n${submission}${masterCf}`);
  return path;
}

const postfix = needs(POSTCONF);
describe.skipIf(postfix.missing)(`Postfix takes the lines${postfix.title}`, () => {
  test.each(names)('%s', async (name) => {
    const path = await postfixFolder(name);
    const changed = await execute(POSTCONF, ['-c', path, '-n']);
    // postconf names parameters that nothing uses, and services it can't read, on stderr.
    expect(changed.stderr).toBe('');
    for (const parameter of [
      'smtpd_milters',
      'non_smtpd_milters',
      'milter_protocol',
      'milter_default_action',
      'virtual_transport',
      'enable_long_queue_ids',
      'postern_destination_concurrency_failed_cohort_limit',
      'smtpd_recipient_restrictions',
    ]) {
      expect(changed.stdout).toMatch(new RegExp(`^${parameter} = \\S`, 'm'));
    }
    const services = await execute(POSTCONF, ['-c', path, '-M', 'postern/unix']);
    expect(services.stdout.trim().split(/\s+/).slice(0, 8)).toEqual([
      'postern',
      'unix',
      '-',
      '-',
      'n',
      '-',
      '-',
      'lmtp',
    ]);
    const options = await execute(POSTCONF, ['-c', path, '-P']);
    expect(options.stderr).toBe('');
    expect(options.stdout).toContain('postern/unix/lmtp_send_xforward_command = yes\n');
    expect(options.stdout).toContain('postern/unix/disable_mime_output_conversion = yes\n');
    expect(options.stdout).toContain('submission/inet/milter_macro_daemon_name = ORIGINATING\n');
  });

  test('a parameter that does not exist would be noticed', async () => {
    const path = join(folder, 'postfix-control');
    await mkdir(path);
    await writeFile(join(path, 'main.cf'), 'compatibility_level = 3.6\npostern_no_such_thing = 1\n');
    await writeFile(join(path, 'master.cf'), 'smtp inet n - y - - smtpd\n');
    expect((await execute(POSTCONF, ['-c', path, '-n'])).stderr).toContain('postern_no_such_thing');
  });
});

const dovecot = needs(DOVECONF);
describe.skipIf(dovecot.missing)(`Dovecot takes the lines${dovecot.title}`, () => {
  test.each(names)('%s', async (name) => {
    const path = join(folder, `dovecot-${name}.conf`);
    await writeFile(path, dovecotLines(await config(name)));
    const { stdout, stderr } = await execute(DOVECONF, ['-c', path, '-n']);
    expect(stderr).not.toMatch(/error|unknown/i);
    expect(stdout).toMatch(name === 'unix' ? /unix_listener lmtp \{/ : /inet_listener postern \{/);
    expect(stdout).toMatch(/protocol lmtp \{\n\s+mail_plugins = "?\s*sieve/);
    expect(stdout).toContain('sieve_before = /etc/dovecot/sieve/postern.sieve');
  });

  test('a setting that does not exist would be noticed', async () => {
    const path = join(folder, 'dovecot-control.conf');
    await writeFile(path, 'service lmtp {\n  no_such_setting = 1\n}\n');
    await expect(execute(DOVECONF, ['-c', path, '-n'])).rejects.toThrow(/no_such_setting/);
  });
});

const sieve = needs(SIEVEC);
describe.skipIf(sieve.missing)(`Pigeonhole takes the script${sieve.title}`, () => {
  test.each(['header', 'detail'] as const)('as they stand in the comment: %s', async (filing) => {
    const on = await config('feedback');
    const text = sieveText(on, filing);
    const shown = Array.from(
      text.matchAll(/^# ---- begin (\S+) ----\n((?:# {3}.*\n)+)# ---- end \1 ----$/gm),
      ([, path = '', lines = '']) => ({ name: basename(path), content: lines.replaceAll(/^# {3}/gm, '') }),
    );
    expect(shown).toEqual(sieveFiles(on, filing));
    expect(shown).toHaveLength(3);
    const dovecotConf = join(folder, 'sieve.conf');
    const plugins =
      dovecotLines(on).match(/^ {2}sieve_(?:plugins|global_extensions|pipe_socket_dir) = .*$/gm) ?? [];
    await writeFile(dovecotConf, `mail_home = /nonexistent\nssl = no\nplugin {\n${plugins.join('\n')}\n}\n`);
    for (const { name, content } of shown) {
      const path = join(folder, name);
      await writeFile(path, content);
      const compiled = path.replace(/sieve$/, 'svbin');
      await execute(SIEVEC, ['-c', dovecotConf, path, compiled]);
      expect((await readFile(compiled)).length).toBeGreaterThan(0);
    }
  });
});
