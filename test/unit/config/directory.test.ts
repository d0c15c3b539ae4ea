import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { ldapSearches, sqlTemplates } from '../../../src/config/directory-sources.ts';
import { formatProblem } from '../../../src/config/errors.ts';
import { loadConfig, type LoadResult } from '../../../src/config/load.ts';

const SECRET = 'open sesame';
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-directory-config-'));
  const put = (name: string, text: string, mode = 0o600): Promise<void> =>
    writeFile(join(folder, name), text, { mode });
  await put('password', `${SECRET}\n`);
  await put('open', `${SECRET}\n`, 0o644);
  await put('lines', `${SECRET}\n${SECRET}\n`);
  await put('ca.pem', '-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n', 0o644);
});

afterAll(() => rm(folder, { recursive: true }));

async function load(text: string): Promise<LoadResult> {
  const path = join(folder, 'postern.toml');
  await writeFile(path, text);
  return loadConfig(path);
}

/** What is said, without the path of the file. */
async function problems(text: string): Promise<readonly string[]> {
  const result = await load(text);
  return result.ok
    ? []
    : result.problems.map((problem) => formatProblem(problem).replaceAll(`${folder}/`, ''));
}

async function loaded(text: string): Promise<Extract<LoadResult, { ok: true }>['config']> {
  const result = await load(text);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'));
  return result.config;
}

describe('databases and LDAP in the configuration', () => {
  test('none unless there is an address, and then no file of theirs is read', async () => {
    const { file, directory } = await loaded(
      '[directory.sql]\npassword_file = "absent"\n[directory.ldap]\ntls_ca_file = "absent"\n',
    );
    expect(file.directory.sql).toMatchObject({
      server: 'mariadb',
      user: 'postern',
      timeout: 1000,
      max_connections: 8,
    });
    expect(file.directory.cache).toEqual({
      ttl: 60_000,
      negative_ttl: 30_000,
      stale: 3_600_000,
      entries: 100_000,
    });
    expect(directory).toEqual({ sql: { password: null, ca: null }, ldap: { password: null, ca: null } });
  });

  test('secrets and certificates are read; queries of ours stand in place of those of the layout', async () => {
    const { file, directory } = await loaded(`
[directory.sql]
address = "db.example.org:3306"
database = "mail"
password_file = "password"
tls = true
tls_ca_file = "ca.pem"
layout = "virtual"
account = ["SELECT quota FROM virtual_users WHERE email = :login"]
[directory.ldap]
address = "unix:/run/slapd/ldapi"
layout = "people"
base = "ou=people,dc=example,dc=org"
[[directory.ldap.alias]]
filter = "(mailAlternateAddress=:address)"
attributes = { target = "mail" }
base = "ou=lists,dc=example,dc=org"
`);
    expect(directory.sql.password).toBe(SECRET);
    expect(directory.sql.ca).toContain('BEGIN CERTIFICATE');
    const { mailbox, account } = sqlTemplates(file.directory.sql);
    expect(mailbox).toEqual([
      { parts: ['SELECT email FROM virtual_users WHERE email = ', ''], parameters: ['address'] },
    ]);
    expect(account).toEqual([
      { parts: ['SELECT quota FROM virtual_users WHERE email = ', ''], parameters: ['login'] },
    ]);
    const { alias, mailbox: people } = ldapSearches(file.directory.ldap);
    expect(alias).toMatchObject([
      { base: 'ou=lists,dc=example,dc=org', columns: [{ column: 'target', attribute: 'mail' }] },
    ]);
    expect(people).toMatchObject([{ base: 'ou=people,dc=example,dc=org', scope: 'sub' }]);
  });

  test('credentials of systemd by their names, whatever their mode', async () => {
    const config =
      '[directory.sql]\naddress = "127.0.0.1:3306"\ndatabase = "mail"\nlayout = "virtual"\npassword_file = "credential:open"\n';
    expect(await problems(config)).toEqual([
      'postern.toml:5:17: directory.sql.password_file: "/run/credentials/open" can\'t be used: it does not exist; expected a file with the password alone',
    ]);
    vi.stubEnv('CREDENTIALS_DIRECTORY', folder);
    try {
      expect((await loaded(config)).directory.sql.password).toBe(SECRET);
    } finally {
      vi.unstubAllEnvs();
    }
  });

  const SQL = '[directory.sql]\naddress = "127.0.0.1:3306"\ndatabase = "mail"\nlayout = "virtual"';

  test.each([
    [
      `${SQL}\npassword_file = "open"`,
      '5:17: directory.sql.password_file: "open" is open to everybody (mode 0644): chmod 600; expected a file with the password alone',
    ],
    [
      `${SQL}\npassword_file = "lines"`,
      '5:17: directory.sql.password_file: "lines" does not hold one line of text; expected a file with the password alone',
    ],
    [
      `${SQL}\ntls_ca_file = "ca.pem"`,
      '5:15: directory.sql.tls_ca_file: certificates for a connection without TLS; set tls as well',
    ],
    [
      `${SQL}\nalias = ["SELECT a FROM b WHERE c = ':address'"]`,
      '5:10: directory.sql.alias[1]: found "SELECT a FROM b WHERE c = \':address\'"; expected :address without quotes, in which it is text and no value',
    ],
    [
      '[directory.sql]\naddress = "127.0.0.1:3306"\ndatabase = "mail"',
      '2:11: directory.sql.address: nothing is asked there; add layout = "…", or queries',
    ],
    [
      '[directory.sql]\naddress = "127.0.0.1:3306"\nlayout = "virtual"',
      '2:11: directory.sql.address: without a database; add database = "…" to [directory.sql]',
    ],
    [
      `${SQL}\ntls = true`,
      '5:7: directory.sql.tls: the certificate can be compared with a name only; expected a host name in address',
    ],
    [
      '[directory.sql]\nserver = "sqlite"\naddress = "127.0.0.1:3306"\nlayout = "virtual"',
      '3:11: directory.sql.address: SQLite has no address; expected file = "…" in place of it',
    ],
    [
      '[directory.sql]\nfile = "x.sqlite"\nlayout = "virtual"',
      '2:8: directory.sql.file: only SQLite is in a file; set server = "sqlite", or address in place of file',
    ],
    [
      '[directory.ldap]\naddress = "127.0.0.1:389"',
      '2:11: directory.ldap.address: nothing is searched there; add layout = "people", or searches',
    ],
    [
      '[directory.ldap]\naddress = "127.0.0.1:389"\nlayout = "people"\nbind_dn = "cn=x"',
      '4:11: directory.ldap.bind_dn: a name without a password; set password_file as well',
    ],
    [
      '[directory.ldap]\naddress = "unix:/l"\nlayout = "people"\ntls = "starttls"',
      '4:7: directory.ldap.tls: a unix socket is not encrypted; expected "none", or "host:port" as the address',
    ],
    [
      '[[directory.ldap.mailbox]]\nfilter = "(mail=:adress)"',
      '2:10: directory.ldap.mailbox[1].filter: found "(mail=:adress)"; expected :address, :local, :domain or :login in place of :adress',
    ],
    [
      '[directory]\nuserdb = true',
      '2:10: directory.userdb: the user database of Dovecot is asked through doveadm; add doveadm = "…" to [dovecot]',
    ],
  ])('%s', async (text, wrong) => {
    const said = await problems(text);
    expect(said.map((line) => line.replace('postern.toml:', ''))).toEqual([wrong]);
    expect(said.join('')).not.toContain(SECRET);
  });
});
