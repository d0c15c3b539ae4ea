import type { Counter, CounterFilter, Hit, HitResult } from '../ports/limits.ts';
import { numberIn, picked, together, type RedisCalls } from './redis-calls.ts';
import { ADD, FORGET, HIT, LISTED_COUNTERS, REFUND, TELL } from './redis-limit-scripts.ts';
import { counterKey, countersKey } from './redis-state-keys.ts';

/** Longer than anybody tries to add the same again. */
const ADDED_KNOWN_MS = 3_600_000;
/** Counters that one call reads or forgets: a few milliseconds of Redis. */
const PAGE = 1000;

/**
 * Counters of limits, one key each; those that count for the same have one slot.
 *
 * All keys of a step are in one script: that is what makes it all or nothing. A Cluster can't do that over several slots: there a step is one
 * script for each, all at once, and what was counted is given back when another refuses or is away. In between, others may find those counters
 * fuller than they will be, and be refused; never more than the limit is let through. A Cluster has no index either, which would have to be in the
 * slot of each counter: there the keys of all masters are looked through.
 */
export class RedisLimits {
  readonly #client: RedisCalls;
  readonly #start: string;
  readonly #index: string;

  constructor(client: RedisCalls) {
    this.#client = client;
    this.#start = `${client.prefix}limit:{`;
    this.#index = countersKey(client.prefix);
  }

