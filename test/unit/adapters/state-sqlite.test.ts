import { spawn } from 'node:child_process';
import { mkdtemp, open as openFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { text } from 'node:stream/consumers';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { StoreUnusable } from '../../../src/adapters/sqlite-schema.ts';
import {
  openSqliteState,
  type SqliteState,
  type SqliteStateOptions,
} from '../../../src/adapters/state-sqlite.ts';
import type { GreylistTimes } from '../../../src/ports/greylist.ts';
import type { Hit } from '../../../src/ports/limits.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Claim } from '../../../src/ports/quota.ts';
import { FakeClock, MORNING } from '../../support/decisions.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TIMES: GreylistTimes = {
  delayMs: 5 * MINUTE,
  windowMs: 2 * DAY,
  ageMs: 30 * DAY,
  clientPasses: 1,
};

let folder: string;
let clock: FakeClock;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-state-'));
  clock = new FakeClock();
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

function open(options: SqliteStateOptions = {}): Promise<SqliteState> {
  return openSqliteState(folder, clock, options);
}

function file(): string {
  return join(folder, 'state.sqlite');
}

function hitOn(key: string, differs: Partial<Hit> = {}): Hit {
  return {
    limit: 'messages',
    key,
    algorithm: 'window',
    most: 100,
    periodMs: HOUR,
    cost: 1,
    enforced: true,
    ...differs,
  };
}

function claimOn(mailbox: string, bytes: number): Claim {
  return { mailbox, bytes, used: 0, limit: 100, grace: 0 };
}

/** Rows of each table that is bounded, as the file counts them, and as they are. */
function rowsOf(...tables: readonly string[]): Record<string, number> {
  const database = new DatabaseSync(file());
  const count = (sql: string): number => Number(Object.values(database.prepare(sql).get() ?? {})[0]);
  const sizes: Record<string, number> = {};
  for (const table of tables) {
    const rows = count(`SELECT count(*) FROM ${table}`);
    const noted = count(`SELECT coalesce((SELECT rows FROM size WHERE name = '${table}'), ${rows})`);
    if (noted !== rows) throw new Error(`${table} has ${rows} rows, not ${noted}`);
    sizes[table] = rows;
  }
  database.close();
  return sizes;
}

const EVERY_TABLE = [
  'counter',
  'triplet',
  'client',
  'correspondent',
  'reservation',
  'mailbox_load',
  'full_mailbox',
  'sighting_subject',
  'sighting',
  'tally',
  'standing',
] as const;

const MODULE = JSON.stringify(new URL('../../../src/adapters/state-sqlite.ts', import.meta.url).href);

/** Runs a script in a process of its own, with `state` open. */
async function inChild(script: string, limits = 'true'): Promise<string> {
  const code = `
    import { openSqliteState } from ${MODULE};
    const clock = { now: () => ${MORNING}, elapsed: () => performance.now() };
    const state = await openSqliteState(${JSON.stringify(folder)}, clock, {
      failed: (error) => console.log('failed', error.message),
    }).catch((error) => {
      console.log(error.name, error.message);
      process.exit();
    });
    ${script}
    await state[Symbol.asyncDispose]();`;
  const child = spawn('bash', [
    '-c',
    `${limits}; exec "$0" --input-type=module -e "$1"`,
    process.execPath,
    code,
  ]);
  const [out, problems] = await Promise.all([text(child.stdout), text(child.stderr)]);
  expect(problems).toBe('');
  return out;
}

