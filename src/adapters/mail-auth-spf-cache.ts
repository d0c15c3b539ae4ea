import { LRUCache } from 'lru-cache';

import type { Clock } from '../ports/clock.ts';
import type { SpfQuery, SpfResult } from '../ports/mail-auth.ts';
import type { Resolver } from '../ports/resolver.ts';
import { evaluateSpf, spfSubject, type SpfEvaluation, type SpfSubject } from './mail-auth-spf.ts';

export interface SpfCacheOptions {
  /** Name of this host: %{r} of an explanation. */
  readonly hostname: string;
  readonly clock: Clock;
  /** Results kept; 0: none. */
  readonly entries: number;
}

/** Longest a result is kept, whatever the TTLs of the answers say. */
const KEPT_LIMIT_MS = 3_600_000;

/** Octets a result takes on average, for the cache's bound in memory; most of it is the record in its detail. */
const ENTRY_SIZE = 1024;
const ENTRY_OVERHEAD = 320;

interface Kept {
  /** null: there is one for each local part, under a key with it. */
  readonly result: SpfResult | null;
  /** Of the clock's `elapsed`. */
  readonly until: number;
}

/** An evaluation under way. */
interface Flight {
  readonly local: string;
  /** null: it was given up. */
  readonly done: Promise<SpfEvaluation | null>;
  /** When it ends at the latest, of the clock's `elapsed`. */
  readonly until: number;
}

/**
 * SPF by mailauth, and its results for as long as all DNS answers they rest on may be kept.
 *
 * A result is that of client, domain and HELO name, whichever identity the domain is; and of the local part when a record that was read has
 * a macro for it. So the HELO name and the sender share one evaluation where they are the same domain, as do messages that come at once.
 */
export class SpfCache {
  readonly #resolver: Resolver;
  readonly #options: SpfCacheOptions;
  readonly #kept: LRUCache<string, Kept> | null;
  readonly #flights = new Map<string, Flight>();

  constructor(resolver: Resolver, options: SpfCacheOptions) {
    this.#resolver = resolver;
    this.#options = options;
    const { entries } = options;
    this.#kept =
      entries === 0
        ? null
        : new LRUCache({ max: entries, maxSize: entries * ENTRY_SIZE, sizeCalculation: sizeOf });
  }

  /** A result at once when it is known. */
  check(query: SpfQuery, signal: AbortSignal, budgetMs: number): SpfResult | Promise<SpfResult> {
    const subject = spfSubject(query);
    if (subject.domain === null) return subject.result;
    // Neither an address nor a domain has a space in it where it has come to a result.
    const key = `${subject.client} ${subject.domain} ${subject.helo}`;
    return this.#known(key, subject.local) ?? this.#evaluate(key, subject, signal, budgetMs);
  }

  #known(key: string, local: string): SpfResult | null {
    if (this.#kept === null) return null;
    const general = this.#kept.get(key);
    if (general === undefined) return null;
    const now = this.#options.clock.elapsed();
    if (general.until <= now) return null;
    if (general.result !== null) return general.result;
    const own = this.#kept.get(localKey(key, local));
    return own === undefined || own.until <= now ? null : own.result;
  }

  #keep(key: string, { local }: SpfSubject, { result, ttl, usesLocal }: SpfEvaluation): void {
    if (this.#kept === null || ttl <= 0) return;
    const until = this.#options.clock.elapsed() + Math.min(ttl * 1000, KEPT_LIMIT_MS);
    this.#kept.set(key, { result: usesLocal ? null : result, until });
    if (usesLocal) this.#kept.set(localKey(key, local), { result, until });
  }

  async #evaluate(
    key: string,
    subject: SpfSubject,
    signal: AbortSignal,
    budgetMs: number,
  ): Promise<SpfResult> {
    const flight = this.#flights.get(key);
    const until = this.#options.clock.elapsed() + budgetMs;
    if (flight !== undefined && flight.until <= until) {
      const shared = await unlessAborted(flight.done, signal);
      if (shared !== null && (!shared.usesLocal || flight.local === subject.local)) return shared.result;
    }
    const evaluation = evaluateSpf(subject, this.#resolver, this.#options.hostname, signal, budgetMs);
    const done = evaluation.catch(() => null);
    const mine: Flight = { local: subject.local, done, until };
    if (!this.#flights.has(key)) this.#flights.set(key, mine);
    try {
      const made = await evaluation;
      this.#keep(key, subject, made);
      return made.result;
    } finally {
      if (this.#flights.get(key) === mine) this.#flights.delete(key);
    }
  }
}

function localKey(key: string, local: string): string {
  // No HELO name can hold the LF that parts them.
  return `${key}\n${local}`;
}

async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function sizeOf({ result }: Kept, key: string): number {
  const text = result === null ? 0 : result.detail.length + (result.explanation?.length ?? 0);
  return ENTRY_OVERHEAD + 2 * key.length + text;
}
