import { DatabaseSync } from 'node:sqlite';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { mailboxes, openDirectoryOf, SECRET, UNKNOWN, type OpenedDirectory } from '../support/directory.ts';
import type { DatabaseServer } from '../support/neighbours/database.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { startMariadb } from '../support/neighbours/mariadb.ts';
import { startPostgres } from '../support/neighbours/postgres.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/**
 * The tables of mail software, with the columns that are asked, their types as each server has them. In each the same site: zeus with 40 MiB and hera without a
 * limit in olimpus.example, info for both of them, away at another host, a catch-all for zeus, and heaven.example with the same people.
 */

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';
const INFO = 'info@olimpus.example';
const AWAY = 'away@olimpus.example';
const MIB = 1024 ** 2;

type Server = 'mariadb' | 'postgresql' | 'sqlite';

interface Types {
  readonly flag: string;
  readonly yes: string;
}

const TYPES: Readonly<Record<Server, Types>> = {
  mariadb: { flag: 'tinyint(1)', yes: '1' },
  postgresql: { flag: 'boolean', yes: 'true' },
  sqlite: { flag: 'integer', yes: '1' },
};

function postfixadmin({ flag, yes }: Types): string {
  return `
CREATE TABLE domain (domain varchar(255) PRIMARY KEY, backupmx ${flag}, active ${flag});
CREATE TABLE alias (address varchar(255) PRIMARY KEY, goto text, domain varchar(255), active ${flag});
CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255), quota bigint, domain varchar(255), active ${flag});
CREATE TABLE alias_domain (alias_domain varchar(255) PRIMARY KEY, target_domain varchar(255), active ${flag});
INSERT INTO domain SELECT 'olimpus.example', NOT ${yes}, ${yes};
INSERT INTO domain SELECT 'heaven.example', NOT ${yes}, ${yes};
INSERT INTO domain SELECT 'backup.example', ${yes}, ${yes};
INSERT INTO mailbox VALUES ('${ZEUS}', 'x', ${40 * MIB}, 'olimpus.example', ${yes}), ('${HERA}', 'x', 0, 'olimpus.example', ${yes});
INSERT INTO alias VALUES ('${ZEUS}', '${ZEUS}', 'olimpus.example', ${yes}), ('${HERA}', '${HERA}', 'olimpus.example', ${yes}),
  ('${INFO}', '${ZEUS},${HERA}', 'olimpus.example', ${yes}), ('${AWAY}', 'someone@valhalla.example', 'olimpus.example', ${yes}),
  ('@olimpus.example', '${ZEUS}', 'olimpus.example', ${yes});
INSERT INTO alias_domain VALUES ('heaven.example', 'olimpus.example', ${yes});`;
}

function iredmail(): string {
  return `
CREATE TABLE domain (domain varchar(255) PRIMARY KEY, backupmx smallint, active smallint);
CREATE TABLE alias_domain (alias_domain varchar(255) PRIMARY KEY, target_domain varchar(255), active smallint);
CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255), quota bigint, domain varchar(255), enabledeliver smallint, active smallint);
CREATE TABLE forwardings (address varchar(255), forwarding varchar(255), domain varchar(255), active smallint);
INSERT INTO domain VALUES ('olimpus.example', 0, 1), ('backup.example', 1, 1);
INSERT INTO alias_domain VALUES ('heaven.example', 'olimpus.example', 1);
INSERT INTO mailbox VALUES ('${ZEUS}', 'x', 40, 'olimpus.example', 1, 1), ('${HERA}', 'x', 0, 'olimpus.example', 1, 1);
INSERT INTO forwardings VALUES ('${ZEUS}', '${ZEUS}', 'olimpus.example', 1), ('${HERA}', '${HERA}', 'olimpus.example', 1),
  ('${INFO}', '${ZEUS}', 'olimpus.example', 1), ('${INFO}', '${HERA}', 'olimpus.example', 1),
  ('${AWAY}', 'someone@valhalla.example', 'olimpus.example', 1), ('olimpus.example', '${ZEUS}', 'olimpus.example', 1);`;
}

