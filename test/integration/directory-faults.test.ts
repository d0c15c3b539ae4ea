import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { mailboxes, openDirectoryOf, SECRET } from '../support/directory.ts';
import type { DatabaseServer } from '../support/neighbours/database.ts';
import { startDovecot } from '../support/neighbours/dovecot.ts';
import { startMariadb } from '../support/neighbours/mariadb.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { startPostgres } from '../support/neighbours/postgres.ts';
import { SLAPD_PASSWORD, startSlapd } from '../support/neighbours/slapd.ts';
import { startGoBetween, type GoBetween } from '../support/players/go-between.ts';
import { PolicyClient } from '../support/players/policy-client.ts';
import { preparePostern, type PosternProcess } from '../support/postern.ts';
import { PEOPLE, PEOPLE_SUFFIX, readerFor, VIRTUAL } from '../support/seed-tables.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';
const PATIENCE = { timeout: 30_000, interval: 100 };

const TIMEOUT_MS = 400;
/** The check's own, which Postfix's 100 s are far above. */
const DEADLINE_MS = 1500;
/** For a busy machine. */
const SLACK_MS = 3000;

/** Octets that no protocol has at this place: lengths of everything at once. */
const GARBAGE = '\u00ff\u00ff\u00ff\u00ff'.repeat(64);

type Faulty = Pick<DatabaseServer, 'port' | 'kill' | 'restart' | 'freeze' | 'thaw'> & AsyncDisposable;

interface Backend<S extends Faulty = Faulty> extends AsyncDisposable {
  readonly server: S;
  readonly between: GoBetween;
  /** Lines of [directory…]; the password is in the file `password`. */
  readonly config: string;
  readonly password: string;
}

async function mariadb(): Promise<Backend<DatabaseServer>> {
  const server = await startMariadb();
  await server.sql('CREATE DATABASE virt CHARACTER SET utf8mb4');
  await server.sql(
    `${VIRTUAL}${readerFor('virt', ['virtual_domains', 'virtual_aliases', 'virtual_users (id, domain_id, email, quota)'])}`,
    'virt',
  );
  return behind(
    server,
    SECRET,
    (port) => `[directory.sql]
address = "127.0.0.1:${port}"
database = "virt"
layout = "virtual"
password_file = "password"
timeout = "${TIMEOUT_MS}ms"`,
  );
}

async function postgres(): Promise<Backend> {
  const server = await startPostgres();
  await server.sql(`CREATE ROLE postern LOGIN PASSWORD '${SECRET}';
    CREATE TABLE virtual_domains (id serial, name text);
    CREATE TABLE virtual_users (id serial, domain_id int, email text);
    CREATE TABLE virtual_aliases (id serial, domain_id int, source text, destination text);
    INSERT INTO virtual_domains (name) VALUES ('olimpus.example');
    INSERT INTO virtual_users (email) VALUES ('${ZEUS}'), ('${HERA}');
    GRANT SELECT ON virtual_domains, virtual_users, virtual_aliases TO postern;`);
  return behind(
    server,
    SECRET,
    (port) => `[directory.sql]
server = "postgresql"
address = "127.0.0.1:${port}"
database = "postgres"
layout = "virtual"
password_file = "password"
timeout = "${TIMEOUT_MS}ms"`,
  );
}

async function ldap(): Promise<Backend> {
  const server = await startSlapd({ suffix: PEOPLE_SUFFIX, entries: PEOPLE });
  return behind(
    server,
    SLAPD_PASSWORD,
    (port) => `[directory.ldap]
address = "127.0.0.1:${port}"
layout = "people"
bind_dn = "cn=admin,${PEOPLE_SUFFIX}"
base = "ou=people,${PEOPLE_SUFFIX}"
password_file = "password"
timeout = "${TIMEOUT_MS}ms"`,
  );
}

