import { LRUCache } from 'lru-cache';

import type { Clock } from '../ports/clock.ts';
import { within } from './within.ts';

export interface CacheOptions {
  /** How long an answer is used. */
  readonly ttlMs: number;
  /** How long it is believed that there is nothing. */
  readonly negativeMs: number;
  /** How much longer an answer is used while no new one can be had. */
  readonly staleMs: number;
  /** Answers remembered at once. */
  readonly entries: number;
}

/** What is counted of each look: remembered, asked for, old because no new one could be had, none at all. */
export const LOOK_RESULTS = ['cache', 'asked', 'stale', 'failed'] as const;
export type LookResult = (typeof LOOK_RESULTS)[number];

/** `null` stands for nothing. */
interface Known<T> {
  readonly value: T | null;
  /** Of the clock's `elapsed`. */
  readonly at: number;
}

/** Answers to one kind of question, each asked for by one at a time. */
export class LookupCache<T extends {}> {
  readonly #options: CacheOptions;
  readonly #clock: Clock;
  readonly #load: (key: string) => Promise<T | null>;
  readonly #looked: (result: LookResult) => void;
  readonly #known: LRUCache<string, Known<T>>;
  readonly #asked = new Map<string, Promise<T | null>>();

  /** @param load within a deadline of its own; rejects when nobody can tell */
  constructor(
    options: CacheOptions,
    clock: Clock,
    load: (key: string) => Promise<T | null>,
    looked: (result: LookResult) => void,
  ) {
    this.#options = options;
    this.#clock = clock;
    this.#load = load;
    this.#looked = looked;
    this.#known = new LRUCache({ max: options.entries });
  }

  /** What is remembered, and new enough; undefined: it has to be asked for. */
  known(key: string): T | null | undefined {
    const known = this.#known.get(key);
    if (known === undefined || this.#age(known) > this.#ttl(known)) return undefined;
    this.#looked('cache');
    return known.value;
  }

  /** null: there is nothing. @throws what `load` does, when no old answer may stand in */
  async get(key: string, signal: AbortSignal): Promise<T | null> {
    const remembered = this.known(key);
    if (remembered !== undefined) return remembered;
    const known = this.#known.get(key);
    let asked = this.#asked.get(key);
    if (asked === undefined) {
      asked = this.#ask(key);
      this.#asked.set(key, asked);
    }
    try {
      const value = await within(asked, signal);
      this.#looked('asked');
      return value;
    } catch (error) {
      // What says "nothing" stands in as well: of most addresses there is no alias, and without knowing that none of them leads anywhere.
      if (known === undefined || this.#age(known) > this.#ttl(known) + this.#options.staleMs) {
        this.#looked('failed');
        throw error;
      }
      this.#looked('stale');
      return known.value;
    }
  }

  async #ask(key: string): Promise<T | null> {
    try {
      const value = await this.#load(key);
      this.#known.set(key, { value, at: this.#clock.elapsed() });
      return value;
    } finally {
      this.#asked.delete(key);
    }
  }

  #age({ at }: Known<T>): number {
    return this.#clock.elapsed() - at;
  }

  #ttl({ value }: Known<T>): number {
    return value === null ? this.#options.negativeMs : this.#options.ttlMs;
  }
}
