import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { SECRET } from '../support/directory.ts';
import { startBind, txtData, type Bind } from '../support/neighbours/bind.ts';
import type { DatabaseServer } from '../support/neighbours/database.ts';
import { dkimpyVerify } from '../support/neighbours/dkimpy.ts';
import { startMariadb } from '../support/neighbours/mariadb.ts';
import { opendkimVerify } from '../support/neighbours/opendkim.ts';
import { startPostgres } from '../support/neighbours/postgres.ts';
import { startRedis } from '../support/neighbours/redis.ts';
import { SLAPD_PASSWORD, startSlapd } from '../support/neighbours/slapd.ts';
import { applyAsPostfix, MilterClient, type MilterAnswer } from '../support/players/milter-client.ts';
import { preparePostern, type Postern, type PosternProcess } from '../support/postern.ts';
import { readerFor } from '../support/seed-tables.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const PATIENCE = { timeout: 30_000, interval: 100 };
const TIMEOUT_MS = 400;
/** For a busy machine; the milter itself gives a source 3 s. */
const SOON_MS = 8000;

const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const ED = generateKeyPairSync('ed25519').privateKey;
const OTHER = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;

function pem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function base64(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'der' }).toString('base64');
}

/** The middle of a key: what must be seen nowhere. */
function marked(key: KeyObject): string {
  return base64(key).slice(-40, -8);
}

interface StoredKey {
  readonly domain: string;
  readonly selector: string;
  readonly key: string;
}

const BROKEN = `-----BEGIN PRIVATE KEY-----\n${base64(OTHER).slice(0, 64)}${marked(OTHER)}\n-----END PRIVATE KEY-----\n`;

/** Of one domain two keys, of one a broken key, of one a key that is found later only. */
const KEYS: readonly StoredKey[] = [
  { domain: 'olimpus.example', selector: 'rsa', key: pem(RSA) },
  { domain: 'olimpus.example', selector: 'ed', key: base64(ED) },
  { domain: 'asgard.example', selector: 'a', key: BROKEN },
  { domain: 'thebes.example', selector: 't', key: base64(RSA) },
];

interface Backend extends AsyncDisposable {
  readonly server: Pick<DatabaseServer, 'kill' | 'freeze' | 'thaw' | 'restart'>;
  readonly config: string;
  readonly password: string;
  /** Takes the keys of a domain away, or puts another one in their place. */
  replace(domain: string, key: StoredKey | null): Promise<void>;
}

const QUERY =
  'signing_key = ["SELECT selector, private_key FROM dkim WHERE domain = :domain ORDER BY selector DESC"]';
const TABLE = 'CREATE TABLE dkim (domain VARCHAR(255), selector VARCHAR(63), private_key TEXT)';

function insert({ domain, selector, key }: StoredKey): string {
  return `INSERT INTO dkim VALUES ('${domain}', '${selector}', '${key}');`;
}

function replaceIn(
  sql: (text: string) => Promise<string>,
): (domain: string, key: StoredKey | null) => Promise<void> {
  return async (domain, key) => {
    await sql(`DELETE FROM dkim WHERE domain = '${domain}';${key === null ? '' : insert(key)}`);
  };
}

