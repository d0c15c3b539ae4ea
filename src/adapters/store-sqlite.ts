import type { DatabaseSync } from 'node:sqlite';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';

import type { Clock } from '../ports/clock.ts';
import type { KeptFacts, Decision, HistoryFilter, Store, TraceId, TraceKeys } from '../ports/store.ts';
import { Checkpointer } from './sqlite-checkpoint.ts';
import { DecisionTable, selectHistory } from './sqlite-decisions.ts';
import {
  checkpointInWrites,
  databasePath,
  isBusy,
  openDatabase,
  openDatabaseReadOnly,
} from './sqlite-schema.ts';
import { WriteGroup } from './sqlite-group.ts';
import { FACTS_AGE_MS, TRACE_AGE_MS, TraceTable } from './sqlite-traces.ts';
import { DecisionWriter, type WriterEvents } from './sqlite-writer.ts';

/** What is needed to answer questions about the past. */
export interface HistoryReader extends Disposable {
  history(filter: HistoryFilter): Promise<readonly Decision[]>;
}

/** Rows removed in one go: a few milliseconds of the event loop. */
const EXPIRE_ROWS = 20;
/** How long a message waits for another process's write before it goes on without the store. */
const BUSY_ATTEMPTS = 20;
const BUSY_PAUSE_MS = 25;

/** The store of one machine: a file in `folder` that all daemons share. @throws {StoreUnusable} */
export async function openSqliteStore(
  folder: string,
  clock: Clock,
  events: WriterEvents,
): Promise<Store & AsyncDisposable> {
  return new SqliteStore(await openDatabase(folder), databasePath(folder), clock, events);
}

/** Reads beside running daemons and without them; null when nothing was ever written. @throws {StoreUnusable} */
export function openSqliteHistory(folder: string): HistoryReader | null {
  const database = openDatabaseReadOnly(folder);
  if (database === null) return null;
  return {
    history: (filter) => Promise.resolve(selectHistory(database, filter)),
    [Symbol.dispose]: () => database.close(),
  };
}

class SqliteStore implements Store, AsyncDisposable {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #events: WriterEvents;
  readonly #traces: TraceTable;
  readonly #decisions: DecisionTable;
  readonly #group: WriteGroup;
  readonly #writer: DecisionWriter;
  readonly #checkpointer: Checkpointer;

  constructor(database: DatabaseSync, path: string, clock: Clock, events: WriterEvents) {
    this.#database = database;
    this.#clock = clock;
    this.#events = events;
    this.#traces = new TraceTable(database);
    this.#decisions = new DecisionTable(database);
    this.#group = new WriteGroup(database, whenFree, () => this.#checkpointer.wanted());
    this.#writer = new DecisionWriter((decisions) => {
      this.#decisions.write(decisions);
      this.#checkpointer.wanted();
    }, events);
    this.#checkpointer = new Checkpointer(path, (error) => {
      checkpointInWrites(database);
      events.writeFailed(error, this.#writer.waiting);
    });
  }

  openTrace(keys: TraceKeys, fresh: TraceId): Promise<TraceId> {
    return this.#group.add(() => this.#traces.open(keys, fresh, this.#clock.now()));
  }

  joinTrace(keys: TraceKeys, fresh: TraceId): Promise<TraceId> {
    return this.#group.add(() => this.#traces.join(keys, fresh, this.#clock.now()));
  }

  keepFacts(trace: TraceId, queueId: string, facts: KeptFacts): Promise<void> {
    return this.#group.add(() => this.#traces.keepFacts(trace, queueId, facts, this.#clock.now()));
  }

  keptFacts(trace: TraceId, queueId: string): Promise<KeptFacts | null> {
    return whenFree(() => this.#traces.keptFacts(trace, queueId, this.#clock.now()));
  }

  record(decision: Decision): void {
    this.#writer.add(decision);
  }

  flush(): Promise<void> {
    return whenFree(() => this.#writer.flush());
  }

  history(filter: HistoryFilter): Promise<readonly Decision[]> {
    return whenFree(() => selectHistory(this.#database, filter));
  }

  async expire(before: number): Promise<number> {
    const now = this.#clock.now();
    let removed = 0;
    // Long enough to be overtaken by the end of the process.
    for (let more = true; more && this.#database.isOpen; await nextTurn()) {
      const decisions = await this.#write(() => this.#decisions.expire(before, EXPIRE_ROWS));
      const others = await this.#write(() =>
        this.#traces.expire(
          Math.max(before, now - TRACE_AGE_MS),
          Math.max(before, now - FACTS_AGE_MS),
          EXPIRE_ROWS,
        ),
      );
      removed += decisions;
      more = decisions === EXPIRE_ROWS || others;
    }
    return removed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#group.flush();
      await this.flush();
    } catch (error) {
      this.#events.writeFailed(
        error instanceof Error ? error : new Error('unknown error'),
        this.#writer.waiting,
      );
    } finally {
      const lost = this.#writer.close();
      if (lost > 0) this.#events.lost(lost, 'they could not be written before the end');
      await this.#checkpointer[Symbol.asyncDispose]();
      this.#database.close();
    }
  }

  async #write<T>(work: () => T): Promise<T> {
    const result = await whenFree(work);
    this.#checkpointer.wanted();
    return result;
  }
}

/** Another process's write takes milliseconds; waiting for it must not stop the event loop. */
async function whenFree<T>(work: () => T | Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isBusy(error) || attempt >= BUSY_ATTEMPTS) throw error;
    }
    await delay(BUSY_PAUSE_MS);
  }
}
