import type { PutResult } from '../ports/state-entries.ts';
import { endText, readStanding, standingText } from './redis-accounts.ts';
import type { RedisCalls } from './redis-calls.ts';
import { inCalls, inForce, listOf, PAGE, pages, putAll, type Family, type Of } from './redis-entry-calls.ts';
import { FIND_STANDINGS, STANDINGS_PAGE, SWAP_STANDINGS } from './redis-entry-scripts.ts';
import { standingsKeys, type StateKey } from './redis-state-keys.ts';
import { bounded } from './state-keys.ts';
import { judged } from './state-order.ts';

interface StandingItem {
  readonly entry: Of<'standing'>;
  /** As it is in Redis; empty: not there. */
  before: string;
}

/** How accounts stand: under one key, all of them. */
export class StandingFamily implements Family<'standing'> {
  readonly kinds = ['standing'] as const;
  readonly #client: RedisCalls;
  readonly #keys: readonly [standings: string, lapse: string];

  constructor(client: RedisCalls) {
    this.#client = client;
    this.#keys = standingsKeys(client.prefix);
  }

  entries(keys: readonly StateKey[]): AsyncGenerator<readonly Of<'standing'>[]> {
    const there = keys.some((key) => key.entry === 'standing') ? [this.#keys] : [];
    return pages(there, async (both, from) => {
      const texts = await listOf(this.#client, STANDINGS_PAGE, both, [`${from}`, `${from + PAGE - 1}`]);
      return texts.map((text) => this.#entry(text));
    });
  }

  async find(entries: readonly Of<'standing'>[]): Promise<readonly (Of<'standing'> | null)[]> {
    return (await this.#read(entries)).map((text) => (text === '' ? null : this.#entry(text)));
  }

  async put(
    entries: readonly Of<'standing'>[],
    newer: 'keep' | 'replace',
    now: number,
  ): Promise<readonly PutResult[]> {
    const items = entries.map((entry): StandingItem => ({ entry, before: '' }));
    const judge = async (some: readonly StandingItem[]): Promise<readonly PutResult[]> => {
      const texts = await this.#read(some.map(({ entry }) => entry));
      return some.map((item, at) => {
        item.before = texts[at] ?? '';
        const there = item.before === '' ? null : this.#entry(item.before);
        return judged(item.entry, inForce(there, now), newer);
      });
    };
    return await putAll(items, judge, (due) =>
      this.#swap(due, (entry) => [standingText(entry), endText(entry.until)]),
    );
  }

  async remove(entries: readonly Of<'standing'>[]): Promise<void> {
    const texts = await this.#read(entries);
    const items = entries.map((entry, at): StandingItem => ({ entry, before: texts[at] ?? '' }));
    await this.#swap(items, () => ['', '']);
  }

  async #swap(
    items: readonly StandingItem[],
    text: (entry: Of<'standing'>) => readonly [text: string, end: string],
  ): Promise<readonly boolean[]> {
    return await inCalls(this.#client, items, this.#place, async (some) => {
      const given = some.flatMap(({ entry, before }) => [bounded(entry.login), before, ...text(entry)]);
      const words = await listOf(this.#client, SWAP_STANDINGS, this.#keys, given, some.length);
      return words.map((written) => written === 1);
    });
  }

  async #read(entries: readonly Of<'standing'>[]): Promise<readonly string[]> {
    return await inCalls(this.#client, entries, this.#place, async (some) => {
      const logins = some.map(({ login }) => bounded(login));
      const texts = await listOf(this.#client, FIND_STANDINGS, this.#keys, logins, some.length);
      return texts.map((text) => (typeof text === 'string' ? text : ''));
    });
  }

  readonly #place = (): string => this.#keys[0];

  #entry(text: unknown): Of<'standing'> {
    const standing = readStanding(text);
    if (standing === null) throw this.#client.nonsense();
    return { entry: 'standing', ...standing };
  }
}
