import { randomUUID } from 'node:crypto';

import { LRUCache } from 'lru-cache';

import type { Counter, CounterFilter, Hit, HitResult, LimitState } from '../ports/limits.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import {
  bringUp,
  emptyCount,
  giveBack,
  hasRoom,
  roll,
  untilRoom,
  usedWhole,
  type Count,
} from './limit-arithmetic.ts';
import { NotSent, script, type RedisCalls } from './redis-calls.ts';
import type { RedisLimits } from './redis-limits.ts';

/** How often a node says that it is there; how long it counts as there; how long as one that may be counting by itself. */
const BEAT_MS = 250;
const LIVE_MS = 1000;
const KNOWN_MS = 3_600_000;
/** Longer than nodes take to find Redis again: until then their share is kept to, as what others accepted by themselves may not be in Redis yet. */
const HEALING_MS = 5000;
/** Counters that a node knows by itself; above that, those that were hit longest ago are forgotten. */
const SHARES_LIMIT = 50_000;

/** KEYS: when each node was last there. ARGV: node, how long it lives, how long it is known, whether it leaves. Answers how many live and are known. */
const BEAT = script(`
local live, known = tonumber(ARGV[3]), tonumber(ARGV[4])
if ARGV[5] == '1' then redis.call('ZREM', KEYS[1], ARGV[2])
else redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[2]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - known))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {redis.call('ZCOUNT', KEYS[1], string.format('%.0f', now - live), '+inf'), redis.call('ZCARD', KEYS[1])}
`);

/** What this node knows of one counter. */
interface Share {
  readonly limit: string;
  readonly key: string;
  /** What was used in all, when Redis last said so. */
  seen: { readonly used: number; readonly time: number };
  /** This node's part of the limit; null: Redis has been there since. */
  part: Count | null;
  /** What this node let through, and Redis does not know. */
  own: Count | null;
  /** What is being told to Redis; once, however often it is tried. */
  debt: { readonly token: string; readonly hit: Hit } | null;
  over: boolean;
}

/**
 * Limits that hold, nearly, while Redis is lost: each node then lets through its part of what was left, and tells Redis afterwards. Nodes that still
 * have Redis leave the part of those that have not been there for a while. A call whose answer was lost is counted against the part alone: Redis may
 * have counted it, and nothing is counted twice.
 */
export class LimitsWhenLost implements LimitState, AsyncDisposable {
  readonly #limits: RedisLimits;
  readonly #client: RedisCalls;
  readonly #now: () => number;
  readonly #node = randomUUID();
  readonly #shares = new LRUCache<string, Share>({ max: SHARES_LIMIT });
  readonly #beats: NodeJS.Timeout;
  #live = 1;
  #known = 1;
  #lost = false;
  #healed = -Infinity;
  #beating: Promise<void> | null = null;

  /** @param now milliseconds that only go forward */
  constructor(limits: RedisLimits, client: RedisCalls, now: () => number) {
    this.#limits = limits;
    this.#client = client;
    this.#now = now;
    this.#beats = setInterval(() => void this.beat(), BEAT_MS).unref();
  }

  /** Says that this node is there, hears of the others, and tells what Redis does not know. One at a time. */
  async beat(): Promise<void> {
    this.#beating ??= this.#beatOnce(false).finally(() => (this.#beating = null));
    await this.#beating;
  }

  async hit(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    const healing = this.#lost || this.#now() < this.#healed + HEALING_MS;
    if (healing && !this.#parts(hits).room) return this.#locally(hits, false);
    let results: readonly HitResult[];
    try {
      results = await this.#limits.hit(
        this.#known > this.#live ? hits.map((hit) => this.#without(hit)) : hits,
      );
    } catch (error) {
      if (!(error instanceof NeighbourError)) throw error;
      this.#loses();
      return this.#locally(hits, error instanceof NotSent);
    }
    this.#note(hits, results, healing);
    return results;
  }

  async refund(hits: readonly Hit[]): Promise<void> {
    try {
      await this.#limits.refund(hits);
    } catch (error) {
      if (!(error instanceof NotSent)) throw error;
      for (const hit of hits) {
        const share = this.#shares.get(name(hit));
        for (const count of [share?.part, share?.own]) if (count) giveBack(count, hit.cost);
      }
    }
  }

  counters(filter: CounterFilter): Promise<readonly Counter[]> {
    return this.#limits.counters(filter);
  }

  async resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number> {
    return await this.#limits.resetCounters(filter);
  }

