import { randomUUID } from 'node:crypto';
import { cp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { z } from 'zod';

import { checkRedis } from '../../src/adapters/redis-check.ts';
import type { RedisOptions } from '../../src/adapters/redis-client.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { startRedisCluster, type RedisClusterServers } from '../support/neighbours/redis-cluster.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { PolicyClient } from '../support/players/policy-client.ts';
import { preparePostern, type Postern } from '../support/postern.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import { PLAIN_REDIS } from '../support/redis-options.ts';

/** No name server is asked. */
const CONFIG = `
${['helo', 'ptr', 'mx', 'spf'].map((check) => `checks.${check}.enabled = false`).join('\n')}
checks.greylist = { enabled = true, delay = "1h" }
[[checks.limits.limit]]
name = "per-login"
per = ["login"]
most = 1000
period = "1h"
`;

/** Asks policyd about a message: from a sender nobody knows, or from a user of ours. */
async function ask(postern: Postern, from: string, login = ''): Promise<string> {
  await using client = await PolicyClient.open({ port: postern.port.policyd });
  return await client.ask({
    client_address: '198.51.100.7',
    sender: from,
    recipient: login === '' ? 'zeus@olimpus.example' : 'freya@asgard.example',
    sasl_username: login,
    instance: randomUUID(),
  });
}

async function send(postern: Postern): Promise<void> {
  expect(await ask(postern, 'zeus@olimpus.example', 'zeus')).toBe('DUNNO');
}

const COUNTERS = z.object({ limit: z.string(), key: z.string(), used: z.number() });

async function used(postern: Postern): Promise<number | undefined> {
  const { stdout } = await postern.command('limits', 'list', '--json');
  const [line = ''] = stdout.split('\n');
  return line === '' ? undefined : COUNTERS.parse(JSON.parse(line)).used;
}

describeWithNeighbours('a backup, restored', () => {
  it('made while policyd answers: stop, put the files in place, start, and all is as it was then', async () => {
    await using postern = await preparePostern({ config: CONFIG });
    const policyd = await postern.start('policyd');
    for (let count = 0; count < 3; count++) await send(postern);
    expect(await ask(postern, 'odin@valhalla.example')).toContain('Greylisted');
    const state = join(postern.folder, 'state');
    const [stateCopy, historyCopy] = [
      join(postern.folder, 'state.backup'),
      join(postern.folder, 'history.backup'),
    ];
    expect(await postern.command('store', 'backup', 'state', stateCopy)).toMatchObject({
      code: 0,
      stderr: '',
    });
    // What comes later is not in it.
    await send(postern);
    expect(await used(postern)).toBe(4);
    expect(await policyd.stop()).toBe(0);
    expect(await postern.command('store', 'backup', 'history', historyCopy)).toMatchObject({ code: 0 });
    expect((await stat(stateCopy)).mode & 0o777).toBe(0o600);

    // As docs/state.md says. The log of a process that was killed would be taken for that of the new file.
    await writeFile(join(state, 'state.sqlite-wal'), 'something of the old file');
    for (const name of ['state.sqlite', 'state.sqlite-wal', 'state.sqlite-shm']) {
      await rename(join(state, name), join(postern.folder, `old-${name}`)).catch((error: unknown) => {
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
      });
    }
    await cp(stateCopy, join(state, 'state.sqlite'));
    await rm(join(state, 'postern.sqlite'));
    await cp(historyCopy, join(state, 'postern.sqlite'));

    const again = await postern.start('policyd');
    expect(await used(postern)).toBe(3);
    expect(await postern.history()).toHaveLength(5);
    await send(postern);
    expect(await used(postern)).toBe(4);
    expect(await postern.command('store', 'check')).toMatchObject({ code: 0, stderr: '' });
    expect(await again.stop()).toBe(0);
    // The backup is as good as before.
    expect((await readFile(stateCopy)).subarray(0, 15).toString()).toBe('SQLite format 3');
  });
});

describeWithNeighbours('a site that moves to Redis', () => {
  it('and back: what was counted and greylisted goes with it', async () => {
    await using server = await startRedis();
    const redis = `[state.redis]\naddress = "unix:${server.socketPath}"\n`;
    await using postern = await preparePostern({ config: CONFIG });
    const onFile = await postern.start('policyd');
    await send(postern);
    await ask(postern, 'odin@valhalla.example');
    expect(await onFile.stop()).toBe(0);

    await postern.configure(`${CONFIG}${redis}`);
    const copied = await postern.command('store', 'copy', '--from', 'sqlite', '--to', 'redis');
    expect(copied).toMatchObject({ code: 0, stderr: '' });
    expect(copied.stdout).toMatch(/^counters of limits +1$/m);
    expect(copied.stdout).toMatch(/^greylist triplets +1$/m);
    const onRedis = await postern.start('policyd');
    for (const sender of ['odin@valhalla.example', 'loki@valhalla.example']) await ask(postern, sender);
    for (let count = 0; count < 2; count++) await send(postern);
    expect(await used(postern)).toBe(3);
    expect(await onRedis.stop()).toBe(0);

    // It went on there: what is in the file is older.
    const back = await postern.command('store', 'copy', '--from', 'redis', '--to', 'sqlite');
    expect(back).toMatchObject({ code: 0, stderr: '' });
    expect(back.stdout).toMatch(/^ +new +changed +as before$/m);
    expect(back.stdout).toMatch(/^counters of limits +0 +1 +0$/m);
    expect(back.stdout).toMatch(/^greylist triplets +1 +0 +1$/m);
    // The other way round it would be overwritten: refused, with the words that allow it.
    await postern.configure(CONFIG);
    const more = await postern.start('policyd');
    await send(postern);
    expect(await used(postern)).toBe(4);
    expect(await more.stop()).toBe(0);
    await postern.configure(`${CONFIG}${redis}`);
    const refused = await postern.command('store', 'copy', '--from', 'redis', '--to', 'sqlite');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('postern: nothing was copied');
    expect(refused.stderr).toMatch(/^counters of limits +1$/m);
    const replaced = await postern.command('store', 'copy', '--from', 'redis', '--to', 'sqlite', '--replace');
    expect(replaced).toMatchObject({ code: 0 });
    await postern.configure(CONFIG);
    expect(await used(postern)).toBe(3);
  });
});

const common = {
  ...PLAIN_REDIS,
  timeoutMs: 5000,
};

describeWithNeighbours('what is said of Redis', () => {
  let server: RedisServer;
  let options: RedisOptions;
  beforeAll(async () => {
    server = await startRedis({
      config: [
        'user asks on >one-word ~postern:* +@all -@dangerous +info',
        // A replica of nobody.
        'replica-announce-ip 127.0.0.1',
      ],
    });
    options = { ...common, address: { kind: 'unix', path: server.socketPath } };
  });
  beforeEach(async () => {
    await server.command('FLUSHALL');
  });
  afterAll(() => server.stop());

  it('in order, and with what a user may not ask', async () => {
    await server.command('SET', 'postern:wrote:0123456789012345678901', '1');
    await server.command('SET', 'postern:limit:{ada}per-login', 'x');
    await server.command('SET', 'postern:limits', 'x');
    await server.command('SET', 'of another', 'x');
    await server.command('CONFIG', 'SET', 'save', '3600 1');
    const health = await checkRedis(options);
    expect(health).toMatchObject({
      servers: [
        {
          name: '',
          role: 'master',
          policy: 'noeviction',
          appendOnly: false,
          save: '3600 1',
          faults: [],
          warnings: [],
        },
      ],
      keys: { correspondent: 1, counter: 1, other: 1 },
      partly: false,
    });
    const asked = await checkRedis({ ...options, username: 'asks', password: 'one-word' });
    expect(asked.servers).toMatchObject([{ save: null, warnings: [] }]);
  });

  it('that it may forget: by its memory policy, and by a restart', async () => {
    await server.command('CONFIG', 'SET', 'save', '');
    await server.command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
    try {
      const { servers } = await checkRedis(options);
      expect(servers).toMatchObject([
        {
          faults: [],
          warnings: [
            'maxmemory-policy is allkeys-lru: it may forget state before its time; set noeviction',
            'neither save nor appendonly is set: a restart forgets all state',
          ],
        },
      ]);
    } finally {
      await server.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
    }
  });

  it('that it is a replica, where nothing can be written', async () => {
    await server.command('REPLICAOF', '127.0.0.1', '1');
    try {
      expect((await checkRedis(options)).servers).toMatchObject([
        { role: 'slave', faults: ['it is a replica, and takes no writes'] },
      ]);
    } finally {
      await server.command('REPLICAOF', 'NO', 'ONE');
    }
  });

  it('no more than a part of very many keys', async () => {
    const fill = `for i = 1, 5000 do redis.call('SET', 'postern:limit:{' .. i .. '}per-login', 'x') end`;
    await server.command('EVAL', fill, '0');
    const { keys, partly } = await checkRedis(options, 3);
    expect(partly).toBe(true);
    expect(keys.counter).toBeGreaterThanOrEqual(2900);
    expect(keys.counter).toBeLessThan(5000);
    expect(await checkRedis(options)).toMatchObject({ keys: { counter: 5000 }, partly: false });
  });

  it('in words, with the exit status to it', async () => {
    await using postern = await preparePostern({
      config: `[state.redis]\naddress = "unix:${server.socketPath}"\n`,
    });
    const { code, stdout } = await postern.command('store', 'check');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^redis unix:\S+ \(keys postern:\*\): in order$/m);
    expect(stdout).toMatch(/^ {2}warning: neither save nor appendonly is set/m);
    expect(stdout).toMatch(/^ {2}role +master, with 0 replicas$/m);
    await server.command('REPLICAOF', '127.0.0.1', '1');
    try {
      const replica = await postern.command('store', 'check');
      expect(replica.code).toBe(1);
      expect(replica.stdout).toContain('wrong: it is a replica');
    } finally {
      await server.command('REPLICAOF', 'NO', 'ONE');
    }
  });

  it('in time, when it hangs', async () => {
    server.freeze();
    try {
      const begin = performance.now();
      await expect(checkRedis({ ...options, timeoutMs: 300 })).rejects.toThrow('redis at');
      expect(performance.now() - begin).toBeLessThan(3000);
    } finally {
      server.thaw();
    }
  });
});

