import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';

import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';

import { mailCheck } from '../../../src/checks/check.ts';
import { duration } from '../../../src/checks/options.ts';
import type { Config } from '../../../src/config/config.ts';
import type { FileKeys } from '../../../src/adapters/key-files.ts';
import type { Problem } from '../../../src/config/errors.ts';
import type { SigningKey } from '../../../src/ports/signing-keys.ts';
import { keysOf } from '../../support/signing-keys.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import { rulesFor } from '../../../src/verdict/rules.ts';
import { checkTools } from '../../support/checks.ts';
import { client, envelope } from '../../support/mail.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-load-'));
});

afterAll(() => rm(folder, { recursive: true }));

afterEach(() => {
  vi.unstubAllEnvs();
});

async function load(content: string, checks?: Parameters<typeof loadConfig>[1]) {
  const path = join(folder, 'postern.toml');
  await writeFile(path, content);
  return loadConfig(path, checks);
}

async function loaded(content: string, checks?: Parameters<typeof loadConfig>[1]): Promise<Config> {
  const result = await load(content, checks);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

async function notes(content: string): Promise<readonly string[]> {
  const result = await load(`site.hostname = "mx.example.org"\n${content}`);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.notes;
}

test('without a file, the defaults hold', async () => {
  const result = await loadConfig(null);
  if (!result.ok) throw new Error('the defaults are wrong');
  const { config } = result;
  expect(config.path).toBeNull();
  expect(config.file.site.hostname.split('.')[0]).toBe(hostname().split('.')[0]);
  expect(config.authservId).toBe(config.file.site.hostname);
  expect(config.checks.map(({ name }) => name)).toEqual([
    'spf',
    'virus',
    'content',
    'dkim',
    'arc',
    'dmarc',
    'settings',
    'lists',
    'spam',
  ]);
  expect(config.policy.site.thresholds).toEqual({ tag: 5, junk: null, reject: null, discard: null });
  expect(config.policy.site.subjectTag).toBe('[SPAM]');
  expect(config.policy.site.unavailable.get('spf')).toEqual({ action: { kind: 'defer' }, mode: 'enforce' });
  expect(config.signing).toEqual({
    headerCanonicalization: 'relaxed',
    bodyCanonicalization: 'relaxed',
    oversign: config.file.signing.oversign,
    expire: null,
    lineLimit: 998,
    identity: ['from'],
    withoutKey: 'defer',
    tableOnly: false,
    tableMatch: 'first',
    table: [],
    keys: [],
    folder: null,
    subdomains: false,
    accountKeys: false,
    enabled: false,
  });
  expect(config.sealing).toBeNull();
  expect(config.file.milter.mode).toBe(0o660);
  expect(config.file.spamd).toEqual({
    enabled: 'auto',
    address: [{ kind: 'tcp', host: '127.0.0.1', port: 783 }],
    max_connections: 5,
    timeout: 30_000,
  });
});

test('an empty file, and one with a byte order mark and CRLF line ends, are files like others', async () => {
  expect((await loaded('')).file.log.level).toBe('info');
  expect((await loaded('\uFEFF[log]\r\nlevel = "warn"\r\n')).file.log.level).toBe('warn');
});

test('the value is frozen all the way down', async () => {
  const config = await loaded('[[override]]\nrecipients = ["a@example.org"]\nthresholds.tag = 1\n');
  const open: string[] = [];
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return;
    if (value instanceof Map) {
      for (const [key, inner] of value) visit(inner, `${path}.${String(key)}`);
      return; // its type alone keeps a map from being changed
    }
    if (value instanceof Set) return;
    if (/^\.file\.checks\.[^.]+\./.test(path)) return; // what a check makes of its options is the check's own
    if (!Object.isFrozen(value)) open.push(path);
    if (/^(?:\.views\.[^.]*)?\.checks\./.test(path)) return; // its parts too
    for (const [key, inner] of Object.entries(value)) visit(inner, `${path}.${key}`);
  };
  visit(config, '');
  expect(open).toEqual([]);
});

