import type { DatabaseSync, StatementSync } from 'node:sqlite';

import type { Counter, CounterFilter, Hit, HitResult } from '../ports/limits.ts';
import {
  bringUp,
  emptyCount,
  giveBack,
  hasRoom,
  roll,
  untilRoom,
  used,
  usedWhole,
  worthless,
  type Count,
} from './limit-arithmetic.ts';
import { first, inColumns, nullOr, numberAt, textAt, type Row } from './sqlite-row.ts';

/**
 * An excess lasts until a hit has room and finds no more than this share of the limit in use: what goes on at the limit is one excess, not
 * one for each place that gets free.
 */
const RELIEF = 0.5;
/** Counters that one step of a listing reads, or a reset forgets: some milliseconds of the event loop. */
const PAGE = 500;

const COLUMNS = 'algorithm, most, period, start, current, previous, over_since, expires';

/** A counter as it is in the file, or will be. */
interface Held extends Count {
  readonly limit: string;
  readonly key: string;
  overSince: number | null;
  expires: number;
  changed: boolean;
  /** Whether what seldom changes must be written too. */
  whole: boolean;
}

interface Attempt {
  readonly hit: Hit;
  readonly one: Held;
  readonly within: boolean;
  readonly usedBefore: number;
  readonly usedAfter: number;
  readonly retryMs: number;
}

/** From which counter on a listing goes on. */
export interface CounterPlace {
  readonly limit: string;
  readonly key: string;
}

interface CounterPage {
  readonly counters: readonly Counter[];
  /** null: there are no more. */
  readonly next: CounterPlace | null;
}

/** Where a listing begins. */
export function firstPlace({ limit = '', key = '' }: CounterFilter): CounterPlace {
  // Keys are in order within a limit only.
  return { limit, key: limit === '' ? '' : key };
}

/** Counters of limits. Whoever calls `hit`, `refund` or `reset` has begun a transaction. */
export class LimitTable {
  readonly #find: StatementSync;
  readonly #count: StatementSync;
  readonly #put: StatementSync;
  readonly #list: StatementSync;
  readonly #reset: StatementSync;

