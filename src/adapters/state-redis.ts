import type { Sighting, SightingResult, Standing, Tally } from '../ports/accounts.ts';
import type { Correspondence, GreylistAnswer, GreylistTimes, Triplet } from '../ports/greylist.ts';
import type { Counter, CounterFilter, Hit, HitResult, LimitState } from '../ports/limits.ts';
import type { Claim, ClaimResult, Reservation } from '../ports/quota.ts';
import type { State } from '../ports/state.ts';
import type { PutResult, StateContents, StateEntry } from '../ports/state-entries.ts';
import { LimitsWhenLost } from './limits-when-lost.ts';
import { RedisAccounts } from './redis-accounts.ts';
import type { RedisCalls } from './redis-calls.ts';
import { RedisClient, type RedisEvents, type RedisOptions } from './redis-client.ts';
import { RedisCluster, type ClusterOptions } from './redis-cluster.ts';
import { RedisEntries } from './redis-entries.ts';
import { RedisGreylist } from './redis-greylist.ts';
import { RedisLimits } from './redis-limits.ts';
import { RedisReservations } from './redis-reservations.ts';

/**
 * The state in Redis, shared by all hosts. Does not fail when Redis is not there: `events` tell so, calls reject until it is, and it is looked for
 * until then. `whenLost`: whether limits fail then as all else does, or are kept to by each host alone.
 */
export async function openRedisState(
  options: RedisOptions | ClusterOptions,
  events: RedisEvents,
  whenLost: 'rule' | 'local' = 'rule',
): Promise<RedisState> {
  const client = 'seeds' in options ? new RedisCluster(options, events) : new RedisClient(options, events);
  await client.start();
  if (whenLost === 'rule') return new RedisState(client, null);
  const now = (): number => performance.now() + (options.offset?.() ?? 0);
  const local = new LimitsWhenLost(new RedisLimits(client), client, now);
  await local.beat();
  return new RedisState(client, local);
}

export class RedisState implements State, StateContents, AsyncDisposable {
  /** Its connection, for what else is kept there. */
  readonly calls: RedisCalls;
  readonly #limits: LimitState;
  readonly #local: LimitsWhenLost | null;
  readonly #greylist: RedisGreylist;
  readonly #reservations: RedisReservations;
  readonly #accounts: RedisAccounts;
  readonly #contents: RedisEntries;

  constructor(client: RedisCalls, local: LimitsWhenLost | null) {
    this.calls = client;
    this.#local = local;
    this.#limits = local ?? new RedisLimits(client);
    this.#greylist = new RedisGreylist(client);
    this.#reservations = new RedisReservations(client);
    this.#accounts = new RedisAccounts(client);
    this.#contents = new RedisEntries(client);
  }

  ping(): Promise<void> {
    return this.calls.ping();
  }

  hit(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    return this.#limits.hit(hits);
  }

  refund(hits: readonly Hit[]): Promise<void> {
    return this.#limits.refund(hits);
  }

  counters(filter: CounterFilter): Promise<readonly Counter[]> {
    return this.#limits.counters(filter);
  }

  resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number> {
    return this.#limits.resetCounters(filter);
  }

  greylist(triplet: Triplet, times: GreylistTimes): Promise<GreylistAnswer> {
    return this.#greylist.greylist(triplet, times);
  }

  correspond(pairs: readonly Correspondence[], ageMs: number): Promise<void> {
    return this.#greylist.correspond(pairs, ageMs);
  }

  reserve(trace: string, claims: readonly Claim[], holdMs: number): Promise<readonly ClaimResult[]> {
    return this.#reservations.reserve(trace, claims, holdMs);
  }

  settle(trace: string, mailbox: string | null, lingerMs: number): Promise<void> {
    return this.#reservations.settle(trace, mailbox, lingerMs);
  }

  reservations(mailbox: string): Promise<readonly Reservation[]> {
    return this.#reservations.reservations(mailbox);
  }

  noteFull(mailbox: string, full: boolean): Promise<number | null> {
    return this.#reservations.noteFull(mailbox, full);
  }

  seen(sightings: readonly Sighting[]): Promise<readonly SightingResult[]> {
    return this.#accounts.seen(sightings);
  }

  tally(entries: readonly Tally[]): Promise<void> {
    return this.#accounts.tally(entries);
  }

  tallies(subject: string, since: number): Promise<readonly Tally[]> {
    return this.#accounts.tallies(subject, since);
  }

  standing(login: string): Promise<Standing | null> {
    return this.#accounts.standing(login);
  }

  setStanding(standing: Standing): Promise<void> {
    return this.#accounts.setStanding(standing);
  }

  raiseStanding(standing: Standing): Promise<boolean> {
    return this.#accounts.raiseStanding(standing);
  }

  standings(): Promise<readonly Standing[]> {
    return this.#accounts.standings();
  }

  now(): Promise<number> {
    return this.#contents.now();
  }

  entries(): AsyncIterable<readonly StateEntry[]> {
    return this.#contents.entries();
  }

  find(entries: readonly StateEntry[]): Promise<readonly (StateEntry | null)[]> {
    return this.#contents.find(entries);
  }

  put(entries: readonly StateEntry[], newer: 'keep' | 'replace'): Promise<readonly PutResult[]> {
    return this.#contents.put(entries, newer);
  }

  remove(entries: readonly StateEntry[]): Promise<void> {
    return this.#contents.remove(entries);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#local?.[Symbol.asyncDispose]();
    await this.calls[Symbol.asyncDispose]();
  }
}
