import { once } from 'node:events';
import { open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { expect, test } from 'vitest';

import { run } from '../support/neighbours/process.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { PolicyClient } from '../support/players/policy-client.ts';
import { startPolicySite } from '../support/policy-site.ts';
import { preparePostern, type Postern, type PosternProcess } from '../support/postern.ts';
import { ODIN, ZEUS } from '../support/site.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

/** One policyd with two rules for a state that is away: `lenient` lets mail go on, `strict` has it wait. */
const CONFIG = `
checks.greylist = { enabled = true, delay = "10m", by_spf_domain = false }

[[policy]]
contexts = ["lenient"]
checks = ["greylist"]

[[policy]]
contexts = ["strict"]
checks = ["greylist"]
unavailable = { greylist = "defer" }
`;
const WAITS = /^DEFER_IF_PERMIT 4\.7\.1 Greylisted/;
const GOES_ON = /^DUNNO$/;
const DEFERRED = /^DEFER_IF_PERMIT 4\.7\.0 This message could not be checked just now/;
/** The check has 2 s of its own; a state that is away is noticed well before. What a busy machine takes comes on top. */
const IN_TIME_MS = 1800;

interface Host extends AsyncDisposable {
  readonly postern: Postern;
  readonly policyd: PosternProcess;
  readonly stateFolder: string;
  /** Answers about messages of senders who were never seen, all asked at once; each in time. */
  ask(context: 'lenient' | 'strict', count?: number): Promise<string[]>;
}

let serial = 0;

async function startHost(
  config = '',
  prepare?: (stateFolder: string) => Promise<AsyncDisposable>,
): Promise<Host> {
  await using cleanup = new AsyncDisposableStack();
  const postern = cleanup.use(await preparePostern({ config: config + CONFIG }));
  const stateFolder = join(postern.folder, 'state');
  if (prepare !== undefined) cleanup.use(await prepare(stateFolder));
  const policyd = await postern.start('policyd');
  const stack = cleanup.move();
  return {
    postern,
    policyd,
    stateFolder,
    ask: (context, count = 1) =>
      Promise.all(Array.from({ length: count }, () => ask(postern.port.policyd, context))),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function ask(port: number, context: string, sender?: string): Promise<string> {
  await using client = await PolicyClient.open({ port });
  const number = (serial += 1);
  const begin = performance.now();
  const answer = await client.ask({
    client_address: ODIN.addr,
    client_name: ODIN.name,
    helo_name: ODIN.helo,
    sender: sender ?? `${inLetters(number)}@valhalla.example`,
    recipient: ZEUS,
    instance: `${number}.faults`,
    policy_context: context,
  });
  expect(performance.now() - begin).toBeLessThan(IN_TIME_MS);
  return answer;
}

/** Greylisting takes senders that differ in numbers alone for one. */
function inLetters(number: number): string {
  return Array.from(String(number), (digit) => 'abcdefghij'[Number(digit)]).join('');
}

/** By itself, without a restart or a signal. */
async function comesBack(host: Host): Promise<void> {
  await expect.poll(async () => (await host.ask('strict'))[0], { timeout: 20_000 }).toMatch(WAITS);
  for (const answer of await host.ask('lenient', 5)) expect(answer).toMatch(WAITS);
}

async function followsTheRules(host: Host): Promise<void> {
  for (const answer of await host.ask('lenient', 20)) expect(answer).toMatch(GOES_ON);
  for (const answer of await host.ask('strict', 20)) expect(answer).toMatch(DEFERRED);
}

function onRedis({ host, port }: RedisServer): string {
  return `state.redis.address = "${host}:${port}"\n`;
}

describeWithNeighbours('the state in Redis, with its daemons', () => {
  test('who passed at one host is known at the other, and after a restart; nothing of it is in a file', async () => {
    await using redis = await startRedis();
    const config = `${onRedis(redis)}checks.greylist = { enabled = true, delay = "1s", by_spf_domain = false }\n`;
    await using site = await startPolicySite({ config, zones: { 'valhalla.example': '@ A 1.1.1.1' } });
    const mail = { client: ODIN, from: 'odin@valhalla.example', to: [ZEUS] };
    const first = await site.send(mail);
    expect(first.rcpt[0]).toMatchObject({ code: 450, enhanced: '4.7.1' });
    await expect
      .poll(async () => (await site.send(mail)).outcome.code, { timeout: 30_000, interval: 250 })
      .toBe(250);
    const [passed] = await site.postern.history('--from', mail.from);
    expect(passed).toMatchObject({ verdict: 'accept' });

    await using other = await startHost(onRedis(redis));
    expect(await ask(other.postern.port.policyd, 'strict', mail.from)).toMatch(GOES_ON);
    expect(await ask(other.postern.port.policyd, 'strict', 'thor@valhalla.example')).toMatch(WAITS);
    await site.restart(config.replace('1s', '10m'));
    expect((await site.send(mail)).outcome.code).toBe(250);

    expect(await redis.command('KEYS', 'postern:triplet:*')).toHaveLength(2);
    expect(await readdir(other.stateFolder)).not.toContain('state.sqlite');
  });

  test.for<{ name: string; away: (redis: RedisServer) => Promise<() => Promise<void>>; why: RegExp }>([
    {
      name: 'hangs',
      why: /no answer within 250 ms/,
      away: (redis) => {
        redis.freeze();
        return Promise.resolve(() => Promise.resolve(redis.thaw()));
      },
    },
    {
      name: 'is not there',
      why: /ECONNREFUSED|the server closed it/,
      away: async (redis) => {
        await redis.kill();
        return () => redis.restart();
      },
    },
    {
      name: 'is something else',
      why: /ERR|Protocol error|the server closed it/i,
      away: async (redis) => {
        await redis.kill();
        const end = await startImpostor(redis.port);
        return async () => {
          await end();
          await redis.restart();
        };
      },
    },
  ])('that $name: answers come in time and by the rule, and it is used again by itself', async (fault) => {
    await using redis = await startRedis();
    await using host = await startHost(onRedis(redis));
    expect(await host.ask('strict')).toEqual([expect.stringMatching(WAITS)]);
    expect(await host.policyd.metrics()).toMatch(/^postern_redis_up 1$/m);

    const back = await fault.away(redis);
    await followsTheRules(host);
    const told = await host.policyd.waitForLog(/"neighbour":"redis".*"state":"not there"/);
    expect(told).toMatch(fault.why);
    expect(await host.policyd.metrics()).toMatch(/^postern_redis_up 0$/m);
    await followsTheRules(host);
    expect(host.policyd.log.text().match(/"state":"not there"/g)).toHaveLength(1);

    await back();
    await comesBack(host);
    expect(await host.policyd.metrics()).toMatch(/^postern_redis_up 1$/m);
    expect(await host.policyd.stop()).toBe(0);
  });
});

/** Speaks, and not what Redis speaks. */
async function startImpostor(port: number): Promise<() => Promise<void>> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    socket.on('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return async () => {
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
}

describeWithNeighbours('the state in a file', () => {
  test('on a disk that is full: said so, by the rule, and used again when there is room', async () => {
    await using host = await startHost('', (folder) => mountSmallDisk(folder, '4m'));
    expect(await host.ask('strict')).toEqual([expect.stringMatching(WAITS)]);

    const ballast = join(host.stateFolder, 'ballast');
    await fillUp(ballast);
    // What the log has room for already is still written.
    await expect.poll(async () => (await host.ask('strict', 20)).at(-1)).toMatch(DEFERRED);
    await followsTheRules(host);
    const told = await host.policyd.waitForLog(/"the state could not be used"/);
    expect(told).toContain('state.sqlite: database or disk is full; is the disk full?');
    await rm(ballast);
    await comesBack(host);
    expect(await host.policyd.stop()).toBe(0);
  });

  test('that another process keeps locked: said so, by the rule, and used again when it is free', async () => {
    await using host = await startHost();
    expect(await host.ask('strict')).toEqual([expect.stringMatching(WAITS)]);
    const holder = new DatabaseSync(join(host.stateFolder, 'state.sqlite'));
    try {
      holder.exec('BEGIN IMMEDIATE');
      await followsTheRules(host);
      const told = await host.policyd.waitForLog(/"the state could not be used"/);
      expect(told).toContain('database is locked; another program keeps it locked');
      // Once in a minute, however many ask.
      expect(host.policyd.log.text().match(/"the state could not be used"/g)).toHaveLength(1);
      holder.exec('COMMIT');
    } finally {
      holder.close();
    }
    await comesBack(host);
    expect(await host.policyd.stop()).toBe(0);
  });

  test('that is damaged inside: said so, by the rule, no crash; moved away, a new one is made', async () => {
    await using host = await startHost();
    expect(await host.ask('strict')).toEqual([expect.stringMatching(WAITS)]);
    expect(await host.policyd.stop()).toBe(0);
    const file = join(host.stateFolder, 'state.sqlite');
    await damage(file, 'triplet');

    const again = await host.postern.start('policyd');
    await followsTheRules(host);
    const told = await again.waitForLog(/"the state could not be used"/);
    expect(told).toContain('database disk image is malformed; move the file away');
    expect(await again.stop()).toBe(0);
    await rename(file, `${file}.damaged`);
    const last = await host.postern.start('policyd');
    expect(await host.ask('strict')).toEqual([expect.stringMatching(WAITS)]);
    expect(await last.stop()).toBe(0);
  });

  test('that is no database: the daemon does not start, and says what to do', async () => {
    await using postern = await preparePostern({ config: CONFIG });
    const folder = join(postern.folder, 'state');
    await run('mkdir', ['-m', '0700', folder]);
    await writeFile(join(folder, 'state.sqlite'), 'x'.repeat(8192));
    const { code, stdout, stderr } = await postern.command('run', 'policyd', '--admin', 'none');
    expect(code).toBe(1);
    expect(stdout + stderr).toContain(
      `cannot use the store ${join(folder, 'state.sqlite')}: file is not a database; move the file away, a new one is made at the next start`,
    );
    expect(await readFile(join(folder, 'state.sqlite'), 'latin1')).toBe('x'.repeat(8192));
  });
});

/** Until not an octet more goes in. */
async function fillUp(path: string): Promise<void> {
  await using file = await open(path, 'w');
  for (const size of [65_536, 4096]) {
    const chunk = Buffer.alloc(size, 'x');
    for (let full = false; !full;) {
      full = await file.write(chunk).then(
        ({ bytesWritten }) => bytesWritten < size,
        (error: unknown) => {
          if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') return true;
          throw error;
        },
      );
    }
  }
}

/** Overwrites the first page of a table: https://sqlite.org/fileformat2.html#b_tree_pages has no page that begins with 0xff. */
async function damage(path: string, table: string): Promise<void> {
  const database = new DatabaseSync(path);
  const page = Number(
    database.prepare('SELECT rootpage FROM sqlite_schema WHERE name = ?').get(table)?.['rootpage'],
  );
  const size = Number(database.prepare('PRAGMA page_size').get()?.['page_size']);
  database.close();
  expect(page).toBeGreaterThan(1);
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(size, 0xff), 0, size, (page - 1) * size);
}