describe('the file', () => {
  test('can be read by nobody else, and is in one piece after the end', async () => {
    const before = process.umask(0);
    try {
      const state = await open();
      await state.hit([hitOn('ada')]);
      const names = (await readdir(folder)).toSorted();
      expect(names).toEqual(['state.sqlite', 'state.sqlite-shm', 'state.sqlite-wal']);
      for (const name of names) expect((await stat(join(folder, name))).mode & 0o777).toBe(0o600);
      await state[Symbol.asyncDispose]();
      expect(await readdir(folder)).toEqual(['state.sqlite']);
    } finally {
      process.umask(before);
    }
  });

  test('keeps everything over a restart', async () => {
    const triplet = { network: '192.0.2.0/24', sender: 'a@example.com', recipient: 'b@example.org' };
    {
      await using state = await open();
      await state.hit([hitOn('ada', { cost: 99 })]);
      await state.greylist(triplet, TIMES);
      await state.reserve('trace', [claimOn('bob', 60)], HOUR);
    }
    clock.time += 6 * MINUTE;
    await using state = await open();
    expect(await state.hit([hitOn('ada', { cost: 2 })])).toMatchObject([{ within: false, used: 99 }]);
    expect(await state.greylist(triplet, TIMES)).toEqual({ kind: 'passed', waitedMs: 6 * MINUTE });
    expect(await state.reserve('other', [claimOn('bob', 41)], HOUR)).toEqual([
      { granted: false, inFlight: 60 },
    ]);
  });

  test('of a newer version, of another program, and one that is none', async () => {
    await (await open())[Symbol.asyncDispose]();
    const database = new DatabaseSync(file());
    database.exec('PRAGMA user_version = 99');
    await expect(open()).rejects.toThrow('schema version 99, this version of Postern knows');
    database.exec('PRAGMA user_version = 1; PRAGMA application_id = 7');
    database.close();
    await expect(open()).rejects.toThrow('it belongs to another program');
    await writeFile(file(), 'x'.repeat(5000));
    const refused = await open().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(StoreUnusable);
    expect(refused).toBeInstanceOf(NeighbourError);
    expect(refused).toHaveProperty(
      'message',
      `cannot use the store ${file()}: file is not a database; move the file away, a new one is made at the next start`,
    );
  });

  test('that is damaged inside: who asks is told, nobody else is', async () => {
    await (await open())[Symbol.asyncDispose]();
    const database = new DatabaseSync(file());
    const page = database.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'triplet'").get()?.[
      'rootpage'
    ];
    database.close();
    const damaged = await openFile(file(), 'r+');
    // No page begins so: https://sqlite.org/fileformat2.html#b_tree_pages
    await damaged.write(Buffer.alloc(1024, 0xff), 0, 1024, (Number(page) - 1) * 1024);
    await damaged.close();

    const told: string[] = [];
    await using state = await open({ troubled: ({ message }) => told.push(message) });
    const triplet = { network: '192.0.2.0/24', sender: 'a@example.com', recipient: 'b@example.org' };
    const malformed = `cannot use the store ${file()}: database disk image is malformed; move the file away, a new one is made at the next start`;
    for (let turn = 0; turn < 3; turn++) {
      await expect(state.greylist(triplet, TIMES)).rejects.toThrow(malformed);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(told).toEqual([malformed, malformed, malformed]);
    expect(await state.hit([hitOn('ada')])).toMatchObject([{ within: true }]);
    expect(await state.standing('ada')).toBeNull();
  });

  test('a disk that is full when it is opened', async () => {
    expect(await inChild('', 'ulimit -f 20')).toMatch(/^StoreUnusable .*is the disk full\?$/m);
  });

  test('a disk that fills up: who writes is told, who reads is answered', async () => {
    const script = `
      const hit = (n) => ({ limit: 'l', key: 'key-' + n, algorithm: 'window', most: 1, periodMs: 1000, cost: 1, enforced: true });
      let told = null;
      for (let n = 0; told === null && n < 20_000; n++) await state.hit([hit(n)]).catch((error) => (told = error));
      console.log(told?.name, told?.message);
      console.log('read', (await state.counters({ key: 'key-0', count: 1 })).length);`;
    const answer = await inChild(script, 'ulimit -f 600');
    expect(answer).toMatch(/^StoreUnusable cannot use the store .*is the disk full\?$/m);
    expect(answer).toContain('read 1\n');
  });
});

describe('several at once', () => {
  test('two handles in one process: a limit of 100, hit 200 times, lets through exactly 100', async () => {
    await using one = await open();
    await using two = await open();
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? one : two).hit([hitOn('ada')])),
    );
    expect(results.flat().filter(({ within }) => within)).toHaveLength(100);
    expect(await one.counters({ limit: 'messages', count: 5 })).toMatchObject([{ key: 'ada', used: 100 }]);
  });

  test('two processes that start at once on a new file: exactly 100 of 200 too', async () => {
    const script = `
      const hit = { limit: 'l', key: 'k', algorithm: 'bucket', most: 100, periodMs: 3600000, cost: 1, enforced: true };
      let through = 0;
      for (let turn = 0; turn < 10; turn++) {
        const results = await Promise.all(Array.from({ length: 10 }, () => state.hit([hit])));
        through += results.flat().filter(({ within }) => within).length;
      }
      console.log(through);`;
    const counts = await Promise.all([inChild(script), inChild(script)]);
    // Both together have 200, so neither could have been refused had it been alone.
    expect(counts.map(Number).reduce((sum, count) => sum + count)).toBe(100);
  });

  test('what one writes, the other reads at once', async () => {
    await using one = await open();
    await using two = await open();
    expect(await two.standing('ada')).toBeNull();
    await one.setStanding({
      login: 'ada',
      kind: 'block',
      why: 'x',
      by: 'operator',
      since: MORNING,
      until: null,
    });
    expect(await two.standing('ada')).toMatchObject({ kind: 'block' });
  });

  test('a lock that another process holds is waited for without stopping the event loop', async () => {
    await using state = await open();
    const holder = new DatabaseSync(file());
    holder.exec('BEGIN IMMEDIATE');
    const hit = state.hit([hitOn('ada')]);
    // The loop turns while the state waits.
    await new Promise((resolve) => setImmediate(resolve));
    holder.exec('COMMIT');
    holder.close();
    expect(await hit).toMatchObject([{ within: true }]);
  });

  test('a lock that is held for too long: all who wait are told in the time of one', async () => {
    await using state = await open();
    const holder = new DatabaseSync(file());
    holder.exec('BEGIN IMMEDIATE');
    const begin = performance.now();
    const answers = await Promise.allSettled(
      Array.from({ length: 20 }, (_, index) => state.hit([hitOn(`key-${index}`)])),
    );
    // One wait takes less than a second.
    expect(performance.now() - begin).toBeLessThan(5000);
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 'rejected', reason: { name: 'StoreUnusable' } });
    }
    expect(await state.standing('ada')).toBeNull(); // reading needs no lock
    holder.close();
    expect(await state.hit([hitOn('ada')])).toMatchObject([{ used: 1 }]);
  });
});

