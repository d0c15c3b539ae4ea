import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { outdated } from '../../scripts/generate.ts';
import { CHECKS } from '../../src/checks/index.ts';
import { helpText } from '../../src/cli/help.ts';
import { isRecord, keyInfo, shapeOf, tablesOf } from '../../src/config/introspect.ts';
import { loadConfig } from '../../src/config/load.ts';
import { configSchema } from '../../src/config/schema.ts';

const ROOT = join(import.meta.dirname, '../..');

test('the generated files are what the program would write now', async () => {
  expect(await outdated()).toEqual([]);
});

/** Every key of the file with its path, from the schema. */
function keys(schema: Parameters<typeof shapeOf>[0] = configSchema, path = ''): [string, typeof schema][] {
  return Object.entries(shapeOf(schema) ?? {}).flatMap(([name, inner]): [string, typeof schema][] => {
    const key = path === '' ? name : `${path}.${name}`;
    const entries = tablesOf(inner);
    if (entries !== null) return keys(entries, key);
    if (isRecord(inner)) return [];
    return shapeOf(inner) === null ? [[key, inner]] : keys(inner, key);
  });
}

describe('the schema says all that the documents need', () => {
  test.each(keys())('%s has a description, and a default or an example', (_, schema) => {
    const info = keyInfo(schema);
    expect(info.description).toMatch(/^\S.{9,}[.)]$/s);
    expect(info.fallback ?? info.example).toBeDefined();
    expect(info.type).not.toBe('');
  });
});

describe('every key and every finding code is in the documents', () => {
  test.each(['examples/postern.toml', 'docs/configuration.md'])('%s', async (path) => {
    const text = await readFile(join(ROOT, path), 'utf8');
    const names = [
      ...keys().map(([key]) => key.slice(key.lastIndexOf('.') + 1)),
      ...CHECKS.flatMap((check) => [check.name, ...Object.keys(check.codes)]),
    ];
    expect(names.length).toBeGreaterThan(60);
    expect(names.filter((name) => !text.includes(path.endsWith('.md') ? `\`${name}\`` : name))).toEqual([]);
  });
});

const SECRETS = ['redis.password', 'directory.password', 'ldap.password'];
const CERTIFICATES = ['redis-ca.pem', 'dovecot-ca.pem', 'database-ca.pem', 'ldap-ca.pem'];

/** Lines of which a file can have only one, or whose default says no to another one; and what is written there instead. */
const CONTRADICTIONS: readonly (readonly [line: string, other: string])[] = [
  ['\ntls = false\n', '\ntls = true\n'],
  ['\nmaster = "mymaster"\n', '\n'],
  ['\nsentinel_password_file = "sentinel.password"\n', '\n'],
  ['\nupstream = "unix:/run/dovecot/lmtp"\n', '\nupstream = "dovecot.example.org:24"\n'],
  ['\naddress = "unix:/run/mysqld/mysqld.sock"\n', '\naddress = "localhost:3306"\n'],
  ['\nfile = "/home/user-data/mail/users.sqlite"\n', '\n'],
  ['\ntls = "none"\n', '\ntls = "starttls"\n'],
  ['"credential:directory-password"', '"directory.password"'],
  ['"credential:ldap-password"', '"ldap.password"'],
];

function example(): Promise<string> {
  return readFile(join(ROOT, 'examples/postern.toml'), 'utf8');
}

describe('examples/postern.toml', () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-example-'));
    const { privateKey } = generateKeyPairSync('ed25519');
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    await writeFile(join(folder, 'mail.private'), pem, { mode: 0o600 });
    for (const name of SECRETS) await writeFile(join(folder, name), 'x\n', { mode: 0o600 });
    await writeFile(join(folder, 'secret-words.txt'), 'nectar\n');
    for (const name of CERTIFICATES)
      await writeFile(join(folder, name), '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n');
    await writeFile(join(folder, 'webhook.header'), 'Authorization: Bearer x\n', { mode: 0o600 });
  });

  afterAll(() => rm(folder, { recursive: true }));

  test('loads as it is, and changes nothing', async () => {
    const path = join(folder, 'postern.toml');
    await writeFile(path, await example());
    const [own, none] = [await loadConfig(path), await loadConfig(null)];
    if (!own.ok || !none.ok) throw new Error('a configuration is not in order');
    const { config } = own;
    // A table without keys is a table all the same.
    expect(config.file.thresholds.outgoing).toEqual({});
    const comparable = (file: typeof config.file): string =>
      JSON.stringify({
        ...file,
        state: { ...file.state, folder: '' },
        thresholds: { ...file.thresholds, outgoing: {} },
      });
    expect(comparable(config.file)).toBe(comparable(none.config.file));
    expect(config.policy).toEqual(none.config.policy);
    expect(config.outgoingPolicy).toEqual(none.config.policy);
  });

  test('loads with every line in force', async () => {
    const path = join(folder, 'all.toml');
    let text = (await example()).replaceAll(/^#(?=[^ \n]| {2}")/gm, '');
    expect(text).not.toMatch(/^#\S/m);
    for (const [line, other] of CONTRADICTIONS) {
      expect(text).toContain(line);
      text = text.replaceAll(line, other);
    }
    expect(text).toMatch(/^\[\[override\]\]$/m);
    await writeFile(path, text);
    const result = await loadConfig(path);
    expect(result.ok ? result.notes : result.problems).toEqual([]);
    if (!result.ok) return;
    expect(result.config.signing.keys).toHaveLength(1);
    expect([...result.config.policy.overrides.keys()]).toEqual(['@example.net', 'antonio@example.org']);
  });
});

test('the commands that the page names exist', async () => {
  const page = await readFile(join(ROOT, 'docs/configuration.md'), 'utf8');
  const named = [...page.matchAll(/`postern ([a-z]+)/g)].map(([, word]) => word ?? '');
  expect(named).toContain('check');
  expect(named.filter((word) => helpText(word) === undefined)).toEqual([]);
});
