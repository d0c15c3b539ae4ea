import { expect, test } from 'vitest';

import {
  ConnectionPool,
  FIRST_BACKOFF_MS,
  LONGEST_BACKOFF_MS,
  LONGEST_IDLE_MS,
  QuestionRefused,
  type PooledConnection,
} from '../../../src/adapters/connection-pool.ts';

class Line implements PooledConnection {
  usable = true;
  closed = false;

  [Symbol.dispose](): void {
    this.usable = false;
    this.closed = true;
  }
}

interface Bench {
  readonly pool: ConnectionPool<Line>;
  readonly lines: Line[];
  readonly told: string[];
  open: () => Promise<Line>;
  attempts: number;
  now: number;
}

function bench(most = 2, timeoutMs = 5000): Bench {
  const lines: Line[] = [];
  const told: string[] = [];
  const clock = { now: () => made.now, elapsed: () => made.now };
  const events = { up: () => void told.push('up'), down: (why: string) => void told.push(`down: ${why}`) };
  const open = (): Promise<Line> => {
    made.attempts += 1;
    return made.open();
  };
  const made: Bench = {
    pool: new ConnectionPool(open, { most, timeoutMs }, clock, events),
    lines,
    told,
    open: () => {
      const line = new Line();
      lines.push(line);
      return Promise.resolve(line);
    },
    attempts: 0,
    now: 0,
  };
  return made;
}

const fine = () => Promise.resolve('fine');
const broken = () => Promise.reject(new Error('ECONNRESET'));

test('a connection is used again, by one question at a time, and no more are opened than allowed', async () => {
  const b = bench(2);
  const users = new Map<Line, number>();
  const ask = () =>
    b.pool.run(async (line) => {
      users.set(line, (users.get(line) ?? 0) + 1);
      expect(users.get(line)).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      users.set(line, 0);
      return 'fine';
    });
  expect(new Set(await Promise.all(Array.from({ length: 50 }, ask)))).toEqual(new Set(['fine']));
  expect(b.attempts).toBe(2);
  expect(b.told).toEqual(['up']);
});

test('more than may wait are told at once', async () => {
  const b = bench(1);
  const open = Promise.withResolvers<string>();
  const all = Array.from({ length: 51 }, () => b.pool.run(() => open.promise));
  await expect(b.pool.run(fine)).rejects.toThrow('50 wait already');
  open.resolve('fine');
  expect(await Promise.all(all)).toHaveLength(51);
});

test('after a failure the next attempt waits, longer each time; until then questions fail at once', async () => {
  const b = bench();
  b.open = () => Promise.reject(new Error('refused\u0007'));
  await expect(b.pool.run(fine)).rejects.toThrow(/^refused $/);
  let backoff = FIRST_BACKOFF_MS;
  for (let attempts = 1; attempts < 12; attempts += 1) {
    b.now += backoff - 1;
    await expect(b.pool.run(fine)).rejects.toThrow('refused');
    expect(b.attempts).toBe(attempts);
    b.now += 1;
    await expect(b.pool.run(fine)).rejects.toThrow('refused');
    expect(b.attempts).toBe(attempts + 1);
    backoff = Math.min(backoff * 2, LONGEST_BACKOFF_MS);
  }
  expect(backoff).toBe(LONGEST_BACKOFF_MS);
  b.now += LONGEST_BACKOFF_MS;
  b.open = () => Promise.resolve(new Line());
  expect(await b.pool.run(fine)).toBe('fine');
  // The next failure is a first one again.
  await expect(b.pool.run(broken)).rejects.toThrow('ECONNRESET');
  expect(b.told).toEqual(['down: refused ', 'up', 'down: ECONNRESET']);
});

test('while it is down, one at a time tries', async () => {
  const b = bench(10);
  b.open = () => Promise.reject(new Error('refused'));
  await expect(b.pool.run(fine)).rejects.toThrow('refused');
  b.now += FIRST_BACKOFF_MS;
  const all = await Promise.allSettled(Array.from({ length: 8 }, () => b.pool.run(fine)));
  expect(all.every(({ status }) => status === 'rejected')).toBe(true);
  expect(b.attempts).toBe(2);
});

test('a question that a refusal answered costs nothing; one that broke its connection closes it', async () => {
  const b = bench();
  await expect(b.pool.run(() => Promise.reject(new QuestionRefused('no such column')))).rejects.toThrow(
    'no such column',
  );
  expect(await b.pool.run(fine)).toBe('fine');
  expect(b.attempts).toBe(1);
  expect(b.told).toEqual(['up']);
});

test('connections that the server closed while they were idle are replaced, and the question asked again', async () => {
  const b = bench();
  await Promise.all([b.pool.run(fine), b.pool.run(fine)]);
  let calls = 0;
  const answer = await b.pool
    .run((line) => {
      calls += 1;
      return b.lines.indexOf(line) < 2 ? broken() : fine();
    })
    .catch((error: unknown) => error);
  // Not told by then that they are closed: after the first failure nothing may be opened for a while.
  expect(answer).toMatchObject({ message: 'ECONNRESET' });
  expect(calls).toBe(2);
  expect(b.lines.every(({ closed }) => closed)).toBe(true);
  b.now += 2 * FIRST_BACKOFF_MS;
  expect(await b.pool.run(fine)).toBe('fine');
});

test('what was idle for long, or is known to be closed, is not used', async () => {
  const b = bench();
  await b.pool.run(fine);
  b.now += LONGEST_IDLE_MS;
  await b.pool.run(fine);
  expect(b.attempts).toBe(1);
  b.now += LONGEST_IDLE_MS + 1;
  await b.pool.run(fine);
  expect(b.attempts).toBe(2);
  expect(b.lines[0]?.closed).toBe(true);
  const [, second] = b.lines;
  if (second !== undefined) second.usable = false;
  expect(await b.pool.run(fine)).toBe('fine');
  expect(b.attempts).toBe(3);
});

test('no answer in time: the connection is closed', async () => {
  const b = bench(1, 20);
  const silent = new Promise<string>(() => {});
  await expect(b.pool.run(() => silent)).rejects.toThrow('no answer within 20 ms');
  expect(b.lines[0]?.closed).toBe(true);
  b.now += FIRST_BACKOFF_MS;
  // A connection that comes too late is closed as well.
  const late = Promise.withResolvers<Line>();
  b.open = () => late.promise;
  await expect(b.pool.run(fine)).rejects.toThrow('no answer within 20 ms');
  const line = new Line();
  late.resolve(line);
  await expect.poll(() => line.closed).toBe(true);
});

test('disposing closes what there is', async () => {
  const b = bench();
  await b.pool.run(fine);
  b.pool[Symbol.dispose]();
  expect(b.lines[0]?.closed).toBe(true);
  await expect(b.pool.run(fine)).rejects.toThrow('not used any more');
  expect(b.lines[1]?.closed).toBe(true);
});
