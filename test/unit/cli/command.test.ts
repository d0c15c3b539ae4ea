import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';

import { command } from '../../../src/cli/command.ts';
import { findConfig } from '../../../src/cli/config-file.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-command-'));
});

afterAll(() => rm(folder, { recursive: true }));

afterEach(() => {
  vi.restoreAllMocks();
});

interface Answer {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function postern(...args: string[]): Promise<Answer> {
  const written = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      written[stream] += String(text);
      return true;
    });
  }
  try {
    return { code: await command(args), ...written };
  } finally {
    vi.restoreAllMocks();
  }
}

async function file(name: string, content: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

describe('help and version', () => {
  test.each([[['--help']], [['-h']], [['help']]])('%j names every command', async (args) => {
    const { code, stdout, stderr } = await postern(...args);
    expect([code, stderr]).toEqual([0, '']);
    for (const name of ['run', 'check', 'wire', 'history'])
      expect(stdout).toMatch(new RegExp(`^  ${name} `, 'm'));
  });

  test.each([['run'], ['check'], ['wire'], ['history']])('%s has its own', async (name) => {
    const { code, stdout } = await postern(name, '--help');
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`^Usage: postern ${name} `));
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(120);
  });

  test('help of a command by its name', async () => {
    expect((await postern('help', 'wire')).stdout).toBe((await postern('wire', '-h')).stdout);
  });

  test('the version is that of package.json', async () => {
    const manifest = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
    const version = /"version": "([^"]+)"/.exec(manifest)?.[1];
    expect(await postern('--version')).toEqual({ code: 0, stdout: `postern ${version}\n`, stderr: '' });
  });
});

test.each([
  [
    [],
    'which command? There are run, check, wire, import, history, learn, limits, logins, quota, directory, sender, quarantine, store and keys',
    'postern --help',
  ],
  [['chekc'], 'there is no command "chekc"; did you mean "check"?', 'postern --help'],
  [['serve'], 'there is no command "serve"', 'postern --help'],
  [['--verbose'], 'unknown option --verbose', 'postern --help'],
  [['help', 'x'], 'there is no help about "x"', 'postern --help'],
  [['run', 'x'], 'no daemon is named "x"; there are policyd, milter, lmtp-filter', 'postern run --help'],
  [['check', 'x'], '"x" is not expected here', 'postern check --help'],
  [['check', '--conf', 'x'], 'unknown option --conf', 'postern check --help'],
  [['wire'], 'wire what: postfix or dovecot?', 'postern wire --help'],
  [['wire', 'exim'], 'there are no lines for "exim"; there are postfix and dovecot', 'postern wire --help'],
  [['wire', 'postfix', 'main.cf'], '"main.cf" is not expected here', 'postern wire --help'],
])('%j is wrong use: 64, and where to read more', async (args, message, see) => {
  expect(await postern(...args)).toEqual({
    code: 64,
    stdout: '',
    stderr: `postern: ${message}\nSee: ${see}\n`,
  });
});

describe('postern check', () => {
  test('says what a configuration sets up', async () => {
    const path = await file(
      'good.toml',
      [
        'site.hostname = "mx.example.org"',
        'state.folder = "/var/lib/postern"',
        'milter.listen = "unix:/run/postern/milter"',
        'policyd.deadline = "100s"',
        'dns.servers = ["192.0.2.53"]',
        'spamd.enabled = false',
        'checks.spam.enabled = false',
        '[[override]]',
        'recipients = ["@example.org", "thor@example.org"]',
        'thresholds.tag = 4',
      ].join('\n'),
    );
    const { code, stdout, stderr } = await postern('check', '--config', path);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout.split('\n')).toEqual([
      `${path}: in order`,
      '  host name     mx.example.org',
      '  policyd       127.0.0.1:10040',
      '  milter        unix:/run/postern/milter',
      '  lmtp-filter   127.0.0.1:10024, delivers to unix:/run/dovecot/lmtp',
      '  admin         127.0.0.1:8899',
      '  state         /var/lib/postern',
      '  spamd         127.0.0.1:783, not used',
      '  name servers  192.0.2.53:53',
      '  checks        spf, virus, content, dkim, arc, dmarc, settings',
      '  of policyd    access, helo, ptr, mx, spf, dnsbl, quota, limits',
      '  signing       no keys: outgoing mail is not signed',
      '  sealing       no ARC seals',
      '  overrides     for 2 domains and users',
      "note: policyd.deadline: 100 s is not less than Postfix's smtpd_policy_service_timeout (usually 100 s); raise that one too",
      '',
    ]);
  });

  test('a key that can not be used is a mistake, and the summary is printed all the same', async () => {
    await writeFile(join(folder, 'open.private'), 'no key', { mode: 0o644 });
    const path = join(folder, 'keys.toml');
    await writeFile(
      path,
      'site.hostname = "mx.example.org"\n[[signing.key]]\ndomain = "example.org"\nselector = "s"\nfile = "open.private"\n',
    );
    const { code, stdout, stderr } = await postern('check', '--config', path);
    expect(code).toBe(78);
    expect(stdout).toContain(`${path}: 1 of the signing keys can't be used\n`);
    expect(stderr).toBe(
      `${path}:5:8: signing.key[1].file: "${join(folder, 'open.private')}" is open to everybody (mode 0644); take the permissions away: chmod 600\n`,
    );
  });

  test('prints every mistake on stderr and ends with 78', async () => {
    const path = await file('bad.toml', '[log]\nlevel = "loud"\n[dsn]\n');
    expect(await postern('check', '--config', path)).toEqual({
      code: 78,
      stdout: '',
      stderr: [
        `${path}:2:9: log.level: found "loud"; expected "debug", "info", "warn" or "error"`,
        `${path}:3:2: dsn: no such key; did you mean "dns"?`,
        "postern: the configuration can't be used: 2 mistakes",
        '',
      ].join('\n'),
    });
  });

  test('a file that was named and is not there is a mistake, not a reason for defaults', async () => {
    const path = join(folder, 'nowhere.toml');
    const { code, stderr } = await postern('check', '--config', path);
    expect(code).toBe(78);
    expect(stderr).toContain(`${path}: can't be read: it does not exist`);
  });
});

describe('which file', () => {
  test('the named one, else the first of the usual ones that is there, else none', async () => {
    const first = join(folder, 'first.toml');
    const second = await file('second.toml', '');
    expect(await findConfig('named.toml', [second])).toBe('named.toml');
    expect(await findConfig(null, [first, second])).toBe(second);
    await writeFile(first, '');
    expect(await findConfig(null, [first, second])).toBe(first);
    expect(await findConfig(null, [join(folder, 'third.toml'), join(second, 'below')])).toBeNull();
  });

  test('of built-in defaults, check says that they are', async () => {
    const before = process.cwd();
    const empty = await mkdtemp(join(folder, 'empty-'));
    process.chdir(empty);
    try {
      const { code, stdout } = await postern('check');
      expect(code).toBe(0);
      // A developer's machine may have the other file.
      expect(stdout).toMatch(
        /^(?:built-in defaults \(neither .* is there\)|\/etc\/postern\/postern\.toml): in order\n/,
      );
    } finally {
      process.chdir(before);
    }
  });
});
