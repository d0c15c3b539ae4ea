import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { startRedis, type RedisServer } from '../test/support/neighbours/redis.ts';
import { freePort } from '../test/support/neighbours/ports.ts';
import { loaded, type Load, type Loaded } from './policy-load.ts';
import { Watched } from './server.ts';

const CONNECTIONS = [1, 8, 64, 500];
/** The longest one measurement may take. */
const SECONDS = 20;
const CHECKS = [
  'access',
  'helo',
  'ptr',
  'mx',
  'spf',
  'dnsbl',
  'sender',
  'account',
  'greylist',
  'quota',
  'limits',
];

const GREYLIST = '[checks.greylist]\nenabled = true\ndelay = "1s"\nclient_passes = 0\n';
const LIMITS = ['client', 'sender', 'recipient']
  .map(
    (per) =>
      `[[checks.limits.limit]]\nname = "per-${per}"\nper = ["${per}"]\nof = "messages"\nmost = 100000000\nperiod = "1h"\n`,
  )
  .join('');

/** What policyd is measured with: all checks off but the ones named. */
interface Scene {
  readonly name: string;
  readonly checks: readonly string[];
  /** Lines of the configuration. */
  readonly config: string;
  readonly newSenders?: boolean;
  /** Asks a Redis that Dovecot's quota_clone writes to; left out where there is none. */
  readonly quota?: boolean;
  readonly expect: string;
}

const SCENES: readonly Scene[] = [
  { name: 'nothing', checks: [], config: '', expect: 'DUNNO|PREPEND' },
  { name: 'spf cached', checks: ['spf'], config: '', expect: 'PREPEND Received-SPF: pass|DUNNO' },
  { name: 'greylist, known', checks: ['greylist'], config: GREYLIST, expect: 'DUNNO' },
  {
    name: 'greylist, all new',
    checks: ['greylist'],
    config: GREYLIST,
    newSenders: true,
    expect: 'DEFER_IF_PERMIT|450',
  },
  { name: 'three limits', checks: ['limits'], config: LIMITS, expect: 'DUNNO' },
  { name: 'quota', checks: ['quota'], config: '', quota: true, expect: 'DUNNO' },
  {
    name: 'all together',
    checks: ['spf', 'greylist', 'limits', 'quota'],
    config: GREYLIST + LIMITS,
    quota: true,
    expect: 'PREPEND|DUNNO',
  },
];

export interface Measured {
  readonly name: string;
  readonly connections: number;
  readonly recipients: number;
  readonly requests: number;
  /** Answers among them that were not what is expected. */
  readonly unexpected: number;
  readonly perSecond: number;
  /** Of the server, user and system, all threads. */
  readonly cpuMicroseconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly peakRssMiB: number;
  /** At its end; of a long run only. */
  readonly rssMiB?: number;
  /** Of the machine, over the last minute: what others ran beside it. */
  readonly loadAverage: number;
  /** The load generator had no time left: the server could have done more. */
  readonly saturated: boolean;
}

const SATURATED = 0.9;
let runs = 0;

/** Runs one load in a process of its own. */
async function load(options: Omit<Load, 'run'>): Promise<Loaded> {
  const run = `${(runs += 1).toString(16)}.${Date.now().toString(16)}`;
  const program = join(import.meta.dirname, 'policy-load.ts');
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    [program, JSON.stringify({ ...options, run } satisfies Load)],
    { timeout: (options.seconds + 60) * 1000 },
  );
  if (stderr !== '') console.error(stderr.trimEnd());
  return loaded.parse(JSON.parse(stdout));
}

/** One load with what it cost the server. */
export async function measure(
  name: string,
  options: Omit<Load, 'run'>,
  server: { cpu(): number; peakMemory(): number },
): Promise<Measured> {
  const before = server.cpu();
  const result = await load(options);
  const spent = server.cpu() - before;
  return {
    name,
    connections: options.connections,
    recipients: options.recipients,
    requests: result.requests,
    unexpected: result.unexpected,
    perSecond: Math.round(result.requests / result.seconds),
    cpuMicroseconds: Math.round(spent / result.requests),
    p50Ms: round(result.p50Ms),
    p99Ms: round(result.p99Ms),
    peakRssMiB: server.peakMemory(),
    loadAverage: round(loadavg()[0] ?? 0),
    saturated: result.busy > SATURATED,
  };
}

export interface PolicydBench {
  readonly folder: string;
  readonly dnsPort: number;
  /** Requests of one measurement. */
  readonly requests: number;
  readonly only: string;
  readonly profile: string;
  readonly connections?: readonly number[];
  readonly told: (measured: Measured) => void;
}

/** What the machine can do: a server that does nothing, see least.ts. */
async function benchLeast(bench: PolicydBench): Promise<void> {
  if (!LEAST.includes(bench.only)) return;
  const port = await freePort();
  await using server = await Watched.start([join(import.meta.dirname, 'least.ts'), String(port)], 'ready');
  const base = { port, newSenders: false, expect: 'DUNNO', seconds: SECONDS, recipients: 1 };
  await load({ ...base, connections: 8, messages: 3000 });
  for (const connections of bench.connections ?? CONNECTIONS) {
    bench.told(await measure(LEAST, { ...base, connections, messages: bench.requests }, server));
  }
}

