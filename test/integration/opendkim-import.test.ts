import { generateKeyPairSync } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { importOpendkim, type Imported } from '../../src/cli/opendkim-import.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { LineLog } from '../support/neighbours/line-log.ts';
import { startOpendkim } from '../support/neighbours/opendkim.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { startProcess, type RunningProcess } from '../support/neighbours/process.ts';
import { MilterClient } from '../support/players/milter-client.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

/** Senders whose mail both are asked to sign. */
const SENDERS = [
  'zeus@olimpus.example',
  'ZEUS@Olimpus.Example',
  'hera@olimpus.example',
  'nobody@mail.olimpus.example',
  'boss@mail.olimpus.example',
  'thor@valhalla.example',
  'thor@a.valhalla.example',
  'thor@b.a.valhalla.example',
  'boss@b.a.valhalla.example',
  'thor@notvalhalla.example',
  'news@anything.test',
  'newsletter@anything.test',
  'loki@asgard.test',
  'loki@utgard.test',
  'x@percent.example',
];

const KEY_TABLE = (keys: string): string => `
# name   domain:selector:file
zeus     olimpus.example:zeus:${keys}/one.private
olimpus  olimpus.example:mail:${keys}/two.private
valhalla valhalla.example:v1:${keys}/one.private   # shared
bulk     bulk.example:b:${keys}/two.private
percent  %:p:${keys}/%/p.private
`;

const REFILE = `
zeus@olimpus.example     zeus
*@olimpus.example        olimpus
boss@*.olimpus.example   zeus
*@*.olimpus.example      olimpus
*valhalla.example        valhalla
news*                    bulk
*@asgard.test            olimpus
*@percent.example        percent
`;

/** Not in the order of the look-ups, on purpose. */
const PLAIN = `
*                        bulk
news@*                   bulk
.valhalla.example        valhalla
.a.valhalla.example      bulk
boss@.valhalla.example   olimpus
thor@.a.valhalla.example zeus
valhalla.example         valhalla
olimpus.example          olimpus
boss@.olimpus.example    zeus
.olimpus.example         olimpus
zeus@olimpus.example     zeus
percent.example          percent
`;

interface Rig extends AsyncDisposable {
  readonly imported: Imported;
  /** `d s` of the signatures by each of the two, the topmost first. */
  chosen(sender: string): Promise<readonly [theirs: readonly string[], ours: readonly string[]]>;
}

