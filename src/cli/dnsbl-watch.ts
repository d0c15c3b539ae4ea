import { createResolver } from '../adapters/dns.ts';
import { DnsblHealth, type ListCondition } from '../adapters/dnsbl-health.ts';
import { watchedLists } from '../checks/dnsbl.ts';
import type { ConfigFile } from '../config/schema.ts';
import type { Clock } from '../ports/clock.ts';
import { LIST_ANSWERS, type ListHealth } from '../ports/list-health.ts';
import { counter, gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { publicResolverNotes } from './public-resolvers.ts';

/** The lists that policyd asks, and whether they are in order. */
export interface BlockLists extends AsyncDisposable {
  readonly health: ListHealth;
  /** For /readyz: `dnsbl NAME` → its condition in words. */
  readonly states: Readonly<Record<string, string>>;
  /** Watches the lists of this configuration; ends when each new one has been looked at. Never rejects. */
  watch(file: ConfigFile): Promise<void>;
}

interface BlockListsOptions {
  readonly servers: Parameters<typeof createResolver>[0]['servers'];
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly registry: Registry;
  readonly log: Log;
}

export function openBlockLists({ servers, timeoutMs, clock, registry, log }: BlockListsOptions): BlockLists {
  const healthy = gauge<'list'>(registry, {
    name: 'postern_dnsbl_list_healthy',
    help: 'Whether the test entries of a block or welcome list are right; while they are not, it does not count.',
    together: 'min',
    labels: { list: [] },
  });
  const queries = counter<'list' | 'result'>(registry, {
    name: 'postern_dnsbl_queries_total',
    help: 'Questions to block and welcome lists by their result; "skipped": not asked, because the list is not in order.',
    labels: { list: [], result: [] },
  });
  const resolver = createResolver({ servers, timeoutMs, cacheEntries: 0 }, clock);
  const health = new DnsblHealth(resolver, {
    answered: (list, result) => queries.inc({ list, result }),
    changed(list, condition) {
      healthy.set({ list }, condition.kind === 'healthy' ? 1 : 0);
      if (condition.kind === 'healthy') log.info({ list }, 'block list is in order');
      else log.warn({ list, why: condition.why }, 'block list is not in order and does not count');
    },
  });
  let names: readonly string[] = [];
  return {
    health,
    get states() {
      return Object.fromEntries(
        Array.from(health.conditions, ([name, state]) => [`dnsbl ${name}`, words(state)]),
      );
    },
    async watch(file) {
      const lists = watchedLists(file.checks['dnsbl']);
      for (const list of names.filter((name) => !lists.some((other) => other.name === name))) {
        healthy.remove({ list });
        for (const result of LIST_ANSWERS) queries.remove({ list, result });
      }
      for (const { name: list, probes } of lists) {
        if (names.includes(list)) continue;
        // One without test entries is believed.
        healthy.set({ list }, probes.length === 0 ? 1 : 0);
        for (const result of LIST_ANSWERS) queries.inc({ list, result }, 0);
      }
      names = lists.map(({ name }) => name);
      for (const note of publicResolverNotes(file, servers)) log.warn({ note }, 'note on the configuration');
      await health.watch(lists);
    },
    async [Symbol.asyncDispose]() {
      await health[Symbol.asyncDispose]();
      await resolver[Symbol.asyncDispose]();
    },
  };
}

function words(condition: ListCondition): string {
  switch (condition.kind) {
    case 'unknown':
      return 'unknown';
    case 'healthy':
      return 'in order';
    case 'unhealthy':
      return `not in order: ${condition.why}`;
  }
}
