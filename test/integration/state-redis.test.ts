import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, connect, type Socket } from 'node:net';

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { STANDINGS_LIMIT } from '../../src/adapters/redis-accounts.ts';
import type { RedisOptions } from '../../src/adapters/redis-client.ts';
import { LISTED_COUNTERS } from '../../src/adapters/redis-limit-scripts.ts';
import { openRedisState } from '../../src/adapters/state-redis.ts';
import type { Standing } from '../../src/ports/accounts.ts';
import type { Hit } from '../../src/ports/limits.ts';
import { NeighbourError } from '../../src/ports/neighbour-error.ts';
import type { State } from '../../src/ports/state.ts';
import { stateSuite } from '../conformance/state-suite.ts';
import { privateFolder } from '../support/neighbours/folder.ts';
import { freePort } from '../support/neighbours/ports.ts';
import { run } from '../support/neighbours/process.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { LinkEvents } from '../support/redis-events.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import { PLAIN_REDIS } from '../support/redis-options.ts';

const TIMEOUT_MS = 250;
/** What a call may take on top of its time on a machine that has other things to do. */
const SLACK_MS = 750;
const HOUR = 3_600_000;

function options(server: RedisServer, differs: Partial<RedisOptions> = {}): RedisOptions {
  return {
    address: { kind: 'tcp', host: server.host, port: server.port },
    ...PLAIN_REDIS,
    timeoutMs: 2000,
    ...differs,
  };
}

function hit(differs: Partial<Hit> = {}): Hit {
  return {
    limit: 'messages',
    key: 'ada',
    algorithm: 'window',
    most: 100,
    periodMs: HOUR,
    cost: 1,
    enforced: true,
    ...differs,
  };
}

function blocked(login: string, until: number | null = null): Standing {
  return { login, kind: 'block', why: 'sends spam', by: 'operator', since: 1, until };
}

/** Something of everything: each call of the port. */
function everyCall(state: State): Promise<unknown>[] {
  const triplet = { network: '192.0.2.0/24', sender: 'ada@example.com', recipient: 'bob@example.org' };
  const times = { delayMs: 1000, windowMs: HOUR, ageMs: HOUR, clientPasses: 5 };
  return [
    state.ping(),
    state.hit([hit()]),
    state.refund([hit()]),
    state.counters({ count: 10 }),
    state.resetCounters({ limit: 'none' }),
    state.greylist(triplet, times),
    state.correspond([{ local: 'bob@example.org', remote: 'eve@example.com' }], HOUR),
    state.reserve('trace', [{ mailbox: 'bob', bytes: 1, used: 0, limit: null, grace: 0 }], HOUR),
    state.settle('trace', null, 1000),
    state.reservations('bob'),
    state.noteFull('bob', true),
    state.seen([{ kind: 'recipient', subject: 'ada', value: 'bob', windowMs: HOUR }]),
    state.tally([{ subject: 'ada', hour: 0, counts: { sent: 1 } }]),
    state.tallies('ada', 0),
    state.standing('ada'),
    state.setStanding(blocked('mallory')),
    state.raiseStanding(blocked('mallory')),
    state.standings(),
  ];
}

/** Waits for all of them; says why each failed, and how long the slowest took. */
async function failures(calls: readonly Promise<unknown>[]): Promise<{ whys: Set<string>; ms: number }> {
  const begin = performance.now();
  const ends = await Promise.allSettled(calls);
  const whys = ends.map((end) => {
    if (end.status === 'fulfilled') return 'no failure';
    const error: unknown = end.reason;
    return error instanceof NeighbourError && error.cause instanceof Error ? error.cause.message : 'another';
  });
  return { whys: new Set(whys), ms: performance.now() - begin };
}

describeWithNeighbours('the state in Redis', () => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(async () => {
    await server.stop();
  });

  stateSuite('does what every state does', async () => {
    let offset = 0;
    const state = await openRedisState(
      options(server, { prefix: 'suite:', offset: () => offset }),
      new LinkEvents(),
    );
    return {
      state,
      advance: (ms) => {
        offset += ms;
        return Promise.resolve();
      },
      close: async () => {
        await state[Symbol.asyncDispose]();
      },
    };
  });
});

