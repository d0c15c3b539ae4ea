import type { PutResult } from '../ports/state-entries.ts';
import { numberIn, type RedisCalls } from './redis-calls.ts';
import { inCalls, listOf, putAll, type Family, type Of } from './redis-entry-calls.ts';
import { DROP, READ, SWAP } from './redis-entry-scripts.ts';
import {
  correspondentKey,
  counterKey,
  countersKey,
  fullKey,
  networkKey,
  tripletKey,
  type StateKey,
} from './redis-state-keys.ts';
import { judged, lapse } from './state-order.ts';

const TEXT_KINDS = ['counter', 'triplet', 'network', 'correspondent', 'full-mailbox'] as const;
type TextKind = (typeof TEXT_KINDS)[number];
type TextEntry = Of<TextKind>;
type TextKey = Extract<StateKey, { readonly entry: TextKind }>;

/** Redis keeps no counter for longer. */
const LONGEST_MS = 31_622_400_000;

interface Item {
  readonly entry: TextEntry;
  readonly key: string;
  /** As it is in Redis; empty: not there. */
  before: string;
}

/** What is under a key of its own, as one text. */
export class TextFamily implements Family<TextKind> {
  readonly kinds = TEXT_KINDS;
  readonly #client: RedisCalls;
  /** Of the counters that can be listed; null: a Cluster has none. */
  readonly #index: string | null;

  constructor(client: RedisCalls) {
    this.#client = client;
    this.#index = client.cluster ? null : countersKey(client.prefix);
  }