  /** Leaves, so that nobody keeps a part for this node. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#beats);
    await this.#beating;
    await this.#beatOnce(true);
  }

  async #beatOnce(leaves: boolean): Promise<void> {
    const given = [this.#node, `${LIVE_MS}`, `${KNOWN_MS}`, leaves ? '1' : '0'];
    try {
      const answer = await this.#client.run(BEAT, [`${this.#client.prefix}{nodes}`], given);
      const words: readonly unknown[] = Array.isArray(answer) ? answer : [];
      const [live, known] = words;
      if (typeof live !== 'number' || typeof known !== 'number') throw this.#client.nonsense();
      [this.#live, this.#known] = [Math.max(1, live), Math.max(1, known)];
      if (this.#lost) {
        this.#lost = false;
        this.#healed = this.#now();
      }
      await this.#settle();
    } catch (error) {
      if (!(error instanceof NeighbourError)) throw error;
      // The connection tells of it; here it means that others no longer hear of this node.
      this.#loses();
    }
  }

  #loses(): void {
    if (this.#lost) return;
    this.#lost = true;
    if (this.#now() < this.#healed + HEALING_MS) return;
    for (const share of this.#shares.values()) share.part = null;
  }

  /** What was let through meanwhile; each debt has a name, by which Redis knows whether it has it already. */
  async #settle(): Promise<void> {
    const debts: Promise<void>[] = [];
    for (const share of this.#shares.values()) {
      if (share.debt === null && share.own !== null) share.debt = this.#debt(share, share.own);
      const { debt } = share;
      if (debt === null) continue;
      debts.push(this.#pay(share, debt));
    }
    await Promise.all(debts);
  }

  async #pay(share: Share, { token, hit }: NonNullable<Share['debt']>): Promise<void> {
    await this.#limits.add(token, hit);
    share.debt = null;
  }

  #debt(share: Share, own: Count): Share['debt'] {
    const now = this.#now();
    roll(own, now);
    share.own = null;
    const cost = usedWhole(own, now);
    if (cost === 0) return null;
    const { limit, key } = share;
    const { algorithm, most, periodMs } = own;
    return { token: randomUUID(), hit: { limit, key, algorithm, most, periodMs, cost, enforced: false } };
  }

  /** Without the part of those who may be counting by themselves. */
  #without(hit: Hit): Hit {
    return hit.enforced ? { ...hit, most: (hit.most * this.#live) / this.#known } : hit;
  }

  #note(hits: readonly Hit[], results: readonly HitResult[], healing: boolean): void {
    const time = this.#now();
    for (const [index, hit] of hits.entries()) {
      const share = this.#share(hit);
      share.seen = { used: results[index]?.used ?? 0, time };
      if (healing && share.part !== null && results[index]?.within === true) share.part.current += hit.cost;
    }
  }

  #share(hit: Hit): Share {
    const { limit, key } = hit;
    let share = this.#shares.get(name(hit));
    if (share === undefined) {
      share = {
        limit,
        key,
        seen: { used: 0, time: -Infinity },
        part: null,
        own: null,
        debt: null,
        over: false,
      };
      this.#shares.set(name(hit), share);
    }
    return share;
  }

  /** The parts that hits count against, brought to now, and whether all enforced ones have room. */
  #parts(hits: readonly Hit[]): { readonly parts: readonly Count[]; readonly room: boolean } {
    const now = this.#now();
    const wanted = new Map<Count, number>();
    let room = true;
    const parts = hits.map((hit) => {
      const share = this.#share(hit);
      const most = hit.most / this.#known;
      if (share.part === null) {
        share.part = emptyCount({ ...hit, most }, now);
        if (now - share.seen.time < hit.periodMs) share.part.current = share.seen.used / this.#known;
      }
      bringUp(share.part, { ...hit, most }, now);
      const cost = (wanted.get(share.part) ?? 0) + hit.cost;
      wanted.set(share.part, cost);
      if (hit.enforced && !hasRoom(share.part, cost, now)) room = false;
      return share.part;
    });
    return { parts, room };
  }

  /** @param unsent Redis has certainly not counted them */
  #locally(hits: readonly Hit[], unsent: boolean): readonly HitResult[] {
    const now = this.#now();
    const { parts, room } = this.#parts(hits);
    return hits.map((hit, index) => {
      const share = this.#share(hit);
      const part = parts[index] ?? emptyCount(hit, now);
      const within = hasRoom(part, hit.cost, now);
      const retryMs = within ? 0 : untilRoom(part, hit.cost, now);
      const first = !within && !share.over;
      share.over = !within;
      if (room || !hit.enforced) {
        part.current += hit.cost;
        if (unsent) {
          share.own ??= emptyCount(hit, now);
          bringUp(share.own, hit, now);
          share.own.current += hit.cost;
        }
      }
      return { within, used: usedWhole(part, now), retryMs, first };
    });
  }
}

function name({ limit, key }: Pick<Hit, 'limit' | 'key'>): string {
  return `${limit}\n${key}`;
}
