import type { DatabaseSync } from 'node:sqlite';

import type { EntryKind, EntryOf, PutResult, StateEntry } from '../ports/state-entries.ts';
import { entryTables, type EntryTables, type Place } from './sqlite-entry-tables.ts';
import { judged, lapse } from './state-order.ts';

/** Entries that one step reads: some milliseconds of the event loop. */
const PAGE = 500;

export interface EntryPage {
  readonly entries: readonly StateEntry[];
  /** null: there are no more. */
  readonly next: Place | null;
}

/** All that the file holds, to be moved. Whoever calls `put` or `remove` has begun a transaction. */
export class SqliteEntries {
  readonly #tables: EntryTables;

  constructor(database: DatabaseSync) {
    this.#tables = entryTables(database);
  }

  /** Some entries of a kind that are in force. @param from null: the first */
  page(kind: EntryKind, from: Place | null, now: number): EntryPage {
    const { entries, next } = this.#tables[kind].page(from, PAGE);
    return { entries: entries.filter((entry) => lapse(entry) > now), next };
  }

  find(entry: StateEntry, now: number): StateEntry | null {
    const there: StateEntry | null = this.#lookUp(entry);
    return there !== null && lapse(there) > now ? there : null;
  }

  put(entry: StateEntry, newer: 'keep' | 'replace', now: number): PutResult {
    const result = judged(entry, this.find(entry, now), newer);
    if (result === 'made' || result === 'changed') this.#write(entry);
    return result;
  }

  remove<K extends EntryKind>(entry: EntryOf<K>): void {
    this.#tables[entry.entry].remove(entry);
  }

  #lookUp<K extends EntryKind>(entry: EntryOf<K>): EntryOf<K> | null {
    return this.#tables[entry.entry].find(entry);
  }

  #write<K extends EntryKind>(entry: EntryOf<K>): void {
    this.#tables[entry.entry].write(entry);
  }
}
