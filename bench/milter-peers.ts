import { execFileSync } from 'node:child_process';
import { chmod, chown, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';

import { startDnsForwarder } from '../test/support/neighbours/dns-forwarder.ts';
import { privateFolder, type PrivateFolder } from '../test/support/neighbours/folder.ts';
import { freePort } from '../test/support/neighbours/ports.ts';
import { startProcess } from '../test/support/neighbours/process.ts';
import { idsOf } from '../test/support/neighbours/users.ts';
import type { Target } from '../test/support/players/dial.ts';
import { MilterClient, type MilterMail } from '../test/support/players/milter-client.ts';
import { sample, signed, type KeyPair, type Sample } from './corpus.ts';
import { endTree, eventually, startOurs, sum } from './peers.ts';
import { cpuOf, figuresOf, type Figures } from './server.ts';

/** Milters of Debian that do a part of what ours does. */
const PACKAGES = [
  'opendkim',
  'opendmarc',
  'pyspf-milter',
  'dkimpy-milter',
  'rspamd',
  'spamass-milter',
  'spamc',
];

const CONNECTIONS = [1, 8, 64];
const WARM_MS = 1000;
/** How long nothing may come of a milter before it counts as broken. */
const STUCK_MS = 60_000;

type Task = 'sign' | 'verify' | 'score';
type Transport = 'tcp' | 'unix';

interface Site {
  readonly folder: PrivateFolder;
  readonly keyFile: string;
  readonly resolvConf: string;
  readonly nameServer: string;
  readonly spamdPort: number;
}

interface Milter {
  readonly name: string;
  readonly tasks: readonly Task[];
  /** Header fields that must be there when it is right; null: it adds none. */
  readonly adds: Readonly<Partial<Record<Task, RegExp>>>;
  /** Its pid. It listens on `port`, or on the path. */
  start(site: Site, task: Task, target: Target): Promise<number>;
}

export interface MilterMeasured extends Figures {
  readonly name: string;
  readonly task: Task;
  readonly transport: Transport;
  readonly connections: number;
}

export interface MilterPeersBench {
  readonly dnsPort: number;
  readonly rsa: KeyPair;
  /** Of one measurement. */
  readonly seconds: number;
  readonly only: string;
  readonly told: (measured: MilterMeasured) => void;
}

/** Ours and theirs, one after the other, on TCP and on a unix socket, with 2 KiB messages. Needs Debian and root. */
export async function benchMilterPeers(bench: MilterPeersBench): Promise<void> {
  execFileSync('bash', [join(import.meta.dirname, '../scripts/debian.sh'), ...PACKAGES], {
    stdio: 'inherit',
  });
  await using dns = await startDnsForwarder(bench.dnsPort);
  const mails = await messages(bench.rsa);
  for (const milter of MILTERS) {
    for (const task of milter.tasks) {
      for (const transport of ['tcp', 'unix'] as const) {
        if (!`milter, ${milter.name}, ${task}, ${transport}`.includes(bench.only)) continue;
        try {
          await benchOne(bench, milter, task, transport, mails[task], dns.address);
        } catch (error) {
          // One that can't keep up and defers mail has no figures; the others have theirs.
          if (milter.name === OURS) throw error;
          console.error(`${milter.name}, ${task}, ${transport}: ${String(error)}`);
        }
      }
    }
  }
}

async function benchOne(
  { rsa, seconds, told }: MilterPeersBench,
  milter: Milter,
  task: Task,
  transport: Transport,
  mail: Sample,
  nameServer: string,
): Promise<void> {
  await using folder = await privateFolder(`bench-${milter.name}`);
  await chmod(folder.path, 0o777);
  const keyFile = folder.join('rsa.private');
  await writeFile(keyFile, rsa.privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 });
  const resolvConf = folder.join('resolv.conf');
  await writeFile(resolvConf, `nameserver ${nameServer}\n`);
  const spamdPort = await freePort();
  const spamd = startProcess(process.execPath, [
    join(import.meta.dirname, 'stub-spamd.ts'),
    String(spamdPort),
  ]);
  try {
    await spamd.waitForLine(/ready/);
    const target: Target =
      transport === 'tcp' ? { port: await freePort() } : { path: folder.join('milter.sock') };
    const pid = await milter.start({ folder, keyFile, resolvConf, nameServer, spamdPort }, task, target);
    try {
      await listening(target);
      for (const connections of CONNECTIONS) {
        const figures = await measure(pid, target, {
          mail,
          task,
          connections,
          seconds,
          adds: milter.adds[task],
        });
        told({ name: milter.name, task, transport, connections, ...figures });
      }
    } finally {
      await endTree(pid);
    }
  } finally {
    await spamd.stop();
  }
}

