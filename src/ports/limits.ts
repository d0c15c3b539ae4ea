/**
 * How a limit is counted. `window`: at most `limit` within any `periodMs` (a sliding window: this period's count and the share of the last
 * one that still lies within). `bucket`: a token bucket that holds `limit` and is refilled evenly, `limit` in `periodMs`.
 */
export type LimitAlgorithm = 'window' | 'bucket';

/** Something that counts against a limit. */
export interface Hit {
  /** Name of the limit. */
  readonly limit: string;
  /** For whom it is counted: a login, a network, a domain, or several joined by `|`; in lower case, at most KEY_LIMIT characters. */
  readonly key: string;
  readonly algorithm: LimitAlgorithm;
  /** In the unit of the limit: messages, recipients, octets. */
  readonly most: number;
  readonly periodMs: number;
  readonly cost: number;
  /** false: counted in any case, and never in the way of others (limits that only warn, and shadow). */
  readonly enforced: boolean;
}

export interface HitResult {
  /** Whether there was room for `cost`. */
  readonly within: boolean;
  /** How much is used, this hit included when it was counted; in the unit of the limit. */
  readonly used: number;
  /** Milliseconds until there is room for `cost`; 0 when there is. */
  readonly retryMs: number;
  /** The first excess since this counter was last within its limit: the moment to tell somebody. */
  readonly first: boolean;
}

/** The longest key; longer ones are cut to it by whoever makes them (with a digest at the end, so that they stay apart). */
export const KEY_LIMIT = 320;

/** One counter, for people. */
export interface Counter {
  readonly limit: string;
  readonly key: string;
  readonly algorithm: LimitAlgorithm;
  /** As of the last hit. */
  readonly most: number;
  readonly periodMs: number;
  readonly used: number;
  /** Since when it has been over its limit, milliseconds since 1970; null: it is not. */
  readonly overSince: number | null;
  /** When it was last hit, milliseconds since 1970. */
  readonly time: number;
}

export interface CounterFilter {
  readonly limit?: string;
  readonly key?: string;
  readonly overOnly?: boolean;
  /** The fullest first; at most this many. */
  readonly count: number;
}

export interface LimitState {
  /**
   * Counts all hits in one step, or none of the enforced ones when one of those has no room: who is refused does not use up his other limits.
   * Results in the order of `hits`.
   */
  hit(hits: readonly Hit[]): Promise<readonly HitResult[]>;
  /** Takes back what was counted in vain (never below nothing). */
  refund(hits: readonly Hit[]): Promise<void>;
  counters(filter: CounterFilter): Promise<readonly Counter[]>;
  /** Forgets counters; returns how many. */
  resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number>;
}