const LEAST = 'least server that node:net can make';
/** Stretches of a run that is watched for growth. */
const STRETCHES = 8;

/** Memory after each stretch of a long run: no message, sender or client of it comes back. */
async function benchGrowth(bench: PolicydBench, clone: RedisServer | null): Promise<void> {
  const scene = SCENES.find(({ name }) => name === 'all together');
  const name = 'policyd, memory of a long run';
  if (scene === undefined || clone === null || !name.includes(bench.only)) return;
  const port = await freePort();
  const config = scene.config + redisConfig(scene, clone, null);
  await using server = await startPolicyd(bench, { ...scene, name, config }, port);
  const base = { port, newSenders: true, expect: '', seconds: 120, connections: 64, recipients: 2 };
  for (let stretch = 1; stretch <= STRETCHES; stretch++) {
    const messages = Math.ceil(bench.requests / base.recipients);
    const measured = await measure(`${name}, stretch ${stretch}`, { ...base, messages }, server);
    bench.told({ ...measured, rssMiB: server.memory() });
  }
}

/** Every scene, on SQLite and, where redis-server is installed, on Redis. */
export async function benchPolicyd(bench: PolicydBench): Promise<void> {
  await benchLeast(bench);
  if (!existsSync(REDIS)) {
    console.error('redis-server is not installed: no figures for the state on Redis, and none with quotas');
    return benchScenes(bench, null, null);
  }
  await using redis = await startRedis();
  for (let user = 0; user < RECIPIENTS; user++) {
    await redis.command('SET', `dovecot-quota/bob${user}@example.org/quota/storage`, '1000000');
  }
  await benchScenes(bench, redis, null);
  await benchScenes(bench, redis, redis);
  await benchGrowth(bench, redis);
}

/** Every scene at every number of connections, first with a recipient a message, then with five. */
async function benchScenes(
  bench: PolicydBench,
  clone: RedisServer | null,
  state: RedisServer | null,
): Promise<void> {
  for (const scene of SCENES) {
    const name = `policyd${state === null ? '' : ' on Redis'}, ${scene.name}`;
    // Without state it is the same on both.
    const pointless = state !== null && scene.checks.every((check) => STATELESS.has(check));
    if (!name.includes(bench.only) || pointless || (scene.quota === true && clone === null)) continue;
    const port = await freePort();
    const config = scene.config + redisConfig(scene, clone, state);
    await using server = await startPolicyd(bench, { ...scene, name, config }, port);
    const base = { port, newSenders: scene.newSenders ?? false, expect: scene.expect, seconds: SECONDS };
    await warm(scene, base);
    for (const recipients of [1, 5]) {
      for (const connections of bench.connections ?? CONNECTIONS) {
        const messages = Math.ceil(Math.max(bench.requests, connections * 10) / recipients);
        bench.told(await measure(name, { ...base, connections, recipients, messages }, server));
      }
    }
  }
}

const REDIS = '/usr/bin/redis-server';
/** As many as the load generator names. */
const RECIPIENTS = 50;
const STATELESS: ReadonlySet<string> = new Set(['spf']);

function redisConfig(scene: Scene, clone: RedisServer | null, state: RedisServer | null): string {
  const kept = state === null ? '' : `[state.redis]\naddress = "${state.host}:${state.port}"\n`;
  if (scene.quota !== true || clone === null) return kept;
  return `${kept}[dovecot.quota_clone]\naddress = "${clone.host}:${clone.port}"\n[directory]\nmailbox_domains = ["example.org"]\n[[account]]\nnames = ["@example.org"]\nquota = "1000GiB"\n`;
}

/** Every client, sender and recipient once, a second later again: then greylisting knows them. */
async function warm(
  scene: Scene,
  base: Pick<Load, 'port' | 'newSenders' | 'expect' | 'seconds'>,
): Promise<void> {
  const all = { ...base, expect: '', connections: 8, recipients: 1, messages: 3000 };
  await load(all);
  if (!scene.checks.includes('greylist') || scene.newSenders === true) return;
  await load({ ...all, recipients: 5 });
  await new Promise((resolve) => setTimeout(resolve, 1100));
  await load({ ...all, recipients: 5 });
}

async function startPolicyd(bench: PolicydBench, scene: Scene, port: number): Promise<Watched> {
  const folder = join(bench.folder, scene.name.replaceAll(/\W+/g, '-'));
  await mkdir(folder, { recursive: true });
  const config = join(folder, 'postern.toml');
  const off = CHECKS.filter((check) => !scene.checks.includes(check)).map(
    (check) => `[checks.${check}]\nenabled = false\n`,
  );
  await writeFile(
    config,
    `dns.servers = ["127.0.0.1:${bench.dnsPort}"]\nsite.hostname = "mx.example.org"\n` +
      `state.folder = ${JSON.stringify(join(folder, 'state'))}\npolicyd.listen = "127.0.0.1:${port}"\n` +
      `spamd.enabled = false\nlog.level = "info"\n${off.join('')}${scene.config}`,
  );
  return Watched.startPostern('policyd', config, bench.profile);
}

function round(ms: number): number {
  return Number(ms.toFixed(2));
}
