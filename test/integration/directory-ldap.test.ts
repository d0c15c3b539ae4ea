import { chmod, chown } from 'node:fs/promises';

import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { causedBy, mailboxes, openDirectoryOf, UNKNOWN } from '../support/directory.ts';
import { makeCertificate } from '../support/neighbours/certificate.ts';
import { privateFolder, type PrivateFolder } from '../support/neighbours/folder.ts';
import { SLAPD_PASSWORD, startSlapd, type Slapd } from '../support/neighbours/slapd.ts';
import { idsOf } from '../support/neighbours/users.ts';
import { PEOPLE, PEOPLE_SUFFIX } from '../support/seed-tables.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';

const ATTACKS = [
  '*',
  'z*',
  '*)(uid=*',
  'zeus)(|(uid=*',
  '\\2a',
  'zeus\\00',
  ')(&',
  'zeus)',
  '(',
  '|',
  '\u0000',
  '*)(objectClass=*))(|(mail=*',
];

let folder: PrivateFolder;
let slapd: Slapd;

function ldap(more: string, address = `127.0.0.1:${slapd.port}`): string {
  return `[directory.ldap]
address = "${address}"
bind_dn = "cn=admin,${PEOPLE_SUFFIX}"
password_file = "password"
base = "ou=people,${PEOPLE_SUFFIX}"
timeout = "10s"
${more}
`;
}

describeWithNeighbours('LDAP', () => {
  beforeAll(async () => {
    folder = await privateFolder('ldap-tls');
    const certificate = await makeCertificate(folder, 'localhost');
    const { uid, gid } = await idsOf('openldap');
    await chown(certificate.key, uid, gid);
    await chmod(certificate.key, 0o600);
    slapd = await startSlapd({ suffix: PEOPLE_SUFFIX, entries: PEOPLE, tls: certificate });
  });

  afterAll(async () => {
    await slapd[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  test('people by uid and mail', async () => {
    await using directory = await openDirectoryOf(ldap('layout = "people"'), SLAPD_PASSWORD);
    expect(await directory.destination('Zeus+thunder@Olimpus.example')).toEqual(mailboxes(ZEUS));
    expect(await directory.destination('nobody@olimpus.example')).toEqual(UNKNOWN);
    expect(await directory.isLocal('olimpus.example')).toBe(true);
    expect(await directory.isLocal('example')).toBe(false);
    // The login is a uid; its addresses are what it may send as.
    expect((await directory.account('hera')).senders).toEqual([HERA, 'queen@olimpus.example']);
  });

  test('searches of our own: aliases from an attribute, users by uid, quota', async () => {
    await using directory = await openDirectoryOf(
      ldap(`layout = "people"
[[directory.ldap.mailbox]]
filter = "(&(objectClass=posixAccount)(mail=:address))"
attributes = { user = "uid" }
[[directory.ldap.alias]]
filter = "(&(!(objectClass=posixAccount))(mail=:address))"
attributes = { target = "description" }
[[directory.ldap.account]]
filter = "(uid=:login)"
attributes = { quota = "employeeNumber" }`),
      SLAPD_PASSWORD,
    );
    expect(await directory.destination('info@olimpus.example')).toEqual(mailboxes('zeus', 'hera'));
    expect(await directory.destination('queen@olimpus.example')).toEqual(mailboxes('hera'));
    expect(await directory.account('zeus')).toMatchObject({ quota: 40 * 1024 ** 2 });
    expect(await directory.owns('hera', 'queen@olimpus.example')).toBe(true);
    expect(await directory.owns('hera', ZEUS)).toBe(false);
  });

  test('names beyond ASCII', async () => {
    const search = '[[directory.ldap.mailbox]]\nfilter = "(sn=:local)"\nattributes = { user = "uid" }';
    await using directory = await openDirectoryOf(ldap(`layout = "people"\n${search}`), SLAPD_PASSWORD);
    expect(await directory.destination('odyss\u00e9us@olimpus.example')).toEqual(mailboxes('odysseus'));
    expect(await directory.destination('odyss\u00e8us@olimpus.example')).toEqual(UNKNOWN);
  });

  test('addresses do not get out of filters', async () => {
    await using directory = await openDirectoryOf(ldap('layout = "people"'), SLAPD_PASSWORD);
    for (const attack of ATTACKS) {
      expect([attack, await directory.destination(`${attack}@olimpus.example`)]).toEqual([attack, UNKNOWN]);
      expect([attack, await directory.isLocal(attack)]).toEqual([attack, false]);
      expect((await directory.account(attack)).senders).toEqual([]);
    }
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }), async (text) => {
        expect(await directory.destination(`*${text}@olimpus.example`)).toEqual(UNKNOWN);
      }),
      { numRuns: 100 },
    );
    expect(directory.lines.filter((line) => line.includes('not there'))).toEqual([]);
  });

  test.each(['starttls', 'ldaps'])('encrypted: %s', async (tls) => {
    const port = tls === 'ldaps' ? slapd.securePort : slapd.port;
    const lines = `layout = "people"\ntls = "${tls}"\ntls_ca_file = "${folder.join('ca.pem')}"`;
    await using directory = await openDirectoryOf(ldap(lines, `localhost:${port}`), SLAPD_PASSWORD);
    expect(await directory.destination(ZEUS)).toEqual(mailboxes(ZEUS));
    // Its certificate is for another name, or from nobody we trust.
    await using other = await openDirectoryOf(ldap(lines, `127.0.0.1:${port}`), SLAPD_PASSWORD);
    await expect(other.destination(ZEUS)).rejects.toMatchObject({ name: 'NeighbourError' });
    await using stranger = await openDirectoryOf(
      ldap(`layout = "people"\ntls = "${tls}"`, `localhost:${port}`),
      SLAPD_PASSWORD,
    );
    await expect(stranger.destination(ZEUS)).rejects.toSatisfy(causedBy(/certificate/));
  });

  test('a wrong password is told without being shown', async () => {
    await using directory = await openDirectoryOf(ldap('layout = "people"'), 'the wrong trident');
    await expect(directory.destination(ZEUS)).rejects.toMatchObject({ name: 'NeighbourError' });
    expect(directory.lines.join('')).toContain('not there');
    expect(directory.lines.join('') + (await directory.metrics())).not.toContain('wrong trident');
  });

  test('over a unix socket; without a name nobody may read, which is no answer', async () => {
    const lines = `[directory.ldap]\naddress = "unix:${slapd.socketPath}"\nbase = "${PEOPLE_SUFFIX}"\nlayout = "people"\ntimeout = "10s"`;
    await using directory = await openDirectoryOf(lines);
    await expect(directory.destination(ZEUS)).rejects.toMatchObject({
      cause: { message: 'InsufficientAccessError, result code 50' },
    });
    await using named = await openDirectoryOf(
      ldap('layout = "people"', `unix:${slapd.socketPath}`),
      SLAPD_PASSWORD,
    );
    expect(await named.destination(ZEUS)).toEqual(mailboxes(ZEUS));
  });
});