describeWithNeighbours('Redis, as it is run', () => {
  let server: RedisServer;
  let events: LinkEvents;
  beforeAll(async () => {
    server = await startRedis();
  });
  beforeEach(async () => {
    events = new LinkEvents();
    await server.command('FLUSHALL');
  });
  afterAll(async () => {
    await server.stop();
  });

  const open = (differs: Partial<RedisOptions> = {}) => openRedisState(options(server, differs), events);

  it('answers over its unix socket, in a database and under a prefix of its own', async () => {
    await using state = await open({
      address: { kind: 'unix', path: server.socketPath },
      database: 3,
      prefix: 'mail/',
    });
    expect((await failures(everyCall(state))).whys).toEqual(new Set(['no failure']));
    expect(await server.command('DBSIZE')).toEqual(['0']);
    expect(await server.command('INFO', 'keyspace')).toContainEqual(
      expect.stringMatching(/^db3:keys=\d\d,expires=\d\d,/),
    );
    expect(events.told).toEqual(['up']);
  });

  it('holds nothing that has no end, but standings', async () => {
    await using state = await open();
    await Promise.all(everyCall(state));
    const keys = await server.command('KEYS', '*');
    expect(keys.length).toBeGreaterThan(12);
    const endless: string[] = [];
    for (const key of keys) {
      expect(key).toMatch(/^postern:/);
      if ((await server.command('PTTL', key))[0] === '-1') endless.push(key);
    }
    expect(endless.toSorted()).toEqual(['postern:{standings}', 'postern:{standings}lapse']);
  });

  it('lists no more counters than so many, and counts the others', async () => {
    await using state = await open();
    const fill = `local later = redis.call('TIME')[1] * 1000 + 9e8
      for i = 1, ${LISTED_COUNTERS} do redis.call('ZADD', KEYS[1], later, 'postern:limit:{' .. i .. '}l') end`;
    await server.command('EVAL', fill, '1', 'postern:limits');
    expect(await state.hit([hit()])).toMatchObject([{ used: 1 }]);
    expect(await server.command('ZCARD', 'postern:limits')).toEqual([String(LISTED_COUNTERS)]);
    expect(await state.hit([hit()])).toMatchObject([{ used: 2 }]);
    expect(await state.counters({ limit: 'messages', key: 'ada', count: 9 })).toMatchObject([{ used: 2 }]);
    // Those that are in the index and not there any more are none.
    expect(await state.counters({ count: 9 })).toEqual([]);
    expect(await state.resetCounters({})).toBe(0);
    expect(await server.command('ZCARD', 'postern:limits')).toEqual(['0']);
  });

  it('keeps no more standings than so many, those that last', async () => {
    await using state = await open();
    const fill = `for i = 1, ${STANDINGS_LIMIT} do
      redis.call('HSET', KEYS[1], i, '4 9e15 ["' .. i .. '","","operator",1]')
      redis.call('ZADD', KEYS[2], 9e15 + i, i)
    end`;
    await server.command('EVAL', fill, '2', 'postern:{standings}', 'postern:{standings}lapse');
    await state.setStanding(blocked('mallory'));
    expect(await server.command('HLEN', 'postern:{standings}')).toEqual([String(STANDINGS_LIMIT)]);
    expect(await state.standing('mallory')).toEqual(blocked('mallory'));
    expect(await state.standing('1')).toBeNull();
    expect(await state.standing('2')).toMatchObject({ kind: 'block' });
  });

  it('counts once, however many hosts count', async () => {
    await using one = await open();
    await using other = await open();
    const calls = Array.from({ length: 400 }, (_, index) => (index % 2 === 0 ? one : other).hit([hit()]));
    const results = (await Promise.all(calls)).flat();
    expect(results.filter(({ within }) => within)).toHaveLength(100);
    expect(results.filter(({ first }) => first)).toHaveLength(1);
  });

  it('goes on when its scripts were flushed', async () => {
    await using state = await open();
    await state.hit([hit()]);
    await server.command('SCRIPT', 'FLUSH');
    const results = (await Promise.all(Array.from({ length: 20 }, () => state.hit([hit()])))).flat();
    expect(results.map(({ used }) => used).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, index) => index + 2),
    );
  });

  it('fails a call that would need memory when there is none, whole', async () => {
    await using state = await open();
    await state.hit([hit()]);
    await server.command('CONFIG', 'SET', 'maxmemory', '1');
    try {
      const { whys } = await failures([state.hit([hit(), hit({ limit: 'recipients' })])]);
      expect([...whys]).toEqual([expect.stringContaining('OOM')]);
      await state.ping();
    } finally {
      await server.command('CONFIG', 'SET', 'maxmemory', '0');
    }
    expect(await state.hit([hit()])).toMatchObject([{ used: 2 }]);
  });

  it('fails each call in time when it is away, and is used again when it is back', async () => {
    await using state = await open({ timeoutMs: TIMEOUT_MS });
    await state.hit([hit()]);
    const gone = events.next('down');
    await server.kill();
    await gone;
    const away = await failures(everyCall(state));
    expect([...away.whys]).toEqual([expect.stringMatching(/^no connection: /)]);
    expect(away.ms).toBeLessThan(SLACK_MS);
    const back = events.next('up');
    await server.restart();
    await back;
    expect(await state.hit([hit()])).toMatchObject([{ used: 1 }]);
    expect(events.told.map((word) => word.replace(/:.*/, ''))).toEqual(['up', 'down', 'up']);
  });

  it('fails each call in time when it hangs, takes no more calls into memory, and is used again', async () => {
    await using state = await open({ timeoutMs: TIMEOUT_MS });
    await state.hit([hit()]);
    const gone = events.next('down');
    server.freeze();
    try {
      const first = await failures(everyCall(state));
      expect([...first.whys]).toEqual([`no answer within ${TIMEOUT_MS} ms`]);
      expect(first.ms).toBeLessThan(TIMEOUT_MS + SLACK_MS);
      await gone;
      const later = await failures(everyCall(state));
      expect([...later.whys]).toEqual([expect.stringMatching(/^no connection: /)]);
      expect(later.ms).toBeLessThan(SLACK_MS);
    } finally {
      server.thaw();
    }
    await events.next('up');
    // What was sent before it hung was counted once, when it woke up.
    expect(await state.hit([hit()])).toMatchObject([{ used: 3 }]);
  });

  it('does not count twice when the answer was lost', async () => {
    await using proxy = await startProxy(server.port);
    await using state = await open({ address: { kind: 'tcp', host: '127.0.0.1', port: proxy.port } });
    await state.hit([hit()]);
    proxy.loseNextAnswer();
    const lost = await failures([state.hit([hit()])]);
    expect([...lost.whys]).toEqual([expect.stringMatching(/^connection lost before the answer/)]);
    await events.next('up', 2);
    expect(await state.counters({ count: 9 })).toMatchObject([{ key: 'ada', used: 2 }]);
  });

  it('may be away when Postern starts', async () => {
    await server.kill();
    const begin = performance.now();
    await using state = await open({ timeoutMs: TIMEOUT_MS });
    expect(performance.now() - begin).toBeLessThan(1000 + SLACK_MS);
    expect(events.told).toEqual([expect.stringMatching(/^down: .*ECONNREFUSED/)]);
    const { whys } = await failures([state.ping()]);
    expect([...whys]).toEqual([expect.stringContaining('ECONNREFUSED')]);
    const back = events.next('up');
    await server.restart();
    await back;
    await state.ping();
  });

  it('answers what is under way when it is closed, and nothing later', async () => {
    // The server does not know the script yet: each call takes two questions.
    await server.command('SCRIPT', 'FLUSH');
    const state = await open();
    const calls = Array.from({ length: 50 }, () => state.hit([hit()]));
    await state[Symbol.asyncDispose]();
    expect((await failures(calls)).whys).toEqual(new Set(['no failure']));
    expect((await failures([state.ping()])).whys).toEqual(new Set(['no connection: it was closed here']));
    expect(events.told).toEqual(['up']);
  });

  it('is closed in time when it hangs', async () => {
    const state = await open({ timeoutMs: TIMEOUT_MS });
    server.freeze();
    try {
      const begin = performance.now();
      const call = failures([state.ping()]);
      await state[Symbol.asyncDispose]();
      expect(performance.now() - begin).toBeLessThan(TIMEOUT_MS + SLACK_MS);
      expect([...(await call).whys]).toEqual([`no answer within ${TIMEOUT_MS} ms`]);
    } finally {
      server.thaw();
    }
  });
});

