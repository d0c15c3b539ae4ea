import type { DatabaseSync } from 'node:sqlite';

import type { TraceId, TraceKeys } from '../ports/store.ts';
import { isBusy } from './sqlite-schema.ts';
import { TraceLookup, type FoundTrace } from './sqlite-traces.ts';

export type Joined =
  /** `claim`: the row that the message is to be written to; null: that is done. */
  | { readonly kind: 'known'; readonly trace: TraceId; readonly claim: number | null }
  /** No other daemon knows the message. */
  | { readonly kind: 'new' }
  /** Only the one that writes can tell. */
  | { readonly kind: 'unsure' };

const UNSURE: Joined = { kind: 'unsure' };
const NEW: Joined = { kind: 'new' };

/** So many messages in a row that nobody knew: no policyd is asked about this site's mail. */
const STRANGERS = 100;
/** Claims remembered: far more than are ever on their way to the file. */
const CLAIMS = 1000;

/**
 * Finds the trace of a message without waiting for the file: most are there to be read, and what is to be noted of them nobody waits for.
 * A message belongs to one SMTP session, and so to one connection of one process: no other process claims its trace meanwhile.
 */
export class JoinReader {
  readonly #lookup: TraceLookup;
  /** Rows that were claimed here; the file may not say so yet. */
  readonly #claims = new Set<number>();
  #strangers = 0;

  constructor(database: DatabaseSync) {
    this.#lookup = new TraceLookup(database);
  }

  read(keys: TraceKeys, now: number): Joined {
    const found = this.#find(keys, now);
    if (found === null) return UNSURE;
    if (found === 'none') return this.#strangers < STRANGERS ? UNSURE : NEW;
    this.#strangers = 0;
    if (found.claimed) return { kind: 'known', trace: found.trace, claim: null };
    // Another message's by now, or this one's: the queue id may be new.
    if (this.#claims.has(found.id)) return UNSURE;
    this.#remember(found.id);
    return { kind: 'known', trace: found.trace, claim: found.id };
  }

  /** Of a message where it was `unsure`: whether another daemon knew it. policyd's note may have been on its way. */
  asked(known: boolean): void {
    this.#strangers = known ? 0 : this.#strangers + 1;
  }

  /** null: the file can't be read just now. */
  #find(keys: TraceKeys, now: number): FoundTrace | 'none' | null {
    try {
      return this.#lookup.amongNewest(keys, now) ?? 'none';
    } catch (error) {
      if (isBusy(error)) return null;
      throw error;
    }
  }

  #remember(id: number): void {
    this.#claims.add(id);
    if (this.#claims.size <= CLAIMS) return;
    const [oldest] = this.#claims;
    if (oldest !== undefined) this.#claims.delete(oldest);
  }
}
