import { expect, it } from 'vitest';

import { openRedisState } from '../../src/adapters/state-redis.ts';
import type { Hit } from '../../src/ports/limits.ts';
import type { State } from '../../src/ports/state.ts';
import { startRedis, type RedisServer } from '../support/neighbours/redis.ts';
import { PolicyClient } from '../support/players/policy-client.ts';
import { startGoBetween, type GoBetween } from '../support/players/go-between.ts';
import { LinkEvents } from '../support/redis-events.ts';
import { preparePostern, type Postern } from '../support/postern.ts';
import { ODIN, ZEUS } from '../support/site.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';
import { PLAIN_REDIS } from '../support/redis-options.ts';

const HOUR = 3_600_000;
const MOST = 300;

function hit(key: string): Hit {
  return { limit: 'messages', key, algorithm: 'window', most: MOST, periodMs: HOUR, cost: 1, enforced: true };
}

interface Host {
  readonly state: State;
  readonly link: GoBetween;
  readonly events: LinkEvents;
}

/** Each host tries so often; how many came through, at all of them. */
async function attempts(hosts: readonly Host[], key: string, times: number): Promise<number> {
  let through = 0;
  for (let time = 0; time < times; time++) {
    for (const { state } of hosts) {
      const [result] = await state.hit([hit(key)]);
      if (result?.within === true) through++;
    }
  }
  return through;
}

/** When each host was last heard of, in milliseconds of Redis. */
async function beats(redis: RedisServer): Promise<number[]> {
  const words = await redis.command('ZRANGE', 'postern:{nodes}', '0', '-1', 'WITHSCORES');
  return words.filter((_, index) => index % 2 === 1).map(Number);
}

/** Until so many hosts were heard of again, so much later than any is now. */
async function beaten(redis: RedisServer, hosts: number, laterMs = 0): Promise<void> {
  const last = Math.max(...(await beats(redis)));
  const again = async (): Promise<number> =>
    (await beats(redis)).filter((time) => time > last + laterMs).length;
  await expect.poll(again, { timeout: 10_000 }).toBeGreaterThanOrEqual(hosts);
}

describeWithNeighbours('limits of three hosts that lose Redis', () => {
  it.each([
    { name: 'all of them, by a cut link', cut: 3, conduct: 'close' },
    { name: 'all of them, by a link that swallows', cut: 3, conduct: 'hang' },
    { name: 'one of them', cut: 1, conduct: 'close' },
  ] as const)('$name: at most 1.1 times the limit, and nothing twice', async ({ cut, conduct }) => {
    await using cleanup = new AsyncDisposableStack();
    const redis = cleanup.use(await startRedis());
    const hosts: Host[] = [];
    for (let host = 0; host < 3; host++) {
      const link = cleanup.use(await startGoBetween(redis.port));
      const events = new LinkEvents();
      const state = await openRedisState(
        {
          address: { kind: 'tcp', host: '127.0.0.1', port: link.port },
          ...PLAIN_REDIS,
          timeoutMs: 250,
        },
        events,
        'local',
      );
      cleanup.use(state);
      hosts.push({ state, link, events });
    }
    await expect.poll(async () => (await beats(redis)).length).toBe(3);
    await beaten(redis, 3);
    let through = await attempts(hosts, 'ada', 30);
    expect(through).toBe(90);

    const lost = hosts.slice(0, cut);
    const gone = lost.map(({ events }) => events.next('down'));
    for (const { link } of lost) await link.become(conduct);
    // By itself or by a call, each notices.
    await Promise.all([...gone, attempts(lost, 'eve', 1)]);
    // Those that still have Redis notice who is missing.
    if (cut < 3) await beaten(redis, 3 - cut, 1000);
    const local = await attempts(hosts, 'ada', 120);
    through += local;
    expect(local).toBeGreaterThan(0);
    expect(through).toBeLessThanOrEqual(1.1 * MOST);
    expect(through).toBeGreaterThan(0.5 * MOST);

    const back = lost.map(({ events }) => events.next('up'));
    for (const { link } of lost) await link.become('pass');
    await Promise.all(back);
    through += await attempts(hosts, 'ada', 50);
    expect(through).toBeLessThanOrEqual(1.1 * MOST);
    const [one] = hosts;
    await expect
      .poll(async () => (await one?.state.counters({ limit: 'messages', key: 'ada', count: 1 }))?.[0]?.used)
      .toBe(through);
    // Beats that come later add nothing.
    await beaten(redis, 3);
    const [counter] = (await one?.state.counters({ limit: 'messages', key: 'ada', count: 1 })) ?? [];
    expect(counter?.used).toBe(through);
  });
});

/** Messages of one login, asked of each in turn; how many came through. */
async function mails(hosts: readonly { readonly postern: Postern }[], times: number): Promise<number> {
  let through = 0;
  for (let time = 0; time < times; time++) {
    for (const { postern } of hosts) {
      await using client = await PolicyClient.open({ port: postern.port.policyd });
      const answer = await client.ask({
        client_address: ODIN.addr,
        client_name: ODIN.name,
        helo_name: ODIN.helo,
        sender: ZEUS,
        sasl_username: ZEUS,
        recipient: 'odin@valhalla.example',
        instance: `${(serial += 1)}.lost`,
      });
      expect(answer).toMatch(/^DUNNO$|^(DEFER|DEFER_IF_PERMIT|450) .*4\.7\.1 /);
      if (answer === 'DUNNO') through++;
    }
  }
  return through;
}

let serial = 0;

describeWithNeighbours('three policyd that lose Redis', () => {
  it('keep to the limit, nearly, and nothing is counted twice when the link is back', async () => {
    const most = 60;
    await using cleanup = new AsyncDisposableStack();
    const redis = cleanup.use(await startRedis());
    const hosts: { postern: Postern; link: GoBetween }[] = [];
    for (let host = 0; host < 3; host++) {
      const link = cleanup.use(await startGoBetween(redis.port));
      const config = `state.when_lost = "local"
state.redis.address = "127.0.0.1:${link.port}"
[[checks.limits.limit]]
name = "messages"
per = ["login"]
most = ${most}
period = "1h"
`;
      const postern = cleanup.use(await preparePostern({ config }));
      await postern.start('policyd');
      hosts.push({ postern, link });
    }
    await expect.poll(async () => (await beats(redis)).length).toBe(3);
    await beaten(redis, 3);
    let through = await mails(hosts, 5);
    expect(through).toBe(15);

    for (const { link } of hosts) await link.become('close');
    through += await mails(hosts, 30);
    expect(through).toBeGreaterThan(most / 2);
    expect(through).toBeLessThanOrEqual(1.1 * most);

    for (const { link } of hosts) await link.become('pass');
    await beaten(redis, 3);
    through += await mails(hosts, 20);
    expect(through).toBeLessThanOrEqual(1.1 * most);
    await beaten(redis, 3);
    const listed = await hosts[0]?.postern.command('limits', 'list', '--json');
    expect(JSON.parse(listed?.stdout ?? '')).toMatchObject({ limit: 'messages', key: ZEUS, used: through });
  });
});
