import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { importCommand } from '../../../src/cli/import.ts';
import { ImportError } from '../../../src/cli/opendkim-conf.ts';
import { importOpendkim } from '../../../src/cli/opendkim-import.ts';
import { loadConfig } from '../../../src/config/load.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-import-'));
});

afterEach(() => rm(folder, { recursive: true }));

async function put(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

interface Made {
  readonly toml: string;
  /** `FILE:LINE: text`, files by their bare names. */
  readonly reports: readonly string[];
}

async function imported(conf: string): Promise<Made> {
  const { toml, reports } = await importOpendkim(await put('opendkim.conf', conf));
  const shown = reports.map(({ place, what }) => `${place.file}:${place.line}: ${what}`);
  return { toml, reports: shown.map((line) => line.replaceAll(`${folder}/`, '')) };
}

test("Debian's usual configuration becomes one that loads", async () => {
  const { toml, reports } = await imported(`
Syslog                  yes
UMask                   007
Canonicalization        relaxed/simple   # a comment
Mode                    sv
SubDomains              yes
Domain                  example.org
Selector                2026
KeyFile                 /etc/dkimkeys/2026.private
OversignHeaders         From,Subject
Socket                  local:/run/opendkim/opendkim.sock
SignatureTTL            86400
Nameservers             192.0.2.53, 192.0.2.54
AuthservID              mx.example.org
On-BadSignature         reject
On-DNSError             t
MacroList               {daemon_name}|ORIGINATING
SenderHeaders           From
InternalHosts           127.0.0.1, 10.0.0.0/8, mail.example.org
`);
  const path = await put('postern.toml', toml);
  const result = await loadConfig(path);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  const { file, signing } = result.config;
  expect(signing).toMatchObject({
    headerCanonicalization: 'relaxed',
    bodyCanonicalization: 'simple',
    oversign: ['From', 'Subject'],
    expire: 86_400,
    tableOnly: false,
    keys: [{ domain: 'example.org', selector: '2026', subdomains: true, path: '/etc/dkimkeys/2026.private' }],
  });
  expect(file.milter).toMatchObject({
    listen: { kind: 'unix', path: '/run/opendkim/opendkim.sock' },
    mode: 0o660,
  });
  expect(file.site.authserv_id).toBe('mx.example.org');
  expect(file.dns.servers).toHaveLength(2);
  expect(file.rules['dkim.fail']).toMatchObject({ action: { kind: 'reject' } });
  expect(file.rules['dkim.temperror']).toMatchObject({ action: { kind: 'defer' } });
  expect(file.site.own_networks.has('10.1.2.3')).toBe(true);
  expect(reports).toEqual([
    'opendkim.conf:19: InternalHosts: "mail.example.org" is no address and no network; clients are known by address alone here, or by their login',
    'opendkim.conf:2: Syslog: not needed, the log is standard output',
    'opendkim.conf:18: SenderHeaders: not needed, From is what counts',
  ]);
});

test('what tables hold that has no counterpart is told, line by line', async () => {
  await put(
    'keys',
    [
      'a example.org:a:/etc/a.private',
      'a example.org:b:/etc/b.private',
      'inline example.org:c:MIIBVgIBADANBgkqhkiG9w0B',
      'many %:d:/etc/%.private',
      'odd example.org',
    ].join('\n'),
  );
  await put(
    'senders',
    [
      '*@example.org a:me@example.org',
      '*@example.net inline',
      '*@* many',
      'x*y*z a',
      '* odd',
      '*@b.example lost',
    ].join('\n'),
  );
  const { toml, reports } = await imported(
    `KeyTable ${folder}/keys\nSigningTable refile:${folder}/senders\nInternalHosts dsn:mysql://x\nStatistics /x\n`,
  );
  expect(toml).toContain(
    '[[signing.table]]\nsenders = ["*@example.org"]\nkeys = ["a._domainkey.example.org"]\n',
  );
  expect(toml.match(/\[\[signing\.table\]\]/g)).toHaveLength(1);
  expect(reports).toEqual([
    'keys:2: KeyTable: "a" is there twice, the first one counts',
    'senders:1: SigningTable: the signer "me@example.org" (i=) is left out; i= is @d then',
    'keys:3: KeyTable: the key of "inline" stands in the table itself; write it to a file that only its owner can read',
    'keys:4: KeyTable: "%" can\'t be filled in for a pattern of many domains; use signing.folder, with a folder for each domain',
    'senders:4: SigningTable: the pattern "x*y*z" has no counterpart; write an entry of [[signing.table]] for it',
    'keys:5: KeyTable: the key of "odd" stands in the table itself; write it to a file that only its owner can read',
    'senders:6: SigningTable: there is no key "lost" in the KeyTable',
    'opendkim.conf:3: InternalHosts: a data set of the kind "dsn" can\'t be read here; write it to a file',
    'opendkim.conf:4: Statistics: has no counterpart',
  ]);
});

test('MultipleSignatures: all lines that fit count, in their order', async () => {
  await put('keys', 'a example.org:a:/etc/a.private\nb example.org:b:/etc/b.private\n');
  await put('senders', '*@example.org a\n*@example.org b\n*@*.org b\n*@example.org a\n');
  const { toml, reports } = await imported(
    `MultipleSignatures yes\nKeyTable file:${folder}/keys\nSigningTable refile:${folder}/senders\n`,
  );
  expect(toml).toContain('table_match = "all"');
  const [, ...entries] = toml.split('[[signing.table]]\n').map((entry) => entry.trim());
  expect(entries).toEqual([
    'senders = ["*@example.org"]\nkeys = ["a._domainkey.example.org", "b._domainkey.example.org"]',
    'senders = ["*@*.org"]\nkeys = ["b._domainkey.example.org"]',
    'senders = ["*@example.org"]\nkeys = ["a._domainkey.example.org"]',
  ]);
  expect(reports).toEqual([
    expect.stringContaining('MultipleSignatures: the keys of all lines that fit sign'),
  ]);
});

test('Include, up to five levels; a file that is not there', async () => {
  for (let level = 1; level <= 6; level++) await put(`level-${level}`, `Include level-${level + 1}\n`);
  await put('level-3', 'Canonicalization relaxed/relaxed\n');
  expect((await imported('Include level-1\n')).toml).toContain('canonicalization = "relaxed/relaxed"');
  await put('level-3', 'Include level-4\n');
  await expect(imported('Include level-1\n')).rejects.toThrow(ImportError);
  await expect(importOpendkim(join(folder, 'nowhere'))).rejects.toThrow('it does not exist');
});

test('--out never overwrites', async () => {
  const conf = await put('opendkim.conf', 'Mode v\n');
  const out = join(folder, 'postern.toml');
  expect(await importCommand(['opendkim', conf, '--out', out])).toBe(0);
  const text = await readFile(out, 'utf8');
  expect(text).toContain('postern import opendkim');
  expect(await importCommand(['opendkim', conf, '--out', out])).toBe(1);
  expect(await readFile(out, 'utf8')).toBe(text);
  await expect(importCommand(['sendmail', conf])).rejects.toThrow('import what?');
  await expect(importCommand(['opendkim'])).rejects.toThrow('which opendkim.conf?');
});

describe('keys that are looked up elsewhere', () => {
  test.each([
    [
      'one table',
      'dsn:mysql://dkim:s3cr3t@3307+db.example/mail/table=dkim?keycol=domain_name?datacol=id',
      'dsn:mysql://dkim:s3cr3t@3307+db.example/mail/table=dkim?keycol=id?datacol=domain_name,selector,private_key',
      'SELECT selector AS selector, private_key AS private_key FROM dkim WHERE domain_name = :domain',
      'server = "mariadb"\naddress = "db.example:3307"',
    ],
    [
      'two tables',
      'dsn:pgsql://dkim:s3cr3t@db.example/mail/table=dkim_signing?keycol=author?datacol=dkim_id',
      'dsn:pgsql://dkim:s3cr3t@db.example/mail/table=dkim?keycol=id?datacol=domain_name,selector,private_key',
      'SELECT k.selector AS selector, k.private_key AS private_key FROM dkim k JOIN dkim_signing s ON s.dkim_id = k.id WHERE s.author = :domain AND k.domain_name = :domain',
      'server = "postgresql"\naddress = "db.example:5432"',
    ],
  ])('in a database: %s', async (_, senders, keys, query, server) => {
    const { toml, reports } = await imported(`KeyTable ${keys}\nSigningTable ${senders}\n`);
    expect(toml).toContain(
      `[directory.sql]\n${server}\ndatabase = "mail"\nuser = "dkim"\npassword_file = "directory.password"\nsigning_key = ["${query}"]\n`,
    );
    expect(reports).toEqual([
      expect.stringContaining('SigningTable: taken over for senders in the domains of the keys'),
      expect.stringContaining('KeyTable: all keys of a domain sign'),
      expect.stringContaining('directory.sql.password_file: write the password to this file'),
    ]);
    expect(`${toml}${reports.join('')}`).not.toContain('s3cr3t');
    // What it writes can be read, but for the password, which is not there yet.
    await put('postern.toml', toml);
    const loaded = await loadConfig(`${folder}/postern.toml`);
    expect(loaded.ok ? [] : loaded.problems.map(({ key }) => key)).toEqual(['directory.sql.password_file']);
  });

  test.each([
    'dsn:sqlite://x@h/mail/table=dkim?keycol=id?datacol=a,b,c',
    'dsn:mysql://x@other/mail/table=dkim?keycol=id?datacol=a,b,c',
    'dsn:mysql://x@h/mail/table=dkim?keycol=id?datacol=a,b',
    "dsn:mysql://x@h/mail/table=dkim?keycol=id?datacol=a,b,c' OR 1=1",
    'dsn:mysql://x@h/mail/table=dkim?keycol=id?datacol=a,b,c?filter=active=1',
  ])('that can not be taken over: %s', async (keys) => {
    const senders = 'dsn:mysql://x@h/mail/table=dkim?keycol=a?datacol=id';
    const { toml, reports } = await imported(`KeyTable ${keys}\nSigningTable ${senders}\n`);
    expect(toml).not.toContain('[directory');
    expect(reports).toEqual([expect.stringContaining('write signing_key in [directory.sql]')]);
  });

  test('in LDAP', async () => {
    const { toml, reports } = await imported(
      `SigningTable ldap://192.0.2.1/ou=dkim,dc=example?DKIMSelector?sub?(DKIMIdentity=$d)
KeyTable ldap://192.0.2.1/ou=dkim,dc=example?DKIMDomain,DKIMSelector,DKIMKey,?sub?(DKIMSelector=$d)
LDAPBindUser cn=dkim,dc=example
LDAPBindPassword s3cr3t
LDAPUseTLS yes
`,
    );
    expect(toml).toContain(
      '[directory.ldap]\naddress = "192.0.2.1:389"\ntls = "starttls"\nbase = "ou=dkim,dc=example"\nbind_dn = "cn=dkim,dc=example"\npassword_file = "ldap.password"\n',
    );
    expect(toml).toContain(
      '[[directory.ldap.signing_key]]\nfilter = "(DKIMDomain=:domain)"\nattributes = { selector = "DKIMSelector", private_key = "DKIMKey" }\nscope = "sub"\n',
    );
    expect(reports).toHaveLength(3);
    expect(`${toml}${reports.join('')}`).not.toContain('s3cr3t');
    await put('postern.toml', toml);
    const loaded = await loadConfig(`${folder}/postern.toml`);
    expect(loaded.ok ? [] : loaded.problems.map(({ key }) => key)).toEqual(['directory.ldap.password_file']);
  });
});
