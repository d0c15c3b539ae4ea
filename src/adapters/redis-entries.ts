import type { EntryKind, PutResult, StateContents, StateEntry } from '../ports/state-entries.ts';
import { numberIn, type RedisCalls } from './redis-calls.ts';
import { chunks, type Family, type Of } from './redis-entry-calls.ts';
import { HoldFamily, HourFamily, SightFamily } from './redis-entry-groups.ts';
import { CLOCK } from './redis-entry-scripts.ts';
import { StandingFamily } from './redis-entry-standings.ts';
import { TextFamily } from './redis-entry-texts.ts';
import { countersKey, readStateKey } from './redis-state-keys.ts';
import { lapse } from './state-order.ts';

/** Keys that are read at a time. */
const KEYS_AT_ONCE = 500;

/** A family that takes what is of its kinds out of any entries, and leaves the rest to the others. */
interface Part {
  read(...of: Parameters<Family<EntryKind>['entries']>): AsyncGenerator<readonly StateEntry[]>;
  find(entries: readonly StateEntry[], found: (StateEntry | null)[]): Promise<void>;
  put(
    entries: readonly StateEntry[],
    newer: 'keep' | 'replace',
    now: number,
    results: PutResult[],
  ): Promise<void>;
  remove(entries: readonly StateEntry[]): Promise<void>;
}

/** All that Redis holds of the state, to be moved. Keys of others, also of the history, are left alone. */
export class RedisEntries implements StateContents {
  readonly #client: RedisCalls;
  readonly #parts: readonly Part[];

  constructor(client: RedisCalls) {
    this.#client = client;
    this.#parts = [
      partOf(new TextFamily(client)),
      partOf(new HoldFamily(client)),
      partOf(new SightFamily(client)),
      partOf(new HourFamily(client)),
      partOf(new StandingFamily(client)),
    ];
  }

  async now(): Promise<number> {
    const now = numberIn(await this.#client.run(CLOCK, [countersKey(this.#client.prefix)], []));
    if (!Number.isFinite(now)) throw this.#client.nonsense();
    return now;
  }

  async *entries(): AsyncGenerator<readonly StateEntry[]> {
    const { prefix } = this.#client;
    for await (const found of this.#client.keys(prefix)) {
      for (const some of chunks(found, KEYS_AT_ONCE)) {
        const keys = some.flatMap((key) => readStateKey(prefix, key) ?? []);
        if (keys.length === 0) continue;
        const now = await this.now();
        for (const part of this.#parts) {
          for await (const entries of part.read(keys)) {
            const inForce = entries.filter((entry) => lapse(entry) > now);
            if (inForce.length > 0) yield inForce;
          }
        }
      }
    }
  }

  async find(entries: readonly StateEntry[]): Promise<readonly (StateEntry | null)[]> {
    const now = await this.now();
    const found: (StateEntry | null)[] = entries.map(() => null);
    await Promise.all(this.#parts.map((part) => part.find(entries, found)));
    return found.map((entry) => (entry !== null && lapse(entry) > now ? entry : null));
  }

  async put(entries: readonly StateEntry[], newer: 'keep' | 'replace'): Promise<readonly PutResult[]> {
    const now = await this.now();
    const results: PutResult[] = entries.map(() => 'kept');
    await Promise.all(this.#parts.map((part) => part.put(entries, newer, now, results)));
    return results;
  }

  async remove(entries: readonly StateEntry[]): Promise<void> {
    await Promise.all(this.#parts.map((part) => part.remove(entries)));
  }
}

function partOf<K extends EntryKind>(family: Family<K>): Part {
  const isOurs = (entry: StateEntry): entry is Of<K> => family.kinds.some((kind) => kind === entry.entry);
  /** Ours, and their places. */
  const ours = (entries: readonly StateEntry[]): readonly [readonly Of<K>[], readonly number[]] => {
    const some: Of<K>[] = [];
    const places: number[] = [];
    for (const [place, entry] of entries.entries()) {
      if (!isOurs(entry)) continue;
      some.push(entry);
      places.push(place);
    }
    return [some, places];
  };
  return {
    read: (keys) => family.entries(keys),
    async find(entries, found) {
      const [some, places] = ours(entries);
      if (some.length === 0) return;
      for (const [at, entry] of (await family.find(some)).entries()) found[places[at] ?? 0] = entry;
    },
    async put(entries, newer, now, results) {
      const [some, places] = ours(entries);
      if (some.length === 0) return;
      for (const [at, result] of (await family.put(some, newer, now)).entries())
        results[places[at] ?? 0] = result;
    },
    async remove(entries) {
      const [some] = ours(entries);
      if (some.length > 0) await family.remove(some);
    },
  };
}