describe('policy', () => {
  const CONFIG = `
subject_tag = "[S]"
[rules]
spf.fail = "reject"
"dmarc.fail" = { action = "score 2.5", shadow = true }
dkim = { none = "tag", fail = { action = "defer", text = "Try later" } }
[unavailable]
spam = "ignore"
[thresholds]
tag = 4
junk = 8
reject = false
[[override]]
recipients = ["thor+anything@VALHALLA.example"]
thresholds = { junk = false }
rules = { spf.fail = "tag" }
[[override]]
recipients = ["@valhalla.example", "@olimpus.example"]
subject_tag = ""
thresholds = { reject = 20 }
rules."dkim.none" = "ignore"
`;
  const rules = async (mailbox: string) => rulesFor((await loaded(CONFIG)).policy, parseMailbox(mailbox));

  test('the site has the defaults of the checks with what the file changes', async () => {
    const site = await rules('anybody@elsewhere.example');
    expect(site.findings.get('spf.fail')).toEqual({ action: { kind: 'reject' }, mode: 'enforce' });
    expect(site.findings.get('dmarc.fail')).toEqual({
      action: { kind: 'score', points: 2.5 },
      mode: 'shadow',
    });
    expect(site.findings.get('dkim.none')).toEqual({ action: { kind: 'tag' }, mode: 'enforce' });
    expect(site.findings.get('dkim.fail')).toEqual({
      action: { kind: 'defer' },
      mode: 'enforce',
      text: 'Try later',
    });
    expect(site.findings.get('spf.softfail')).toEqual({ action: { kind: 'ignore' }, mode: 'enforce' });
    expect(site.unavailable.get('spam')).toEqual({ action: { kind: 'ignore' }, mode: 'enforce' });
    expect(site.unavailable.get('spf')).toEqual({ action: { kind: 'defer' }, mode: 'enforce' });
    expect(site.thresholds).toEqual({ tag: 4, junk: 8, reject: null, discard: null });
    expect(site.subjectTag).toBe('[S]');
  });

  test('a domain has the rules of the site with its own', async () => {
    for (const mailbox of ['loki@valhalla.example', 'zeus@OLIMPUS.example']) {
      const domain = await rules(mailbox);
      expect(domain.thresholds).toEqual({ tag: 4, junk: 8, reject: 20, discard: null });
      expect(domain.findings.get('dkim.none')?.action.kind).toBe('ignore');
      expect(domain.findings.get('spf.fail')?.action.kind).toBe('reject');
      expect(domain.subjectTag).toBe('');
    }
  });

  test('a user has the rules of the domain with their own, in whatever order the file has them', async () => {
    const user = await rules('Thor+lists@valhalla.example');
    expect(user.thresholds).toEqual({ tag: 4, junk: null, reject: 20, discard: null });
    expect(user.findings.get('spf.fail')?.action.kind).toBe('tag');
    expect(user.findings.get('dkim.none')?.action.kind).toBe('ignore');
    expect(user.subjectTag).toBe('');
  });

  test('the delimiter of an address extension is the one of the site', async () => {
    const { policy } = await loaded(
      'site.recipient_delimiter = "-"\n[[override]]\nrecipients = ["a-b@x.example", "c+d@x.example"]\nsubject_tag = ""\n',
    );
    expect([...policy.overrides.keys()]).toEqual(['a@x.example', 'c+d@x.example']);
    expect(rulesFor(policy, parseMailbox('A-list@x.example')).subjectTag).toBe('');
    expect(rulesFor(policy, parseMailbox('c+x@x.example'))).toBe(policy.site);
  });
});

test('outgoing mail has bands of its own where the file says so, with the rules of the site', async () => {
  const same = await loaded('');
  expect(same.outgoingPolicy).toBe(same.policy);
  const { policy, outgoingPolicy } = await loaded(
    'thresholds.tag = 4\nthresholds.outgoing.tag = false\nthresholds.outgoing.reject = 12\n[[override]]\nrecipients = ["a@example.org"]\nthresholds.reject = 20\n',
  );
  expect(policy.site.thresholds).toEqual({ tag: 4, junk: null, reject: null, discard: null });
  expect(outgoingPolicy.site).toEqual({
    ...policy.site,
    thresholds: { tag: null, junk: null, reject: 12, discard: null },
  });
  expect(outgoingPolicy.overrides.get('a@example.org')?.thresholds).toEqual({
    tag: null,
    junk: null,
    reject: 20,
    discard: null,
  });
});

async function address(text: string): Promise<unknown> {
  return (await loaded(`[spamd]\naddress = ${text}\n`)).file.spamd.address;
}

test('a scanner has one address or several', async () => {
  const one = { kind: 'unix', path: '/run/spamd.sock' } as const;
  const other = { kind: 'tcp', host: '192.0.2.7', port: 783 } as const;
  expect(await address('"unix:/run/spamd.sock"')).toEqual([one]);
  expect(await address('["unix:/run/spamd.sock", "192.0.2.7:783"]')).toEqual([one, other]);
});

