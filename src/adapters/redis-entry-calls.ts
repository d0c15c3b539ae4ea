import type { EntryKind, PutResult, StateEntry } from '../ports/state-entries.ts';
import { picked, together, type RedisCalls, type Script } from './redis-calls.ts';
import type { StateKey } from './redis-state-keys.ts';
import { lapse } from './state-order.ts';

/** Entries of these kinds. */
export type Of<K extends EntryKind> = Extract<StateEntry, { readonly entry: K }>;

/** Kinds of entries that Redis keeps in the same way. */
export interface Family<K extends EntryKind> {
  readonly kinds: readonly K[];
  /** What is under keys of these kinds, some of it at a time. */
  entries(keys: readonly StateKey[]): AsyncGenerator<readonly Of<K>[]>;
  /** Under the names of these, in their order. */
  find(entries: readonly Of<K>[]): Promise<readonly (Of<K> | null)[]>;
  /** `now`: what has lapsed by then is as good as gone. */
  put(entries: readonly Of<K>[], newer: 'keep' | 'replace', now: number): Promise<readonly PutResult[]>;
  remove(entries: readonly Of<K>[]): Promise<void>;
}

/** Entries that one call carries: a millisecond or so of Redis. */
const IN_CALL = 100;

/** Keys that are read at the same time where each needs a call of its own. */
const AT_ONCE = 20;

/** Makes the calls that items need, as many of them in each as may be, and gives the results in the order of the items. */
export async function inCalls<T, R>(
  client: RedisCalls,
  items: readonly T[],
  key: (item: T) => string,
  call: (some: readonly T[]) => Promise<readonly R[]>,
): Promise<readonly R[]> {
  const results: R[] = [];
  // All on their way at once: between two of them Redis serves others.
  await Promise.all(
    [...chunks([...items.keys()], IN_CALL)].map(async (places) => {
      const some = picked(items, places);
      const groups = together(client, some, key);
      const answers = await Promise.all(groups.map((group) => call(picked(some, group))));
      for (const [at, group] of groups.entries()) {
        for (const [place, result] of (answers[at] ?? []).entries()) {
          results[places[group[place] ?? 0] ?? 0] = result;
        }
      }
    }),
  );
  return results;
}

/** A list of so many answers. @throws {NeighbourError} when it is none */
export async function listOf(
  client: RedisCalls,
  script: Script,
  keys: readonly string[],
  given: readonly string[],
  count?: number,
): Promise<readonly unknown[]> {
  const answer = await client.run(script, keys, given);
  const words: readonly unknown[] | null = Array.isArray(answer) ? answer : null;
  if (words === null || (count !== undefined && words.length !== count)) throw client.nonsense();
  return words;
}

/** Those of the items that are to be written, with what becomes of all. What was overtaken by others is judged anew. */
export async function putAll<T>(
  items: readonly T[],
  judge: (some: readonly T[]) => Promise<readonly PutResult[]>,
  write: (some: readonly T[]) => Promise<readonly boolean[]>,
): Promise<readonly PutResult[]> {
  const results: PutResult[] = items.map(() => 'kept');
  let open = [...items.keys()];
  // Who is overtaken so often is in use, and so newer.
  for (let attempt = 0; attempt < ATTEMPTS && open.length > 0; attempt++) {
    const judged = await judge(picked(items, open));
    const due: number[] = [];
    for (const [at, place] of open.entries()) {
      const result = judged[at] ?? 'kept';
      results[place] = result;
      if (result === 'made' || result === 'changed') due.push(place);
    }
    const written = await write(picked(items, due));
    open = due.filter((_, at) => written[at] !== true);
    for (const place of open) results[place] = 'kept';
  }
  return results;
}

const ATTEMPTS = 3;

export function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let from = 0; from < items.length; from += size) yield items.slice(from, from + size);
}

/** Entries of one key that are read at a time. */
export const PAGE = 500;

/** Reads keys that hold many entries, several keys at the same time. `page` gives less than PAGE of them when there are no more. */
export async function* pages<T, E>(
  keys: readonly T[],
  page: (key: T, from: number) => Promise<readonly E[]>,
): AsyncGenerator<readonly E[]> {
  for (const some of chunks(keys, AT_ONCE)) {
    const firsts = await Promise.all(some.map((key) => page(key, 0)));
    for (const [place, key] of some.entries()) {
      let found = firsts[place] ?? [];
      yield found;
      for (let from = PAGE; found.length === PAGE; from += PAGE) {
        found = await page(key, from);
        yield found;
      }
    }
  }
}

export function inForce<E extends StateEntry>(entry: E | null | undefined, now: number): E | null {
  return entry !== null && entry !== undefined && lapse(entry) > now ? entry : null;
}
