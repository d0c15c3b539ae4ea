import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { SECRET } from '../support/directory.ts';
import type { DatabaseServer } from '../support/neighbours/database.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { startMariadb } from '../support/neighbours/mariadb.ts';
import { sendMail } from '../support/neighbours/smtp-client.ts';
import { startPolicySite } from '../support/policy-site.ts';
import { big, startQuotaSite } from '../support/quota-site.ts';
import { readerFor, VIRTUAL } from '../support/seed-tables.ts';
import { HERA, ODIN, PASSWORD, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const FRIEND = 'thor@valhalla.example';
let maria: DatabaseServer;

/** `file` holds the password. */
function directory(file: string): string {
  return `
[directory.sql]
address = "127.0.0.1:${maria.port}"
database = "virt"
password_file = ${JSON.stringify(file)}
layout = "virtual"
account = ["SELECT quota FROM virtual_users WHERE email = :login"]
timeout = "5s"
[directory.cache]
ttl = "1ms"
negative_ttl = "1ms"
stale = "0s"
`;
}

describeWithNeighbours('Postfix, with users and aliases in MariaDB', () => {
  beforeAll(async () => {
    maria = await startMariadb();
    await maria.sql('CREATE DATABASE virt CHARACTER SET utf8mb4');
    await maria.sql(
      `${VIRTUAL}${readerFor('virt', ['virtual_domains', 'virtual_aliases', 'virtual_users (id, domain_id, email, quota)'])}`,
      'virt',
    );
  });

  afterAll(() => maria[Symbol.asyncDispose]());

  test('who may send as what, by the tables as they are now', async () => {
    await using site = await startPolicySite({ users: { [ZEUS]: PASSWORD, [HERA]: PASSWORD } });
    const file = join(site.postern.folder, 'password');
    await writeFile(file, SECRET);
    await chmod(file, 0o600);
    await site.reload(`[checks.sender]\nenabled = true\n${directory(file)}`);
    const codeFor = async (login: string, from: string): Promise<string> => {
      const { rcpt } = await site.send({ login, from, to: [FRIEND] });
      return `${rcpt[0]?.code} ${rcpt[0]?.enhanced}`;
    };
    await expect.poll(() => codeFor(ZEUS, 'info@olimpus.example'), { timeout: 30_000 }).toBe('250 2.1.5');
    expect(await codeFor(HERA, 'info@olimpus.example')).toBe('250 2.1.5');
    expect(await codeFor(ZEUS, 'thunder@olimpus.example')).toBe('250 2.1.5');
    expect(await codeFor(HERA, 'thunder@olimpus.example')).toBe('553 5.7.1');
    expect(await codeFor(ZEUS, `"x' OR '1'='1"@olimpus.example`)).toBe('553 5.7.1');
    await maria.sql(
      `INSERT INTO virtual_aliases (domain_id, source, destination) VALUES (1, 'queen@olimpus.example', '${HERA}')`,
      'virt',
    );
    expect(await codeFor(HERA, 'queen@olimpus.example')).toBe('250 2.1.5');
    expect(await codeFor(ZEUS, 'queen@olimpus.example')).toBe('553 5.7.1');
    const shown = await site.postern.command('directory', 'info@olimpus.example');
    expect(shown).toMatchObject({ code: 0, stderr: '' });
    expect(shown.stdout).toContain(`mail goes to   ${ZEUS}, ${HERA}`);
    const checked = await site.postern.command('check');
    expect(checked.code).toBe(0);
    const said = [shown, checked].map(({ stdout, stderr }) => stdout + stderr).join('');
    expect(said + site.policyd.log.text() + (await site.policyd.metrics())).not.toContain(SECRET);
    // Frozen: what it can't be asked is deferred, in time.
    maria.freeze();
    expect(await codeFor(ZEUS, HERA)).toMatch(/^4/);
    maria.thaw();
    await expect.poll(() => codeFor(ZEUS, HERA), { timeout: 30_000 }).toBe('553 5.7.1');
  });

  test('quotas from a column, for aliases too', async () => {
    await maria.sql(`UPDATE virtual_users SET quota = 2000000 WHERE email = '${ZEUS}'`, 'virt');
    await using folder = await privateFolder('secret');
    const file = folder.join('password');
    await writeFile(file, SECRET);
    await chmod(file, 0o600);
    await using host = await startQuotaSite({
      quotas: { [ZEUS]: '40M', [HERA]: '40M' },
      grace: '0%',
      config: directory(file),
    });
    await host.fill(ZEUS, 1_900_000);
    const code = async (to: string): Promise<string> => {
      const { outcome } = await sendMail({
        port: host.site.postfix.smtpPort,
        xclient: ODIN,
        from: 'odin@valhalla.example',
        to: [to],
        mailParameters: ['SIZE=500000'],
        data: big(500_000),
      });
      return `${outcome.code} ${outcome.enhanced}`;
    };
    await expect.poll(() => code(ZEUS), { timeout: 30_000 }).toMatch(/^452/);
    expect(await code(HERA)).toMatch(/^250/);
    await maria.sql(`UPDATE virtual_users SET quota = 40000000 WHERE email = '${ZEUS}'`, 'virt');
    expect(await code(ZEUS)).toMatch(/^250/);
  });
});
