import type { Decision, Store } from '../../../src/ports/store.ts';

function unasked(): Promise<never> {
  return Promise.reject(new Error('policyd has no business with this'));
}

/** A store that keeps decisions in memory and knows no other daemon. */
export interface QuietStore extends Store {
  readonly decisions: Decision[];
}

export function quietStore(): QuietStore {
  const decisions: Decision[] = [];
  return {
    decisions,
    openTrace: (_keys, fresh) => Promise.resolve(fresh),
    joinTrace: unasked,
    keepFacts: () => void unasked(),
    keptFacts: unasked,
    record: (decision) => void decisions.push(decision),
    flush: () => Promise.resolve(),
    history: unasked,
    label: unasked,
    expire: unasked,
    trim: () => Promise.resolve({ octets: null, decisions: 0 }),
  };
}
