import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { Publication, Standing } from '../../../src/adapters/key-publication.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import { judged, keys } from '../../../src/cli/keys.ts';
import { parseKeys } from '../../../src/cli/keys-arguments.ts';
import { loadConfig } from '../../../src/config/load.ts';

const DOMAIN = 'olimpus.example';
const DAY_MS = 86_400_000;

let folder: string;
let written: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-keys-cli-'));
  await mkdir(join(folder, 'keys'), { mode: 0o700 });
  written = '';
  for (const stream of [process.stdout, process.stderr]) {
    vi.spyOn(stream, 'write').mockImplementation((text) => {
      written += String(text);
      return true;
    });
  }
});

afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

/** With a name server that is not there. */
async function run(args: readonly string[], toml = ''): Promise<{ code: number; text: string }> {
  const config = join(folder, 'postern.toml');
  const text = [
    'state.folder = "state"',
    'dns.servers = ["127.0.0.1:1"]',
    'dns.timeout = "100ms"',
    '[signing]',
    'folder = "keys"',
    'new_keys = ["ed25519"]',
    toml,
  ].join('\n');
  await writeFile(config, text);
  written = '';
  const code = await keys([...args, '--config', config]);
  return { code, text: written };
}

function ended({ code, text }: { code: number; text: string }, expected: number, words: RegExp): void {
  expect(code).toBe(expected);
  expect(text).toMatch(words);
}

async function names(): Promise<readonly string[]> {
  return (await readdir(join(folder, 'keys', DOMAIN))).toSorted();
}

/** Makes a key and gives it a role. */
async function keyAs(role: string, days: number, selector = 's'): Promise<string> {
  expect((await run(['generate', DOMAIN, '--selector', selector])).code).toBe(0);
  const path = join(folder, 'keys', DOMAIN, `${selector}.${role}`);
  if (role !== 'next') {
    await rename(join(folder, 'keys', DOMAIN, `${selector}.next`), path);
  }
  const then = new Date(Date.now() - days * DAY_MS);
  await utimes(path, then, then);
  return path;
}

describe('arguments', () => {
  test.for<[string, string]>([
    ['', 'which? There are list, dns, check, generate, rotate, retire'],
    ['show', 'which? There are'],
    ['list --form bind', '--form is not for list'],
    ['generate', 'generate of which domain?'],
    ['generate olimpus..example', '"olimpus..example" is no domain name'],
    ['generate ../etc', '"../etc" is no domain name'],
    ['generate a.example --selector ../x', '"../x" is no selector'],
    ['generate a.example b.example --selector x', '--selector goes with one domain'],
    ['generate a.example --algorithm dsa', '--algorithm is rsa or ed25519'],
    ['generate a.example --bits 1024', '--bits is 2048, 3072 or 4096'],
    ['generate a.example --bits 2048 --algorithm ed25519', '--bits is for RSA'],
    ['dns --form djb', '--form is one of bind, plain, tinydns, nsupdate'],
    ['rotate --now', 'rotate of which domain?'],
    ['retire a.example --now', 'retire --now which --selector?'],
    ['rotate --fast', "unknown option '--fast'"],
  ])('%s', ([line, message]) => {
    const parse = () => parseKeys(line.split(' ').filter((word) => word !== ''));
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(message);
  });

  test('are taken as they are meant', () => {
    expect(parseKeys(['generate', 'Olimpus.Example', '--algorithm', 'rsa', '--bits', '4096'])).toMatchObject({
      command: 'generate',
      domains: ['olimpus.example'],
      kind: 'rsa',
      bits: 4096,
    });
    expect(parseKeys(['rotate', 'a.example', '--now', '--dry-run', '--quiet'])).toMatchObject({
      command: 'rotate',
      now: true,
      dryRun: true,
      quiet: true,
    });
  });

  test('--help says what there is', async () => {
    expect(await keys(['--help'])).toBe(0);
    expect(written).toMatch(/^Usage: postern keys list/);
  });
});