function ispconfig(): string {
  return `
CREATE TABLE mail_domain (domain varchar(255) PRIMARY KEY, active char(1));
CREATE TABLE mail_user (email varchar(255) PRIMARY KEY, login varchar(255), password varchar(255), quota bigint, postfix char(1));
CREATE TABLE mail_forwarding (source varchar(255), destination text, type varchar(20), active char(1));
INSERT INTO mail_domain VALUES ('olimpus.example', 'y'), ('heaven.example', 'y'), ('backup.example', 'n');
INSERT INTO mail_user VALUES ('${ZEUS}', '${ZEUS}', 'x', ${40 * MIB}, 'y'), ('${HERA}', 'queen', 'x', 0, 'y');
INSERT INTO mail_forwarding VALUES ('${INFO}', '${ZEUS}, ${HERA}', 'forward', 'y'), ('${AWAY}', 'someone@valhalla.example', 'forward', 'y'),
  ('@olimpus.example', '${ZEUS}', 'catchall', 'y'), ('@heaven.example', '@olimpus.example', 'aliasdomain', 'y');`;
}

function modoboa({ flag, yes }: Types): string {
  return `
CREATE TABLE core_user (id integer PRIMARY KEY, username varchar(255), password varchar(255), is_active ${flag});
CREATE TABLE admin_domain (id integer PRIMARY KEY, name varchar(255), type varchar(20), enabled ${flag}, default_mailbox_quota integer);
CREATE TABLE admin_domainalias (id integer PRIMARY KEY, name varchar(255), target_id integer, enabled ${flag});
CREATE TABLE admin_mailbox (id integer PRIMARY KEY, address varchar(255), domain_id integer, quota integer, use_domain_quota ${flag}, user_id integer);
CREATE TABLE admin_alias (id integer PRIMARY KEY, address varchar(255), enabled ${flag});
CREATE TABLE admin_aliasrecipient (id integer PRIMARY KEY, address varchar(255), alias_id integer);
INSERT INTO core_user VALUES (1, '${ZEUS}', 'x', ${yes}), (2, '${HERA}', 'x', ${yes});
INSERT INTO admin_domain SELECT 1, 'olimpus.example', 'domain', ${yes}, 0;
INSERT INTO admin_domain SELECT 2, 'backup.example', 'relaydomain', ${yes}, 0;
INSERT INTO admin_domainalias VALUES (1, 'heaven.example', 1, ${yes});
INSERT INTO admin_mailbox SELECT 1, 'zeus', 1, 40, NOT ${yes}, 1;
INSERT INTO admin_mailbox SELECT 2, 'hera', 1, 99, ${yes}, 2;
INSERT INTO admin_alias VALUES (1, '${ZEUS}', ${yes}), (2, '${HERA}', ${yes}), (3, '${INFO}', ${yes}), (4, '${AWAY}', ${yes}), (5, '@olimpus.example', ${yes});
INSERT INTO admin_aliasrecipient VALUES (1, '${ZEUS}', 1), (2, '${HERA}', 2), (3, '${ZEUS}', 3), (4, '${HERA}', 3), (5, 'someone@valhalla.example', 4), (6, '${ZEUS}', 5);`;
}

function mailinabox(): string {
  return `
CREATE TABLE users (id integer PRIMARY KEY, email varchar(255) NOT NULL, password varchar(255), quota varchar(20) NOT NULL);
CREATE TABLE aliases (id integer PRIMARY KEY, source varchar(255) NOT NULL, destination text NOT NULL, permitted_senders text);
CREATE TABLE auto_aliases (id integer PRIMARY KEY, source varchar(255) NOT NULL, destination text NOT NULL, permitted_senders text);
INSERT INTO users VALUES (1, '${ZEUS}', 'x', '40M'), (2, '${HERA}', 'x', '0');
INSERT INTO aliases VALUES (1, '${INFO}', '${ZEUS},${HERA}', NULL), (2, '${AWAY}', 'someone@valhalla.example', NULL),
  (3, '@olimpus.example', '${ZEUS}', NULL), (4, '@heaven.example', '@olimpus.example', NULL);
INSERT INTO auto_aliases VALUES (1, 'abuse@olimpus.example', '${HERA}', NULL);`;
}

const LAYOUTS = { postfixadmin, iredmail, ispconfig, modoboa, mailinabox } satisfies Record<
  string,
  (types: Types) => string
>;

