import type { ListAnswer, ListHealth, WatchedList } from '../ports/list-health.ts';
import { DnsError, type DnsAnswer, type Resolver } from '../ports/resolver.ts';

/** Between two looks at a list: the same for no two lists, so that they are not all looked at at once. */
const PROBE_EVERY_MS = 300_000;
const UNHEALTHY_EVERY_MS = 60_000;
const JITTER_SHARE = 0.2;
/** After an answer that speaks against a list. */
const SUSPECTED_MS = 1000;
/** Between two looks, however many such answers come. */
const PROBE_LEAST_MS = 10_000;
const PROBE_DEADLINE_MS = 5000;

export type ListCondition =
  | { readonly kind: 'unknown' }
  | { readonly kind: 'healthy' }
  | { readonly kind: 'unhealthy'; readonly why: string };

export interface ListEvents {
  /** Told of every answer. */
  answered(list: string, answer: ListAnswer): void;
  /** Told once for each change; not of what is unknown. */
  changed(list: string, condition: Exclude<ListCondition, { kind: 'unknown' }>): void;
}

interface Watch {
  readonly list: WatchedList;
  condition: ListCondition;
  timer: NodeJS.Timeout | null;
  /** When the timer fires. Milliseconds of `performance.now()`, as `begun`. */
  due: number;
  /** When it was last looked at. */
  begun: number;
  looking: Promise<void> | null;
}

const UNKNOWN: ListCondition = { kind: 'unknown' };
const HEALTHY = { kind: 'healthy' } as const satisfies ListCondition;

/**
 * Asks each list for its test entries, at start, every few minutes, and soon after an answer that speaks against it. RFC 5782 §5.
 *
 * `resolver` keeps nothing: an answer of some minutes ago would say that a list is well which is not.
 */
export class DnsblHealth implements ListHealth, AsyncDisposable {
  readonly #resolver: Resolver;
  readonly #events: ListEvents;
  readonly #random: () => number;
  readonly #watches = new Map<string, Watch>();
  readonly #closed = new AbortController();

  constructor(resolver: Resolver, events: ListEvents, random: () => number = Math.random) {
    this.#resolver = resolver;
    this.#events = events;
    this.#random = random;
  }

  /** Watches these lists from now on. Resolves when each new one has been looked at; never rejects. */
  async watch(lists: readonly WatchedList[]): Promise<void> {
    const wanted = new Map(lists.map((list) => [list.name, list]));
    for (const [name, watch] of this.#watches) {
      const list = wanted.get(name);
      if (list !== undefined && signature(list) === signature(watch.list)) wanted.delete(name);
      else this.#drop(name, watch);
    }
    const fresh = Array.from(wanted.values(), (list): Watch => {
      const condition = list.probes.length === 0 ? HEALTHY : UNKNOWN;
      return { list, condition, timer: null, due: 0, begun: 0, looking: null };
    });
    for (const watch of fresh) this.#watches.set(watch.list.name, watch);
    await Promise.all(fresh.map((watch) => this.#look(watch)));
  }

  trusted(list: string): boolean {
    return this.#watches.get(list)?.condition.kind === 'healthy';
  }

  noted(list: string, answer: ListAnswer): void {
    const watch = this.#watches.get(list);
    if (watch === undefined) return;
    this.#events.answered(list, answer);
    switch (answer) {
      case 'blocked':
      case 'broken':
      case 'timeout':
      case 'failed':
        this.#suspect(watch);
        break;
      case 'listed':
      case 'unlisted':
      case 'uncounted':
      case 'skipped':
        break;
    }
  }

  /** By name of the list. */
  get conditions(): ReadonlyMap<string, ListCondition> {
    return new Map(Array.from(this.#watches, ([name, { condition }]) => [name, condition]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new Error('stopped'));
    const looking = Array.from(this.#watches.values(), async (watch) => watch.looking);
    for (const [name, watch] of this.#watches) this.#drop(name, watch);
    await Promise.all(looking);
  }

  #drop(name: string, watch: Watch): void {
    if (watch.timer !== null) clearTimeout(watch.timer);
    this.#watches.delete(name);
  }

  #suspect(watch: Watch): void {
    if (watch.list.probes.length === 0 || watch.looking !== null) return;
    const now = performance.now();
    this.#schedule(watch, Math.max(SUSPECTED_MS, watch.begun + PROBE_LEAST_MS - now));
  }

  /** The earlier of what was planned and this. */
  #schedule(watch: Watch, inMs: number): void {
    const due = performance.now() + inMs;
    if (watch.timer !== null && watch.due <= due) return;
    if (watch.timer !== null) clearTimeout(watch.timer);
    watch.due = due;
    watch.timer = setTimeout(() => {
      watch.timer = null;
      void this.#look(watch);
    }, inMs).unref();
  }

  #look(watch: Watch): Promise<void> {
    if (watch.list.probes.length === 0) return Promise.resolve();
    watch.looking ??= this.#probe(watch).finally(() => {
      watch.looking = null;
    });
    return watch.looking;
  }

  async #probe(watch: Watch): Promise<void> {
    const { list } = watch;
    watch.begun = performance.now();
    const deadline = AbortSignal.timeout(PROBE_DEADLINE_MS);
    const signal = AbortSignal.any([this.#closed.signal, deadline]);
    const faults = await Promise.all(
      list.probes.map(async ({ name, listed }) => {
        try {
          return faultOf(list, listed, await this.#resolver.query(name, 'A', signal));
        } catch (error) {
          if (!(error instanceof DnsError)) return `could not be asked: ${String(error)}`;
          return error.code === 'timeout' || error.code === 'aborted' ? 'does not answer' : error.message;
        }
      }),
    );
    if (this.#closed.signal.aborted || this.#watches.get(list.name) !== watch) return;
    const why = faults.find((fault) => fault !== null) ?? null;
    const before = watch.condition.kind;
    const found = why === null ? HEALTHY : { kind: 'unhealthy' as const, why };
    watch.condition = found;
    if (found.kind !== before) this.#events.changed(list.name, found);
    const usual = why === null ? PROBE_EVERY_MS : UNHEALTHY_EVERY_MS;
    this.#schedule(watch, usual * (1 + JITTER_SHARE * (2 * this.#random() - 1)));
  }
}

function faultOf(list: WatchedList, listed: boolean, answer: DnsAnswer): string | null {
  if (answer.kind !== 'records') return listed ? 'does not list its test entry' : null;
  const addresses = answer.records.flatMap((record) => (record.type === 'A' ? [record.text] : []));
  const foreign = addresses.find((address) => !address.startsWith('127.'));
  if (foreign !== undefined) return `answers ${foreign}, which is no answer of a list`;
  const blocked = addresses.find((address) => list.blocked(address));
  if (blocked !== undefined) return `does not serve our name server (${blocked})`;
  return listed ? null : 'lists everything: it lists what no list has';
}

function signature({ zone, probes }: WatchedList): string {
  return JSON.stringify([zone, probes]);
}