async function startRig(kind: 'refile' | 'file', signingTable: string, more = ''): Promise<Rig> {
  await using cleanup = new AsyncDisposableStack();
  const folder = cleanup.use(await privateFolder('opendkim'));
  const keys = folder.join('keys');
  await mkdir(join(keys, 'percent.example'), { recursive: true, mode: 0o700 });
  for (const name of ['one', 'two', 'percent.example/p']) {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const pem = privateKey.export({ type: 'pkcs1', format: 'pem' });
    await writeFile(join(keys, `${name}.private`), pem, { mode: 0o600 });
  }
  await writeFile(folder.join('KeyTable'), KEY_TABLE(keys));
  await writeFile(folder.join('SigningTable'), signingTable);
  await writeFile(folder.join('hosts'), '127.0.0.1\n192.0.2.0/24\n.internal.example\n');
  const conf = (port: number): string => `
Syslog                no
UserID                root
Mode                  s
Canonicalization      relaxed/simple
Socket                inet:${port}@127.0.0.1
KeyTable              ${folder.join('KeyTable')}
SigningTable          ${kind}:${folder.join('SigningTable')}
InternalHosts         ${folder.join('hosts')}
ExternalIgnoreList    ${folder.join('hosts')}
OversignHeaders       From
RequireSafeKeys       no
${more}`;
  const ports = [await freePort(), await freePort()] as const;
  const [theirs, ours] = [folder.join('opendkim.conf'), folder.join('for-us.conf')];
  await writeFile(theirs, conf(ports[0]));
  await writeFile(ours, conf(ports[1]));
  cleanup.use(await startOpendkim(theirs, ports[0]));
  const imported = await importOpendkim(ours);
  const toml = folder.join('postern.toml');
  await writeFile(toml, imported.toml);
  const ours2 = cleanup.use(await startMilter(toml));
  const stack = cleanup.move();
  return {
    imported,
    chosen: async (sender) => {
      try {
        return [await signaturesOf(ports[0], sender), await signaturesOf(ports[1], sender)];
      } catch (e) {
        throw new Error(ours2.output(), { cause: e });
      }
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function startMilter(config: string): Promise<RunningProcess> {
  const args = [MAIN, 'run', 'milter', '--config', config, '--admin', 'none'];
  const child = startProcess(process.execPath, args, { name: 'postern', log: new LineLog('postern') });
  await child.waitForLine(/"msg":"ready"/);
  return child;
}

async function signaturesOf(port: number, sender: string): Promise<readonly string[]> {
  await using client = await MilterClient.open({ port });
  const mail = {
    address: '192.0.2.7',
    port: 40_000,
    host: 'client.example',
    helo: 'client.example',
    queueId: '4gX1Yz0abcz1',
    from: '<bounces@elsewhere.test>',
    to: ['<a@b.test>'],
    headers: [
      ['From', ` Somebody <${sender}>`],
      ['To', ' a@b.test'],
      ['Subject', ' greetings'],
      ['Date', ' Sat, 21 Nov 2026 09:00:00 +0000'],
      ['Message-ID', ' <1@valhalla.example>'],
    ],
    body: Buffer.from('Hello\r\n'),
  } as const;
  await client.begin(mail);
  const { edits } = await client.message(mail);
  return edits
    .filter(({ name }) => name === 'DKIM-Signature')
    .map(({ value }) => `${tag(value, 'd')} ${tag(value, 's')}`);
}

function tag(value: string, name: string): string {
  return new RegExp(`(?:^|;)\\s*${name}=([^;\\s]+)`).exec(value)?.[1] ?? '';
}

describeWithNeighbours('postern import opendkim', () => {
  test.for([
    ['refile', REFILE],
    ['file', PLAIN],
  ] as const)('a SigningTable as %s: both sign each sender with the same key', async ([kind, table]) => {
    await using rig = await startRig(kind, table);
    const signed: string[] = [];
    for (const sender of SENDERS) {
      const [theirs, ours] = await rig.chosen(sender);
      expect([sender, ours]).toEqual([sender, theirs]);
      expect(ours.length).toBeLessThan(2);
      signed.push(...ours);
    }
    expect(new Set(signed).size).toBeGreaterThan(3);
    expect(rig.imported.reports.map(({ what }) => what.split(':')[0])).toEqual(
      expect.arrayContaining(['InternalHosts', 'ExternalIgnoreList', 'UserID', 'Syslog']),
    );
    expect(rig.imported.reports.map(({ what }) => what)).not.toContainEqual(
      expect.stringMatching(/^(?:KeyTable|SigningTable)/),
    );
  });

  test.for([
    ['refile', REFILE],
    ['file', PLAIN],
  ] as const)(
    'MultipleSignatures with a SigningTable as %s: both make the same signatures',
    async ([kind, table]) => {
      await using rig = await startRig(kind, table, 'MultipleSignatures yes\n');
      let most = 0;
      for (const sender of SENDERS) {
        const [all, ours] = await rig.chosen(sender);
        // Two lines with one key make the same signature twice there.
        const theirs = [...new Set(all)];
        // Of more than two lines that fit, opendkim 2.11 signs with the first and the last, against its manual: all of them.
        const common = ours.length > 2 ? ours.filter((key) => theirs.includes(key)) : ours;
        expect([sender, ours[0], common]).toEqual([sender, theirs[0], theirs]);
        most = Math.max(most, ours.length);
      }
      expect(most).toBe(kind === 'file' ? 3 : 2);
      expect(rig.imported.reports.map(({ what }) => what)).not.toContainEqual(
        expect.stringMatching(/^(?:KeyTable|SigningTable)/),
      );
    },
  );
});
