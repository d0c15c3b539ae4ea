import { resolve } from 'node:path';

import { isIpAddress } from '../checks/networks.ts';
import { ldapSearches, sqlTemplates, type LdapSettings, type SqlSettings } from './directory-sources.ts';
import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { readSecret, secretPath } from './secret-file.ts';

export interface DirectoryFiles {
  readonly sql: ServerFiles;
  readonly ldap: ServerFiles;
}

interface ServerFiles {
  readonly password: string | null;
  /** PEM. */
  readonly ca: string | null;
}

export interface SourceMistake {
  readonly place: readonly ['sql' | 'ldap', string];
  readonly wrong: string;
  readonly remedy: string;
}

/** Reads the files that databases and LDAP need, and says what does not go together. @param folder that the names are relative to */
export async function readDirectoryFiles(
  { sql, ldap }: { readonly sql: SqlSettings; readonly ldap: LdapSettings },
  folder: string,
): Promise<{ readonly files: DirectoryFiles; readonly mistakes: readonly SourceMistake[] }> {
  const mistakes: SourceMistake[] = [];
  const say = (table: 'sql' | 'ldap', key: string, wrong: string, remedy: string): void => {
    mistakes.push({ place: [table, key], wrong, remedy });
  };
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
    let password: string | null = null;
    if (password_file !== undefined) {
      const reading = await readSecret(secretPath(folder, password_file), 'allowed');
      if (reading.ok) password = reading.secret;
      else say(table, 'password_file', reading.wrong, 'expected a file with the password alone');
    }
    if (tls_ca_file === undefined) return { password, ca: null };
    if (!encrypted) {
      say(table, 'tls_ca_file', 'certificates for a connection without TLS', 'set tls as well');
      return { password, ca: null };
    }
    const path = resolve(folder, tls_ca_file);
    const reading = await readSmallFile(path, LARGEST_CA_FILE);
    if (!reading.ok) {
      say(
        table,
        'tls_ca_file',
        `${shown(path)} can't be used: ${reading.detail}`,
        'expected the path of a PEM file',
      );
      return { password, ca: null };
    }
    const ca = reading.octets.toString('latin1');
    if (!ca.includes('-----BEGIN CERTIFICATE-----'))
      say(table, 'tls_ca_file', `${shown(path)} holds no certificate`, 'expected PEM');
    return { password, ca };
  };
  return {
    files: { sql: await files('sql', sql, sql.tls), ldap: await files('ldap', ldap, ldap.tls !== 'none') },
    mistakes,
  };
}

const LARGEST_CA_FILE = 1024 ** 2;
