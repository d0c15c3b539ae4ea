import type { PutResult } from '../ports/state-entries.ts';
import { readCounts } from './redis-accounts.ts';
import { numberIn, type RedisCalls } from './redis-calls.ts';
import { inCalls, inForce, listOf, PAGE, pages, putAll, type Family, type Of } from './redis-entry-calls.ts';
import {
  COUNT_HOURS,
  COUNTS,
  FIND_HELD,
  FIND_SEEN,
  HELD,
  HOLD,
  HOLDS,
  SEE,
  SEEN_PAGE,
  UNSEE,
} from './redis-entry-scripts.ts';
import { heldKeys, hoursKey, messageKey, seenKey, type StateKey } from './redis-state-keys.ts';
import { judged, lapse } from './state-order.ts';

/** Octets held for mail in flight. */
export class HoldFamily implements Family<'reservation'> {
  readonly kinds = ['reservation'] as const;
  readonly #client: RedisCalls;

  constructor(client: RedisCalls) {
    this.#client = client;
  }

  entries(keys: readonly StateKey[]): AsyncGenerator<readonly Of<'reservation'>[]> {
    const mailboxes = keys.flatMap((key) => (key.entry === 'reservation' ? [key.mailbox] : []));
    return pages(mailboxes, async (mailbox, from) => {
      const words = await listOf(this.#client, HELD, this.#keys(mailbox), [`${from}`, `${PAGE}`]);
      const found: Of<'reservation'>[] = [];
      for (let at = 0; at < words.length; at += 3) {
        const trace = words[at];
        if (typeof trace !== 'string') throw this.#client.nonsense();
        found.push(this.#entry(trace, mailbox, words[at + 1], words[at + 2]));
      }
      return found;
    });
  }

  async find(entries: readonly Of<'reservation'>[]): Promise<readonly (Of<'reservation'> | null)[]> {
    return await inCalls(this.#client, entries, this.#place, async (some) => {
      const keys = some.flatMap(({ mailbox }) => this.#keys(mailbox));
      const traces = some.map(({ trace }) => trace);
      const words = await listOf(this.#client, FIND_HELD, keys, traces, keys.length);
      return some.map(({ trace, mailbox }, at) =>
        words[2 * at] === '' ? null : this.#entry(trace, mailbox, words[2 * at], words[2 * at + 1]),
      );
    });
  }

  async put(
    entries: readonly Of<'reservation'>[],
    newer: 'keep' | 'replace',
    now: number,
  ): Promise<readonly PutResult[]> {
    const judge = async (some: readonly Of<'reservation'>[]): Promise<readonly PutResult[]> => {
      const there = await this.find(some);
      return some.map((entry, at) => judged(entry, inForce(there[at], now), newer));
    };
    return await putAll(entries, judge, async (due) => {
      // First where it is looked for when the message is settled.
      const { prefix } = this.#client;
      const message = ({ trace }: Of<'reservation'>): string => messageKey(prefix, trace);
      await inCalls(this.#client, due, message, async (some) => {
        const given = some.flatMap(({ mailbox, until }) => [mailbox, `${until}`]);
        await this.#client.run(HOLDS, some.map(message), given);
        return [];
      });
      await this.#hold(due, ({ bytes }) => `${bytes}`);
      return due.map(() => true);
    });
  }

  async remove(entries: readonly Of<'reservation'>[]): Promise<void> {
    await this.#hold(entries, () => '');
  }

  async #hold(
    entries: readonly Of<'reservation'>[],
    octets: (entry: Of<'reservation'>) => string,
  ): Promise<void> {
    await inCalls(this.#client, entries, this.#place, async (some) => {
      const keys = some.flatMap(({ mailbox }) => this.#keys(mailbox));
      const given = some.flatMap((entry) => [entry.trace, octets(entry), `${entry.until}`]);
      await this.#client.run(HOLD, keys, given);
      return [];
    });
  }

  readonly #place = ({ mailbox }: Of<'reservation'>): string => this.#keys(mailbox)[0];

  #keys(mailbox: string): readonly [held: string, lapses: string] {
    return heldKeys(this.#client.prefix, mailbox);
  }

  #entry(trace: string, mailbox: string, octets: unknown, end: unknown): Of<'reservation'> {
    const bytes = numberIn(octets);
    const until = numberIn(end);
    if (!Number.isFinite(bytes + until)) throw this.#client.nonsense();
    return { entry: 'reservation', trace, mailbox, bytes, until };
  }
}

/** Values that subjects were seen with. */
export class SightFamily implements Family<'sighting'> {
  readonly kinds = ['sighting'] as const;
  readonly #client: RedisCalls;

  constructor(client: RedisCalls) {
    this.#client = client;
  }

