import type { DatabaseSync } from 'node:sqlite';

import type { Clock } from '../ports/clock.ts';
import type { KeptFacts, Decision, HistoryFilter, Label, Store, TraceId, TraceKeys } from '../ports/store.ts';
import type { Answer, Ask } from './sqlite-batch.ts';
import { whenFree } from './sqlite-busy.ts';
import { Checkpointer } from './sqlite-checkpoint.ts';
import { FactsReader } from './sqlite-facts.ts';
import { selectHistory } from './sqlite-history.ts';
import { databasePath, openDatabase, openDatabaseReadOnly } from './sqlite-schema.ts';
import { WriterThread } from './sqlite-thread.ts';
import { FACTS_AGE_MS, TRACE_AGE_MS } from './sqlite-traces.ts';
import { StoreWriter, type WriterEvents } from './sqlite-writer.ts';

/** What is needed to answer questions about the past. */
export interface HistoryReader extends Disposable {
  history(filter: HistoryFilter): Promise<readonly Decision[]>;
}

/** Rows removed in one go: messages that ask for their trace wait behind it. */
const EXPIRE_ROWS = 200;

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

/** Reads with the connection of this thread, which waits for nobody, and writes in a thread of its own. */
class SqliteStore implements Store, AsyncDisposable {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #events: WriterEvents;
  readonly #facts: FactsReader;
  readonly #thread: WriterThread;
  readonly #writer: StoreWriter;
  readonly #checkpointer: Checkpointer;
  #ending = false;

  constructor(database: DatabaseSync, path: string, clock: Clock, events: WriterEvents) {
    this.#database = database;
    this.#clock = clock;
    this.#events = events;
    this.#facts = new FactsReader(database);
    this.#thread = new WriterThread(path);
    this.#writer = new StoreWriter(this.#thread, events, () => this.#checkpointer.wanted());
    // Without it, the thread that writes makes a checkpoint itself when it must.
    this.#checkpointer = new Checkpointer(path, (error) => events.writeFailed(error, this.#writer.waiting));
  }

  openTrace(keys: TraceKeys, fresh: TraceId): TraceId | Promise<TraceId> {
    const now = this.#clock.now();
    if (keys.queueId !== null) return this.#traceOf({ kind: 'open', keys, fresh, now });
    // Postfix opens a queue file for the first recipient that is accepted: before that, nobody can know of the message.
    this.#writer.open({ trace: fresh, keys, now });
    return fresh;
  }

  joinTrace(keys: TraceKeys, fresh: TraceId): Promise<TraceId> {
    return this.#traceOf({ kind: 'join', keys, fresh, now: this.#clock.now() });
  }

  async keepFacts(trace: TraceId, queueId: string, { direction, outcomes }: KeptFacts): Promise<void> {
    const now = this.#clock.now();
    await this.#writer.ask({
      kind: 'keep',
      trace,
      queueId,
      direction,
      outcomes: JSON.stringify(outcomes),
      now,
    });
  }

  keptFacts(trace: TraceId, queueId: string): Promise<KeptFacts | null> {
    return whenFree(() => this.#facts.read(trace, queueId, this.#clock.now() - FACTS_AGE_MS));
  }

  record(decision: Decision): void {
    this.#writer.record(decision);
  }

  flush(): Promise<void> {
    return this.#writer.flush();
  }

  history(filter: HistoryFilter): Promise<readonly Decision[]> {
    return whenFree(() => selectHistory(this.#database, filter));
  }

  async label(label: Label): Promise<void> {
    await this.#writer.ask({ kind: 'label', label });
  }

  async expire(before: number): Promise<number> {
    const now = this.#clock.now();
    let removed = 0;
    // Long enough to be overtaken by the end of the process.
    for (let more = true; more && !this.#ending;) {
      const answer = await this.#writer.ask({
        kind: 'expire',
        decisionsBefore: before,
        tracesBefore: Math.max(before, now - TRACE_AGE_MS),
        factsBefore: Math.max(before, now - FACTS_AGE_MS),
        limit: EXPIRE_ROWS,
        now,
      });
      if (answer.kind !== 'expired') throw unexpected(answer);
      removed += answer.decisions;
      more = answer.more;
    }
    return removed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    try {
      await this.flush();
    } catch (error) {
      this.#events.writeFailed(
        error instanceof Error ? error : new Error('unknown error'),
        this.#writer.waiting,
      );
    } finally {
      const lost = this.#writer.close();
      if (lost > 0) this.#events.lost(lost, 'they could not be written before the end');
      await this.#thread[Symbol.asyncDispose]();
      await this.#checkpointer[Symbol.asyncDispose]();
      this.#database.close();
    }
  }

  async #traceOf(ask: Extract<Ask, { kind: 'open' | 'join' }>): Promise<TraceId> {
    const answer = await this.#writer.ask(ask);
    if (answer.kind !== 'trace') throw unexpected(answer);
    return answer.trace;
  }
}

function unexpected({ kind }: Answer): Error {
  return new Error(`unexpected answer of the thread that writes: ${kind}`);
}
