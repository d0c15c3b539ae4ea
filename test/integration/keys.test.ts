import { copyFile, mkdir, readdir, readFile, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { startBind, type Bind } from '../support/neighbours/bind.ts';
import { startSecondary, type Secondary } from '../support/neighbours/bind-secondary.ts';
import { MilterClient } from '../support/players/milter-client.ts';
import { preparePostern, type Postern } from '../support/postern.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const DOMAIN = 'olimpus.example';
const DAY_MS = 86_400_000;

interface Rig extends AsyncDisposable {
  readonly secondary: Secondary;
  readonly postern: Postern;
  readonly folder: string;
  /** Gives the primary these records; the secondary lags. */
  readonly publish: (...records: readonly string[]) => Promise<void>;
}

/** A zone with two name servers, and keys of RSA alone. */
async function startRig(): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const primary = cleanup.use(await startBind({ zones: { [DOMAIN]: '@ A 127.0.0.1' } }));
  const secondary = await startSecondary(cleanup, primary, DOMAIN);
  let serial = 1000;
  const publish = (...records: readonly string[]): Promise<void> =>
    primary.setZone(DOMAIN, zone(++serial, primary, secondary.bind, records));
  await publish();
  await secondary.catchUp();
  const postern = cleanup.use(
    await preparePostern({
      dnsPort: primary.port,
      config: '[signing]\nfolder = "keys"\nnew_keys = ["rsa"]\nunpublished = "skip"\n',
    }),
  );
  const folder = join(postern.folder, 'keys', DOMAIN);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const stack = cleanup.move();
  return { secondary, postern, folder, publish, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

function zone(serial: number, primary: Bind, secondary: Bind, records: readonly string[]): string {
  return [
    '$TTL 60',
    `@ SOA ns1 hostmaster ${serial} 86400 86400 864000 1`,
    '@ NS ns1',
    '@ NS ns2',
    `ns1 A ${primary.address}`,
    `ns2 A ${secondary.address}`,
    ...records,
  ].join('\n');
}

async function rolesIn(folder: string): Promise<readonly string[]> {
  return (await readdir(folder)).toSorted();
}

/** As if the key had had its role for so long. */
async function age(folder: string, name: string, days: number): Promise<void> {
  const then = new Date(Date.now() - days * DAY_MS);
  await utimes(join(folder, name), then, then);
}

/** Selectors of the signatures that a message of the domain gets. */
async function signedWith(port: number): Promise<readonly string[]> {
  const mail = {
    address: '127.0.0.1',
    port: 4025,
    host: 'localhost',
    helo: 'localhost',
    queueId: '4abc',
    from: `<zeus@${DOMAIN}>`,
    to: [`<hera@${DOMAIN}>`],
    headers: [
      ['From', ` zeus@${DOMAIN}`],
      ['Date', ' Sat, 21 Nov 2026 09:00:00 +0000'],
    ],
    body: Buffer.from('Hello\r\n'),
  } as const;
  await using client = await MilterClient.open({ port });
  expect(await client.begin(mail)).toBeNull();
  const { verdict, edits } = await client.message(mail);
  expect(verdict).toBe('c');
  return edits
    .filter(({ name }) => name === 'DKIM-Signature')
    .map(({ value }) => /\bs=([^;]+);/.exec(value)?.[1] ?? '');
}

describeWithNeighbours('the life of a signing key, with a BIND that lags behind another', () => {
  test(
    'it signs when all name servers have it, and is gone when its record is',
    { timeout: 400_000 },
    async () => {
      await using rig = await startRig();
      const { postern, folder, secondary, publish } = rig;
      const command = (...words: string[]) => postern.command('keys', ...words);
      const milter = await postern.start('milter');

      // The first key.
      const made = await command('rotate', DOMAIN);
      expect(made).toMatchObject({ code: 2, stderr: '' });
      expect(made.stdout).toMatch(/publish this record, signing waits for it \(not published\)/);
      const [firstFile = ''] = await rolesIn(folder);
      expect(await rolesIn(folder)).toEqual([expect.stringMatching(/^\d{8}-rsa\.next$/)]);
      const first = firstFile.slice(0, -'.next'.length);
      const { mode } = await stat(join(folder, firstFile));
      expect(mode & 0o777).toBe(0o600);
      const record = (await command('dns')).stdout;

      // One that somebody put there, and that is not in DNS at all.
      await copyFile(join(folder, firstFile), join(folder, 'hand.private'));
      await milter.waitForLog(
        /"selector":"hand".*"effect":"it does not sign","msg":"signing key is not in DNS"/,
      );
      expect(await signedWith(postern.port.milter)).toEqual([]);
      expect(await milter.metrics()).toMatch('postern_milter_signatures_total{result="unpublished"} 1');
      await rm(join(folder, 'hand.private'));
      await milter.waitForLog(/"selector":"hand".*"msg":"a signing key is there no more"/);

      // On the primary alone.
      await publish(record);
      const lagging = await command('check');
      expect(lagging.stdout).toMatch(/not published on all name servers/);
      expect(lagging.stdout).toMatch(/ns1\.olimpus\.example \(\S+\) +has it/);
      expect(lagging.stdout).toMatch(/ns2\.olimpus\.example \(\S+\) +has no record/);
      const waiting = await command('rotate');
      expect(waiting.code).toBe(2);
      expect(waiting.stdout).toMatch(/signing waits for it \(not published on all name servers\)/);
      expect(await rolesIn(folder)).toEqual([`${first}.next`]);
      expect(await signedWith(postern.port.milter)).toEqual([]);

      // A server that does not answer is not one that has it.
      secondary.bind.freeze();
      expect((await command('rotate')).stdout).toMatch(
        /ns2\.olimpus\.example \(\S+\) +no answer: no answer within/,
      );
      expect(await rolesIn(folder)).toEqual([`${first}.next`]);
      secondary.bind.thaw();

      // On both: the running milter takes it up, and another one is prepared.
      await secondary.catchUp();
      const begun = await command('rotate');
      expect(begun.stdout).toMatch(`${first}: signs from now on`);
      const all = await rolesIn(folder);
      expect(all).toContain(`${first}.private`);
      const second = all.find((name) => name.endsWith('.next'))?.slice(0, -'.next'.length) ?? '';
      expect(second).toBe(`${first}-2`);
      await milter.waitForLog(new RegExp(`"selector":"${first}".*"msg":"signing key is in DNS"`));
      expect(await signedWith(postern.port.milter)).toEqual([first]);
      expect(await milter.metrics()).toMatch(
        `postern_dkim_key_published{domain="${DOMAIN}",selector="${first}"} 1`,
      );

      // A year later: the next one has to be everywhere first.
      await age(folder, `${first}.private`, 400);
      const records = (await command('dns')).stdout;
      await publish(records);
      expect((await command('rotate')).stdout).toMatch(/signing waits for it \(not published on all/);
      expect(await signedWith(postern.port.milter)).toEqual([first]);
      await secondary.catchUp();
      const moved = await command('rotate');
      expect(moved.stdout).toMatch(`${second}: signs from now on`);
      expect(moved.stdout).toMatch(`${first}: signs no more; its record must stay until `);
      await milter.waitForLog(new RegExp(`"selector":"${first}".*"msg":"a signing key is there no more"`));
      expect(await signedWith(postern.port.milter)).toEqual([second]);

      // What waits in queues can still be verified; then the private key goes, and the record after it.
      expect((await command('retire')).stdout).toMatch(`${first}: its record must stay until `);
      await age(folder, `${first}.old`, 6);
      const retired = await command('rotate');
      expect(retired.stdout).toMatch(`${first}: private key deleted`);
      expect(retired.stdout).toMatch(`take this record out of DNS: ${first}._domainkey.${DOMAIN} TXT`);
      expect(await readFile(join(folder, `${first}.retired`), 'latin1')).toMatch(/^v=DKIM1; k=rsa; p=/);
      expect((await rolesIn(folder)).filter((name) => name.startsWith(`${first}.`))).toEqual([
        `${first}.retired`,
      ]);
      await publish((await command('dns')).stdout);
      expect((await command('rotate')).stdout).toMatch(`take this record out of DNS: ${first}._domainkey`);
      await secondary.catchUp();
      const last = await command('rotate');
      expect(last.stdout).toMatch(`${first}: its record is gone`);
      expect(await command('rotate', '--quiet')).toMatchObject({ code: 0, stdout: '', stderr: '' });
      expect(await command('check')).toMatchObject({ code: 0, stderr: '' });
      expect(await milter.stop()).toBe(0);
    },
  );
});