describe('checks', () => {
  const probe = mailCheck({
    name: 'probe',
    stage: 'mail',
    summary: 'Shows its options.',
    directions: ['in'],
    needs: [],
    codes: { 'probe.seen': { meaning: 'Always.', action: 'ignore' } },
    unavailable: 'ignore',
    deadline: '3s',
    options: {
      pause: duration().prefault('2s').describe('A pause.'),
      depth: z.int().default(7).describe('A depth.'),
    },
    run: ({ options, deadlineMs }) =>
      Promise.resolve([{ code: 'probe.seen', detail: JSON.stringify({ ...options, deadlineMs }) }]),
  });

  test.each([
    ['defaults', '', { pause: 2000, depth: 7, deadlineMs: 3000 }],
    [
      'options of the file',
      '[checks.probe]\npause = "150ms"\ndepth = 1\ndeadline = "1s"\n',
      { pause: 150, depth: 1, deadlineMs: 1000 },
    ],
  ])('are bound to %s', async (_, content, expected) => {
    const [bound] = (await loaded(content, [probe])).checks;
    if (bound?.stage !== 'mail') throw new Error('the check is not there');
    const { sender } = envelope();
    const [finding] = await bound.run({
      facts: { client: client(), direction: 'in', sender },
      tools: checkTools(),
      prior: new Map(),
      signal: AbortSignal.timeout(5000),
    });
    expect(JSON.parse(finding?.detail ?? '')).toEqual(expected);
    expect(bound.deadlineMs).toBe(expected.deadlineMs);
  });

  test('are left out when they are switched off', async () => {
    expect((await loaded('[checks.spf]\nenabled = false\n')).checks.map(({ name }) => name)).toEqual([
      'virus',
      'content',
      'dkim',
      'arc',
      'dmarc',
      'settings',
      'lists',
      'spam',
    ]);
  });
});

function entry(file: string): string {
  return `[[signing.key]]\ndomain = "Example.org"\nselector = "mail"\nfile = "${file}"\nsubdomains = true\n`;
}

async function write(name: string, key: string | Buffer, mode = 0o600): Promise<void> {
  await writeFile(join(folder, name), key, { mode });
}

async function faults(toml: string): Promise<readonly Problem[]> {
  const result = await load(toml);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.faults;
}

function keysIn({ files }: FileKeys): readonly SigningKey[] {
  return files.flatMap(({ state }) => (state.kind === 'usable' ? [state.key] : []));
}

describe('signing keys', () => {
  test('an RSA key as opendkim-genkey makes it (PKCS #1), from the folder of the file', async () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    await write('mail.private', privateKey.export({ type: 'pkcs1', format: 'pem' }));
    const config = await loaded(entry('mail.private'));
    expect(config.signing.keys).toEqual([
      { domain: 'example.org', selector: 'mail', subdomains: true, path: join(folder, 'mail.private') },
    ]);
    const [key] = keysIn(await keysOf(config));
    expect(key).toMatchObject({
      domain: 'example.org',
      selector: 'mail',
      subdomains: true,
      algorithm: 'rsa-sha256',
    });
    expect(key?.key.equals(privateKey)).toBe(true);
  });

  test('an Ed25519 key by its absolute path', async () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    await write('ed.private', privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const [key] = keysIn(await keysOf(await loaded(entry(join(folder, 'ed.private')))));
    expect(key?.algorithm).toBe('ed25519-sha256');
  });

  test('1024 bits work, with a note; 1023 do not', async () => {
    for (const bits of [1024, 1023]) {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: bits });
      await write(`rsa-${bits}`, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    }
    expect(await notes(entry('rsa-1024'))).toEqual([
      `signing.key[1].file: "${join(folder, 'rsa-1024')}" is an RSA key of 1024 bits; 2048 bits are better`,
    ]);
    expect(await faults(entry('rsa-1023'))).toHaveLength(1);
  });

  test("systemd's credentials may show group bits, other files may not", async () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    await write('credential', privateKey.export({ type: 'pkcs8', format: 'pem' }), 0o440);
    expect(await faults(entry('credential'))).toHaveLength(1);
    vi.stubEnv('CREDENTIALS_DIRECTORY', folder);
    expect(await faults(entry('credential'))).toEqual([]);
    vi.stubEnv('CREDENTIALS_DIRECTORY', folder.slice(0, -1));
    expect(await faults(entry('credential'))).toHaveLength(1);
  });

  test('a file of 64 KiB is read, a larger one is not', async () => {
    const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
    await write('full', String(pem).padEnd(65_536, '\n'));
    await write('over', String(pem).padEnd(65_537, '\n'));
    expect(await faults(entry('full'))).toEqual([]);
    const [fault] = await faults(entry('over'));
    expect(fault?.wrong).toContain('it has more than 65536 octets');
  });
});

test('a message size below the default of memory_per_message is no mistake', async () => {
  expect((await load('milter.max_message_size = "512KiB"\n')).ok).toBe(true);
});

test('canonicalization and expiry are taken apart', async () => {
  const { signing } = await loaded('[signing]\ncanonicalization = "simple/relaxed"\nexpire = "14d"\n');
  expect([signing.headerCanonicalization, signing.bodyCanonicalization, signing.expire]).toEqual([
    'simple',
    'relaxed',
    1_209_600,
  ]);
});

