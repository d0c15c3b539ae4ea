import { dirname, resolve } from 'node:path';

import type { DirectorySource, SourceEvents } from '../adapters/directory-source.ts';
import type { SqlDatabase, SqlServer } from '../adapters/sql-source.ts';
import type { Config } from '../config/config.ts';
import { ldapSearches, sqlTemplates } from '../config/directory-sources.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Clock } from '../ports/clock.ts';
import { openDoveadm } from './open-quota.ts';

export const SOURCE_KINDS = ['sql', 'ldap', 'userdb'] as const;
export type SourceKind = (typeof SOURCE_KINDS)[number];

type EventsOf = (kind: SourceKind, where: string) => SourceEvents;

/**
 * What [directory] names besides files, in the order it is asked in. Connections are opened when they are needed: a server that is away keeps no daemon
 * from starting. Client libraries are loaded only where they are used.
 *
 * @throws {Error} when a file with a secret can't be used
 */
export async function openSources(
  config: Config,
  clock: Clock,
  events: EventsOf,
): Promise<readonly DirectorySource[]> {
  const sources = [
    await openSql(config, clock, events),
    await openLdap(config, clock, events),
    await openUserdb(config, clock, events),
  ];
  return sources.filter((source) => source !== null);
}

async function openSql(config: Config, clock: Clock, events: EventsOf): Promise<DirectorySource | null> {
  const { sql } = config.file.directory;
  const opened = await openDatabase(config, clock, events);
  if (opened === null) return null;
  const { SqlSource } = await import('../adapters/sql-source.ts');
  return new SqlSource(opened.where, sqlTemplates(sql), opened.database);
}

async function openDatabase(
  { path, file, directory }: Config,
  clock: Clock,
  events: EventsOf,
): Promise<{ readonly where: string; readonly database: SqlDatabase } | null> {
  const {
    server: kind,
    address,
    file: name,
    database = '',
    user,
    tls,
    timeout,
    max_connections,
  } = file.directory.sql;
  if (kind === 'sqlite') {
    if (name === undefined) return null;
    const full = resolve(path === null ? process.cwd() : dirname(path), name);
    const { SqliteDatabase } = await import('../adapters/sqlite-directory.ts');
    return { where: `SQLite file ${full}`, database: new SqliteDatabase(full, events('sql', full)) };
  }
  if (address === undefined) return null;
  const at = formatSocketAddress(address);
  const server: SqlServer = {
    address,
    user,
    password: directory.sql.password,
    database,
    tls: tls ? { ca: directory.sql.ca } : null,
  };
  const options = { most: max_connections, timeoutMs: timeout };
  if (kind === 'postgresql') {
    const { openPostgres } = await import('../adapters/postgres-source.ts');
    return {
      where: `PostgreSQL at ${at}`,
      database: openPostgres(server, options, clock, events('sql', at)),
    };
  }
  const { openMysql } = await import('../adapters/mysql-source.ts');
  return { where: `MariaDB at ${at}`, database: openMysql(server, options, clock, events('sql', at)) };
}

async function openLdap(
  { file, directory }: Config,
  clock: Clock,
  events: EventsOf,
): Promise<DirectorySource | null> {
  const { ldap } = file.directory;
  const { address, tls, bind_dn, timeout, max_connections } = ldap;
  if (address === undefined) return null;
  const at = formatSocketAddress(address);
  const { LdapSource } = await import('../adapters/ldap-source.ts');
  return new LdapSource(
    {
      address,
      tls,
      ca: directory.ldap.ca,
      bind: bind_dn === undefined ? null : { dn: bind_dn, password: directory.ldap.password ?? '' },
    },
    `LDAP at ${at}`,
    ldapSearches(ldap),
    { most: max_connections, timeoutMs: timeout },
    clock,
    events('ldap', at),
  );
}

async function openUserdb(config: Config, clock: Clock, events: EventsOf): Promise<DirectorySource | null> {
  if (!config.file.directory.userdb) return null;
  const doveadm = await openDoveadm(config);
  if (doveadm === null) throw new Error('directory.userdb needs dovecot.doveadm');
  const { UserdbSource } = await import('../adapters/userdb-source.ts');
  const { doveadm: address, username } = config.file.dovecot;
  const where = address === undefined ? '' : formatSocketAddress(address);
  return new UserdbSource(doveadm, username === 'local-part', clock, events('userdb', where));
}
