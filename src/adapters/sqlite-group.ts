import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';

import { isBusy } from './sqlite-schema.ts';

/** How long a write waits for the lock that another process holds. */
const PATIENCE_MS = 1000;
/** Between two attempts. The lock is seldom held for longer than the first of these. */
const FIRST_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 25;

export interface WriteGroupOptions {
  /** Told of each transaction. */
  readonly committed: () => void;
  /** What callers are told of an error; asked only when somebody is told. */
  readonly explained: (error: unknown) => Error;
}

interface Waiting {
  /** Runs the statements; what it returns tells the caller, once they are committed. */
  readonly run: () => () => void;
  readonly reject: (error: unknown) => void;
  /** By the clock of `performance`. */
  readonly since: number;
}

/** Another process holds the lock. */
interface Busy {
  readonly error: unknown;
}

/**
 * Small writes that come in one turn of the event loop share a transaction: its commit is most of what one of them costs.
 * A promise resolves when its write is committed, and so visible to other processes. What one work does is done whole or not at all.
 */
export class WriteGroup {
  readonly #database: DatabaseSync;
  readonly #committed: () => void;
  readonly #explained: (error: unknown) => Error;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #rollback: StatementSync;
  readonly #beginRead: StatementSync;
  #waiting: Waiting[] = [];
  #turn: NodeJS.Immediate | null = null;
  /** Another process holds the lock; ends when nobody waits for it any more. */
  #locked: Promise<void> | null = null;
  /** Ends the transaction that what was read in this turn shares. */
  #reading: NodeJS.Immediate | null = null;

  constructor(database: DatabaseSync, { committed, explained }: WriteGroupOptions) {
    this.#database = database;
    this.#committed = committed;
    this.#explained = explained;
    // Writes that begin as readers could find that what they read was overtaken (SQLITE_BUSY_SNAPSHOT).
    this.#begin = database.prepare('BEGIN IMMEDIATE');
    this.#beginRead = database.prepare('BEGIN DEFERRED');
    this.#commit = database.prepare('COMMIT');
    this.#rollback = database.prepare('ROLLBACK');
  }

  /** `work` may run more than once, each time on the state of the file: it changes nothing else. */
  add<T>(work: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const run = (): (() => void) => {
      const result = work();
      return () => resolve(result);
    };
    this.#waiting.push({ run, reject, since: performance.now() });
    // Whatever comes while the lock is held is written with the rest: each attempt stops the event loop for a moment.
    if (this.#locked === null) this.#turn ??= setImmediate(() => void this.flush());
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
  flush(): Promise<void> {
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#turn = null;
    this.#endRead();
    if (this.#locked === null && this.#attempt() !== null) this.#locked = this.#untilFree();
    return this.#locked ?? Promise.resolve();
  }

  #endRead(): void {
    if (this.#reading === null) return;
    clearImmediate(this.#reading);
    this.#reading = null;
    // Some errors have ended it already. In a file that is damaged COMMIT would fail once more, with nobody to be told.
    if (this.#database.isTransaction) this.#rollback.run();
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
      if (this.#database.isTransaction) this.#rollback.run();
      throw error;
    }
    for (const tell of told) tell();
    this.#committed();
  }

  /** null: it is written, or its callers were told why not. Else another process holds the lock, and the rest still waits. */
  #attempt(): Busy | null {
    const group = this.#waiting;
    if (group.length === 0) return null;
    this.#waiting = [];
    try {
      this.#together(group);
      return null;
    } catch (error) {
      if (isBusy(error)) return this.#putBack(group, error);
      if (group.length > 1) return this.#oneByOne(group);
      for (const { reject } of group) reject(this.#explained(error));
      return null;
    }
  }

  /** One of them failed, or the disk did: each by itself finds out which, and tells its own caller. */
  #oneByOne(group: readonly Waiting[]): Busy | null {
    for (const [index, one] of group.entries()) {
      try {
        this.#together([one]);
      } catch (error) {
        if (isBusy(error)) return this.#putBack(group.slice(index), error);
        one.reject(this.#explained(error));
      }
    }
    return null;
  }

  #putBack(group: Waiting[], error: unknown): Busy {
    this.#waiting = group;
    return { error };
  }

  /** Tries again and again; whoever has waited too long is told. */
  async #untilFree(): Promise<void> {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      await delay(pause);
      const busy = this.#attempt();
      if (busy === null) break;
      const latest = performance.now() - PATIENCE_MS;
      const given = this.#waiting.filter(({ since }) => since <= latest);
      this.#waiting = this.#waiting.filter(({ since }) => since > latest);
      if (given.length === 0) continue;
      const told = this.#explained(busy.error);
      for (const { reject } of given) reject(told);
    }
    this.#locked = null;
  }
}