async function behind<S extends Faulty>(
  server: S,
  password: string,
  config: (port: number) => string,
): Promise<Backend<S>> {
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(server);
  const between = cleanup.use(await startGoBetween(server.port));
  const owned = cleanup.move();
  return {
    server,
    between,
    password,
    config: config(between.port),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const BACKENDS = { mariadb, postgres, ldap };

interface Answer {
  readonly action: string;
  readonly milliseconds: number;
}

/** Asks as an smtpd of Postfix's would, one request at a time, until it is stopped. */
class Traffic {
  readonly answers: Answer[] = [];
  readonly #client: PolicyClient;
  readonly #done: Promise<void>;
  #stopped = false;

  constructor(client: PolicyClient) {
    this.#client = client;
    this.#done = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
    await this.#client[Symbol.asyncDispose]();
  }

  async #run(): Promise<void> {
    for (let count = 0; !this.#stopped; count += 1) {
      const begun = performance.now();
      // Half of them about addresses that nobody has asked for before.
      const sender =
        count % 2 === 0 ? ZEUS : `${this.answers.length}-${process.hrtime.bigint()}@olimpus.example`;
      const action = await this.#client.ask({
        sender,
        sasl_username: ZEUS,
        client_address: '192.0.2.9',
        recipient: 'thor@valhalla.example',
        instance: `${count}`,
        policy_context: 'submission',
      });
      this.answers.push({
        action: `${sender === ZEUS ? 'own' : 'other'} ${action.split(' ')[0] ?? ''}`,
        milliseconds: performance.now() - begun,
      });
    }
  }
}

/** What is answered from now on, by so many requests of each of two connections. */
async function sample(port: number, requests: number): Promise<readonly Answer[]> {
  const streams = await Promise.all([1, 2].map(async () => new Traffic(await PolicyClient.open({ port }))));
  await expect
    .poll(() => Math.min(...streams.map(({ answers }) => answers.length)), { ...PATIENCE, timeout: 60_000 })
    .toBeGreaterThanOrEqual(requests);
  await Promise.all(streams.map((stream) => stream.stop()));
  return streams.flatMap(({ answers }) => answers);
}

function kinds(answers: readonly Answer[]): readonly string[] {
  return [...new Set(answers.map(({ action }) => action))].toSorted();
}

function slowest(answers: readonly Answer[]): number {
  return Math.max(...answers.map(({ milliseconds }) => milliseconds));
}

const POLICY = `
[checks.sender]
enabled = true
deadline = "${DEADLINE_MS}ms"
`;

const CACHE = '[directory.cache]\nttl = "1ms"\nnegative_ttl = "1ms"\nstale = "0s"';
const STALE = '[directory.cache]\nttl = "1ms"\nnegative_ttl = "1ms"\nstale = "1h"';