interface Scene {
  readonly mail: Sample;
  readonly task: Task;
  readonly connections: number;
  readonly seconds: number;
  readonly adds: RegExp | undefined;
}

async function measure(
  pid: number,
  target: Target,
  { mail, task, connections, seconds, adds }: Scene,
): Promise<Figures> {
  const domain = 'sender.example';
  const base: MilterMail = {
    address: task === 'sign' ? '127.0.0.1' : '192.0.2.9',
    port: 30_000,
    host: 'mx.sender.example',
    helo: 'mx.sender.example',
    ...(task === 'sign' ? { login: 'alice', daemonName: 'ORIGINATING' } : {}),
    queueId: '',
    from: `<alice@${domain}>`,
    to: ['<bob@example.org>'],
    headers: mail.headers,
    body: mail.body,
  };
  const clients = await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const client = await MilterClient.open(target);
      const own = { ...base, port: base.port + index };
      await client.begin(own);
      return { client, own };
    }),
  );
  let sent = 0;
  const times: number[] = [];
  const pass = (until: number, keep: boolean): Promise<unknown> =>
    Promise.all(
      clients.map(async ({ client, own }) => {
        do {
          const begun = performance.now();
          const { verdict, edits } = await client.message({ ...own, queueId: `Q${(sent += 1)}` });
          const added = edits.map(({ name, value }) => `${name}:${value}`).join('\n');
          if (!'ca'.includes(verdict) || adds?.test(added) === false)
            throw new Error(`unexpected answer ${verdict}: ${added}`);
          if (keep) times.push(performance.now() - begun);
        } while (performance.now() < until);
      }),
    );
  const stuck = setTimeout(
    () => {
      for (const { client } of clients) void client[Symbol.asyncDispose]();
    },
    seconds * 1000 + STUCK_MS,
  );
  await pass(performance.now() + WARM_MS, false);
  const cpu = sum(pid, cpuOf);
  const begun = performance.now();
  await pass(begun + seconds * 1000, true);
  const elapsed = (performance.now() - begun) / 1000;
  const spent = sum(pid, cpuOf) - cpu;
  clearTimeout(stuck);
  for (const { client } of clients) client.quit();
  return figuresOf(times, elapsed, spent);
}

export function milterTable(measured: readonly MilterMeasured[]): string {
  const ours = (one: MilterMeasured): MilterMeasured | undefined =>
    measured.find(
      ({ name, task, transport, connections }) =>
        name === OURS && task === one.task && transport === one.transport && connections === one.connections,
    );
  const rows = measured.map((one) => {
    const mine = ours(one);
    const times =
      mine === undefined || mine === one ? '' : `${(mine.perSecond / one.perSecond).toFixed(1)} ×`;
    return `| ${one.task} | ${one.transport} | ${one.connections} | ${one.name} | ${one.perSecond} | ${one.cpuMicroseconds} | ${one.p50Ms} | ${one.p99Ms} | ${times} |`;
  });
  return [
    '\n| task | socket | connections | milter | per second | CPU µs | p50 ms | p99 ms | Postern does |',
    '|---|---|--:|---|--:|--:|--:|--:|--:|',
    ...rows,
  ].join('\n');
}

const OURS = 'postern';
const SIGNED = /^DKIM-Signature:/m;
const RESULTS = /^Authentication-Results:/m;

