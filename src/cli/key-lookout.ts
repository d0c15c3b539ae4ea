import { createPublicKey } from 'node:crypto';

import type { FoundKey } from '../adapters/key-file.ts';
import { publicDataOf, type Publication } from '../adapters/key-publication.ts';
import { recordName } from '../mail/dkim-record.ts';
import type { Clock } from '../ports/clock.ts';
import type { SigningKey } from '../ports/signing-keys.ts';
import type { KeyWatch } from './open-keys.ts';

/** How often a key is looked for in DNS: one that all servers have, and one that is missed. */
export const LOOK_EVERY_MS = 900_000;
export const LOOK_AGAIN_MS = 120_000;

/** Keys looked for at once, and the least time from one to the next: a hundred thousand keys are asked about over hours, not all at once. */
const LOOKS_AT_ONCE = 4;
export const PACE_MS = 100;

/** Looks under way beyond which no message begins one of its own. */
const LOOKS_LIMIT = 64;

/** The longest all servers of one key may take, with those that are found on the way. */
const LOOK_LIMIT_MS = 60_000;

/** Asks all name servers for one key. */
export type LookForKey = (key: SigningKey, publicData: string, signal: AbortSignal) => Promise<Publication>;

/** What is known of a key in DNS; null: nobody has looked yet. */
export type Known = Publication['state'] | null;

export interface LookoutEvents {
  /** What is known has changed. */
  changed(key: SigningKey, before: Known, publication: Publication): void;
  /** Nobody looks for it any more. */
  dropped(key: SigningKey, before: Known): void;
  /** A mistake of ours. */
  failed(key: SigningKey, error: unknown): void;
}

interface Watched {
  readonly key: SigningKey;
  known: Known;
  /** Of the clock's `elapsed`. */
  due: number;
  /** Settles when it has been looked for; null: nobody is looking just now. */
  looking: Promise<void> | null;
}

/** Looks in the background whether signing keys are in DNS. */
export class KeyLookout implements KeyWatch, AsyncDisposable {
  readonly #look: LookForKey;
  readonly #clock: Clock;
  readonly #events: LookoutEvents;
  readonly #closed = new AbortController();
  /** By name of the record. */
  readonly #watched = new Map<string, Watched>();
  /** Not looked for yet; missed; in order. In each the first is due first. */
  readonly #fresh = new Set<Watched>();
  readonly #missed = new Set<Watched>();
  readonly #settled = new Set<Watched>();
  readonly #looks = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | null = null;
  #begun = Number.NEGATIVE_INFINITY;

  constructor(look: LookForKey, clock: Clock, events: LookoutEvents) {
    this.#look = look;
    this.#clock = clock;
    this.#events = events;
  }

  /** Of this very key: another one under its name is not the same. */
  known(key: SigningKey): Known {
    const watched = this.#watched.get(nameOf(key));
    return watched?.key.key === key.key ? watched.known : null;
  }

  loaded({ state }: Pick<FoundKey, 'state'>): void {
    if (state.kind === 'usable') this.add(state.key);
  }

  gone({ place }: Pick<FoundKey, 'place'>): void {
    this.#drop(nameOf(place));
  }

  add(key: SigningKey): void {
    const name = nameOf(key);
    const before = this.#watched.get(name);
    if (before?.key.key === key.key || this.#closed.signal.aborted) return;
    // Read again, and the same: what is known of it holds.
    const same = before?.key.key.equals(key.key) === true;
    const watched: Watched = { key, known: same ? before.known : null, due: 0, looking: null };
    if (before !== undefined) {
      this.#forget(before);
      if (!same) this.#events.dropped(before.key, before.known);
    }
    this.#watched.set(name, watched);
    this.#fresh.add(watched);
    // For the others of many it is arranged already.
    if (this.#fresh.size === 1) this.#schedule();
  }

  /** Forgets all keys. */
  clear(): void {
    for (const name of this.#watched.keys()) this.#drop(name);
  }

  /** Settles when a key has been looked for; at once, when that was done before or too much is under way. Does not reject. */
  looked(key: SigningKey): Promise<void> {
    const watched = this.#watched.get(nameOf(key));
    if (watched === undefined || watched.known !== null) return Promise.resolve();
    if (watched.looking === null && this.#looks.size < LOOKS_LIMIT) this.#begin(watched);
    return watched.looking ?? Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new Error('stopped'));
    if (this.#timer !== null) clearTimeout(this.#timer);
    await Promise.all(this.#looks);
  }

  #drop(name: string): void {
    const watched = this.#watched.get(name);
    if (watched === undefined) return;
    this.#watched.delete(name);
    this.#forget(watched);
    this.#events.dropped(watched.key, watched.known);
  }

  #forget(watched: Watched): void {
    for (const queue of [this.#fresh, this.#missed, this.#settled]) queue.delete(watched);
  }

  #next(): Watched | undefined {
    const [fresh] = this.#fresh;
    if (fresh !== undefined) return fresh;
    const [[missed], [settled]] = [this.#missed, this.#settled];
    return missed === undefined || (settled !== undefined && settled.due < missed.due) ? settled : missed;
  }

  #schedule(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const next = this.#next();
    if (next === undefined || this.#closed.signal.aborted || this.#looks.size >= LOOKS_AT_ONCE) return;
    const wait = Math.max(next.due, this.#begun + PACE_MS) - this.#clock.elapsed();
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        const chosen = this.#next();
        if (chosen !== undefined) this.#begin(chosen);
        this.#schedule();
      },
      Math.max(wait, 0),
    ).unref();
  }

  #begin(watched: Watched): void {
    this.#forget(watched);
    this.#begun = this.#clock.elapsed();
    const look = this.#lookFor(watched).finally(() => {
      this.#looks.delete(look);
      watched.looking = null;
      // Its place may have been taken meanwhile.
      if (this.#watched.get(nameOf(watched.key)) === watched) {
        const settled = watched.known === 'everywhere';
        watched.due = this.#clock.elapsed() + (settled ? LOOK_EVERY_MS : LOOK_AGAIN_MS);
        (settled ? this.#settled : this.#missed).add(watched);
      }
      this.#schedule();
    });
    watched.looking = look;
    this.#looks.add(look);
  }

  async #lookFor(watched: Watched): Promise<void> {
    const { key, known: before } = watched;
    try {
      const limit = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(LOOK_LIMIT_MS)]);
      const publication = await this.#look(key, publicDataOf(createPublicKey(key.key)), limit);
      const current = this.#watched.get(nameOf(key)) === watched && !this.#closed.signal.aborted;
      // While nobody can tell, what was known before holds.
      if (!current || publication.state === before) return;
      if (publication.state === 'unknown' && before !== null) return;
      watched.known = publication.state;
      this.#events.changed(key, before, publication);
    } catch (error) {
      this.#events.failed(key, error);
    }
  }
}

function nameOf({ selector, domain }: { readonly selector: string; readonly domain: string }): string {
  return recordName(selector, domain);
}