describeWithNeighbours('a directory that is stopped, frozen, slow, or answers nonsense', () => {
  test.each(Object.entries(BACKENDS))(
    '%s: policyd answers in time, by its rule; afterwards all is as before',
    async (_, start) => {
      await using backend = await start();
      await using postern = await preparePostern({ config: `${POLICY}${CACHE}\n${backend.config}` });
      await writeFile(join(postern.folder, 'password'), backend.password);
      await chmod(join(postern.folder, 'password'), 0o600);
      const policyd: PosternProcess = await postern.start('policyd');
      const port = postern.port.policyd;
      const well = async (): Promise<void> => {
        await expect
          .poll(async () => kinds(await sample(port, 2)), PATIENCE)
          .toEqual(['other 553', 'own DUNNO']);
      };
      const away = async (what: string): Promise<void> => {
        const answers = await sample(port, 6);
        // What the sender check can't know defers by its rule; an address that is the login's own needs no directory.
        expect([what, kinds(answers)]).toEqual([what, ['other DEFER_IF_PERMIT', 'own DUNNO']]);
        expect(slowest(answers)).toBeLessThan(DEADLINE_MS + SLACK_MS);
      };
      await well();

      backend.server.freeze();
      await away('frozen');
      backend.server.thaw();
      await well();

      for (const conduct of [
        'hang',
        'refuse',
        'close',
        { say: `${GARBAGE}\r\n` },
        { say: 'HTTP/1.1 400 Bad Request\r\n\r\n' },
        { lateMs: 3 * TIMEOUT_MS },
      ] as const) {
        await backend.between.become(conduct);
        await away(JSON.stringify(conduct).slice(0, 40));
        await backend.between.become('pass');
        await well();
      }

      await backend.server.kill();
      await away('stopped');
      await backend.server.restart();
      await well();

      const metrics = await policyd.metrics();
      expect(metrics).toMatch(/^postern_directory_lookups_total\{result="failed"\} [1-9]/m);
      expect(metrics).toMatch(/^postern_directory_up\{source="(?:sql|ldap)"\} 1$/m);
      // Each outage is told once, and the password nowhere.
      expect(policyd.log.text().match(/"state":"not there"/g)?.length).toBeLessThanOrEqual(16);
      expect(policyd.log.text() + metrics).not.toContain(backend.password);
    },
  );

  test.each(Object.entries(BACKENDS))(
    '%s: old answers stand in where they may, as long as they may',
    async (_, start) => {
      await using backend = await start();
      await using directory = await openDirectoryOf(
        `${STALE.replace('1ms', '60s')}\n${backend.config.replace(/timeout = .*/, 'timeout = "1s"')}`,
        backend.password,
      );
      expect(await directory.destination(ZEUS)).toEqual(mailboxes(ZEUS));
      await backend.server.kill();
      // Remembered.
      expect(await directory.destination(ZEUS)).toEqual(mailboxes(ZEUS));
      directory.pass(61_000);
      expect(await directory.destination(ZEUS)).toEqual(mailboxes(ZEUS));
      await expect(directory.destination(HERA)).rejects.toMatchObject({ name: 'NeighbourError' });
      expect(await directory.metrics()).toMatch(/result="stale"\} [1-9]/);
      directory.pass(3_600_000);
      await expect(directory.destination(ZEUS)).rejects.toMatchObject({ name: 'NeighbourError' });
      await backend.server.restart();
      await expect
        .poll(() => directory.destination(HERA).catch(() => null), PATIENCE)
        .toEqual(mailboxes(HERA));
    },
  );

  test('many requests about one key are one question, and more connections than allowed are not opened', async () => {
    await using backend = await mariadb();
    await using directory = await openDirectoryOf(
      backend.config.replace(/timeout = .*/, 'timeout = "20s"\nmax_connections = 3'),
    );
    const names = Array.from({ length: 120 }, (_, index) => `n${index % 40}@olimpus.example`);
    await Promise.all(names.map((name) => directory.destination(name)));
    const { server } = backend;
    const status = await server.sql("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'");
    // For each of 40 names two queries for an alias and one for the mailbox; once two for @domain and one for the domain.
    expect(status.trim().split('\t')).toEqual(['Com_stmt_execute', '123']);
    const counted = await server.sql(
      "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'postern'",
    );
    expect(Number(counted)).toBeGreaterThan(0);
    expect(Number(counted)).toBeLessThanOrEqual(3);
  });
});

describeWithNeighbours('the user database of Dovecot', () => {
  test('mailboxes and quotas through doveadm; patterns find nobody; trouble is told', async () => {
    const port = await freePort();
    await using dovecot = await startDovecot({
      users: { [ZEUS]: { password: 'x', quota: '40M' }, [HERA]: 'x' },
      extra: `service doveadm {\n  inet_listener http {\n    address = 127.0.0.1\n    port = ${port}\n  }\n}\ndoveadm_api_key = the key of the gates of hades`,
    });
    await using between = await startGoBetween(port);
    await using directory = await openDirectoryOf(
      `[dovecot]
doveadm = "127.0.0.1:${between.port}"
api_key_file = "password"
timeout = "2s"
[directory]
userdb = true
mailbox_domains = ["olimpus.example"]
[directory.cache]
ttl = "1ms"
negative_ttl = "1ms"
stale = "0s"`,
      'the key of the gates of hades',
    );
    expect(dovecot.log()).not.toContain('zeus');
    expect(await directory.destination('Zeus+x@olimpus.example')).toEqual(mailboxes(ZEUS));
    expect(await directory.account(ZEUS)).toMatchObject({ quota: 40 * 1024 ** 2 });
    expect((await directory.account(HERA)).quota).toBeUndefined();
    for (const name of ['nobody', '*', 'z*', 'zeu?', 'zeus"', '"}']) {
      expect([name, await directory.destination(`${name}@olimpus.example`)]).toEqual([
        name,
        { kind: 'unknown' },
      ]);
    }
    for (const conduct of [
      'hang',
      'refuse',
      'close',
      { say: 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}' },
    ] as const) {
      await between.become(conduct);
      directory.pass(1000);
      await expect(directory.destination(HERA)).rejects.toMatchObject({ name: 'NeighbourError' });
      await between.become('pass');
      await expect
        .poll(() => directory.destination(HERA).catch(() => null), PATIENCE)
        .toEqual(mailboxes(HERA));
    }
  });
});
