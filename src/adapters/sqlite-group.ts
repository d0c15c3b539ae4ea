import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { isBusy } from './sqlite-schema.ts';

export interface WriteGroupOptions {
  /** Tries again while another process holds the lock. */
  readonly whenFree: (work: () => void) => Promise<void>;
  /** Told of each transaction. */
  readonly committed: () => void;
  /** What callers are told of an error. */
  readonly explained: (error: unknown) => Error;
}

interface Waiting {
  /** Runs the statements; what it returns tells the caller, once they are committed. */
  readonly run: () => () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Small writes that come in one turn of the event loop share a transaction: its commit is most of what one of them costs.
 * A promise resolves when its write is committed, and so visible to other processes. What one work does is done whole or not at all.
 */
export class WriteGroup {
  readonly #database: DatabaseSync;
  readonly #whenFree: (work: () => void) => Promise<void>;
  readonly #committed: () => void;
  readonly #explained: (error: unknown) => Error;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #beginRead: StatementSync;
  #waiting: Waiting[] = [];
  #turn: NodeJS.Immediate | null = null;
  /** Ends the transaction that what was read in this turn shares. */
  #reading: NodeJS.Immediate | null = null;

  constructor(database: DatabaseSync, { whenFree, committed, explained }: WriteGroupOptions) {
    this.#database = database;
    this.#whenFree = whenFree;
    this.#committed = committed;
    this.#explained = explained;
    // Writes that begin as readers could find that what they read was overtaken (SQLITE_BUSY_SNAPSHOT).
    this.#begin = database.prepare('BEGIN IMMEDIATE');
    this.#beginRead = database.prepare('BEGIN DEFERRED');
    this.#commit = database.prepare('COMMIT');
  }

  /** `work` may run more than once, each time on the state of the file: it changes nothing else. */
  add<T>(work: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const run = (): (() => void) => {
      const result = work();
      return () => resolve(result);
    };
    this.#waiting.push({ run, reject });
    this.#turn ??= setImmediate(() => void this.flush());
    return promise;
  }

  /** Reads at once. What is read in one turn shares a transaction too, and so sees one moment: its locks cost more than most questions. */
  read<T>(work: () => T): T {
    if (this.#reading === null) {
      this.#beginRead.run();
      this.#reading = setImmediate(() => this.#endRead());
    }
    return work();
  }

  /** Writes what has come so far. Never rejects: those who wait are told. */
  async flush(): Promise<void> {
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#turn = null;
    this.#endRead();
    const group = this.#waiting;
    this.#waiting = [];
    if (group.length === 0) return;
    try {
      await this.#whenFree(() => this.#together(group));
    } catch (error) {
      // Whoever has the lock keeps it from each of them, and all have waited for it.
      if (group.length === 1 || isBusy(error)) {
        for (const { reject } of group) reject(this.#explained(error));
        return;
      }
      // One of them failed, or the disk did: each by itself finds out which, and tells its own caller.
      for (const one of group) await this.#alone(one);
    }
  }

  #endRead(): void {
    if (this.#reading === null) return;
    clearImmediate(this.#reading);
    this.#reading = null;
    // Some errors have ended it already.
    if (this.#database.isTransaction) this.#commit.run();
  }

  #together(group: readonly Waiting[]): void {
    this.#endRead();
    this.#begin.run();
    const told: (() => void)[] = [];
    try {
      for (const { run } of group) told.push(run());
      this.#commit.run();
    } catch (error) {
      // A full disk ends the transaction by itself.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
    for (const tell of told) tell();
    this.#committed();
  }

  async #alone(one: Waiting): Promise<void> {
    try {
      await this.#whenFree(() => this.#together([one]));
    } catch (error) {
      one.reject(this.#explained(error));
    }
  }
}
