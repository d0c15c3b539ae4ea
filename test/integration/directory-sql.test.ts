import { chown } from 'node:fs/promises';

import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { causedBy, mailboxes, openDirectoryOf, SECRET, UNKNOWN } from '../support/directory.ts';
import { makeCertificate } from '../support/neighbours/certificate.ts';
import type { DatabaseServer, ServerCertificate } from '../support/neighbours/database.ts';
import { privateFolder, type PrivateFolder } from '../support/neighbours/folder.ts';
import { startMariadb } from '../support/neighbours/mariadb.ts';
import { startPostgres } from '../support/neighbours/postgres.ts';
import { idsOf } from '../support/neighbours/users.ts';
import { FORWARDINGS, readerFor, VIRTUAL } from '../support/seed-tables.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';

/** What an address may hold to get out of a query, or to change it. */
const ATTACKS = [
  `' OR '1'='1`,
  `' OR 1=1 -- `,
  `x' UNION SELECT password FROM users -- `,
  `'; DROP TABLE users; -- `,
  `\\' OR 1=1 #`,
  '" OR ""="',
  `zeus' -- `,
  '%',
  'z%',
  '_eus',
  `$1 OR true`,
  `zeus'/**/OR/**/'a'='a`,
  "\u00bf' OR 1=1 -- ",
  `zeus\u0000`,
  `\u02bc OR 1=1`,
];

let tls: Readonly<Record<'mariadb' | 'postgresql', PrivateFolder>>;
let maria: DatabaseServer;
let postgres: DatabaseServer;

/** The server reads its key as its own user, and nobody else may. */
async function certificateFor(folder: PrivateFolder, user: string): Promise<ServerCertificate> {
  const certificate = await makeCertificate(folder, 'localhost');
  const { uid, gid } = await idsOf(user);
  await chown(certificate.key, uid, gid);
  return certificate;
}

function targets(most: number): string {
  return `alias = ["SELECT i || '@valhalla.example' FROM generate_series(1, ${most}) i WHERE :address = 'list@olimpus.example'"]`;
}

function sql(server: 'mariadb' | 'postgresql', database: string, more: string): string {
  const { port } = server === 'mariadb' ? maria : postgres;
  return `[directory.sql]
server = "${server}"
address = "127.0.0.1:${port}"
database = "${database}"
password_file = "password"
timeout = "10s"
${more}
`;
}

