import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { chown, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { startDnsForwarder } from '../test/support/neighbours/dns-forwarder.ts';
import { privateFolder, type PrivateFolder } from '../test/support/neighbours/folder.ts';
import { freePort } from '../test/support/neighbours/ports.ts';
import { startProcess } from '../test/support/neighbours/process.ts';
import { measure, type Measured } from './policyd.ts';
import { cpuOf, peakMemoryOf, POSTERN } from './server.ts';

/** Policy servers of Debian that do a part of what policyd does, each with a configuration that lets everything pass. */
const PACKAGES = ['postfwd', 'postgrey', 'policyd-rate-limit', 'postfix-policyd-spf-python'];

const CONNECTIONS = [1, 8, 64];
const SECONDS = 10;
const ANSWERS = '(?:dunno|DUNNO|prepend|PREPEND|defer_if_permit|DEFER_IF_PERMIT)';
const UP_MS = 20_000;

interface Started {
  readonly pid: number;
  readonly stop: () => Promise<void>;
}

interface Peer {
  readonly name: string;
  /** The scene of policyd that does the same. */
  readonly beside: string;
  /** A process for each connection: so many are enough. */
  readonly most: number;
  start(port: number, folder: PrivateFolder, resolvConf: string): Promise<Started>;
}

/** An hour's worth of messages that nobody reaches. */
const RATE = 100_000_000;

const PEERS: readonly Peer[] = [postfwd('postfwd1'), postfwd('postfwd2'), postgrey(), rateLimit(), spf()];

export interface PeersBench {
  readonly dnsPort: number;
  readonly requests: number;
  readonly only: string;
  readonly told: (measured: Measured) => void;
}

/** Installs, starts, measures and ends one after the other. Needs Debian and root. */
export async function benchPeers(bench: PeersBench): Promise<void> {
  execFileSync('bash', [join(import.meta.dirname, '../scripts/debian.sh'), ...PACKAGES], {
    stdio: 'inherit',
  });
  await using dns = await startDnsForwarder(bench.dnsPort);
  for (const peer of PEERS.filter(({ name }) => name.includes(bench.only))) {
    await using folder = await privateFolder(peer.name);
    const resolvConf = folder.join('resolv.conf');
    await writeFile(resolvConf, `nameserver ${dns.address}\n`);
    const port = await freePort();
    const started = await peer.start(port, folder, resolvConf);
    try {
      await answering(port);
      const usage = { cpu: () => sum(started.pid, cpuOf), peakMemory: () => sum(started.pid, peakMemoryOf) };
      const base = { port, recipients: 1, newSenders: false, seconds: SECONDS };
      for (const connections of CONNECTIONS.filter((count) => count <= peer.most)) {
        const messages = connections === 1 ? Math.ceil(bench.requests / 4) : bench.requests;
        bench.told(await measure(peer.name, { ...base, connections, messages, expect: ANSWERS }, usage));
      }
    } finally {
      await started.stop();
    }
  }
}

/** Ours beside theirs: how many times as many requests, and which part of the CPU time. */
export function comparison(measured: readonly Measured[]): string {
  const lines = [
    '\nEach beside what policyd does of the same, measured in this run:\n',
    '| peer | connections | per second | CPU µs | p99 ms | policyd does | per second | CPU µs | p99 ms | throughput | CPU |',
    '|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|',
  ];
  for (const peer of PEERS) {
    for (const theirs of measured.filter(({ name }) => name === peer.name)) {
      const ours = measured.find(
        ({ name, connections, recipients }) =>
          name === `policyd, ${peer.beside}` && connections === theirs.connections && recipients === 1,
      );
      if (ours === undefined) continue;
      lines.push(
        `| ${peer.name} | ${theirs.connections} | ${theirs.perSecond} | ${theirs.cpuMicroseconds} | ${theirs.p99Ms} | ${peer.beside} ` +
          `| ${ours.perSecond} | ${ours.cpuMicroseconds} | ${ours.p99Ms} ` +
          `| ${(ours.perSecond / theirs.perSecond).toFixed(1)} × | 1/${(theirs.cpuMicroseconds / ours.cpuMicroseconds).toFixed(1)} |`,
      );
    }
  }
  return lines.join('\n');
}

function postfwd(name: 'postfwd1' | 'postfwd2'): Peer {
  return {
    name,
    beside: 'three limits',
    most: 64,
    async start(port, folder) {
      const rules = folder.join('postfwd.cf');
      await writeFile(rules, `id=RATE; sender=~/./; action=rate(sender/${RATE}/3600/450 4.7.1 too much)\n`);
      const pidFile = folder.join('pid');
      // Goes to the background by itself, in a session of its own.
      const args = ['--daemon', '-f', rules, '-i', '127.0.0.1', '-p', String(port), '--norulelog'];
      const cache = name === 'postfwd2' ? ['--cache_socket', `tcp:127.0.0.1:${await freePort()}`] : [];
      execFileSync(
        `/usr/sbin/${name}`,
        [...args, ...cache, '--user=root', '--group=root', '--pidfile', pidFile],
        {
          stdio: 'ignore',
          timeout: UP_MS,
        },
      );
      const pid = Number(await eventually(async () => (await readFile(pidFile, 'utf8')).trim() || null));
      return { pid, stop: () => endTree(pid) };
    },
  };
}

function postgreyId(flag: '-u' | '-g'): number {
  return Number(execFileSync('id', [flag, 'postgrey'], { encoding: 'utf8' }));
}

function postgrey(): Peer {
  return {
    name: 'postgrey',
    beside: 'greylist, known',
    most: 64,
    async start(port, folder) {
      await chown(folder.path, postgreyId('-u'), postgreyId('-g'));
      const started = startProcess('/usr/sbin/postgrey', [
        `--inet=127.0.0.1:${port}`,
        `--dbdir=${folder.path}`,
        `--pidfile=${folder.join('pid')}`,
        '--delay=1',
        '--auto-whitelist-clients=0',
      ]);
      return { pid: started.pid, stop: () => started.stop() };
    },
  };
}

function rateLimit(): Peer {
  return {
    name: 'policyd-rate-limit',
    beside: 'three limits',
    most: 64,
    async start(port, folder) {
      const file = folder.join('policyd-rate-limit.yaml');
      await writeFile(
        file,
        `debug: False\nuser: "root"\ngroup: "root"\npidfile: "${folder.join('pid')}"\n` +
          `sqlite_config:\n    database: "${folder.join('db.sqlite3')}"\nbackend: 0\nSOCKET: ["127.0.0.1", ${port}]\n` +
          `limits:\n    - [${RATE}, 3600]\nlimits_by_id: {}\nlimit_by_sasl: True\nlimit_by_sender: True\nlimit_by_ip: False\n` +
          `limited_networks: []\nsuccess_action: "dunno"\nfail_action: "defer_if_permit too much"\ndb_error_action: "dunno"\n` +
          `report: False\nreport_from: null\nreport_to: null\nreport_subject: "x"\nreport_limits: [86400]\nreport_only_if_needed: True\n` +
          `smtp_server: ["localhost", 25]\nsmtp_starttls: False\nsmtp_credentials: null\ndelay_to_close: 300\n`,
      );
      const started = startProcess('/usr/bin/policyd-rate-limit', ['-f', file]);
      return { pid: started.pid, stop: () => started.stop() };
    },
  };
}

function spf(): Peer {
  return {
    name: 'policyd-spf',
    beside: 'spf cached',
    most: 8,
    async start(port, folder, resolvConf) {
      const file = folder.join('policyd-spf.conf');
      await writeFile(file, 'debugLevel = 0\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\n');
      const service = join(import.meta.dirname, 'spawn.py');
      const started = startProcess(
        '/usr/bin/python3',
        [service, String(port), '/usr/bin/policyd-spf', file],
        { resolvConf },
      );
      await started.waitForLine(/ready/);
      return { pid: started.pid, stop: () => started.stop() };
    },
  };
}

/** One of our daemons beside them, with the configuration in a file; its pid. */
export async function startOurs(daemon: string, file: string): Promise<number> {
  const started = startProcess(POSTERN, ['run', daemon, '--admin', 'none', '--config', file]);
  await started.waitForLine(/"msg":"ready"/, { deadlineMs: UP_MS });
  return started.pid;
}

/** Over a process and all that descend from it. */
export function sum(pid: number, of: (pid: number) => number): number {
  return tree(pid).reduce((total, each) => {
    try {
      return total + of(each);
    } catch {
      return total; // it has ended: its parent has its time
    }
  }, 0);
}

function tree(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // It has ended since.
    }
  }
  const found = [root];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found;
}

/** Ends what this bench has started, by its ids. */
export async function endTree(root: number): Promise<void> {
  // To signal -1 is to signal every process of the machine, which is how a program that could not be started would end here.
  if (root <= 1) throw new Error('the program did not start');
  const pids = tree(root);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended.
      }
    }
    for (let waited = 0; waited < 3000 && pids.some(alive); waited += 50) await delay(50);
  }
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function answering(port: number): Promise<void> {
  await eventually(
    () =>
      new Promise<boolean | null>((resolve) => {
        const socket = connect(port, '127.0.0.1', () => {
          socket.destroy();
          resolve(true);
        });
        socket.on('error', () => resolve(null));
      }),
  );
}

export async function eventually<T>(look: () => Promise<T | null>): Promise<T> {
  for (let waited = 0; waited < UP_MS; waited += 100) {
    const found = await look().catch(() => null);
    if (found !== null) return found;
    await delay(100);
  }
  throw new Error('the peer did not start in time');
}
