import type { DatabaseSync, StatementSync } from 'node:sqlite';

import type { Correspondence, GreylistAnswer, GreylistTimes, Triplet } from '../ports/greylist.ts';
import { first, inColumns, numberAt } from './sqlite-row.ts';
import { correspondentName } from './state-keys.ts';

/** When something is seen again is written down this much later at most, or after this share of its age: most mail then needs no write. */
const LATE_MS = 60_000;
const LATE_SHARE = 1 / 64;

/** Triplets, networks that are known, and correspondents. Whoever calls `judge` or `correspond` has begun a transaction. */
export class GreylistTable {
  readonly #triplet: StatementSync;
  readonly #client: StatementSync;
  readonly #correspondent: StatementSync;
  readonly #begin: StatementSync;
  readonly #keep: StatementSync;
  readonly #addPass: StatementSync;
  readonly #keepClient: StatementSync;
  readonly #correspond: StatementSync;

  constructor(database: DatabaseSync) {
    const lookUp = (sql: string): StatementSync => inColumns(database.prepare(sql));
    this.#triplet = lookUp('SELECT first, passed, expires FROM triplet WHERE digest = ?');
    this.#client = lookUp('SELECT passes, expires FROM client WHERE network = ?');
    this.#correspondent = lookUp('SELECT expires FROM correspondent WHERE digest = ?');
    this.#begin = database.prepare(`
      INSERT INTO triplet (digest, first, passed, expires) VALUES (?, ?, 0, ?)
      ON CONFLICT DO UPDATE SET first = excluded.first, passed = 0, expires = excluded.expires`);
    this.#keep = database.prepare('UPDATE triplet SET passed = 1, expires = ? WHERE digest = ?');
    this.#addPass = database.prepare(`
      INSERT INTO client (network, passes, expires) VALUES (?1, 1, ?2)
      ON CONFLICT DO UPDATE SET passes = CASE WHEN expires > ?3 THEN passes + 1 ELSE 1 END, expires = ?2`);
    this.#keepClient = database.prepare('UPDATE client SET expires = ? WHERE network = ?');
    this.#correspond = database.prepare(`
      INSERT INTO correspondent (digest, expires) VALUES (?, ?)
      ON CONFLICT DO UPDATE SET expires = max(expires, excluded.expires)`);
  }

  /** `digest`: the triplet's. The answer when nothing has to be written for it, which most mail gets; else null. */
  look(triplet: Triplet, digest: string, times: GreylistTimes, now: number): GreylistAnswer | null {
    const { network, sender, recipient } = triplet;
    const { delayMs, ageMs, clientPasses } = times;
    if (clientPasses > 0) {
      const client = this.#clientOf(network, clientPasses, now);
      if (client !== null) return isRecent(client, ageMs, now) ? { kind: 'client' } : null;
    }
    const known = this.#tripletOf(digest, now);
    if (known?.passed === true) return isRecent(known.expires, ageMs, now) ? { kind: 'known' } : null;
    const pair = correspondentName({ local: recipient, remote: sender });
    const correspondent = first(this.#correspondent.get(pair));
    if (correspondent !== null && numberAt(correspondent, 0) > now) return { kind: 'correspondent' };
    if (known === null) return null;
    const remainingMs = Math.min(delayMs, known.first + delayMs - now);
    return remainingMs > 0 ? { kind: 'wait', first: false, remainingMs } : null;
  }

  /** The answer, with what has to be written for it. */
  judge(triplet: Triplet, digest: string, times: GreylistTimes, now: number): GreylistAnswer {
    // Others may have been here since.
    const answer = this.look(triplet, digest, times, now);
    if (answer !== null) return answer;
    const { network } = triplet;
    const { delayMs, windowMs, ageMs, clientPasses } = times;
    if (clientPasses > 0 && this.#clientOf(network, clientPasses, now) !== null) {
      this.#keepClient.run(now + ageMs, network);
      return { kind: 'client' };
    }
    const known = this.#tripletOf(digest, now);
    if (known === null) {
      this.#begin.run(digest, now, now + windowMs);
      return { kind: 'wait', first: true, remainingMs: delayMs };
    }
    this.#keep.run(now + ageMs, digest);
    if (known.passed) return { kind: 'known' };
    if (clientPasses > 0) this.#addPass.run(network, now + ageMs, now);
    return { kind: 'passed', waitedMs: now - known.first };
  }

  /** Those of the pairs that are not known for long enough yet, under the keys of their rows. */
  unknown(pairs: readonly Correspondence[], ageMs: number, now: number): readonly string[] {
    const digests: string[] = [];
    for (const pair of pairs) {
      const digest = correspondentName(pair);
      const row = first(this.#correspondent.get(digest));
      if (row === null || !isRecent(numberAt(row, 0), ageMs, now)) digests.push(digest);
    }
    return digests;
  }

  correspond(digests: readonly string[], expires: number): void {
    for (const digest of digests) this.#correspond.run(digest, expires);
  }

  /** When the network will be forgotten; null: it is not known. */
  #clientOf(network: string, clientPasses: number, now: number): number | null {
    const row = first(this.#client.get(network));
    if (row === null || numberAt(row, 0) < clientPasses) return null;
    const expires = numberAt(row, 1);
    return expires > now ? expires : null;
  }

  /** null: it was never seen, or too long ago. */
  #tripletOf(digest: string, now: number): { first: number; passed: boolean; expires: number } | null {
    const row = first(this.#triplet.get(digest));
    if (row === null || numberAt(row, 2) <= now) return null;
    return { first: numberAt(row, 0), passed: numberAt(row, 1) === 1, expires: numberAt(row, 2) };
  }
}

/** Whether what lapses then was seen so lately that there is nothing to write. */
function isRecent(expires: number, ageMs: number, now: number): boolean {
  return expires >= now + ageMs - Math.min(LATE_MS, ageMs * LATE_SHARE);
}
