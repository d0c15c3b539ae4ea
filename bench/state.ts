// `node bench/state.ts`: what the state costs, alone and with a million of everything, and how it gets rid of them. Lines on standard output.
//   node bench/state.ts [--rows N] [--only sqlite|redis]
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { openRedisState } from '../src/adapters/state-redis.ts';
import { openSqliteState } from '../src/adapters/state-sqlite.ts';
import type { GreylistTimes, Triplet } from '../src/ports/greylist.ts';
import type { Hit } from '../src/ports/limits.ts';
import type { State } from '../src/ports/state.ts';
import { startRedis } from '../test/support/neighbours/redis.ts';
import { PLAIN_REDIS } from '../test/support/redis-options.ts';

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '1000000' }, only: { type: 'string', default: '' } },
});
const ROWS = Number(values.rows);
const CONCURRENCY = 64;
/** How long a message is in flight where nothing settles it. */
const HELD_MS = 500;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const LOOK_UPS = 20_000;
/** Redis removes keys by its own clock: here everything has that much time to be made and looked up. */
const REDIS_LIFE_MS = 300_000;

/** A state, with the time it goes by and what it takes. */
interface Subject {
  readonly state: State;
  readonly times: GreylistTimes;
  /** Of the limits that a million keys are counted on. */
  readonly periodMs: number;
  readonly pass: (ms: number) => void;
  sizes(): Promise<string>;
  /** Until everything is gone; how many rows or keys that were. */
  expire(): Promise<number>;
}

/** Number of the next message, key or triplet. */
let serial = 0;

if (values.only !== 'redis') await sqlite();
if (values.only !== 'sqlite') {
  if (existsSync('/usr/bin/redis-server')) await redis();
  else console.error('redis-server is not installed: no figures for it');
}

async function sqlite(): Promise<void> {
  const clock = { ahead: 0, now: () => Date.now() + clock.ahead, elapsed: () => performance.now() };
  const folder = await mkdtemp(join(tmpdir(), 'postern-bench-state-'));
  const file = join(folder, 'state.sqlite');
  const state = await openSqliteState(folder, clock);
  try {
    await all('SQLite', {
      state,
      times: { delayMs: 300_000, windowMs: 2 * DAY, ageMs: 35 * DAY, clientPasses: 0 },
      periodMs: HOUR,
      pass: (ms) => (clock.ahead += ms),
      sizes: async () => `file ${await sizeOf(file)}, log ${await sizeOf(`${file}-wal`)}`,
      expire: () => {
        clock.ahead += 3 * DAY;
        return state.expire();
      },
    });
  } finally {
    await state[Symbol.asyncDispose]();
    print('SQLite: closed', `file ${await sizeOf(file)}`);
    await rm(folder, { recursive: true });
  }
}

async function sizeOf(path: string): Promise<string> {
  return mib((await stat(path)).size);
}

async function redis(): Promise<void> {
  await using server = await startRedis();
  const before = { ahead: 0 };
  await using state = await openRedisState(
    {
      address: { kind: 'tcp', host: server.host, port: server.port },
      ...PLAIN_REDIS,
      timeoutMs: 1000,
      offset: () => before.ahead,
    },
    { up: () => undefined, down: (why) => print('Redis: lost', why) },
  );
  const keys = async (): Promise<number> => Number((await server.command('DBSIZE'))[0]);
  await all('Redis', {
    state,
    times: { delayMs: 60_000, windowMs: REDIS_LIFE_MS, ageMs: REDIS_LIFE_MS, clientPasses: 0 },
    // A counter of a sliding window lasts for two periods.
    periodMs: REDIS_LIFE_MS / 2,
    pass: (ms) => (before.ahead += ms),
    async sizes() {
      const memory = (await server.command('INFO', 'memory')).join('\n');
      const used = (name: string): string =>
        mib(Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(memory)?.[1]));
      return `${await keys()} keys, used_memory ${used('used_memory')}, its RSS ${used('used_memory_rss')}`;
    },
    async expire() {
      const there = await keys();
      const until = performance.now() + 2 * REDIS_LIFE_MS;
      let slowest = 0;
      while ((await keys()) > 0 && performance.now() < until) {
        const asked = performance.now();
        await state.ping();
        slowest = Math.max(slowest, performance.now() - asked);
        await delay(10);
      }
      print('Redis: slowest answer meanwhile', `${slowest.toFixed(1)} ms`);
      return there - (await keys());
    },
  });
}

async function all(name: string, subject: Subject): Promise<void> {
  const { state, times, periodMs } = subject;
  const told = (what: string, figures: string): void => print(`${name}: ${what}`, figures);
  const sizes = async (): Promise<string> =>
    `${await subject.sizes()}, our RSS ${mib(process.memoryUsage.rss())}`;
  told('new', await sizes());
  await everyday(subject, told);
  const newTriplet = (n: number): Promise<unknown> => state.greylist(tripletOf(n), times);
  told(`${ROWS} greylist triplets`, `${await filled(newTriplet)}; ${await sizes()}`);
  told('a triplet that waits', await lookedUp(newTriplet));
  const newKey = (n: number): Promise<unknown> => state.hit([{ ...hitOf('distinct', n), periodMs }]);
  told(`${ROWS} limit keys`, `${await filled(newKey)}; ${await sizes()}`);
  told('a hit of a known key', await lookedUp(newKey));

  const idle = neighbour();
  const stalls = monitorEventLoopDelay({ resolution: 1 });
  stalls.enable();
  const begin = performance.now();
  const gone = await subject.expire();
  stalls.disable();
  const seconds = (performance.now() - begin) / 1000;
  told('expiry', `${gone} gone in ${seconds.toFixed(1)} s; ${await sizes()}`);
  const at = (share: number): string => (stalls.percentile(share) / 1e6).toFixed(1);
  told('event loop meanwhile, p50/p99/p99.9/max', `${at(50)}/${at(99)}/${at(99.9)}/${at(100)} ms`);
  told('that of an idle process beside it', await idle.end());
}

