import type { DatabaseSync, StatementSync } from 'node:sqlite';

import type { Claim, ClaimResult, Reservation } from '../ports/quota.ts';
import { first, inColumns, numberAt, textAt } from './sqlite-row.ts';
import { bounded } from './state-keys.ts';

/** A mailbox that nobody asks about for this long, to which no mail comes any more, is forgotten. */
const FULL_AGE_MS = 30 * 86_400_000;
/** That a full mailbox was asked about is written down once in this time. */
const FULL_LATE_MS = 86_400_000;
/** Lapsed reservations that are removed with each new one, so that only those in flight are kept. */
const AT_ONCE = 100;
/** Before somebody is refused this many times as many are removed: some milliseconds. */
const MOST_TURNS = 5;
/** Reservations of one mailbox that are told of; for people. */
const LISTED = 10_000;

/** Room held for mail in flight, and mailboxes that are full. Whoever calls `reserve`, `settle` or `noteFull` has begun a transaction. */
export class ReservationTable {
  readonly #removeLapsed: StatementSync;
  readonly #inFlight: StatementSync;
  readonly #hold: StatementSync;
  readonly #settleOne: StatementSync;
  readonly #settleAll: StatementSync;
  readonly #list: StatementSync;
  readonly #full: StatementSync;
  readonly #setFull: StatementSync;
  readonly #notFull: StatementSync;

  /** When nothing that has lapsed was left. */
  #cleanAt: number | null = null;

  constructor(database: DatabaseSync) {
    this.#removeLapsed = database.prepare(`
      DELETE FROM reservation WHERE id IN (SELECT id FROM reservation WHERE until <= ? ORDER BY until LIMIT ${AT_ONCE})`);
    this.#inFlight = inColumns(
      database.prepare(`
      SELECT coalesce((SELECT bytes FROM mailbox_load WHERE mailbox = ?1), 0)
        - coalesce((SELECT bytes FROM reservation WHERE trace = ?2 AND mailbox = ?1), 0)`),
    );
    this.#hold = database.prepare(`
      INSERT INTO reservation (trace, mailbox, bytes, until) VALUES (?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET bytes = excluded.bytes, until = excluded.until`);
    this.#settleOne = database.prepare(
      'UPDATE reservation SET until = ?1 WHERE trace = ?2 AND mailbox = ?3 AND until > ?1',
    );
    this.#settleAll = database.prepare('UPDATE reservation SET until = ?1 WHERE trace = ?2 AND until > ?1');
    this.#list = inColumns(
      database.prepare(`
      SELECT trace, bytes, until FROM reservation WHERE mailbox = ? AND until > ? ORDER BY until LIMIT ${LISTED}`),
    );
    this.#full = inColumns(database.prepare('SELECT since, expires FROM full_mailbox WHERE mailbox = ?'));
    this.#setFull = database.prepare(`
      INSERT INTO full_mailbox (mailbox, since, expires) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET since = excluded.since, expires = excluded.expires`);
    this.#notFull = database.prepare('DELETE FROM full_mailbox WHERE mailbox = ?');
  }

  reserve(message: string, claims: readonly Claim[], holdMs: number, now: number): readonly ClaimResult[] {
    const trace = bounded(message);
    // What one request of this moment has found, the next need not look for.
    let more = now !== this.#cleanAt && this.#lapse(now);
    this.#cleanAt = more ? null : now;
    return claims.map((claim) => {
      const mailbox = bounded(claim.mailbox);
      let inFlight = this.#inFlightTo(mailbox, trace);
      // Nobody is refused for what has lapsed: after a long pause there can be much of it.
      for (let turn = 0; more && turn < MOST_TURNS && !hasRoom(claim, inFlight); turn++) {
        more = this.#lapse(now);
        inFlight = this.#inFlightTo(mailbox, trace);
      }
      const granted = hasRoom(claim, inFlight);
      if (granted) this.#hold.run(trace, mailbox, claim.bytes, now + holdMs);
      return { granted, inFlight };
    });
  }

  settle(trace: string, mailbox: string | null, until: number): void {
    this.#cleanAt = null;
    if (mailbox === null) this.#settleAll.run(until, bounded(trace));
    else this.#settleOne.run(until, bounded(trace), bounded(mailbox));
  }

  of(mailbox: string, now: number): readonly Reservation[] {
    const rows: readonly unknown[] = this.#list.all(bounded(mailbox), now);
    return rows.map((each) => {
      const row = first(each) ?? [];
      return { trace: textAt(row, 0), mailbox, bytes: numberAt(row, 1), until: numberAt(row, 2) };
    });
  }

  /** The answer when nothing has to be written for it; else undefined. */
  lookFull(mailbox: string, full: boolean, now: number): number | null | undefined {
    const row = first(this.#full.get(bounded(mailbox)));
    if (row === null) return full ? undefined : null;
    return full && numberAt(row, 1) > now + FULL_AGE_MS - FULL_LATE_MS ? numberAt(row, 0) : undefined;
  }

  noteFull(name: string, full: boolean, now: number): number | null {
    const mailbox = bounded(name);
    if (!full) {
      this.#notFull.run(mailbox);
      return null;
    }
    const row = first(this.#full.get(mailbox));
    const since = row !== null && numberAt(row, 1) > now ? numberAt(row, 0) : now;
    this.#setFull.run(mailbox, since, now + FULL_AGE_MS);
    return since;
  }

  /** Removes some of what has lapsed; says whether there may be more. */
  #lapse(now: number): boolean {
    return Number(this.#removeLapsed.run(now).changes) === AT_ONCE;
  }

  #inFlightTo(mailbox: string, besides: string): number {
    return numberAt(first(this.#inFlight.get(mailbox, besides)) ?? [], 0);
  }
}

function hasRoom({ bytes, used, limit, grace }: Claim, inFlight: number): boolean {
  if (limit === null) return true;
  return used + inFlight < limit && used + inFlight + bytes <= limit + grace;
}