  async hit(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    if (hits.length === 0) return [];
    const groups = together(this.#client, hits, (hit) => this.#key(hit.limit, hit.key));
    return groups.length === 1 ? await this.#count(hits) : await this.#countApart(hits, groups);
  }

  async refund(hits: readonly Hit[]): Promise<void> {
    if (hits.length === 0) return;
    const groups = together(this.#client, hits, (hit) => this.#key(hit.limit, hit.key));
    await Promise.all(groups.map((group) => this.#giveBack(picked(hits, group))));
  }

  /** Counts what was let through elsewhere: once, however often it is asked with the same name. */
  async add(name: string, hit: Hit): Promise<void> {
    const key = this.#key(hit.limit, hit.key);
    const added = `${this.#client.prefix}added:{${hit.key}}${name}`;
    const keys = [key, added, ...(this.#client.cluster ? [] : [this.#index])];
    await this.#client.run(ADD, keys, [written(hit), `${ADDED_KNOWN_MS}`]);
  }

  /** One script. */
  async #count(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    const answer = await this.#client.run(HIT, this.#keys(hits), hits.map(written));
    const words = typeof answer === 'string' ? answer.split(' ') : [];
    if (words.length !== 4 * hits.length) throw this.#client.nonsense();
    return hits.map((_, index) => this.#result(words, 4 * index));
  }

  /** One script for each slot. */
  async #countApart(
    hits: readonly Hit[],
    groups: readonly (readonly number[])[],
  ): Promise<readonly HitResult[]> {
    const ends = await Promise.allSettled(groups.map((group) => this.#count(picked(hits, group))));
    const results: HitResult[] = [];
    const counted: number[] = [];
    let refused = false;
    let failed: PromiseRejectedResult | null = null;
    for (const [at, end] of ends.entries()) {
      if (end.status === 'rejected') {
        failed = end;
        continue;
      }
      const group = groups[at] ?? [];
      const enforced = group.filter((index) => hits[index]?.enforced === true);
      let room = true;
      for (const [place, result] of end.value.entries()) {
        const index = group[place] ?? 0;
        results[index] = result;
        if (!result.within && hits[index]?.enforced === true) room = false;
      }
      if (room) counted.push(...enforced);
      else refused = true;
    }
    if ((!refused && failed === null) || counted.length === 0) return settled(results, failed);
    const back = picked(hits, counted);
    const backs = together(this.#client, back, (hit) => this.#key(hit.limit, hit.key));
    // What can't be given back stays counted, until it lapses: that lets nothing through, and the refusal stands.
    await Promise.allSettled(
      backs.map(async (group) => {
        const left = await this.#giveBack(picked(back, group));
        for (const [place, of] of group.entries()) {
          const index = counted[of] ?? 0;
          const result = results[index];
          if (result !== undefined) results[index] = { ...result, used: left[place] ?? result.used };
        }
      }),
    );
    return settled(results, failed);
  }

  /** What is used then, for each. */
  async #giveBack(hits: readonly Hit[]): Promise<readonly number[]> {
    const answer = await this.#client.run(REFUND, this.#keys(hits), hits.map(written));
    const left = typeof answer === 'string' ? answer.split(' ').map(numberIn) : [];
    if (left.length !== hits.length || !left.every(Number.isFinite)) throw this.#client.nonsense();
    return left;
  }

  async counters(filter: CounterFilter): Promise<readonly Counter[]> {
    const found = new Map<string, Counter>();
    for await (const keys of this.#pages(filter)) {
      for (const counter of await this.#told(keys)) {
        if (filter.overOnly === true && counter.overSince === null) continue;
        found.set(this.#key(counter.limit, counter.key), counter);
      }
      // Not all that a Cluster has at once: memory is for those that are wanted.
      if (found.size > filter.count + PAGE) {
        for (const [name] of fullest(found).slice(filter.count)) found.delete(name);
      }
    }
    return fullest(found)
      .slice(0, filter.count)
      .map(([, counter]) => counter);
  }

  /** Those that are there. */
  async #told(keys: readonly string[]): Promise<readonly Counter[]> {
    const groups = together(this.#client, keys, (key) => key);
    const told = await Promise.all(
      groups.map(async (group) => {
        const asked = picked(keys, group);
        const answer = await this.#client.run(TELL, asked, []);
        if (!Array.isArray(answer) || answer.length !== asked.length) throw this.#client.nonsense();
        const texts: readonly unknown[] = answer;
        return asked.flatMap((key, index) => (texts[index] === '' ? [] : [this.#counter(key, texts[index])]));
      }),
    );
    return told.flat();
  }

  async resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number> {
    // All pages first: what is forgotten moves the ranks of the rest.
    const pages: (readonly string[])[] = [];
    for await (const keys of this.#pages(filter)) pages.push(keys);
    let forgotten = 0;
    for (const keys of pages) {
      for (const group of together(this.#client, keys, (key) => key)) {
        const { cluster } = this.#client;
        const gone = [...picked(keys, group), ...(cluster ? [] : [this.#index])];
        const answer = await this.#client.run(FORGET, gone, [cluster ? '0' : '1']);
        if (typeof answer !== 'number' || answer < 0) throw this.#client.nonsense();
        forgotten += answer;
      }
    }
    return forgotten;
  }

  /** Keys of the counters that a filter means, some at a time. One that is named needs no index. */
  async *#pages({ limit, key }: Pick<CounterFilter, 'limit' | 'key'>): AsyncGenerator<readonly string[]> {
    if (limit !== undefined && key !== undefined) {
      yield [this.#key(limit, key)];
      return;
    }
    const wanted = (each: string): boolean => {
      const name = this.#name(each);
      return (limit === undefined || name.limit === limit) && (key === undefined || name.key === key);
    };
    if (this.#client.cluster) {
      for await (const found of this.#client.keys(this.#start)) {
        const some = found.filter(wanted);
        if (some.length > 0) yield some;
      }
      return;
    }
    for (let from = 0; from < LISTED_COUNTERS; from += PAGE) {
      const listed = await this.#client.highest(this.#index, from, from + PAGE - 1);
      const some = listed.filter(wanted);
      if (some.length > 0) yield some;
      if (listed.length < PAGE) return;
    }
  }

  #keys(hits: readonly Hit[]): string[] {
    const keys = hits.map(({ limit, key }) => this.#key(limit, key));
    if (!this.#client.cluster) keys.push(this.#index);
    return keys;
  }

  #key(limit: string, key: string): string {
    return counterKey(this.#client.prefix, limit, key);
  }

  #name(key: string): { limit: string; key: string } {
    // Names of limits have no brace.
    const end = key.lastIndexOf('}');
    return { limit: key.slice(end + 1), key: key.slice(this.#start.length, end) };
  }

  #result(words: readonly string[], at: number): HitResult {
    const used = numberIn(words[at + 1]);
    const retryMs = numberIn(words[at + 2]);
    if (!Number.isFinite(used + retryMs)) throw this.#client.nonsense();
    return { within: words[at] === '1', used, retryMs, first: words[at + 3] === '1' };
  }

  #counter(key: string, text: unknown): Counter {
    const words = typeof text === 'string' ? text.split(' ') : [];
    const [algorithm = ''] = words;
    const [most = NaN, periodMs = NaN, used = NaN, over = NaN, time = NaN] = words.slice(1).map(numberIn);
    if (!Number.isFinite(most + periodMs + used + over + time)) throw this.#client.nonsense();
    return {
      ...this.#name(key),
      algorithm: algorithm === 'b' ? 'bucket' : 'window',
      most,
      periodMs,
      used,
      overSince: over === 0 ? null : over,
      time,
    };
  }
}

function written({ algorithm, most, periodMs, cost, enforced }: Hit): string {
  return `${algorithm === 'bucket' ? 'b' : 'w'} ${most} ${periodMs} ${cost} ${enforced ? 1 : 0}`;
}

function settled(results: readonly HitResult[], failed: PromiseRejectedResult | null): readonly HitResult[] {
  if (failed !== null) throw failed.reason;
  return results;
}

function fullest(found: ReadonlyMap<string, Counter>): [string, Counter][] {
  return [...found].toSorted(([, one], [, other]) => share(other) - share(one));
}

/** How full it is. */
function share({ used, most }: Counter): number {
  return most > 0 ? used / most : Infinity;
}