/** What the machine itself does to an event loop: a process that has nothing to do. */
function neighbour(): { end(): Promise<string> } {
  const program = `
    const stalls = require('node:perf_hooks').monitorEventLoopDelay({ resolution: 1 });
    stalls.enable();
    process.stdin.resume().on('end', () => {
      console.log([50, 99, 99.9, 100].map((share) => (stalls.percentile(share) / 1e6).toFixed(1)).join('/'), 'ms');
      process.exit();
    });`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  return {
    async end() {
      child.stdin.end();
      return (await text(child.stdout)).trim();
    },
  };
}

/** What one message costs, for a site with a thousand users. */
async function everyday(
  { state: of, times, pass }: Subject,
  told: (what: string, figures: string) => void,
): Promise<void> {
  const users = 1000;
  for (let n = 0; n < users; n++) await of.greylist(tripletOf(-n), times);
  pass(times.delayMs);
  for (let n = 0; n < users; n++) await of.greylist(tripletOf(-n), times);
  const limits = (n: number): readonly Hit[] => [
    hitOf('per-login', n % users),
    { ...hitOf('per-network', n % 200), algorithm: 'bucket' },
    hitOf('all-together', 0),
  ];
  const claim = (n: number) => ({
    mailbox: `user${n % users}@example.org`,
    bytes: 10_000,
    used: 1e6,
    limit: 1e9,
    grace: 0,
  });
  const parts: Readonly<Record<string, (n: number) => Promise<unknown>>> = {
    'greylist, known': (n) => of.greylist(tripletOf(-(n % users)), times),
    'three limits': (n) => of.hit(limits(n)),
    'reserve and settle': async (n) => {
      await of.reserve(`trace${n}`, [claim(n)], REDIS_LIFE_MS);
      await of.settle(`trace${n}`, null, 0);
    },
    'known, three limits and reserve, all at once': (n) =>
      Promise.all([
        of.greylist(tripletOf(-(n % users)), times),
        of.reserve(`together${n}`, [claim(n)], HELD_MS),
        of.hit(limits(n)),
      ]),
    'known, reserve, then three limits': async (n) => {
      await of.greylist(tripletOf(-(n % users)), times);
      await of.reserve(`apart${n}`, [claim(n)], HELD_MS);
      await of.hit(limits(n));
    },
  };
  for (const [name, one] of Object.entries(parts)) {
    await measured(one, 20_000);
    const { wallUs, cpuUs } = await measured(one, 50_000);
    told(name, `${wallUs.toFixed(1)} µs each, ${cpuUs.toFixed(1)} µs of our CPU, ${CONCURRENCY} at once`);
  }
  // So that what follows is alone.
  await of.resetCounters({});
}

/** CPU of this process, the checkpoint thread included. */
async function measured(
  one: (n: number) => Promise<unknown>,
  count: number,
): Promise<{ wallUs: number; cpuUs: number }> {
  const cpu = process.cpuUsage();
  const begin = performance.now();
  await atOnce(one, count);
  const { user, system } = process.cpuUsage(cpu);
  return { wallUs: ((performance.now() - begin) * 1000) / count, cpuUs: (user + system) / count };
}

async function atOnce(one: (n: number) => Promise<unknown>, count: number): Promise<void> {
  const end = serial + count;
  const worker = async (): Promise<void> => {
    while (serial < end) await one(serial++);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
}

async function filled(one: (n: number) => Promise<unknown>): Promise<string> {
  serial = 0;
  const begin = performance.now();
  await atOnce(one, ROWS);
  return `${Math.round((ROWS * 1000) / (performance.now() - begin))} a second`;
}

async function lookedUp(one: (n: number) => Promise<unknown>): Promise<string> {
  const times: number[] = [];
  for (let turn = 0; turn < LOOK_UPS; turn++) {
    const n = Math.floor(Math.random() * ROWS);
    const begin = performance.now();
    await one(n);
    times.push((performance.now() - begin) * 1000);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(0);
  return `p50 ${at(0.5)} µs, p99 ${at(0.99)} µs, one after another`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

function tripletOf(n: number): Triplet {
  return {
    network: `192.0.${(n >> 8) & 255}.0/24`,
    sender: `sender-${n}@somewhere.example`,
    recipient: `recipient-${n % 5000}@example.org`,
  };
}

function hitOf(limit: string, n: number): Hit {
  const key = `login-${n}@example.org`;
  return { limit, key, algorithm: 'window', most: 1e9, periodMs: HOUR, cost: 1, enforced: true };
}

function print(name: string, what: string): void {
  console.log(`${name}: ${what}`);
}
