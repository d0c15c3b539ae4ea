import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { setImmediate as nextTurn } from 'node:timers/promises';

import type { Sighting, SightingResult, Standing, Tally } from '../ports/accounts.ts';
import type { Clock } from '../ports/clock.ts';
import type { Correspondence, GreylistAnswer, GreylistTimes, Triplet } from '../ports/greylist.ts';
import type { Counter, CounterFilter, Hit, HitResult } from '../ports/limits.ts';
import type { Claim, ClaimResult, Reservation } from '../ports/quota.ts';
import type { State } from '../ports/state.ts';
import { ENTRY_KINDS, type PutResult, type StateContents, type StateEntry } from '../ports/state-entries.ts';
import { AccountTable } from './sqlite-accounts.ts';
import { whenFree } from './sqlite-busy.ts';
import { Checkpointer } from './sqlite-checkpoint.ts';
import { SqliteEntries, type EntryPage } from './sqlite-entries.ts';
import type { Place } from './sqlite-entry-tables.ts';
import { GreylistTable } from './sqlite-greylist.ts';
import { WriteGroup } from './sqlite-group.ts';
import { firstPlace, LimitTable, type CounterPlace } from './sqlite-limits.ts';
import { ReservationTable } from './sqlite-reservations.ts';
import { checkpointInWrites, databasePath, isBusy, openDatabase, unusable } from './sqlite-schema.ts';
import { SightingTable } from './sqlite-sightings.ts';
import { STATE_SCHEMA } from './sqlite-state-schema.ts';
import { Sweeper } from './sqlite-sweeper.ts';
import { tripletName } from './state-keys.ts';

export interface SqliteStateOptions {
  /** Rows that each table may keep; those that would be worthless first go first. */
  readonly most?: number;
  /** What no caller waits for went wrong: a sweep, or the checkpoints. */
  readonly failed?: (error: Error) => void;
  /** Told of each failure that callers are told of, for the log. */
  readonly troubled?: (error: Error) => void;
}

/** The state, as SQLite keeps it. */
export interface SqliteState extends State, StateContents, AsyncDisposable {
  /** Removes what is worthless and what is too much; returns how many rows went. Made every minute by itself. */
  expire(): Promise<number>;
}

const MOST = 5_000_000;
const EXPIRE_EVERY_MS = 60_000;
/** Entries that are taken over in one transaction, for which other processes wait. */
const SLICE = 100;
/** The longest a statement may block the event loop for another's lock, our checkpoint thread's included. The group tries again without blocking. */
const LOCK_MS = 2;

/** The state of one machine: a file in `folder` that all daemons share. @throws {StoreUnusable} */
export async function openSqliteState(
  folder: string,
  clock: Clock,
  { most = MOST, failed = warn, troubled = quiet }: SqliteStateOptions = {},
): Promise<SqliteState> {
  const database = await openDatabase(folder, STATE_SCHEMA);
  database.exec(`PRAGMA busy_timeout = ${LOCK_MS}`);
  return new StateFile(database, databasePath(folder, STATE_SCHEMA), clock, { most, failed, troubled });
}

class StateFile implements SqliteState {
  readonly #database: DatabaseSync;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #troubled: (error: Error) => void;
  readonly #limits: LimitTable;
  readonly #greylist: GreylistTable;
  readonly #reservations: ReservationTable;
  readonly #sightings: SightingTable;
  readonly #accounts: AccountTable;
  readonly #ping: StatementSync;
  readonly #group: WriteGroup;
  readonly #sweeper: Sweeper;
  readonly #checkpointer: Checkpointer;
  readonly #timer: NodeJS.Timeout;
  #sweeping: Promise<number> | null = null;
  /** Made when it is asked for: daemons never do. */
  #contents: SqliteEntries | null = null;