/** Something in every table. */
async function fill(state: SqliteState): Promise<void> {
  for (let n = 0; n < 50; n++) {
    await Promise.all([
      state.hit([hitOn(`key-${n}`), hitOn(`key-${n}`, { limit: 'tokens', algorithm: 'bucket' })]),
      state.greylist({ network: `net-${n}`, sender: 'a', recipient: 'b' }, TIMES),
      state.correspond([{ local: `local-${n}`, remote: 'r' }], DAY),
      state.reserve(`trace-${n}`, [claimOn(`box-${n % 3}`, 1), claimOn(`own-${n}`, 1)], HOUR),
      state.noteFull(`box-${n}`, true),
      state.seen([{ kind: 'recipient', subject: `ada-${n % 4}`, value: `v-${n}`, windowMs: DAY }]),
      state.tally([{ subject: `ada-${n}`, hour: clock.time, counts: { sent: 1, refused: 2 } }]),
      state.setStanding({
        login: `ada-${n}`,
        kind: 'hold',
        why: '',
        by: 'postern',
        since: clock.time,
        until: clock.time + DAY,
      }),
    ]);
  }
  clock.time += TIMES.delayMs;
  for (let n = 0; n < 50; n++) {
    await state.greylist({ network: `net-${n}`, sender: 'a', recipient: 'b' }, TIMES);
  }
}

