import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';

import { sweepables, type Sweepable } from './sqlite-expiry.ts';
import { first, inColumns, numberAt } from './sqlite-row.ts';

/** What one slice may take of the event loop; slices are made smaller or larger until they do. */
const SLICE_MS = 1;
const SMALLEST_SLICE = 10;
const LARGEST_SLICE = 1000;
/** Between two slices whoever waits has his turn, for as long as the slice took, and no longer than this. */
const LONGEST_PAUSE_MS = 10;
/** Pages that are free are given back to the disk when they are more than this share of the file, and more than this many. */
const FREE_SHARE = 0.25;
const FREE_PAGES = 1000;

/** Removes what is worthless, and what is too much, in small slices. */
export class Sweeper {
  readonly #database: DatabaseSync;
  readonly #tables: readonly Sweepable[];
  readonly #most: number;
  readonly #write: <T>(work: () => T) => Promise<T>;
  readonly #free: StatementSync;
  readonly #pages: StatementSync;
  #slice = SMALLEST_SLICE;
  #stopped = false;

  /** `most`: rows that each table may keep. `write` makes a transaction of what it is given. */
  constructor(database: DatabaseSync, most: number, write: <T>(work: () => T) => Promise<T>) {
    this.#database = database;
    this.#tables = sweepables(database);
    this.#most = most;
    this.#write = write;
    this.#free = inColumns(database.prepare('PRAGMA freelist_count'));
    this.#pages = inColumns(database.prepare('PRAGMA page_count'));
  }

  /** Returns how many rows went. */
  async sweep(now: number): Promise<number> {
    let removed = 0;
    for (const table of this.#tables) {
      removed += await this.#slices((count) => table.removeWorthless(now, count));
      removed += await this.#slices((count) => {
        const tooMany = Math.min(count, table.size() - this.#most);
        return tooMany > 0 ? table.removeOldest(tooMany) : 0;
      });
    }
    await this.#shrink();
    return removed;
  }

  /** Ends a sweep under way after its slice. */
  stop(): void {
    this.#stopped = true;
  }

  /** Takes slices until one finds nothing to do. */
  async #slices(remove: (count: number) => number): Promise<number> {
    let all = 0;
    // What a row of another table took says nothing about this one.
    this.#slice = SMALLEST_SLICE;
    while (!this.#stopped) {
      const { removed, took } = await this.#write(() => {
        const begin = performance.now();
        return { removed: remove(this.#slice), took: performance.now() - begin };
      });
      if (removed === 0) break;
      all += removed;
      this.#adapt(took);
      await delay(Math.min(took, LONGEST_PAUSE_MS));
    }
    return all;
  }

  async #shrink(): Promise<void> {
    await this.#slices((count) => {
      const free = numberAt(first(this.#free.get()) ?? [], 0);
      const pages = numberAt(first(this.#pages.get()) ?? [], 0);
      if (free <= FREE_PAGES || free < pages * FREE_SHARE) return 0;
      this.#database.exec(`PRAGMA incremental_vacuum(${count})`);
      return free - numberAt(first(this.#free.get()) ?? [], 0);
    });
  }

  #adapt(took: number): void {
    if (took > SLICE_MS) this.#slice = Math.max(SMALLEST_SLICE, Math.floor((this.#slice * SLICE_MS) / took));
    else if (took < SLICE_MS / 2) this.#slice = Math.min(LARGEST_SLICE, this.#slice * 2);
  }
}
