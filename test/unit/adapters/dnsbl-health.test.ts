import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { DnsblHealth } from '../../../src/adapters/dnsbl-health.ts';
import type { WatchedList } from '../../../src/ports/list-health.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';

function listOf(name: string, probe = true): WatchedList {
  const zone = `${name}.example`;
  const probes = [
    { name: `2.0.0.127.${zone}`, listed: true },
    { name: `1.0.0.127.${zone}`, listed: false },
  ];
  return { name, zone, probes: probe ? probes : [], blocked: (address) => address === '127.255.255.254' };
}

interface Stage extends AsyncDisposable {
  readonly health: DnsblHealth;
  readonly told: string[];
  readonly asked: () => number;
  serve(zone: Readonly<Record<string, ZoneEntry>>): void;
}

const RIGHT = { '2.0.0.127.bl.example': { A: ['127.0.0.2'] } };

function stage(first: Readonly<Record<string, ZoneEntry>>): Stage {
  let zone = new Zone(first);
  let before = 0;
  const told: string[] = [];
  const resolver = { query: (...question: Parameters<Zone['query']>) => zone.query(...question) };
  const health = new DnsblHealth(
    resolver,
    {
      answered: (list, answer) => told.push(`${list}: ${answer}`),
      changed: (list, condition) =>
        told.push(`${list} is ${condition.kind === 'healthy' ? 'healthy' : condition.why}`),
    },
    () => 0.5,
  );
  return {
    health,
    told,
    asked: () => before + zone.asked.length,
    serve(next) {
      before += zone.asked.length;
      zone = new Zone(next);
    },
    [Symbol.asyncDispose]: () => health[Symbol.asyncDispose](),
  };
}

const FIVE_MINUTES = 300_000;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('the test entries of a list', () => {
  test('it is believed once they are right, and told of once', async () => {
    await using it = stage(RIGHT);
    expect(it.health.trusted('bl')).toBe(false);
    await it.health.watch([listOf('bl')]);
    expect(it.health.trusted('bl')).toBe(true);
    await vi.advanceTimersByTimeAsync(FIVE_MINUTES);
    expect(it.asked()).toBe(4);
    expect(it.told).toEqual(['bl is healthy']);
  });

  test.each([
    ['does not list its test entry', {}],
    [
      'lists everything: it lists what no list has',
      { '*.bl.example': { A: ['127.0.0.2'] }, ...wildcard('bl', '127.0.0.2') },
    ],
    ['answers 203.0.113.7, which is no answer of a list', wildcard('bl', '203.0.113.7')],
    ['does not serve our name server (127.255.255.254)', wildcard('bl', '127.255.255.254')],
    ['does not answer', { '2.0.0.127.bl.example': 'timeout' as const }],
    ['2.0.0.127.bl.example: servfail', { '2.0.0.127.bl.example': 'servfail' as const }],
  ])('a list that %s', async (why, zone) => {
    await using it = stage(zone);
    await it.health.watch([listOf('bl')]);
    expect(it.health.trusted('bl')).toBe(false);
    expect(it.told).toEqual([`bl is ${why}`]);
    expect(it.health.conditions.get('bl')).toEqual({ kind: 'unhealthy', why });
  });

  test('one that is ill is looked at every minute, until it is well', async () => {
    await using it = stage({});
    await it.health.watch([listOf('bl')]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(it.asked()).toBe(4);
    it.serve(RIGHT);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(it.health.trusted('bl')).toBe(true);
    expect(it.told).toEqual(['bl is does not list its test entry', 'bl is healthy']);
  });

  test('a list without test entries is believed and never asked for them', async () => {
    await using it = stage({});
    await it.health.watch([listOf('bl', false)]);
    expect(it.health.trusted('bl')).toBe(true);
    it.health.noted('bl', 'timeout');
    await vi.advanceTimersByTimeAsync(FIVE_MINUTES);
    expect(it.asked()).toBe(0);
  });
});

describe('answers that speak against a list', () => {
  test.each(['blocked', 'broken', 'timeout', 'failed'] as const)(
    '%s: it is looked at soon, and once for many of them',
    async (answer) => {
      await using it = stage(RIGHT);
      await it.health.watch([listOf('bl')]);
      it.serve({});
      for (let time = 0; time < 1000; time++) it.health.noted('bl', answer);
      await vi.advanceTimersByTimeAsync(10_000);
      expect(it.health.trusted('bl')).toBe(false);
      expect(it.asked()).toBe(4);
    },
  );

  test.each(['listed', 'unlisted', 'uncounted', 'skipped'] as const)('not after %s', async (answer) => {
    await using it = stage(RIGHT);
    await it.health.watch([listOf('bl')]);
    it.health.noted('bl', answer);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(it.asked()).toBe(2);
    expect(it.told).toEqual(['bl is healthy', `bl: ${answer}`]);
  });
});

describe('other lists', () => {
  test('a list that stays keeps its condition, one that goes is forgotten', async () => {
    await using it = stage(RIGHT);
    await it.health.watch([listOf('bl'), listOf('gone')]);
    const asked = it.asked();
    await it.health.watch([listOf('bl')]);
    expect(it.asked()).toBe(asked);
    expect(it.health.trusted('bl')).toBe(true);
    expect([...it.health.conditions.keys()]).toEqual(['bl']);
    it.health.noted('gone', 'listed');
    expect(it.told).toEqual(['bl is healthy', 'gone is does not list its test entry']);
  });

  test('nothing is asked once it is closed', async () => {
    const it = stage(RIGHT);
    await it.health.watch([listOf('bl')]);
    await it[Symbol.asyncDispose]();
    await vi.advanceTimersByTimeAsync(FIVE_MINUTES);
    expect(it.asked()).toBe(2);
    expect(vi.getTimerCount()).toBe(0);
  });
});

function wildcard(list: string, answer: string): Record<string, ZoneEntry> {
  return { [`2.0.0.127.${list}.example`]: { A: [answer] }, [`1.0.0.127.${list}.example`]: { A: [answer] } };
}