describeWithNeighbours('databases', () => {
  beforeAll(async () => {
    tls = { mariadb: await privateFolder('mariadb-tls'), postgresql: await privateFolder('postgresql-tls') };
    [maria, postgres] = await Promise.all([
      startMariadb({ tls: await certificateFor(tls.mariadb, 'mysql') }),
      startPostgres({ tls: await certificateFor(tls.postgresql, 'postgres') }),
    ]);
    for (const [name, tables, readable] of [
      ['forwardings', FORWARDINGS, ['domains', 'forwardings', 'users (email)']],
      [
        'virt',
        VIRTUAL,
        ['virtual_domains', 'virtual_aliases', 'virtual_users (id, domain_id, email, quota)'],
      ],
    ] as const) {
      await maria.sql(`CREATE DATABASE ${name} CHARACTER SET utf8mb4`);
      await maria.sql(`${tables}${readerFor(name, readable)}`, name);
    }
    await postgres.sql(`CREATE ROLE postern LOGIN PASSWORD '${SECRET}'`);
  });

  afterAll(async () => {
    await Promise.all([maria[Symbol.asyncDispose](), postgres[Symbol.asyncDispose]()]);
    for (const folder of Object.values(tls)) await folder[Symbol.asyncDispose]();
  });

  test('the tables domains, forwardings and users', async () => {
    await using directory = await openDirectoryOf(sql('mariadb', 'forwardings', 'layout = "forwardings"'));
    expect(await directory.destination('Zeus@Olimpus.Example')).toEqual(mailboxes(ZEUS));
    // As written in the table.
    expect(await directory.destination(HERA)).toEqual(mailboxes(HERA));
    expect(await directory.destination('zeus+thunder@olimpus.example')).toEqual(mailboxes(ZEUS));
    expect(await directory.destination('info@olimpus.example')).toEqual(mailboxes(ZEUS, HERA));
    expect(await directory.destination('nobody@olimpus.example')).toEqual(mailboxes(ZEUS));
    expect(await directory.destination('hera@asgard.example')).toEqual(mailboxes(HERA));
    expect(await directory.destination('away@olimpus.example')).toEqual({
      kind: 'delivered',
      mailboxes: [],
      elsewhere: true,
    });
    // virtual_alias_recursion_limit
    expect(await directory.destination('round@olimpus.example')).toEqual(UNKNOWN);
    expect(await directory.destination('someone@valhalla.example')).toEqual(UNKNOWN);
    expect(await directory.isLocal('asgard.example')).toBe(true);
    expect(await directory.isLocal('valhalla.example')).toBe(false);
    expect(await directory.owns(ZEUS, 'info@olimpus.example')).toBe(true);
    expect(await directory.owns(ZEUS, HERA)).toBe(false);
  });

  test('the tables virtual_domains, virtual_users and virtual_aliases; settings from columns', async () => {
    const account =
      "account = [\"SELECT quota, '*@news.olimpus.example' AS senders, 500 AS limit_hourly, 6.5 AS tag, 'none' AS reject, 'mail ed' AS signing_keys FROM virtual_users WHERE email = :login\"]";
    await using directory = await openDirectoryOf(
      `${sql('mariadb', 'virt', `layout = "virtual"\n${account}`)}
[[account]]
names = ["@olimpus.example"]
quota = "1GiB"
senders = ["sales@olimpus.example"]
limits = { hourly = 10, daily = 99 }
[[account]]
names = ["hera@olimpus.example"]
limits = { hourly = 7 }`,
    );
    expect(await directory.destination('info@olimpus.example')).toEqual(mailboxes(ZEUS, HERA));
    expect(await directory.destination('thunder+loud@olimpus.example')).toEqual(mailboxes(ZEUS));
    expect(await directory.destination('nobody@olimpus.example')).toEqual(UNKNOWN);
    expect(await directory.account('Zeus@olimpus.example')).toEqual({
      quota: 41_943_040,
      limits: new Map([
        ['hourly', 500],
        ['daily', 99],
      ]),
      senders: ['sales@olimpus.example', '*@news.olimpus.example'],
      thresholds: { tag: 6.5, reject: null },
      signingKeys: ['mail', 'ed'],
    });
    // NULL says nothing, so the domain's holds; what stands in [[account]] for the user holds above all.
    expect(await directory.account(HERA)).toMatchObject({
      quota: 1024 ** 3,
      limits: new Map([
        ['hourly', 7],
        ['daily', 99],
      ]),
    });
    expect(await directory.account('nobody@olimpus.example')).toMatchObject({ quota: 1024 ** 3 });
  });

  test('a quota that is no size is no answer', async () => {
    const account = 'account = ["SELECT \'lots\' AS quota FROM virtual_users WHERE email = :login"]';
    await using directory = await openDirectoryOf(sql('mariadb', 'virt', `layout = "virtual"\n${account}`));
    await expect(directory.account(ZEUS)).rejects.toThrow(
      'the column quota holds something else than it should',
    );
  });

  test.each(['mariadb', 'postgresql'] as const)('addresses do not get out of queries: %s', async (server) => {
    const database = server === 'mariadb' ? 'forwardings' : 'postgres';
    if (server === 'postgresql') {
      await postgres.sql(`CREATE TABLE domains (domain text PRIMARY KEY);
        CREATE TABLE forwardings (source text PRIMARY KEY, destination text);
        CREATE TABLE users (email text PRIMARY KEY, password text);
        INSERT INTO domains VALUES ('olimpus.example');
        INSERT INTO users VALUES ('${ZEUS}', 'secret');
        GRANT SELECT ON domains, forwardings, users TO postern;`);
    }
    await using directory = await openDirectoryOf(
      sql(
        server,
        database,
        'layout = "forwardings"\nalias = ["SELECT destination FROM forwardings WHERE source = :address AND :local <> :domain"]',
      ),
    );
    expect(await directory.destination(ZEUS)).toEqual(mailboxes(ZEUS));
    for (const attack of ATTACKS) {
      expect([attack, await directory.destination(`${attack}@olimpus.example`)]).toEqual([attack, UNKNOWN]);
      expect(await directory.isLocal(attack)).toBe(false);
      expect(await directory.owns(ZEUS, `${attack}@olimpus.example`)).toBe(false);
    }
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }), async (text) => {
        fc.pre(!/^zeus(?:\+.*)?$/i.test(text.trimEnd()));
        expect(await directory.destination(`${text}'@olimpus.example`)).toEqual(UNKNOWN);
      }),
      { numRuns: 150 },
    );
    const users =
      server === 'mariadb'
        ? await maria.sql('SELECT COUNT(*) FROM users', 'forwardings')
        : await postgres.sql('SELECT COUNT(*) FROM users');
    expect(users.trim()).toBe(server === 'mariadb' ? '2' : '1');
    expect(directory.lines.filter((line) => line.includes('not there'))).toEqual([]);
  });

  test('over a unix socket', async () => {
    await using directory = await openDirectoryOf(
      `[directory.sql]
address = "unix:${maria.socketPath}"
database = "virt"
password_file = "password"
layout = "virtual"
timeout = "10s"`,
    );
    expect(await directory.destination(HERA)).toEqual(mailboxes(HERA));
    await using other = await openDirectoryOf(
      `[directory.sql]
server = "postgresql"
address = "unix:${postgres.socketPath}"
database = "postgres"
mailbox_domain = ["SELECT 1 WHERE :domain = 'olimpus.example'"]
mailbox = ["SELECT :address"]
timeout = "10s"`,
    );
    expect(await other.destination(HERA)).toEqual(mailboxes(HERA));
  });

  test.each(['mariadb', 'postgresql'] as const)('encrypted: %s', async (server) => {
    const queries = `mailbox_domain = ["SELECT 1 WHERE :domain = 'olimpus.example'"]\nmailbox = ["SELECT :address"]\ntls = true`;
    const trusted = `${queries}\ntls_ca_file = "${tls[server].join('ca.pem')}"`;
    const database = server === 'mariadb' ? 'virt' : 'postgres';
    const byName = (more: string): string => sql(server, database, more).replace('127.0.0.1', 'localhost');
    await using directory = await openDirectoryOf(byName(trusted));
    expect(await directory.destination(HERA)).toEqual(mailboxes(HERA));
    // From nobody we trust.
    await using stranger = await openDirectoryOf(byName(queries));
    await expect(stranger.destination(HERA)).rejects.toSatisfy(causedBy(/certificate/));
  });

  test('a certificate for another name', async () => {
    await using folder = await privateFolder('other-tls');
    const other = await makeCertificate(folder, 'mysql.olimpus.example');
    await chown(other.key, (await idsOf('mysql')).uid, -1);
    await using elsewhere = await startMariadb({ tls: other });
    const more = `layout = "virtual"\ntls = true\ntls_ca_file = "${other.ca}"`;
    await using wary = await openDirectoryOf(
      sql('mariadb', 'virt', more).replace(/127.0.0.1:\d+/, `localhost:${elsewhere.port}`),
    );
    await expect(wary.destination(HERA)).rejects.toSatisfy(causedBy(/altnames/));
    const numeric = `mailbox_domain = ["SELECT 1 WHERE :domain <> ''"]\ntls = true\ntls_ca_file = "${tls.postgresql.join('ca.pem')}"`;
    await using numbered = await openDirectoryOf(sql('postgresql', 'postgres', numeric));
    await expect(numbered.destination(HERA)).rejects.toSatisfy(causedBy(/altnames/));
  });

  test('a password that the server does not take is told without being shown', async () => {
    for (const server of ['mariadb', 'postgresql'] as const) {
      await using directory = await openDirectoryOf(
        sql(server, 'virt', 'layout = "virtual"'),
        'the wrong fleece',
      );
      await expect(directory.destination(HERA)).rejects.toSatisfy(causedBy(/denied|authentication failed/));
      expect(directory.lines.join('')).toContain('"state":"not there"');
      expect(directory.lines.join('') + (await directory.metrics())).not.toContain('wrong fleece');
    }
  });

  test('a query that the server does not understand is told, and costs no connection', async () => {
    await using directory = await openDirectoryOf(
      sql('mariadb', 'virt', 'mailbox_domain = ["SELECT nme FROM virtual_domains WHERE name = :domain"]'),
    );
    await expect(directory.isLocal('olimpus.example')).rejects.toSatisfy(causedBy(/^Unknown column 'nme'/));
    await using right = await openDirectoryOf(sql('mariadb', 'virt', 'layout = "virtual"'));
    expect(await right.isLocal('olimpus.example')).toBe(true);
  });

  test('more rows than Postfix takes are no answer; an alias of so many is followed', async () => {
    const mailbox = `mailbox_domain = ["SELECT 1 WHERE :domain = 'olimpus.example'"]`;
    await using full = await openDirectoryOf(sql('postgresql', 'postgres', `${mailbox}\n${targets(1000)}`));
    expect(await full.destination('list@olimpus.example')).toEqual({
      kind: 'delivered',
      mailboxes: [],
      elsewhere: true,
    });
    await using over = await openDirectoryOf(sql('postgresql', 'postgres', `${mailbox}\n${targets(1001)}`));
    await expect(over.destination('list@olimpus.example')).rejects.toMatchObject({
      cause: { message: 'more than 1000 rows for one key' },
    });
  });
});