describeWithNeighbours('what is said of a Cluster', () => {
  let redis: RedisClusterServers;
  beforeAll(async () => {
    redis = await startRedisCluster();
  });
  afterAll(() => redis[Symbol.asyncDispose]());

  it('each master by itself, and the keys of all', async () => {
    await using folder = await privateFolder('cluster-check');
    const places = redis.nodes.map(({ host, port }) => `"${host}:${port}"`).join(', ');
    await writeFile(folder.join('postern.toml'), `[state.redis]\naddresses = [${places}]\ncluster = true\n`);
    for (let number = 0; number < 30; number++) {
      const key = `postern:limit:{${number}}per-login`;
      const port = await redis.portOf(redis.masters[0] ?? redis.masters[1] ?? fail(), key);
      const master = redis.masters.find((each) => each.port === port) ?? fail();
      await master.command('SET', key, 'x');
    }
    const health = await checkRedis({ ...common, seeds: redis.nodes.slice(0, 1) });
    expect(health.servers.map(({ name }) => name).toSorted()).toEqual(
      redis.masters.map(({ host, port }) => `${host}:${port}`).toSorted(),
    );
    expect(health.servers).toMatchObject([{ replicas: 1 }, { replicas: 1 }, { replicas: 1 }]);
    expect(health.keys).toEqual({ counter: 30 });
  });
});

function fail(): never {
  throw new Error('no nodes');
}
