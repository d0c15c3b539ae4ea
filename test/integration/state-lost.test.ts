import { setTimeout as wait } from 'node:timers/promises';

import { expect, it } from 'vitest';

import { openRedisState } from '../../src/adapters/state-redis.ts';
import type { Hit } from '../../src/ports/limits.ts';
import type { State } from '../../src/ports/state.ts';
import { startRedis } from '../support/neighbours/redis.ts';
import { startGoBetween, type GoBetween } from '../support/players/go-between.ts';
import { LinkEvents } from '../support/redis-events.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

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
          username: null,
          password: null,
          database: 0,
          tls: null,
          prefix: 'postern:',
          timeoutMs: 250,
        },
        events,
        'local',
      );
      cleanup.use(state);
      hosts.push({ state, link, events });
    }
    // Two beats: all know of each other.
    await wait(600);
    let through = await attempts(hosts, 'ada', 30);
    expect(through).toBe(90);

    const lost = hosts.slice(0, cut);
    const gone = lost.map(({ events }) => events.next('down'));
    for (const { link } of lost) await link.become(conduct);
    // By itself or by a call, each notices.
    await Promise.all([...gone, attempts(lost, 'eve', 1)]);
    // Those that still have Redis notice who is missing.
    await wait(1500);
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
    await wait(1000);
    const [counter] = (await one?.state.counters({ limit: 'messages', key: 'ada', count: 1 })) ?? [];
    expect(counter?.used).toBe(through);
  });
});
