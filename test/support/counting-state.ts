import type { Hit, HitResult, LimitState } from '../../src/ports/limits.ts';
import { NO_STATE } from './checks.ts';
import type { State } from '../../src/ports/state.ts';

/** Counters that never forget, so that tests see sums. Only limits can be asked of it. */
export class CountingState {
  readonly #counts = new Map<string, number>();
  readonly #over = new Set<string>();
  /** What each call of hit() was given. */
  readonly calls: (readonly Hit[])[] = [];
  /** Rejects every call with this; null: it works. */
  broken: Error | null = null;

  readonly state: State = {
    ...NO_STATE,
    hit: (hits) => this.#answer(() => this.#hit(hits)),
    refund: (hits) => this.#answer(() => this.#refund(hits)),
  } satisfies State & LimitState;

  /** By `limit key`; counters at 0 are left out. */
  get counts(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#counts].filter(([, count]) => count !== 0));
  }

  async #answer<T>(work: () => T): Promise<T> {
    if (this.broken !== null) throw this.broken;
    return work();
  }

  #hit(hits: readonly Hit[]): readonly HitResult[] {
    this.calls.push(hits);
    const within = hits.map((hit) => this.#count(hit) + hit.cost <= hit.most);
    const refused = hits.some((hit, index) => hit.enforced && within[index] === false);
    return hits.map((hit, index) => {
      const fits = within[index] === true;
      const id = idOf(hit);
      const first = !fits && !this.#over.has(id);
      if (!fits) this.#over.add(id);
      if (!hit.enforced || !refused) this.#counts.set(id, this.#count(hit) + hit.cost);
      return { within: fits, used: this.#count(hit), retryMs: fits ? 0 : 90_000, first };
    });
  }

  #refund(hits: readonly Hit[]): void {
    for (const hit of hits) this.#counts.set(idOf(hit), Math.max(0, this.#count(hit) - hit.cost));
  }

  #count(hit: Hit): number {
    return this.#counts.get(idOf(hit)) ?? 0;
  }
}

function idOf({ limit, key }: Hit): string {
  return `${limit.replace(/^limits\./, '')} ${key}`;
}