  entries(keys: readonly StateKey[]): AsyncGenerator<readonly Of<'sighting'>[]> {
    const sets = keys.flatMap((key) => (key.entry === 'sighting' ? [key] : []));
    return pages(sets, async ({ set, subject }, from) => {
      const key = seenKey(this.#client.prefix, set, subject);
      const [end, ...words] = await listOf(this.#client, SEEN_PAGE, [key], [`${from}`, `${from + PAGE - 1}`]);
      const found: Of<'sighting'>[] = [];
      for (let at = 0; at < words.length; at += 2) {
        const name = words[at];
        if (typeof name !== 'string') throw this.#client.nonsense();
        found.push(this.#entry({ set, subject, name }, words[at + 1], end));
      }
      return found;
    });
  }

  async find(entries: readonly Of<'sighting'>[]): Promise<readonly (Of<'sighting'> | null)[]> {
    return await inCalls(this.#client, entries, this.#key, async (some) => {
      const names = some.map(({ name }) => name);
      const words = await listOf(this.#client, FIND_SEEN, some.map(this.#key), names, 2 * some.length);
      return some.map((entry, at) =>
        words[2 * at] === '' ? null : this.#entry(entry, words[2 * at], words[2 * at + 1]),
      );
    });
  }

  async put(
    entries: readonly Of<'sighting'>[],
    newer: 'keep' | 'replace',
    now: number,
  ): Promise<readonly PutResult[]> {
    const judge = async (some: readonly Of<'sighting'>[]): Promise<readonly PutResult[]> => {
      const there = await this.find(some);
      return some.map((entry, at) => judged(entry, inForce(there[at], now), newer));
    };
    return await putAll(entries, judge, (due) =>
      inCalls(this.#client, due, this.#key, async (some) => {
        const given = some.flatMap(({ name, time, until }) => [name, `${time}`, `${until}`]);
        const replaces = newer === 'replace' ? '1' : '0';
        const words = await listOf(this.#client, SEE, some.map(this.#key), [replaces, ...given], some.length);
        return words.map((written) => written === 1);
      }),
    );
  }

  async remove(entries: readonly Of<'sighting'>[]): Promise<void> {
    await inCalls(this.#client, entries, this.#key, async (some) => {
      const names = some.map(({ name }) => name);
      await this.#client.run(UNSEE, some.map(this.#key), names);
      return [];
    });
  }

  readonly #key = ({ set, subject }: Of<'sighting'>): string => seenKey(this.#client.prefix, set, subject);

  #entry(
    { set, subject, name }: Pick<Of<'sighting'>, 'set' | 'subject' | 'name'>,
    score: unknown,
    end: unknown,
  ): Of<'sighting'> {
    const time = numberIn(score);
    const until = numberIn(end);
    if (!Number.isFinite(time + until)) throw this.#client.nonsense();
    return { entry: 'sighting', set, subject, name, time, until };
  }
}

/** What subjects did in single hours. */
export class HourFamily implements Family<'tally'> {
  readonly kinds = ['tally'] as const;
  readonly #client: RedisCalls;

  constructor(client: RedisCalls) {
    this.#client = client;
  }

  async *entries(keys: readonly StateKey[]): AsyncGenerator<readonly Of<'tally'>[]> {
    const hours = keys.flatMap((key) => (key.entry === 'tally' ? [key] : []));
    yield (await this.#read(hours)).filter((found) => found !== null);
  }

  find(entries: readonly Of<'tally'>[]): Promise<readonly (Of<'tally'> | null)[]> {
    return this.#read(entries);
  }

  async put(
    entries: readonly Of<'tally'>[],
    newer: 'keep' | 'replace',
    now: number,
  ): Promise<readonly PutResult[]> {
    const judge = async (some: readonly Of<'tally'>[]): Promise<readonly PutResult[]> => {
      const there = await this.find(some);
      return some.map((entry, at) => judged(entry, inForce(there[at], now), newer));
    };
    return await putAll(entries, judge, (due) => this.#write(due, newer));
  }

  async remove(entries: readonly Of<'tally'>[]): Promise<void> {
    await this.#write(
      entries.map((entry) => ({ ...entry, counts: {} })),
      'replace',
    );
  }

  async #write(entries: readonly Of<'tally'>[], newer: 'keep' | 'replace'): Promise<readonly boolean[]> {
    return await inCalls(this.#client, entries, this.#counts, async (some) => {
      const keys = some.flatMap((entry) => [
        hoursKey(this.#client.prefix, entry.subject),
        this.#counts(entry),
      ]);
      const given = some.flatMap((entry) => {
        const named = Object.entries(entry.counts);
        return [`${entry.hour}`, `${lapse(entry)}`, `${named.length}`, ...named.flat().map(String)];
      });
      const flags = [newer === 'replace' ? '1' : '0', ...given];
      const words = await listOf(this.#client, COUNT_HOURS, keys, flags, some.length);
      return words.map((written) => written === 1);
    });
  }

  async #read(hours: readonly Hour[]): Promise<readonly (Of<'tally'> | null)[]> {
    return await inCalls(this.#client, hours, this.#counts, async (some) => {
      const found = await listOf(this.#client, COUNTS, some.map(this.#counts), [], some.length);
      return some.map(({ subject, hour }, at) => {
        const words: unknown = found[at];
        const counts = Array.isArray(words) ? readCounts(words) : null;
        if (counts === null) throw this.#client.nonsense();
        return Object.keys(counts).length === 0 ? null : { entry: 'tally', subject, hour, counts };
      });
    });
  }

  readonly #counts = ({ subject, hour }: Hour): string => `${hoursKey(this.#client.prefix, subject)}${hour}`;
}

type Hour = Pick<Of<'tally'>, 'subject' | 'hour'>;