describe('expiry', () => {
  test('removes nothing that still says something', async () => {
    await using state = await open();
    await fill(state);
    const before = rowsOf(...EVERY_TABLE);
    expect(before).toMatchObject({ counter: 100, triplet: 50, client: 50, reservation: 100, tally: 100 });
    clock.time += 40 * MINUTE;
    expect(await state.expire()).toBe(0);
    expect(rowsOf(...EVERY_TABLE)).toEqual(before);
  });

  test('everything goes in the end, each at its time', async () => {
    await using state = await open();
    await fill(state);
    clock.time += 3 * HOUR;
    await state.expire();
    expect(rowsOf('counter', 'reservation', 'mailbox_load', 'triplet', 'sighting')).toEqual({
      counter: 0,
      reservation: 0,
      mailbox_load: 0,
      triplet: 50,
      sighting: 50,
    });
    clock.time += 2 * DAY;
    await state.expire();
    expect(rowsOf('correspondent', 'sighting', 'sighting_subject', 'standing', 'client')).toEqual({
      correspondent: 0,
      sighting: 0,
      sighting_subject: 0,
      standing: 0,
      client: 50,
    });
    clock.time += 29 * DAY;
    await state.expire();
    expect(rowsOf('triplet', 'client', 'full_mailbox', 'tally')).toEqual({
      triplet: 0,
      client: 0,
      full_mailbox: 0,
      tally: 100,
    });
    clock.time += 30 * DAY;
    await state.expire();
    expect(rowsOf(...EVERY_TABLE)).toEqual(Object.fromEntries(EVERY_TABLE.map((table) => [table, 0])));
  });

  test('of too many, those go first that would go first anyway', async () => {
    await using state = await open({ most: 30 });
    for (let n = 0; n < 31; n++) {
      clock.time += 1000;
      await state.hit([hitOn(`key-${n}`)]);
      await state.seen([{ kind: 'recipient', subject: `ada-${n}`, value: 'v', windowMs: DAY }]);
      await state.reserve(`trace-${n}`, [claimOn('bob', 1)], HOUR);
    }
    await state.expire();
    expect(rowsOf('counter', 'sighting', 'reservation')).toEqual({
      counter: 30,
      sighting: 30,
      reservation: 30,
    });
    expect(await state.counters({ key: 'key-0', count: 1 })).toEqual([]);
    expect(await state.counters({ key: 'key-1', count: 1 })).toHaveLength(1);
    expect(await state.reserve('next', [claimOn('bob', 70)], HOUR)).toEqual([
      { granted: true, inFlight: 30 },
    ]);
    expect(await state.expire()).toBe(1);
  });

  test('a standing without an end stays, however many there are', async () => {
    await using state = await open({ most: 3 });
    for (let n = 0; n < 6; n++) {
      const until = n < 4 ? null : MORNING + DAY;
      await state.setStanding({
        login: `ada-${n}`,
        kind: 'block',
        why: '',
        by: 'operator',
        since: n,
        until,
      });
    }
    await state.expire();
    expect((await state.standings()).map(({ login }) => login)).toEqual(['ada-3', 'ada-2', 'ada-1', 'ada-0']);
  });

  test('the file gets smaller again', async () => {
    const state = await open();
    const pad = 'x'.repeat(250);
    for (let n = 0; n < 30; n++) {
      await Promise.all(
        Array.from({ length: 100 }, (_, index) => state.hit([hitOn(`${n}-${index}-${pad}`)])),
      );
    }
    await state[Symbol.asyncDispose]();
    const full = (await stat(file())).size;
    clock.time += 3 * HOUR;
    {
      await using again = await open();
      expect(await again.expire()).toBeGreaterThanOrEqual(3000);
    }
    expect((await stat(file())).size).toBeLessThan(full * 0.7);
  });

  test('is made every minute', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      await using state = await open();
      await state.hit([hitOn('ada')]);
      clock.time += 3 * HOUR;
      vi.advanceTimersByTime(59_999);
      expect(rowsOf('counter')).toEqual({ counter: 1 });
      vi.advanceTimersByTime(1);
      await expect.poll(() => rowsOf('counter')).toEqual({ counter: 0 });
    } finally {
      vi.useRealTimers();
    }
  });

  test('one that fails is told of', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      const failures: Error[] = [];
      await using state = await open({ failed: (error) => failures.push(error) });
      const spoiler = new DatabaseSync(file());
      spoiler.exec('DROP TABLE triplet');
      spoiler.close();
      vi.advanceTimersByTime(60_000);
      await expect
        .poll(() => failures.map(({ name, message }) => `${name} ${message}`))
        .toEqual([`StoreUnusable cannot use the store ${file()}: no such table: triplet`]);
      await state.ping();
    } finally {
      vi.useRealTimers();
    }
  });

  test('the end comes while it is made', async () => {
    const state = await open();
    await Promise.all(Array.from({ length: 500 }, (_, index) => state.hit([hitOn(`key-${index}`)])));
    clock.time += 3 * HOUR;
    const expiring = state.expire();
    await state[Symbol.asyncDispose]();
    expect(await expiring).toBeLessThan(500);
  });
});

describe('reservations', () => {
  test('nobody is refused for what lapsed during a long pause', async () => {
    await using state = await open();
    const claims = Array.from({ length: 400 }, (_, index) => ({ ...claimOn(`box-${index}`, 100) }));
    await state.reserve('flood', claims, MINUTE);
    clock.time += MINUTE;
    expect(await state.reserve('late', [claimOn('box-399', 100)], MINUTE)).toEqual([
      { granted: true, inFlight: 0 },
    ]);
  });
});

describe('a clock that was wrong', () => {
  test('set back a little: nothing is free for it, and nothing is stuck', async () => {
    await using state = await open();
    for (const algorithm of ['window', 'bucket'] as const) {
      const hit = hitOn(`back-${algorithm}`, { algorithm, most: 2 });
      await state.hit([{ ...hit, cost: 2 }]);
      clock.time -= MINUTE;
      expect(await state.hit([hit])).toMatchObject([{ within: false, used: 2 }]);
      clock.time += 2 * HOUR + MINUTE;
      expect(await state.hit([hit])).toMatchObject([{ within: true }]);
    }
  });

  test('by years: counting begins anew', async () => {
    await using state = await open();
    clock.time += 3000 * DAY;
    const window = hitOn('window', { most: 1 });
    const bucket = hitOn('bucket', { most: 1, algorithm: 'bucket' });
    await state.hit([window, bucket]);
    clock.time -= 3000 * DAY;
    expect(await state.hit([window])).toMatchObject([{ within: true, used: 1 }]);
    expect(await state.hit([bucket])).toMatchObject([{ within: false, retryMs: HOUR }]);
    clock.time += HOUR;
    expect(await state.hit([bucket])).toMatchObject([{ within: true }]);
  });
});