const MILTERS: readonly Milter[] = [
  {
    name: OURS,
    tasks: ['sign', 'verify', 'score'],
    adds: { sign: SIGNED, verify: /dkim=pass[\s\S]*dmarc=pass/, score: /^X-Spam-Status:/m },
    async start({ folder, keyFile, nameServer, spamdPort }, task, target) {
      const file = folder.join('postern.toml');
      const off = ['spf', 'dkim', 'arc', 'dmarc'].map((name) => `checks.${name}.enabled = false`);
      await writeFile(
        file,
        [
          `dns.servers = ["${nameServer}:53"]`,
          'site.hostname = "mx.example.org"',
          `state.folder = ${JSON.stringify(folder.join('state'))}`,
          `milter.listen = ${JSON.stringify('port' in target ? `127.0.0.1:${target.port}` : `unix:${target.path}`)}`,
          'milter.mode = "0666"',
          'clamd.enabled = false',
          `spamd.enabled = ${task === 'score'}`,
          `spamd.address = "127.0.0.1:${spamdPort}"`,
          ...(task === 'score' ? off : []),
          '[[signing.key]]\ndomain = "sender.example"\nselector = "bench"',
          `file = ${JSON.stringify(keyFile)}`,
          '',
        ].join('\n'),
      );
      return startOurs('milter', file);
    },
  },
  {
    name: 'opendkim',
    tasks: ['sign', 'verify'],
    adds: { sign: SIGNED, verify: RESULTS },
    async start({ folder, keyFile, nameServer }, task, target) {
      const file = folder.join('opendkim.conf');
      const lines = [
        `Mode ${task === 'sign' ? 's' : 'v'}`,
        `Socket ${sendmailForm(target)}`,
        'Canonicalization relaxed/relaxed',
        'UserID root',
        'UMask 000',
        'Syslog no',
        'Background no',
        'RequireSafeKeys no',
        'AlwaysAddARHeader yes',
        `PidFile ${folder.join('pid')}`,
        `Nameservers ${nameServer}`,
        ...(task === 'sign' ? ['Domain sender.example', 'Selector bench', `KeyFile ${keyFile}`] : []),
      ];
      await writeFile(file, `${lines.join('\n')}\n`);
      return startProcess('/usr/sbin/opendkim', ['-f', '-x', file]).pid;
    },
  },
  {
    name: 'dkimpy-milter',
    tasks: ['sign', 'verify'],
    adds: { sign: SIGNED, verify: RESULTS },
    async start({ folder, keyFile, resolvConf }, task, target) {
      const file = folder.join('dkimpy-milter.conf');
      const lines = [
        `Mode ${task === 'sign' ? 's' : 'v'}`,
        `Socket ${sendmailForm(target)}`,
        'Canonicalization relaxed/relaxed',
        'UserID root',
        'UMask 000',
        'Syslog no',
        `PidFile ${folder.join('pid')}`,
        'Domain sender.example',
        'Selector bench',
        `KeyFile ${keyFile}`,
        'InternalHosts 127.0.0.1',
        'AuthservID mx.example.org',
      ];
      await writeFile(file, `${lines.join('\n')}\n`);
      return startProcess('/usr/bin/dkimpy-milter', [file], { resolvConf }).pid;
    },
  },
  {
    name: 'opendmarc',
    tasks: ['verify'],
    adds: { verify: RESULTS },
    async start({ folder, resolvConf }, _, target) {
      const file = folder.join('opendmarc.conf');
      const lines = [
        `Socket ${sendmailForm(target)}`,
        'AuthservID mx.example.org',
        'TrustedAuthservIDs mx.example.org',
        'UserID root',
        'UMask 000',
        'Syslog no',
        `PidFile ${folder.join('pid')}`,
        // It rests on what stands in the message; SPF it can look up itself.
        'SPFSelfValidate true',
        'SPFIgnoreResults true',
      ];
      await writeFile(file, `${lines.join('\n')}\n`);
      return startProcess('/usr/sbin/opendmarc', ['-f', '-c', file], { resolvConf }).pid;
    },
  },
  {
    name: 'pyspf-milter',
    tasks: ['verify'],
    adds: { verify: /^(?:Received-SPF|Authentication-Results):/m },
    async start({ folder, resolvConf }, _, target) {
      const file = folder.join('pyspf-milter.conf');
      const lines = [
        'debugLevel = 0',
        'TestOnly = 1',
        'HELO_reject = Fail',
        'Mail_From_reject = Fail',
        `Socket = ${sendmailForm(target)}`,
        `PidFile = ${folder.join('pid')}`,
        'UserID = root',
        'InternalHosts = 127.0.0.1',
      ];
      await writeFile(file, `${lines.join('\n')}\n`);
      return startProcess('/usr/bin/pyspf-milter', [file], { resolvConf }).pid;
    },
  },
  {
    name: 'rspamd',
    tasks: ['sign', 'verify'],
    adds: { sign: SIGNED, verify: RESULTS },
    async start({ folder, keyFile, nameServer }, task, target) {
      const owner = await idsOf('_rspamd');
      const data = folder.path;
      await chown(data, owner.uid, owner.gid);
      await chown(keyFile, owner.uid, owner.gid);
      const file = folder.join('rspamd.conf');
      await writeFile(folder.join('suffixes'), 'com\nnet\norg\nexample\n');
      await writeFile(file, rspamdConf(data, task, target, nameServer, keyFile));
      const variables = { DBDIR: data, RUNDIR: data, LOGDIR: data, LOCAL_CONFDIR: data };
      const started = startProcess(
        'rspamd',
        [
          '-f',
          '-c',
          file,
          ...Object.entries(variables).flatMap(([name, value]) => ['--var', `${name}=${value}`]),
        ],
        { cwd: data, runAs: { user: '_rspamd', group: '_rspamd' } },
      );
      await started.waitForLine(/controller worker is unconfigured/, { deadlineMs: STUCK_MS });
      return started.pid;
    },
  },
  {
    name: 'spamass-milter',
    tasks: ['score'],
    adds: { score: /^X-Spam-Status:/m },
    async start({ folder, spamdPort }, _, target) {
      // What follows -- is for spamc, which it starts for each message.
      const spamc = ['--', '-d', '127.0.0.1', '-p', String(spamdPort)];
      const args = ['-p', sendmailForm(target), '-P', folder.join('pid'), ...spamc];
      const started = startProcess('/usr/sbin/spamass-milter', args);
      await Promise.resolve();
      return started.pid;
    },
  },
];