  async *entries(keys: readonly StateKey[]): AsyncGenerator<readonly TextEntry[]> {
    const asked = keys.filter(isTextKey);
    const texts = await this.#read(asked.map((key) => this.#key(key)));
    yield asked.flatMap((key, at) => this.#there(key, texts[at] ?? '') ?? []);
  }

  async find(entries: readonly TextEntry[]): Promise<readonly (TextEntry | null)[]> {
    const texts = await this.#read(entries.map((entry) => this.#key(entry)));
    return entries.map((entry, at) => this.#there(entry, texts[at] ?? ''));
  }

  async put(
    entries: readonly TextEntry[],
    newer: 'keep' | 'replace',
    now: number,
  ): Promise<readonly PutResult[]> {
    const items = entries.map((entry): Item => ({ entry, key: this.#key(entry), before: '' }));
    const judge = async (some: readonly Item[]): Promise<readonly PutResult[]> => {
      const texts = await this.#read(some.map(({ key }) => key));
      return some.map((item, at) => {
        item.before = texts[at] ?? '';
        const there = this.#there(item.entry, item.before);
        return judged(item.entry, there !== null && lapse(there) > now ? there : null, newer);
      });
    };
    return await putAll(items, judge, async (due) => {
      const written = new Map<Item, boolean>();
      for (const [some, index] of this.#apart(due)) {
        const done = await this.#swap(some, index, now);
        for (const [at, item] of some.entries()) written.set(item, done[at] === true);
      }
      return due.map((item) => written.get(item) === true);
    });
  }

  async remove(entries: readonly TextEntry[]): Promise<void> {
    const items = entries.map((entry): Item => ({ entry, key: this.#key(entry), before: '' }));
    for (const [some, index] of this.#apart(items)) {
      await inCalls(this.#client, some, keyOf, async (group) => {
        await this.#client.run(DROP, [...group.map(keyOf), ...index], [`${index.length}`]);
        return [];
      });
    }
  }

  async #swap(items: readonly Item[], index: readonly string[], now: number): Promise<readonly boolean[]> {
    return await inCalls(this.#client, items, keyOf, async (group) => {
      const given = group.flatMap(({ entry, before }) => [before, textOf(entry), `${endOfText(entry, now)}`]);
      const keys = [...group.map(keyOf), ...index];
      const answer = await listOf(this.#client, SWAP, keys, [`${index.length}`, ...given], group.length);
      return answer.map((written) => written === 1);
    });
  }

  /** Counters, with their index where there is one, and the rest. */
  #apart(items: readonly Item[]): readonly (readonly [readonly Item[], readonly string[]])[] {
    if (this.#index === null) return [[items, []]];
    const isCounter = ({ entry }: Item): boolean => entry.entry === 'counter';
    return [
      [items.filter(isCounter), [this.#index]],
      [items.filter((item) => !isCounter(item)), []],
    ];
  }

  async #read(keys: readonly string[]): Promise<readonly string[]> {
    return await inCalls(
      this.#client,
      keys,
      (key) => key,
      async (some) => {
        const texts = await listOf(this.#client, READ, some, [], some.length);
        return texts.map((text) => (typeof text === 'string' ? text : ''));
      },
    );
  }

  #there(key: TextKey, text: string): TextEntry | null {
    if (text === '') return null;
    const entry = readText(key, text);
    if (entry === null) throw this.#client.nonsense();
    return entry;
  }

  #key(key: TextKey): string {
    return keyOfText(this.#client.prefix, key);
  }
}

function keyOf({ key }: Item): string {
  return key;
}

function isTextKey(key: StateKey): key is TextKey {
  return TEXT_KINDS.some((kind) => kind === key.entry);
}

function keyOfText(prefix: string, entry: TextKey): string {
  switch (entry.entry) {
    case 'counter':
      return counterKey(prefix, entry.limit, entry.key);
    case 'triplet':
      return tripletKey(prefix, entry.name);
    case 'network':
      return networkKey(prefix, entry.network);
    case 'correspondent':
      return correspondentKey(prefix, entry.name);
    case 'full-mailbox':
      return fullKey(prefix, entry.mailbox);
  }
}

function textOf(entry: TextEntry): string {
  switch (entry.entry) {
    case 'counter': {
      const { algorithm, periodMs, most, start, current, previous, overSince, time } = entry;
      const numbers = [periodMs, most, start, current, previous, overSince ?? 0, time];
      return `${algorithm === 'bucket' ? 'b' : 'w'} ${numbers.join(' ')}`;
    }
    case 'triplet':
      return entry.since === null ? `p${entry.until}` : `w${entry.since} ${entry.until}`;
    case 'network':
      return `${entry.passes} ${entry.until}`;
    case 'correspondent':
      return `${entry.until}`;
    case 'full-mailbox':
      return `${entry.since} ${entry.until}`;
  }
}

/** Until when the text is kept. */
function endOfText(entry: TextEntry, now: number): number {
  return Math.min(Math.ceil(lapse(entry)), now + LONGEST_MS);
}

/** null: no text of this kind. */
function readText(key: TextKey, text: string): TextEntry | null {
  switch (key.entry) {
    case 'counter':
      return readCounter(key, text);
    case 'triplet': {
      const [, stage = '', one = '', other = ''] = /^([wp])(\S+) ?(\S*)$/.exec(text) ?? [];
      const since = stage === 'w' ? numberIn(one) : null;
      const until = numberIn(stage === 'w' ? other : one);
      return since === null || Number.isFinite(since)
        ? whole({ entry: 'triplet', name: key.name, since, until })
        : null;
    }
    case 'network': {
      const [passes = NaN, until = NaN] = text.split(' ').map(numberIn);
      return Number.isFinite(passes)
        ? whole({ entry: 'network', network: key.network, passes, until })
        : null;
    }
    case 'correspondent':
      return whole({ entry: 'correspondent', name: key.name, until: numberIn(text) });
    case 'full-mailbox': {
      const [since = NaN, until = NaN] = text.split(' ').map(numberIn);
      const { mailbox } = key;
      return Number.isFinite(since) ? whole({ entry: 'full-mailbox', mailbox, since, until }) : null;
    }
  }
}

function readCounter(
  { limit, key }: Extract<StateKey, { entry: 'counter' }>,
  text: string,
): Of<'counter'> | null {
  const [word, ...words] = text.split(' ');
  const [periodMs, most, start, current, previous, over, time] = words.map(numberIn);
  if (
    (word !== 'b' && word !== 'w') ||
    !words.every((each) => Number.isFinite(numberIn(each))) ||
    periodMs === undefined ||
    most === undefined ||
    start === undefined ||
    current === undefined ||
    previous === undefined ||
    over === undefined ||
    time === undefined
  ) {
    return null;
  }
  const algorithm = word === 'b' ? 'bucket' : 'window';
  const overSince = over === 0 ? null : over;
  return {
    entry: 'counter',
    limit,
    key,
    algorithm,
    most,
    periodMs,
    start,
    current,
    previous,
    overSince,
    time,
  };
}

function whole<E extends TextEntry & { readonly until: number }>(entry: E): E | null {
  return Number.isFinite(entry.until) ? entry : null;
}