const CASES = Object.entries(LAYOUTS).flatMap(([layout, tables]) =>
  (['mariadb', 'postgresql'] as const).map((server) => ({ layout, server, tables: tables(TYPES[server]) })),
);

async function expectSite(directory: OpenedDirectory): Promise<void> {
  expect(await directory.destination(ZEUS)).toEqual(mailboxes(ZEUS));
  expect(await directory.destination('hera+shop@olimpus.example')).toEqual(mailboxes(HERA));
  expect(await directory.destination(INFO)).toEqual(mailboxes(ZEUS, HERA));
  expect(await directory.destination(AWAY)).toEqual({ kind: 'delivered', mailboxes: [], elsewhere: true });
  expect(await directory.destination('nobody@olimpus.example')).toEqual(mailboxes(ZEUS));
  expect(await directory.destination('hera@heaven.example')).toEqual(mailboxes(HERA));
  expect(await directory.destination('hera+shop@heaven.example')).toEqual(mailboxes(HERA));
  expect(await directory.destination('info@heaven.example')).toEqual(mailboxes(ZEUS, HERA));
  expect(await directory.destination('nobody@heaven.example')).toEqual(mailboxes(ZEUS));
  expect(await directory.destination('zeus@backup.example')).toEqual(UNKNOWN);
  expect(await directory.isLocal('olimpus.example')).toBe(true);
  expect(await directory.isLocal('heaven.example')).toBe(true);
  expect(await directory.isLocal('backup.example')).toBe(false);
  expect(await directory.isLocal('%.example')).toBe(false);
  expect(await directory.account(ZEUS)).toMatchObject({ quota: 40 * MIB });
  expect(await directory.account(HERA)).toMatchObject({ quota: null });
  expect((await directory.account('nobody@olimpus.example')).quota).toBeUndefined();
  expect(await directory.owns(HERA, 'info@heaven.example')).toBe(true);
  expect(await directory.owns(HERA, 'nobody@heaven.example')).toBe(false);
}

let servers: Readonly<Record<'mariadb' | 'postgresql', DatabaseServer>>;

describeWithNeighbours('tables of mail software', () => {
  beforeAll(async () => {
    const [mariadb, postgresql] = await Promise.all([startMariadb(), startPostgres()]);
    servers = { mariadb, postgresql };
    await mariadb.sql(
      `CREATE USER 'postern'@'%' IDENTIFIED BY '${SECRET}'; GRANT SELECT ON *.* TO 'postern'@'%'`,
    );
    await postgresql.sql(`CREATE ROLE postern LOGIN PASSWORD '${SECRET}'; GRANT pg_read_all_data TO postern`);
  });

  afterAll(async () => {
    await Promise.all([servers.mariadb[Symbol.asyncDispose](), servers.postgresql[Symbol.asyncDispose]()]);
  });

  test.each(CASES)('$layout in $server', async ({ layout, server, tables }) => {
    await servers[server].sql(`CREATE DATABASE ${layout}`);
    await servers[server].sql(tables, layout);
    await using directory = await openDirectoryOf(`[directory.sql]
server = "${server}"
address = "127.0.0.1:${servers[server].port}"
database = "${layout}"
layout = "${layout}"
password_file = "password"
timeout = "20s"`);
    await expectSite(directory);
    expect(layout === 'ispconfig' ? await directory.account('queen') : null).toEqual(
      layout === 'ispconfig' ? { quota: null, senders: [HERA], limits: new Map() } : null,
    );
  });

  test.each(Object.entries(LAYOUTS))('%s in SQLite', async (layout, tables) => {
    await using folder = await privateFolder('sqlite');
    const file = folder.join('users.sqlite');
    using database = new DatabaseSync(file);
    database.exec(tables(TYPES.sqlite));
    await using directory = await openDirectoryOf(`[directory.sql]
server = "sqlite"
file = "${file}"
layout = "${layout}"`);
    await expectSite(directory);
    // Somebody writes for long: what is not remembered can't be told, and afterwards can.
    database.exec('BEGIN EXCLUSIVE');
    await expect(directory.destination('new@valhalla.example')).rejects.toMatchObject({
      cause: { message: 'database is locked' },
    });
    database.exec('COMMIT');
    expect(await directory.destination('new@valhalla.example')).toEqual(UNKNOWN);
  });
});