describeWithNeighbours('Redis that lets not everybody in', () => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis({
      config: ['requirepass one-word', 'user postern on >another-word ~postern:* +@all -@dangerous +info'],
    });
  });
  afterAll(async () => {
    await server.stop();
  });

  it('with its password, or as a user who may touch only our keys', async () => {
    for (const [username, password] of [
      [null, 'one-word'],
      ['postern', 'another-word'],
    ] as const) {
      await using state = await openRedisState(options(server, { username, password }), new LinkEvents());
      expect((await failures(everyCall(state))).whys).toEqual(new Set(['no failure']));
    }
  });

  it('says why not', async () => {
    const cases: readonly [Partial<RedisOptions>, RegExp][] = [
      [{ password: 'wrong' }, /WRONGPASS/],
      [{ password: null }, /NOAUTH/],
      [{ password: 'one-word', database: 99 }, /DB index is out of range/],
    ];
    for (const [differs, why] of cases) {
      const events = new LinkEvents();
      await using state = await openRedisState(options(server, differs), events);
      const { whys } = await failures([state.ping(), state.hit([hit()])]);
      expect([...whys].join('; ')).toMatch(why);
      expect(events.told).toEqual([expect.stringMatching(why)]);
    }
  });
});

describeWithNeighbours('Redis with TLS', () => {
  it('is trusted with the certificate that is named, for its own name alone', async () => {
    await using folder = await privateFolder('redis-tls');
    const [key, certificate] = [folder.join('key.pem'), folder.join('certificate.pem')];
    const request =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost';
    const made = await run('openssl', [
      ...request.split(' '),
      '-addext',
      'subjectAltName=DNS:localhost',
      '-keyout',
      key,
      '-out',
      certificate,
    ]);
    expect(made).toMatchObject({ code: 0 });
    const port = await freePort();
    await using server = await startRedis({
      config: [
        `tls-port ${port}`,
        `tls-cert-file ${certificate}`,
        `tls-key-file ${key}`,
        `tls-ca-cert-file ${certificate}`,
        'tls-auth-clients no',
      ],
    });
    const ca = await readFile(certificate, 'latin1');
    const cases: readonly [string, string | null, string][] = [
      ['localhost', ca, 'no failure'],
      ['localhost', null, 'self-signed certificate'],
      ['127.0.0.1', ca, "IP: 127.0.0.1 is not in the cert's list"],
    ];
    for (const [host, trusted, why] of cases) {
      await using state = await openRedisState(
        options(server, { address: { kind: 'tcp', host, port }, tls: { ca: trusted } }),
        new LinkEvents(),
      );
      expect([...(await failures([state.ping()])).whys].join()).toContain(why);
    }
  });
});

interface Proxy extends AsyncDisposable {
  readonly port: number;
  /** The next answer is thrown away, and its connection with it. */
  loseNextAnswer(): void;
}

async function startProxy(to: number): Promise<Proxy> {
  const sockets = new Set<Socket>();
  let losing = false;
  const proxy = createServer((client) => {
    const upstream = connect(to, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.pipe(upstream);
    upstream.on('data', (chunk) => {
      if (losing) client.destroy();
      else client.write(chunk);
      losing = false;
    });
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const address = proxy.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    port: address.port,
    loseNextAnswer: () => {
      losing = true;
    },
    async [Symbol.asyncDispose]() {
      const closed = once(proxy, 'close');
      proxy.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