describe('the state folder', () => {
  test('starts from the folder of the file', async () => {
    expect((await loaded('state.folder = "there"\n')).file.state.folder).toBe(join(folder, 'there'));
    expect((await loaded('')).file.state.folder).toBe(join(folder, 'postern-state'));
  });

  test("is systemd's when the file says nothing", async () => {
    vi.stubEnv('STATE_DIRECTORY', '/var/lib/postern:/var/lib/other');
    expect((await loaded('')).file.state.folder).toBe('/var/lib/postern');
    expect((await loaded('state.folder = "there"\n')).file.state.folder).toBe(join(folder, 'there'));
  });
});

describe('notes', () => {
  test.each([
    [
      'a wait that Postfix does not share',
      'policyd.deadline = "100s"\nmilter.deadline = "300s"\nlmtp-filter.deadline = "480s"\n',
      [
        "policyd.deadline: 100 s is not less than Postfix's smtpd_policy_service_timeout (usually 100 s); raise that one too",
        "milter.deadline: 300 s is not less than Postfix's milter_content_timeout (usually 300 s); raise that one too",
        "lmtp-filter.deadline and upstream_timeout: 600 s is not less than Postfix's lmtp_data_done_timeout (usually 600 s); raise that one too",
      ],
    ],
    ['waits that it does share', 'policyd.deadline = "99s"\nmilter.deadline = "299s"\n', []],
    [
      'an override that changes nothing',
      '[[override]]\nrecipients = ["@example.org"]\n',
      ['override[1] changes nothing: it has neither thresholds, rules, unavailable nor subject_tag'],
    ],
    [
      'a check without one that it builds on',
      '[checks.dkim]\nenabled = false\n',
      ['checks.dmarc is on without checks.dkim, on whose findings it builds'],
    ],
  ])('%s', async (_, content, expected) => {
    expect(await notes(content)).toEqual(expected);
  });
});

test('sockets of which one takes any free port, or that differ in path or host, do not collide', async () => {
  const file = [
    '[policyd]\nlisten = "127.0.0.1:0"',
    '[milter]\nlisten = "127.0.0.1:0"',
    '[lmtp-filter]\nlisten = "unix:/run/postern/lmtp"',
    '[admin]\nlisten = "127.0.0.2:10024"',
  ].join('\n');
  expect((await load(file)).ok).toBe(true);
});

test('a file of 4 MiB is read, a larger one is not', async () => {
  const full = '#'.repeat(4 * 1024 * 1024);
  expect((await load(full)).ok).toBe(true);
  const result = await load(`${full}#`);
  expect(result.ok ? '' : result.problems[0]?.wrong).toBe("can't be read: it has more than 4194304 octets");
});

test('a long word that is no key is told of at once', async () => {
  // A nested repetition tried every way to cut the word: 40 letters would have taken hours.
  const result = await load(`[rules]\n${'spf.helo-permerror_'.repeat(200)}"\n`);
  expect(result.ok ? [] : result.problems.map(({ position }) => position?.line)).toContain(2);
});

test('whatever is done to a file, the answer is a configuration or problems with places in it', async () => {
  const example = await readFile(new URL('../../../examples/postern.toml', import.meta.url), 'utf8');
  const active = example.replaceAll(/^#(?=[^ \n])/gm, '');
  const path = join(folder, 'mutated.toml');
  const edit = fc.record({
    at: fc.nat(active.length),
    cut: fc.nat(12),
    text: fc.oneof(
      fc.constantFrom(
        '"',
        "'",
        '[',
        ']',
        '[[',
        '=',
        '{',
        '}',
        '#',
        '\n',
        '\r',
        '\0',
        '"""',
        '.',
        ',',
        '__proto__',
        '\\',
      ),
      fc.string({ unit: 'binary', maxLength: 4 }),
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 5 }), async (edits) => {
      let text = active;
      for (const { at, cut, text: put } of edits) text = text.slice(0, at) + put + text.slice(at + cut);
      await writeFile(path, text);
      const result = await loadConfig(path);
      if (result.ok) return;
      expect(result.problems.length).toBeGreaterThan(0);
      const lines = text.split('\n');
      for (const { position, wrong, remedy } of result.problems) {
        expect(`${wrong}; ${remedy}`).not.toMatch(/\p{Cc}/u);
        if (position === null) continue;
        expect(position.line).toBeLessThanOrEqual(lines.length);
        expect(position.column).toBeGreaterThan(0);
        expect(position.column).toBeLessThanOrEqual((lines[position.line - 1] ?? '').length + 2);
      }
    }),
    { numRuns: 30 },
  );
});
