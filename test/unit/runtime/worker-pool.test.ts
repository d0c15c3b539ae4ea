import { fork, type ChildProcess } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import { pino } from 'pino';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';

import { openListener, type OpenListener } from '../../../src/runtime/listener.ts';
import { summedText } from '../../../src/runtime/summed-metrics.ts';
import { WorkerPool } from '../../../src/runtime/worker-pool.ts';
import { metric } from '../../support/metric.ts';

const WORKER = join(import.meta.dirname, '../../support/players/echo-worker.ts');

interface Rig extends AsyncDisposable {
  readonly pool: WorkerPool;
  readonly listener: OpenListener;
  readonly registry: Registry;
  readonly children: ChildProcess[];
}

async function startRig(count: number, ...args: readonly string[]): Promise<Rig> {
  const listener = await openListener({
    address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    mode: 0o600,
    group: null,
    maxConnections: 100,
  });
  const registry = new Registry();
  const children: ChildProcess[] = [];
  try {
    const pool = await WorkerPool.open(listener, {
      name: 'milter',
      count,
      waitingLimit: 100,
      start: (number) => {
        const child = fork(WORKER, [String(number), ...args], { execArgv: [] });
        children.push(child);
        return child;
      },
      log: pino({ level: 'silent' }),
      registry,
    });
    return {
      pool,
      listener,
      registry,
      children,
      async [Symbol.asyncDispose]() {
        await pool[Symbol.asyncDispose]();
        await listener[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await listener[Symbol.asyncDispose]();
    throw error;
  }
}

class Client implements Disposable {
  readonly socket: Socket;
  readonly connected: Promise<void>;
  readonly closed: Promise<void>;
  #text = '';
  #wake = (): void => {};

  constructor({ listener }: Rig) {
    this.socket = connect({ host: '127.0.0.1', port: listener.port ?? 0 });
    this.socket.on('error', () => this.socket.destroy());
    this.connected = new Promise((resolve) => this.socket.once('connect', () => resolve()));
    this.closed = new Promise((resolve) => this.socket.once('close', () => resolve()));
    this.socket.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('latin1');
      this.#wake();
    });
  }

  async say(line: string): Promise<string> {
    this.socket.write(`${line}\n`);
    while (!this.#text.includes('\n')) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const answer = this.#text;
    this.#text = '';
    return answer.trim();
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** One has died, and another is in its place. */
async function replaced({ pool, registry }: Rig): Promise<void> {
  const deaths = (): Promise<number | undefined> =>
    metric(registry, 'postern_worker_deaths_total', { daemon: 'milter' });
  await expect.poll(deaths, { timeout: 15_000 }).toBe(1);
  await expect.poll(() => pool.running, { timeout: 15_000 }).toBe(2);
}

test('each connection goes to the worker that has the fewest', async () => {
  await using rig = await startRig(2);
  using one = new Client(rig);
  using two = new Client(rig);
  using three = new Client(rig);
  using four = new Client(rig);
  const answers = await Promise.all([one, two, three, four].map((client) => client.say('hail')));
  expect(answers.toSorted((a, b) => a.localeCompare(b))).toEqual([
    '1: hail',
    '1: hail',
    '2: hail',
    '2: hail',
  ]);
});

test('a worker that dies is replaced and counted; its connections end, the others go on', async () => {
  await using rig = await startRig(2);
  using one = new Client(rig);
  const [number] = await one.say('hail');
  using other = new Client(rig);
  const [another] = await other.say('hail');
  expect(another).not.toBe(number);
  one.socket.write('exit\n');
  await one.closed;
  expect(await other.say('still here')).toBe(`${another}: still here`);
  await replaced(rig);
  expect(await metric(rig.registry, 'postern_workers', { daemon: 'milter' })).toBe(2);
  using next = new Client(rig);
  expect(await next.say('hail')).toBe(`${number}: hail`);
});

test('connections on their way to a worker that dies go to one that lives', async () => {
  await using rig = await startRig(1);
  using first = new Client(rig);
  expect(await first.say('busy')).toBe('1: busy');
  // It takes nothing any more: one of these is being handed over, the others wait for that.
  const clients = Array.from({ length: 4 }, () => new Client(rig));
  const answers = Promise.all(clients.map((client) => client.say('hail')));
  await Promise.all(clients.map(({ connected }) => connected));
  rig.children[0]?.kill('SIGKILL');
  await first.closed;
  expect(await answers).toEqual(['1: hail', '1: hail', '1: hail', '1: hail']);
  for (const client of clients) client[Symbol.dispose]();
});

test('metrics are those of all, also of a worker that is gone; a gauge that says yes or no is not added up', async () => {
  await using rig = await startRig(2);
  using one = new Client(rig);
  using two = new Client(rig);
  await one.say('hail');
  await two.say('hail');
  const text = async (): Promise<string> => summedText(await rig.pool.metrics());
  expect(await text()).toMatch(/^lines_total 2$/m);
  expect(await text()).toMatch(/^up 1$/m);
  one.socket.write('exit\n');
  await one.closed;
  await replaced(rig);
  expect(await text()).toMatch(/^lines_total 2$/m);
  expect(await text()).toMatch(/^up 1$/m);
});

test('a reload reaches all; a stop waits for open connections, until it is told to cut them off', async () => {
  await using rig = await startRig(2);
  using one = new Client(rig);
  using two = new Client(rig);
  await Promise.all([one.say('hail'), two.say('hail')]);
  rig.pool.reload();
  await expect.poll(() => one.say('hail')).toMatch(/ again: hail$/);
  await expect.poll(() => two.say('hail')).toMatch(/ again: hail$/);
  const cut = new AbortController();
  const stopped = rig.pool.stop(cut.signal);
  one.socket.end();
  await one.closed;
  expect(await two.say('not yet')).toMatch(/not yet$/);
  cut.abort();
  await Promise.all([two.closed, stopped]);
  expect(await metric(rig.registry, 'postern_worker_deaths_total', { daemon: 'milter' })).toBe(0);
});

test('a worker that does not start is told of, and none is left', async () => {
  await expect(startRig(2, 'fails')).rejects.toThrow(/^worker [12] of milter did not start \(exit code 3\)$/);
});