describe('without name servers', () => {
  test('a key is made, listed and printed for DNS; there is one next key at a time', async () => {
    const made = await run(['generate', DOMAIN]);
    expect(made.code).toBe(0);
    expect(made.text).toMatch(
      /^olimpus\.example: \d{8}-ed25519: a new ed25519 key, does not sign yet; publish this record\n/,
    );
    const [file = ''] = await names();
    expect(file).toMatch(/^\d{8}-ed25519\.next$/);
    const again = await run(['generate', DOMAIN]);
    expect(again.code).toBe(1);
    expect(again.text).toMatch(/is the next ed25519 key already/);
    const listed = await run(['list', '--json']);
    const key: unknown = JSON.parse(listed.text);
    expect(key).toMatchObject({ domain: DOMAIN, role: 'next', kind: 'ed25519', wrong: null });
    const dns = await run(['dns', '--form', 'plain']);
    expect(dns.text).toMatch(
      /^name: {2}\d{8}-ed25519\._domainkey\.olimpus\.example\ntype: {2}TXT\nvalue: v=DKIM1; k=ed25519; p=\S{44}\n$/,
    );
    expect(written).not.toMatch('PRIVATE');
  });

  test('nothing begins to sign, and that is told', async () => {
    await keyAs('next', 1);
    const rotated = await run(['rotate']);
    ended(rotated, 75, /not known whether it is published/);
    expect(await names()).toEqual(['s.next']);
    expect((await run(['check'])).code).toBe(0);
    await rm(join(folder, 'keys', DOMAIN), { recursive: true });
    await keyAs('private', 1);
    expect((await run(['check'])).code).toBe(75);
  });

  test('rotate makes what is missing, says so in a dry run, and does it once', async () => {
    const dry = await run(['rotate', DOMAIN, '--dry-run']);
    expect(dry.text).toMatch(/\(not done\) a new ed25519 key is made/);
    expect(await readdir(join(folder, 'keys'))).toEqual([]);
    await run(['rotate', DOMAIN]);
    await run(['rotate', DOMAIN]);
    expect(await names()).toHaveLength(1);
  });

  test('an old key is deleted when its time is up, and not before', async () => {
    const path = await keyAs('old', 4);
    const early = await run(['retire']);
    ended(early, 0, /s: its record must stay until \d{4}-/);
    expect(await names()).toEqual(['s.old']);
    const then = new Date(Date.now() - 6 * DAY_MS);
    await utimes(path, then, then);
    expect((await run(['retire', '--dry-run'])).text).toMatch(/\(not done\) s: private key deleted/);
    expect(await names()).toEqual(['s.old']);
    const late = await run(['retire']);
    expect(late.code).toBe(2);
    expect(late.text).toMatch('this record can go: s._domainkey.olimpus.example TXT');
    expect(await names()).toEqual(['s.retired']);
    expect(await readFile(join(folder, 'keys', DOMAIN, 's.retired'), 'utf8')).toMatch(
      /^v=DKIM1; k=ed25519; p=/,
    );
    expect(await run(['retire', '--quiet'])).toEqual({ code: 0, text: '' });
  });

  test('a key that somebody has stolen is deleted at once, but not while it signs', async () => {
    await keyAs('private', 1);
    const refused = await run(['retire', DOMAIN, '--selector', 's', '--now']);
    ended(refused, 1, /s signs; "postern keys rotate/);
    expect(await names()).toEqual(['s.private']);
    await keyAs('old', 0, 't');
    expect((await run(['retire', DOMAIN, '--selector', 't', '--now'])).code).toBe(2);
    expect(await names()).toEqual(['s.private', 't.retired']);
    expect((await run(['retire', DOMAIN, '--selector', 'u', '--now'])).text).toMatch('there is no key u');
  });

  test('a domain with a key that can not be read is left as it is', async () => {
    const path = await keyAs('private', 400);
    await chmod(path, 0o644);
    for (const command of ['rotate', 'list', 'check', 'dns']) {
      ended(await run([command]), 1, /is open to everybody/);
    }
    await chmod(path, 0o600);
    await symlink(path, join(folder, 'keys', DOMAIN, 'linked.private'));
    expect((await run(['rotate'])).text).toMatch(/linked\.private is a link to another file/);
    expect(await names()).toEqual(['linked.private', 's.private']);
  });

  test('a folder that is not there, or not named', async () => {
    await rm(join(folder, 'keys'), { recursive: true });
    ended(await run(['list']), 1, /keys: it is not there/);
    const config = join(folder, 'postern.toml');
    await writeFile(config, 'state.folder = "state"\n');
    written = '';
    expect(await keys(['generate', DOMAIN, '--config', config])).toBe(1);
    expect(written).toMatch('say in the configuration where it is');
  });

  test('keys in files of their own are looked at, and left where they are', async () => {
    const path = await keyAs('private', 400);
    await rename(path, join(folder, 'own.pem'));
    const toml = '[[signing.key]]\ndomain = "olimpus.example"\nselector = "mail"\nfile = "own.pem"';
    expect((await run(['list'], toml)).text).toMatch(/mail +signs +Ed25519 +in a file of its own/);
    expect((await run(['dns'], toml)).text).toMatch(/^mail\._domainkey/);
    expect((await run(['rotate', '--dry-run'], toml)).text).toMatch(/a new ed25519 key is made/);
    await rm(join(folder, 'keys', DOMAIN), { recursive: true });
    expect((await run(['list'], toml)).text).toMatch(/mail +signs/);
    expect(await run(['rotate'], toml)).toEqual({ code: 0, text: '' });
  });
});

test.for<
  [Parameters<typeof judged>[0]['role'], number, readonly Standing['kind'][], ReturnType<typeof judged>]
>([
  ['private', 1, ['published'], 'right'],
  ['private', 1, ['published', 'missing'], 'wrong'],
  ['private', 1, ['silent'], 'unknown'],
  ['private', 1, ['silent', 'mismatch'], 'wrong'],
  ['old', 1, ['missing'], 'wrong'],
  ['old', 6, ['missing'], 'right'],
  ['next', 1, ['missing', 'silent'], 'right'],
  ['next', 1, ['published', 'malformed'], 'wrong'],
  ['retired', 1, ['published'], 'right'],
])('a key that is %s for %i days, of which servers say %j, is %s', async ([role, days, kinds, expected]) => {
  const loaded = await loadConfig(null);
  if (!loaded.ok) throw new Error('the defaults are not valid');
  const servers = kinds.map((kind) => ({ zone: 'z', server: 'n', address: null, standing: standing(kind) }));
  const all = kinds.every((kind) => kind === 'published');
  const publication: Publication = { state: all ? 'everywhere' : 'partly', servers, incomplete: false };
  expect(judged({ role, since: Date.now() - days * DAY_MS }, publication, loaded.config)).toBe(expected);
});

function standing(kind: Standing['kind']): Standing {
  return kind === 'malformed' || kind === 'silent' ? { kind, why: 'x' } : { kind };
}