/** Only what the task needs. */
function rspamdConf(data: string, task: Task, target: Target, nameServer: string, keyFile: string): string {
  const bind = 'port' in target ? `127.0.0.1:${target.port}` : `${target.path} mode=0666`;
  const plugins = task === 'sign' ? ['dkim_signing', 'milter_headers'] : ['dmarc', 'arc', 'milter_headers'];
  return `
options { pidfile = "${data}/rspamd.pid"; filters = "${task === 'sign' ? 'dkim' : 'dkim,spf'}"; disable_hyperscan = true;
  control_socket = "${data}/control.sock mode=0600"; tempdir = "${data}"; hs_cache_dir = "${data}/"; dynamic_conf = "${data}/dynamic";
  url_tld = "${data}/suffixes"; local_addrs = ["127.0.0.0/8"]; dns { nameserver = ["${nameServer}:53"]; timeout = 1s; } }
logging { type = "console"; level = "notice"; }
worker "rspamd_proxy" { bind_socket = "${bind}"; milter = yes; timeout = 60s; count = 1;
  upstream "local" { default = yes; self_scan = yes; } }
lua = "$RULESDIR/rspamd.lua"
actions { reject = 999; add_header = 998; greylist = 997; }
.include "$CONFDIR/groups.conf"
dkim_signing { sign_authenticated = true; sign_local = true; use_domain = "header"; use_esld = false; allow_username_mismatch = true;
  domain { "sender.example" { path = "${keyFile}"; selector = "bench"; } } }
dmarc { }
arc { }
milter_headers { use = ["authentication-results"]; extended_spam_headers = false; skip_local = false; skip_authenticated = false; }
${plugins.map((name) => `modules { path = "$PLUGINSDIR/${name}.lua"; }`).join('\n')}
`;
}

async function messages(rsa: KeyPair): Promise<Readonly<Record<Task, Sample>>> {
  const plain = sample('2 KiB', 2048, 'sender.example');
  return { sign: plain, score: plain, verify: await signed(plain, 'sender.example', rsa) };
}

/** An address as libmilter writes it. */
function sendmailForm(target: Target): string {
  return 'port' in target ? `inet:${target.port}@127.0.0.1` : `local:${target.path}`;
}

async function listening(target: Target): Promise<void> {
  await eventually(
    () =>
      new Promise<boolean | null>((resolve) => {
        const where = 'port' in target ? { host: '127.0.0.1', port: target.port } : { path: target.path };
        const socket = connect(where, () => {
          socket.destroy();
          resolve(true);
        });
        socket.on('error', () => resolve(null));
      }),
  );
}
