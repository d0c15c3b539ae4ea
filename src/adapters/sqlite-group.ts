import type { DatabaseSync } from 'node:sqlite';

interface Waiting {
  /** Runs the statements; what it returns tells the caller, once they are committed. */
  readonly run: () => () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Small writes that come in one turn of the event loop share a transaction: its commit is most of what one of them costs.
 * A promise resolves when its write is committed, and so visible to other processes.
 */
export class WriteGroup {
  readonly #database: DatabaseSync;
  readonly #whenFree: (work: () => void) => Promise<void>;
  readonly #committed: () => void;
  #waiting: Waiting[] = [];
  #turn: NodeJS.Immediate | null = null;

  /** `whenFree` tries again while another process holds the lock; `committed` is told of each transaction. */
  constructor(database: DatabaseSync, whenFree: (work: () => void) => Promise<void>, committed: () => void) {
    this.#database = database;
    this.#whenFree = whenFree;
    this.#committed = committed;
  }

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

  /** Writes what has come so far. Never rejects: those who wait are told. */
  async flush(): Promise<void> {
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#turn = null;
    const group = this.#waiting;
    this.#waiting = [];
    if (group.length === 0) return;
    const [only] = group;
    if (only !== undefined && group.length === 1) {
      await this.#alone(only);
      return;
    }
    try {
      await this.#whenFree(() => this.#together(group));
    } catch {
      // One of them failed, or the disk did: each by itself finds out which, and tells its own caller.
      for (const one of group) await this.#alone(one);
    }
  }

  #together(group: readonly Waiting[]): void {
    this.#database.exec('BEGIN IMMEDIATE');
    let told: (() => void)[];
    try {
      told = group.map(({ run }) => run());
      this.#database.exec('COMMIT');
    } catch (error) {
      // A full disk ends the transaction by itself.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
    for (const tell of told) tell();
    this.#committed();
  }

  async #alone({ run, reject }: Waiting): Promise<void> {
    try {
      await this.#whenFree(() => run()());
      this.#committed();
    } catch (error) {
      reject(error);
    }
  }
}