async function mariadb(): Promise<Backend> {
  const server = await startMariadb();
  await server.sql('CREATE DATABASE mail CHARACTER SET utf8mb4');
  await server.sql(`${TABLE};${KEYS.map(insert).join('')}${readerFor('mail', ['dkim'])}`, 'mail');
  return {
    server,
    password: SECRET,
    config: `[directory.sql]\naddress = "127.0.0.1:${server.port}"\ndatabase = "mail"\npassword_file = "password"\ntimeout = "${TIMEOUT_MS}ms"\n${QUERY}`,
    replace: replaceIn((text) => server.sql(text, 'mail')),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function postgresql(): Promise<Backend> {
  const server = await startPostgres();
  await server.sql(
    `CREATE ROLE postern LOGIN PASSWORD '${SECRET}'; ${TABLE}; ${KEYS.map(insert).join('')} GRANT SELECT ON dkim TO postern;`,
  );
  return {
    server,
    password: SECRET,
    config: `[directory.sql]\nserver = "postgresql"\naddress = "127.0.0.1:${server.port}"\ndatabase = "postgres"\npassword_file = "password"\ntimeout = "${TIMEOUT_MS}ms"\n${QUERY}`,
    replace: replaceIn((text) => server.sql(text)),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

const SUFFIX = 'dc=olimpus,dc=example';

/** As OpenDKIM's opendkim.schema has them. */
const SCHEMA = [
  ...['Selector', 'Key', 'Identity', 'Domain'].map(
    (name, index) =>
      `attributetype ( 1.3.6.1.4.1.29426.2.2.1.${index + 1} NAME 'DKIM${name}' EQUALITY caseExactIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )`,
  ),
  "objectclass ( 1.3.6.1.4.1.29426.2.2.2.1 NAME 'DKIM' SUP top AUXILIARY MAY ( DKIMIdentity $ DKIMDomain ) MUST ( DKIMSelector $ DKIMKey ) )",
].join('\n');

function entry({ domain, selector, key }: StoredKey): string {
  return [
    `dn: cn=${selector}.${domain},${SUFFIX}`,
    'objectClass: organizationalRole',
    'objectClass: DKIM',
    `cn: ${selector}.${domain}`,
    `DKIMDomain: ${domain}`,
    `DKIMSelector: ${selector}`,
    `DKIMKey:: ${Buffer.from(key).toString('base64')}`,
  ].join('\n');
}

async function ldap(): Promise<Backend> {
  const base = `dn: ${SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Olimpus\ndc: olimpus`;
  const entries = `${[base, ...KEYS.map(entry)].join('\n\n')}\n`;
  const server = await startSlapd({ suffix: SUFFIX, entries, schema: SCHEMA });
  return {
    server,
    password: SLAPD_PASSWORD,
    config: `[directory.ldap]
address = "127.0.0.1:${server.port}"
bind_dn = "cn=admin,${SUFFIX}"
base = "${SUFFIX}"
password_file = "password"
timeout = "${TIMEOUT_MS}ms"
[[directory.ldap.signing_key]]
filter = "(&(objectClass=DKIM)(DKIMDomain=:domain))"
attributes = { selector = "DKIMSelector", private_key = "DKIMKey" }`,
    async replace(domain, key) {
      const client = await openLdap(server.port);
      const { searchEntries } = await client.search(SUFFIX, { filter: `(DKIMDomain=${domain})` });
      for (const { dn } of searchEntries) await client.del(dn);
      if (key !== null)
        await client.add(`cn=${key.selector}.${domain},${SUFFIX}`, {
          objectClass: ['organizationalRole', 'DKIM'],
          cn: `${key.selector}.${domain}`,
          DKIMDomain: domain,
          DKIMSelector: key.selector,
          DKIMKey: key.key,
        });
      await client.unbind();
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function openLdap(port: number) {
  const { Client } = await import('ldapts');
  const client = new Client({ url: `ldap://127.0.0.1:${port}` });
  await client.bind(`cn=admin,${SUFFIX}`, SLAPD_PASSWORD);
  return client;
}

async function redis(): Promise<Backend> {
  const server = await startRedis();
  const put = async ({ domain, selector, key }: StoredKey): Promise<void> => {
    await server.command('HSET', 'dkim:keys', `${selector}.${domain}`, key);
    const [known] = await server.command('HGET', 'dkim:selectors', domain);
    const names = known === undefined ? selector : `${known} ${selector}`;
    await server.command('HSET', 'dkim:selectors', domain, names);
  };
  const fill = async (): Promise<void> => {
    for (const key of KEYS) await put(key);
  };
  await fill();
  return {
    server: {
      ...server,
      async restart() {
        await server.restart();
        await fill();
      },
    },
    password: '',
    config: `[signing.redis]
enabled = true
address = "127.0.0.1:${server.port}"
timeout = "${TIMEOUT_MS}ms"
keys = "dkim:keys"
selectors = "dkim:selectors"`,
    async replace(domain, key) {
      await server.command('HDEL', 'dkim:selectors', domain);
      if (key !== null) await put(key);
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function record(key: KeyObject): string {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' });
  // RFC 8463 §4: the 32 raw octets, which close the SubjectPublicKeyInfo.
  return key.asymmetricKeyType === 'ed25519'
    ? `v=DKIM1; k=ed25519; p=${spki.subarray(-32).toString('base64')}`
    : `v=DKIM1; k=rsa; p=${spki.toString('base64')}`;
}

interface Rig extends AsyncDisposable {
  readonly backend: Backend;
  readonly bind: Bind;
  readonly postern: Postern;
  readonly milter: PosternProcess;
}

async function startRig(open: () => Promise<Backend>): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const backend = cleanup.use(await open());
  const zone = [
    `rsa._domainkey TXT ${txtData(record(RSA))}`,
    `ed._domainkey TXT ${txtData(record(ED))}`,
    `t._domainkey TXT ${txtData(record(OTHER))}`,
  ].join('\n');
  const bind = cleanup.use(await startBind({ zones: { 'olimpus.example': zone, 'thebes.example': zone } }));
  const postern = cleanup.use(
    await preparePostern({
      dnsPort: bind.port,
      config: `site.own_networks = ["192.0.2.0/24"]
clamd.enabled = false
signing.unpublished = "sign"
directory.cache = { ttl = "1s", negative_ttl = "1s", stale = "1h" }
${backend.config}`,
    }),
  );
  await writeFile(join(postern.folder, 'password'), backend.password);
  await chmod(join(postern.folder, 'password'), 0o600);
  const milter = await postern.start('milter');
  const stack = cleanup.move();
  return { backend, bind, postern, milter, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

interface Sent extends MilterAnswer {
  /** As Postfix would send it. */
  readonly message: string;
  /** Selectors of its signatures, the topmost first. */
  readonly signed: readonly string[];
  readonly milliseconds: number;
}

async function send({ postern }: Rig, domain: string): Promise<Sent> {
  await using client = await MilterClient.open({ port: postern.port.milter });
  const headers = [
    ['From', ` Zeus <zeus@${domain}>`],
    ['To', ' hera@elsewhere.test'],
    ['Subject', ' thunder'],
    ['Date', ' Sat, 21 Nov 2026 09:00:00 +0000'],
    ['Message-ID', ' <1@olimpus.example>'],
  ] as const;
  const mail = {
    address: '192.0.2.7',
    port: 40_000,
    host: 'client.example',
    helo: 'client.example',
    queueId: '4gX1Yz0abcz1',
    from: `<zeus@${domain}>`,
    to: ['<hera@elsewhere.test>'],
    headers,
    body: Buffer.from('Hello\r\n'),
  };
  await client.begin(mail);
  const begun = performance.now();
  const answer = await client.message(mail);
  const milliseconds = performance.now() - begun;
  const fields = applyAsPostfix(headers, answer.edits, true);
  const signed = fields
    .filter(([name]) => name === 'DKIM-Signature')
    .map(([, value]) => /\ss=([^;]+)/.exec(value)?.[1] ?? '');
  const message = `${fields.map(([name, value]) => `${name}:${value}\r\n`).join('')}\r\nHello\r\n`;
  return { ...answer, message, signed, milliseconds };
}

/** OpenDKIM of Debian knows no Ed25519: it is shown the other signature alone. */
function withoutEd(message: string): string {
  const fields = message.match(/^DKIM-Signature:(?:[^\r]|\r(?!\n)|\r\n(?=[ \t]))*\r\n/gm) ?? [];
  return message.replace(fields.find((field) => /\ss=ed;/.test(field)) ?? '', '');
}

/** Neither signed nor accepted without a signature. */
function expectDeferred(sent: Sent): void {
  expect(sent.signed).toEqual([]);
  expect(sent.verdict === 't' || sent.text.startsWith('4')).toBe(true);
  expect(sent.milliseconds).toBeLessThan(SOON_MS);
}

async function expectSilence({ postern, milter }: Rig): Promise<void> {
  const { stdout, stderr } = await postern.command('check');
  const said = `${milter.log.text()}${await milter.metrics()}${stdout}${stderr}`;
  for (const key of [RSA, ED, OTHER]) expect(said).not.toContain(marked(key));
  expect(said).not.toContain('BEGIN PRIVATE');
}

describeWithNeighbours('signing keys in a source', () => {
  test.for([
    ['MariaDB', mariadb],
    ['PostgreSQL', postgresql],
    ['LDAP', ldap],
    ['Redis', redis],
  ] as const)('%s', { timeout: 240_000 }, async ([, open]) => {
    await using rig = await startRig(open);
    const { backend, bind, milter } = rig;

    const first = await send(rig, 'olimpus.example');
    expect(first.signed.toSorted()).toEqual(['ed', 'rsa']);
    expect(await opendkimVerify(withoutEd(first.message), bind)).toEqual({ pass: true, text: '' });
    expect(await dkimpyVerify(Buffer.from(first.message), 0, bind)).toBe('signature ok');
    expect(await dkimpyVerify(Buffer.from(first.message), 1, bind)).toBe('signature ok');

    // A broken key stops the mail of its own domain, and is told of once.
    expectDeferred(await send(rig, 'asgard.example'));
    expectDeferred(await send(rig, 'asgard.example'));
    expect(milter.log.text().match(/a signing key can not be used/g)).toHaveLength(1);
    // A domain without keys is none of ours.
    const nobody = await send(rig, 'nobody.example');
    expect([nobody.verdict, nobody.signed]).toEqual(['c', []]);

    // Frozen: what is known is used on, however old; what is not is deferred, and not sent without.
    backend.server.freeze();
    try {
      await expect
        .poll(async () => /result="stale"} [1-9]/.test(await metricsAfter(rig, 'olimpus.example')), PATIENCE)
        .toBe(true);
      expect((await send(rig, 'olimpus.example')).signed.toSorted()).toEqual(['ed', 'rsa']);
      expectDeferred(await send(rig, 'thebes.example'));
    } finally {
      backend.server.thaw();
    }
    await expect.poll(async () => (await send(rig, 'thebes.example')).signed, PATIENCE).toEqual(['t']);

    // Gone, while mail flows.
    await backend.server.kill();
    const during = await Promise.all(
      ['olimpus.example', 'asgard.example', 'sparta.example'].map((domain) => send(rig, domain)),
    );
    expect(during[0]?.signed.toSorted()).toEqual(['ed', 'rsa']);
    for (const sent of during.slice(1)) expectDeferred(sent);
    await backend.server.restart();
    await expect.poll(async () => (await send(rig, 'sparta.example')).verdict, PATIENCE).toBe('c');

    // Another key is used, and one that is gone is not, when what was remembered has become old.
    await backend.replace('thebes.example', { domain: 'thebes.example', selector: 't', key: pem(OTHER) });
    await expect
      .poll(async () => opendkimPasses(await send(rig, 'thebes.example'), bind), PATIENCE)
      .toBe(true);
    await backend.replace('thebes.example', null);
    await expect.poll(async () => (await send(rig, 'thebes.example')).signed, PATIENCE).toEqual([]);
    await expectSilence(rig);
  });
});

async function metricsAfter(rig: Rig, domain: string): Promise<string> {
  await send(rig, domain);
  return rig.milter.metrics();
}

async function opendkimPasses({ message, signed }: Sent, bind: Bind): Promise<boolean> {
  return signed.length === 1 && (await opendkimVerify(message, bind)).pass;
}