  constructor(database: DatabaseSync) {
    this.#find = inColumns(
      database.prepare(`SELECT ${COLUMNS} FROM counter WHERE limit_name = ? AND key = ?`),
    );
    // Touches no index: nearly all hits are of this kind.
    this.#count = database.prepare(`
      UPDATE counter SET start = ?, current = ?, previous = ?, over_since = ?, time = ?
      WHERE limit_name = ? AND key = ?`);
    this.#put = database.prepare(`
      INSERT INTO counter (limit_name, key, ${COLUMNS}, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET algorithm = excluded.algorithm, most = excluded.most, period = excluded.period,
        start = excluded.start, current = excluded.current, previous = excluded.previous,
        over_since = excluded.over_since, expires = excluded.expires, time = excluded.time`);
    this.#list = inColumns(
      database.prepare(`
      SELECT ${COLUMNS}, limit_name, key, time FROM counter
      WHERE (limit_name, key) >= (?, ?) ORDER BY limit_name, key LIMIT ${PAGE}`),
    );
    this.#reset = database.prepare(`
      DELETE FROM counter WHERE (limit_name, key) IN (
        SELECT limit_name, key FROM counter
        WHERE (?1 IS NULL OR limit_name = ?1) AND (?2 IS NULL OR key = ?2) LIMIT ${PAGE})`);
  }

  hit(hits: readonly Hit[], now: number): readonly HitResult[] {
    const attempts: Attempt[] = [];
    let refused = false;
    for (const hit of hits) {
      const one = sameAs(attempts, hit) ?? this.#load(hit, now) ?? unused(hit, now);
      const within = hasRoom(one, hit.cost, now);
      const usedBefore = used(one, now);
      const retryMs = within ? 0 : untilRoom(one, hit.cost, now);
      if (within || !hit.enforced) one.current += hit.cost;
      else refused = true;
      attempts.push({ hit, one, within, usedBefore, usedAfter: usedWhole(one, now), retryMs });
    }
    if (refused) {
      for (const { hit, one, within } of attempts) {
        if (within && hit.enforced) one.current -= hit.cost;
      }
    }
    const results = attempts.map((attempt) => conclude(attempt, refused, now));
    for (const { one } of attempts) this.#write(one, now);
    return results;
  }

  refund(hits: readonly Hit[], now: number): void {
    for (const hit of hits) {
      const one = this.#load(hit, now);
      if (one === null) continue;
      giveBack(one, hit.cost);
      one.changed = true;
      this.#write(one, now);
    }
  }

  /** Some of the counters from `place` on that fit and are not back to nothing. */
  page(filter: CounterFilter, place: CounterPlace, now: number): CounterPage {
    const counters: Counter[] = [];
    const rows: readonly unknown[] = this.#list.all(place.limit, place.key);
    for (const each of rows) {
      const row = first(each) ?? [];
      const held = heldOf(row, textAt(row, 8), textAt(row, 9));
      const { limit, key } = held;
      // A limit's counters stand together, in the order of their keys.
      if (filter.limit !== undefined && limit !== filter.limit) return { counters, next: null };
      if (filter.key !== undefined && key !== filter.key) {
        if (filter.limit !== undefined) return { counters, next: null };
        continue;
      }
      const counter = counterOf(held, numberAt(row, 10), now);
      if (counter.used === 0 || (filter.overOnly === true && counter.overSince === null)) continue;
      counters.push(counter);
    }
    const last = first(rows.at(-1));
    if (last === null || rows.length < PAGE) return { counters, next: null };
    // The least key after it.
    return { counters, next: { limit: textAt(last, 8), key: `${textAt(last, 9)}\0` } };
  }

  /** Forgets at most PAGE of them; says how many, and whether there may be more. */
  reset({ limit, key }: Pick<CounterFilter, 'limit' | 'key'>): { removed: number; more: boolean } {
    const removed = Number(this.#reset.run(limit ?? null, key ?? null).changes);
    return { removed, more: removed === PAGE };
  }

  #load(hit: Hit, now: number): Held | null {
    const { limit, key, most, periodMs, algorithm } = hit;
    const row = first(this.#find.get(limit, key));
    if (row === null) return null;
    const one = heldOf(row, limit, key);
    if (one.expires <= now) return null;
    one.whole = most !== one.most || periodMs !== one.periodMs || algorithm !== one.algorithm;
    bringUp(one, hit, now);
    return one;
  }

  #write(one: Held, now: number): void {
    if (!one.changed) return;
    // A counter that was hit twice is written once.
    one.changed = false;
    const { limit, key, start, current, previous, overSince } = one;
    moveEnd(one);
    if (!one.whole) {
      this.#count.run(start, current, previous, overSince, now, limit, key);
      return;
    }
    const { algorithm, most, periodMs, expires } = one;
    const code = algorithm === 'bucket' ? 1 : 0;
    this.#put.run(limit, key, code, most, periodMs, start, current, previous, overSince, expires, now);
  }
}

/** A step may hit a counter twice. */
function sameAs(attempts: readonly Attempt[], { limit, key }: Hit): Held | null {
  for (const { one } of attempts) {
    if (one.limit === limit && one.key === key) return one;
  }
  return null;
}

function unused(hit: Hit, now: number): Held {
  const { limit, key } = hit;
  return {
    ...emptyCount(hit, now),
    limit,
    key,
    overSince: null,
    expires: 0,
    changed: false,
    whole: true,
  };
}

function heldOf(row: Row, limit: string, key: string): Held {
  return {
    limit,
    key,
    algorithm: numberAt(row, 0) === 0 ? 'window' : 'bucket',
    most: numberAt(row, 1),
    periodMs: numberAt(row, 2),
    start: numberAt(row, 3),
    current: numberAt(row, 4),
    previous: numberAt(row, 5),
    overSince: nullOr(numberAt, row, 6),
    expires: numberAt(row, 7),
    changed: false,
    whole: false,
  };
}

/** `refused`: an enforced hit of the step had no room, so none of them counts. */
function conclude(attempt: Attempt, refused: boolean, now: number): HitResult {
  const { hit, one, within, usedBefore, usedAfter, retryMs } = attempt;
  const counted = !hit.enforced || !refused;
  const isFirst = !within && one.overSince === null;
  if (isFirst) one.overSince = now;
  else if (within && counted && usedBefore <= one.most * RELIEF) one.overSince = null;
  one.changed ||= counted || isFirst;
  return { within, used: refused ? usedWhole(one, now) : usedAfter, retryMs, first: isFirst };
}

/** The file is told late enough, and for a bucket seldom: to move a counter's end costs as much as to count. */
function moveEnd(one: Held): void {
  const end = Math.ceil(worthless(one));
  if (one.algorithm === 'window') {
    one.whole ||= one.expires !== end;
    one.expires = end;
  } else if (one.expires < end) {
    one.whole = true;
    one.expires = end + one.periodMs;
  }
}

function counterOf(held: Held, time: number, now: number): Counter {
  const { limit, key, algorithm, most, periodMs } = held;
  roll(held, now);
  const isOver = held.overSince !== null && used(held, now) > most * RELIEF;
  const overSince = isOver ? held.overSince : null;
  return { limit, key, algorithm, most, periodMs, used: usedWhole(held, now), overSince, time };
}
