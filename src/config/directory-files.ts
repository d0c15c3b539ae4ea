import { isIpAddress } from '../checks/networks.ts';
import { ldapSearches, sqlTemplates, type LdapSettings, type SqlSettings } from './directory-sources.ts';
import type { NamedFiles } from './named-files.ts';

export interface DirectoryFiles {
  readonly sql: ServerFiles;
  readonly ldap: ServerFiles;
}

interface ServerFiles {
  readonly password: string | null;
  /** PEM. */
  readonly ca: string | null;
}

/** Reads the files that databases and LDAP need, and says what does not go together. */
export async function readDirectoryFiles(
  { sql, ldap }: { readonly sql: SqlSettings; readonly ldap: LdapSettings },
  named: NamedFiles,
): Promise<DirectoryFiles> {
  const say = (table: 'sql' | 'ldap', key: string, wrong: string, remedy: string): void =>
    named.say(['directory', table, key], wrong, remedy);
  if (sql.address !== undefined) {
    if (sql.server === 'sqlite')
      say('sql', 'address', 'SQLite has no address', 'expected file = "…" in place of it');
    else if (sql.database === undefined)
      say('sql', 'address', 'without a database', 'add database = "…" to [directory.sql]');
    if (sql.tls && sql.address.kind === 'unix')
      say('sql', 'tls', 'a unix socket is not encrypted', 'expected false, or "host:port" as the address');
    // mysql2 compares the certificate with a name only: in place of an address it would take one for "localhost".
    const { address, server } = sql;
    if (sql.tls && server === 'mariadb' && address.kind === 'tcp' && isIpAddress(address.host))
      say(
        'sql',
        'tls',
        'the certificate can be compared with a name only',
        'expected a host name in address',
      );
  }
  if (sql.file !== undefined && sql.server !== 'sqlite')
    say('sql', 'file', 'only SQLite is in a file', 'set server = "sqlite", or address in place of file');
  if (
    (sql.address !== undefined || sql.file !== undefined) &&
    Object.values(sqlTemplates(sql)).every((list) => list.length === 0)
  )
    say(
      'sql',
      sql.address === undefined ? 'file' : 'address',
      'nothing is asked there',
      'add layout = "…", or queries',
    );
  if (ldap.address !== undefined) {
    if (Object.values(ldapSearches(ldap)).every((list) => list.length === 0))
      say('ldap', 'address', 'nothing is searched there', 'add layout = "people", or searches');
    if (ldap.bind_dn !== undefined && ldap.password_file === undefined)
      say('ldap', 'bind_dn', 'a name without a password', 'set password_file as well');
    if (ldap.tls !== 'none' && ldap.address.kind === 'unix')
      say('ldap', 'tls', 'a unix socket is not encrypted', 'expected "none", or "host:port" as the address');
  }
  const files = async (
    table: 'sql' | 'ldap',
    { address, password_file, tls_ca_file }: SqlSettings | LdapSettings,
    encrypted: boolean,
  ): Promise<ServerFiles> => {
    if (address === undefined) return { password: null, ca: null };
    const place = ['directory', table];
    return {
      password: await named.password([...place, 'password_file'], password_file),
      ca: await named.certificates([...place, 'tls_ca_file'], tls_ca_file, encrypted),
    };
  };
  return { sql: await files('sql', sql, sql.tls), ldap: await files('ldap', ldap, ldap.tls !== 'none') };
}