  constructor(
    database: DatabaseSync,
    path: string,
    clock: Clock,
    { most, failed, troubled }: Required<SqliteStateOptions>,
  ) {
    this.#database = database;
    this.#path = path;
    this.#clock = clock;
    this.#troubled = troubled;
    this.#limits = new LimitTable(database);
    this.#greylist = new GreylistTable(database);
    this.#reservations = new ReservationTable(database);
    this.#sightings = new SightingTable(database);
    this.#accounts = new AccountTable(database);
    this.#ping = database.prepare('SELECT rows FROM size LIMIT 1');
    this.#group = new WriteGroup(database, {
      committed: () => this.#checkpointer.wanted(),
      explained: (error) => this.#explained(error),
    });
    this.#sweeper = new Sweeper(database, most, (work) => this.#write(work));
    this.#checkpointer = new Checkpointer(path, (error) => {
      checkpointInWrites(database, STATE_SCHEMA);
      failed(error);
    });
    this.#timer = setInterval(() => {
      this.expire().catch((error: unknown) => failed(asError(error)));
    }, EXPIRE_EVERY_MS).unref();
  }

  ping(): Promise<void> {
    return this.#read(() => void this.#ping.get());
  }

  hit(hits: readonly Hit[]): Promise<readonly HitResult[]> {
    if (hits.length === 0) return Promise.resolve([]);
    return this.#write(() => this.#limits.hit(hits, this.#clock.now()));
  }

  refund(hits: readonly Hit[]): Promise<void> {
    if (hits.length === 0) return Promise.resolve();
    return this.#write(() => this.#limits.refund(hits, this.#clock.now()));
  }

  async counters(filter: CounterFilter): Promise<readonly Counter[]> {
    let fullest: readonly Counter[] = [];
    const now = this.#clock.now();
    for (let place: CounterPlace | null = firstPlace(filter); place !== null; await nextTurn()) {
      const from: CounterPlace = place;
      const { counters, next } = await this.#read(() => this.#limits.page(filter, from, now));
      fullest = [...fullest, ...counters]
        .toSorted((one, other) => shareOf(other) - shareOf(one))
        .slice(0, filter.count);
      place = next;
    }
    return fullest;
  }

  async resetCounters(filter: Pick<CounterFilter, 'limit' | 'key'>): Promise<number> {
    let all = 0;
    for (let more = true; more; await nextTurn()) {
      const step = await this.#write(() => this.#limits.reset(filter));
      all += step.removed;
      more = step.more;
    }
    return all;
  }

  async greylist(triplet: Triplet, times: GreylistTimes): Promise<GreylistAnswer> {
    const digest = tripletName(triplet);
    const known = await this.#read(() => this.#greylist.look(triplet, digest, times, this.#clock.now()));
    return known ?? this.#write(() => this.#greylist.judge(triplet, digest, times, this.#clock.now()));
  }

  async correspond(pairs: readonly Correspondence[], ageMs: number): Promise<void> {
    const unknown = await this.#read(() => this.#greylist.unknown(pairs, ageMs, this.#clock.now()));
    if (unknown.length === 0) return;
    await this.#write(() => this.#greylist.correspond(unknown, this.#clock.now() + ageMs));
  }

  reserve(trace: string, claims: readonly Claim[], holdMs: number): Promise<readonly ClaimResult[]> {
    if (claims.length === 0) return Promise.resolve([]);
    return this.#write(() => this.#reservations.reserve(trace, claims, holdMs, this.#clock.now()));
  }

  settle(trace: string, mailbox: string | null, lingerMs: number): Promise<void> {
    return this.#write(() => this.#reservations.settle(trace, mailbox, this.#clock.now() + lingerMs));
  }

  reservations(mailbox: string): Promise<readonly Reservation[]> {
    return this.#read(() => this.#reservations.of(mailbox, this.#clock.now()));
  }

  async noteFull(mailbox: string, full: boolean): Promise<number | null> {
    const known = await this.#read(() => this.#reservations.lookFull(mailbox, full, this.#clock.now()));
    if (known !== undefined) return known;
    return this.#write(() => this.#reservations.noteFull(mailbox, full, this.#clock.now()));
  }

  seen(sightings: readonly Sighting[]): Promise<readonly SightingResult[]> {
    if (sightings.length === 0) return Promise.resolve([]);
    return this.#write(() => {
      const now = this.#clock.now();
      return sightings.map((sighting) => this.#sightings.see(sighting, now));
    });
  }

  tally(entries: readonly Tally[]): Promise<void> {
    if (entries.length === 0) return Promise.resolve();
    return this.#write(() => this.#accounts.tally(entries));
  }

  tallies(subject: string, since: number): Promise<readonly Tally[]> {
    return this.#read(() => this.#accounts.tallies(subject, since));
  }

  standing(login: string): Promise<Standing | null> {
    return this.#read(() => this.#accounts.standing(login, this.#clock.now()));
  }

  setStanding(standing: Standing): Promise<void> {
    return this.#write(() => this.#accounts.set(standing));
  }

  raiseStanding(standing: Standing): Promise<boolean> {
    return this.#write(() => this.#accounts.raise(standing, this.#clock.now()));
  }

  standings(): Promise<readonly Standing[]> {
    return this.#read(() => this.#accounts.standings(this.#clock.now()));
  }

  now(): Promise<number> {
    return Promise.resolve(this.#clock.now());
  }

  async *entries(): AsyncGenerator<readonly StateEntry[]> {
    for (const kind of ENTRY_KINDS) {
      let place: Place | null = null;
      do {
        const from: Place | null = place;
        const page: EntryPage = await this.#read<EntryPage>(() =>
          this.#entries.page(kind, from, this.#clock.now()),
        );
        if (page.entries.length > 0) yield page.entries;
        place = page.next;
        // What is read in one turn is of one moment, for which others' checkpoints would wait.
        await nextTurn();
      } while (place !== null);
    }
  }

  find(entries: readonly StateEntry[]): Promise<readonly (StateEntry | null)[]> {
    return this.#read(() => {
      const now = this.#clock.now();
      return entries.map((entry) => this.#entries.find(entry, now));
    });
  }

  async put(entries: readonly StateEntry[], newer: 'keep' | 'replace'): Promise<readonly PutResult[]> {
    const results: PutResult[] = [];
    for (const slice of slices(entries)) {
      const some = await this.#write(() => {
        const now = this.#clock.now();
        return slice.map((entry) => this.#entries.put(entry, newer, now));
      });
      results.push(...some);
    }
    return results;
  }

  async remove(entries: readonly StateEntry[]): Promise<void> {
    for (const slice of slices(entries)) {
      await this.#write(() => {
        for (const entry of slice) this.#entries.remove(entry);
      });
    }
  }

  expire(): Promise<number> {
    this.#sweeping ??= this.#sweeper.sweep(this.#clock.now()).finally(() => {
      this.#sweeping = null;
    });
    return this.#sweeping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#sweeper.stop();
    // Its failure is told to whoever began it.
    await Promise.allSettled([this.#sweeping]);
    await this.#group.flush();
    await this.#checkpointer[Symbol.asyncDispose]();
    this.#database.close();
  }

  get #entries(): SqliteEntries {
    this.#contents ??= new SqliteEntries(this.#database);
    return this.#contents;
  }

  /** Reading needs no lock but in rare moments (another process has just died in the middle of writing), so it is made at once. */
  #read<T>(work: () => T): Promise<T> {
    try {
      return Promise.resolve(this.#group.read(work));
    } catch (error) {
      return this.#readLater(work, error);
    }
  }

  async #readLater<T>(work: () => T, why: unknown): Promise<T> {
    try {
      if (!isBusy(why)) throw why;
      return await whenFree(() => this.#group.read(work));
    } catch (error) {
      throw this.#explained(error);
    }
  }

  #explained(error: unknown): Error {
    const explained = unusable(this.#path, error);
    this.#troubled(explained);
    return explained;
  }

  /** A transaction that others of this turn share. */
  #write<T>(work: () => T): Promise<T> {
    return this.#group.add(work);
  }
}

function* slices(entries: readonly StateEntry[]): Generator<readonly StateEntry[]> {
  for (let from = 0; from < entries.length; from += SLICE) yield entries.slice(from, from + SLICE);
}

function shareOf({ used, most }: Counter): number {
  return used / Math.max(1, most);
}

function warn(error: Error): void {
  process.emitWarning(error);
}

function quiet(): void {}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('something that is no error was thrown');
}
