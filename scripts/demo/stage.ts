import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { DnsServer } from '../../test/support/players/dns-server.ts';
import { freePort } from '../../test/support/neighbours/ports.ts';
import { startProcess, type RunningProcess } from '../../test/support/neighbours/process.ts';
import { CAROL, DOMAIN } from './mails.ts';

const ROOT = join(import.meta.dirname, '../..');

/** The usual ports; another one where something listens already. */
const USUAL = { policyd: 10_040, milter: 8891, 'lmtp-filter': 10_024, admin: 8899 } as const;

export type ListenerName = keyof typeof USUAL;

/** Postern itself and the domain name service of the demo's small world. */
export interface Stage extends AsyncDisposable {
  readonly folder: string;
  readonly configFile: string;
  readonly port: Readonly<Record<ListenerName, number>>;
  readonly friendKey: KeyObject;
  readonly postern: RunningProcess;
  /** TXT records, for whoever wants to verify a signature. */
  readonly zone: Readonly<Record<string, readonly string[]>>;
}

export interface StageOptions {
  /** Port of Dovecot's LMTP. */
  readonly upstream: number;
  /** null: no spamd here. */
  readonly spamd: number | null;
}

export async function setStage(options: StageOptions): Promise<Stage> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'postern-demo-'));
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  const own = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const friend = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const zone = {
    'TXT friend.example': ['v=spf1 ip4:192.0.2.0/24 -all'],
    'TXT _dmarc.friend.example': ['v=DMARC1; p=reject'],
    'TXT mail._domainkey.friend.example': [record(friend.publicKey)],
    [`TXT mail._domainkey.${DOMAIN}`]: [record(own.publicKey)],
  };
  const dns = cleanup.use(await DnsServer.open(zone));
  const keyFile = join(folder, 'mail.private');
  await writeFile(keyFile, own.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });

  const port = { policyd: 0, milter: 0, 'lmtp-filter': 0, admin: 0 };
  for (const name of ['policyd', 'milter', 'lmtp-filter', 'admin'] as const)
    port[name] = await portFor(USUAL[name]);
  const moved = (['policyd', 'milter', 'lmtp-filter', 'admin'] as const).filter(
    (name) => port[name] !== USUAL[name],
  );
  const configFile = join(folder, 'postern.toml');
  const lines = [
    '# All that differs from the embedded defaults.',
    `site.hostname = "mx.${DOMAIN}"`,
    `state.folder = ${JSON.stringify(join(folder, 'state'))}`,
    `dns.servers = ["127.0.0.1:${dns.port}"]`,
    `lmtp-filter.upstream = "127.0.0.1:${options.upstream}"`,
    ...(options.spamd === null ? [] : [`spamd.address = "127.0.0.1:${options.spamd}"`]),
    ...moved.map((name) => `${name}.listen = "127.0.0.1:${port[name]}"  # the usual port is taken here`),
    '',
    '[[override]]',
    `recipients = ["${CAROL}"]`,
    'thresholds = { tag = 50 }',
    '',
    '[[signing.key]]',
    `domain = "${DOMAIN}"`,
    'selector = "mail"',
    `file = ${JSON.stringify(keyFile)}`,
  ];
  await writeFile(configFile, `${lines.join('\n')}\n`);

  const postern = cleanup.use(
    startProcess(join(ROOT, 'bin/postern'), ['run', '--config', configFile], {
      name: 'postern',
      cwd: folder,
    }),
  );
  await postern.waitForLine(/"msg":"ready"/);
  const stack = cleanup.move();
  return {
    folder,
    configFile,
    port,
    friendKey: friend.privateKey,
    postern,
    zone,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function portFor(usual: number): Promise<number> {
  const free = await new Promise<boolean>((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port: usual, exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
  return free ? usual : freePort();
}

function record(key: KeyObject): string {
  return `v=DKIM1; k=rsa; p=${key.export({ type: 'spki', format: 'der' }).toString('base64')}`;
}
