// `node bench/state.ts`: what the SQLite state costs, alone and with a million of everything. A table on standard output.
//   node bench/state.ts [--rows N]
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

import { openSqliteState, type SqliteState } from '../src/adapters/state-sqlite.ts';
import type { GreylistTimes, Triplet } from '../src/ports/greylist.ts';
import type { Hit } from '../src/ports/limits.ts';

const { values } = parseArgs({ options: { rows: { type: 'string', default: '1000000' } } });
const ROWS = Number(values.rows);
const CONCURRENCY = 64;
/** How long a message is in flight where nothing settles it. */
const HELD_MS = 500;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TIMES: GreylistTimes = { delayMs: 300_000, windowMs: 2 * DAY, ageMs: 35 * DAY, clientPasses: 0 };

const clock = {
  ahead: 0,
  now: () => Date.now() + clock.ahead,
  elapsed: () => performance.now(),
};
const folder = await mkdtemp(join(tmpdir(), 'postern-bench-state-'));
/** Number of the next message, key or triplet. */
let serial = 0;
const state = await openSqliteState(folder, clock);

try {
  print('new', await sizes());
  await everyday(state);
  await million('greylist triplets', (n) => state.greylist(tripletOf(n), TIMES));
  await lookUps('triplet that waits', (n) => state.greylist(tripletOf(n), TIMES));
  await million('limit keys', (n) => state.hit([hitOf('distinct', n)]));
  await lookUps('hit of a known key', (n) => state.hit([hitOf('distinct', n)]));
  clock.ahead += 3 * DAY;
  await expiry();
} finally {
  await state[Symbol.asyncDispose]();
  print('after the end', `file ${mib((await stat(join(folder, 'state.sqlite'))).size)}`);
  await rm(folder, { recursive: true });
}

/** What one message costs, for a site with a thousand users. */
async function everyday(of: SqliteState): Promise<void> {
  const users = 1000;
  for (let n = 0; n < users; n++) await of.greylist(tripletOf(-n), TIMES);
  clock.ahead += TIMES.delayMs;
  for (let n = 0; n < users; n++) await of.greylist(tripletOf(-n), TIMES);
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
    'greylist, known': (n) => of.greylist(tripletOf(-(n % users)), TIMES),
    'three limits': (n) => of.hit(limits(n)),
    'reserve and settle': async (n) => {
      await of.reserve(`trace${n}`, [claim(n)], HOUR);
      await of.settle(`trace${n}`, null, 0);
    },
    'known, three limits and reserve, all at once': (n) =>
      Promise.all([
        of.greylist(tripletOf(-(n % users)), TIMES),
        of.reserve(`together${n}`, [claim(n)], HELD_MS),
        of.hit(limits(n)),
      ]),
    'known, reserve, then three limits': async (n) => {
      await of.greylist(tripletOf(-(n % users)), TIMES);
      await of.reserve(`apart${n}`, [claim(n)], HELD_MS);
      await of.hit(limits(n));
    },
  };
  for (const [name, one] of Object.entries(parts)) {
    await measured(one, 20_000);
    const { wallUs, cpuUs } = await measured(one, 50_000);
    print(
      name,
      `${wallUs.toFixed(1)} µs each, ${cpuUs.toFixed(1)} µs CPU with the checkpoint thread, ${CONCURRENCY} at once`,
    );
  }
}

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

async function million(name: string, one: (n: number) => Promise<unknown>): Promise<void> {
  serial = 0;
  const begin = performance.now();
  await atOnce(one, ROWS);
  const seconds = (performance.now() - begin) / 1000;
  print(`${ROWS} ${name}`, `${Math.round(ROWS / seconds)} a second; ${await sizes()}`);
}

async function lookUps(name: string, one: (n: number) => Promise<unknown>): Promise<void> {
  const times: number[] = [];
  for (let turn = 0; turn < 20_000; turn++) {
    const n = Math.floor(Math.random() * ROWS);
    const begin = performance.now();
    await one(n);
    times.push((performance.now() - begin) * 1000);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(0);
  print(name, `p50 ${at(0.5)} µs, p99 ${at(0.99)} µs, one after another`);
}

async function expiry(): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const begin = performance.now();
  const removed = await state.expire();
  delay.disable();
  const seconds = (performance.now() - begin) / 1000;
  const longest = [0.5, 0.99, 1].map((share) => (delay.percentile(share * 100) / 1e6).toFixed(1));
  print(
    'expiry',
    `${removed} rows in ${seconds.toFixed(1)} s, event loop delay p50/p99/max ${longest.join('/')} ms; ${await sizes()}`,
  );
}

async function sizes(): Promise<string> {
  const file = join(folder, 'state.sqlite');
  const log = await stat(`${file}-wal`);
  return `file ${mib((await stat(file)).size)}, log ${mib(log.size)}, RSS ${mib(process.memoryUsage.rss())}`;
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
