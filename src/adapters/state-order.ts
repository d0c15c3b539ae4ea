import { isDeepStrictEqual } from 'node:util';

import type { PutResult, StateEntry } from '../ports/state-entries.ts';
import { worthless } from './limit-arithmetic.ts';

/** Tallies are kept for this long after their hour. */
export const TALLY_AGE_MS = 60 * 86_400_000;

/** When it is worth nothing any more; Infinity: never. */
export function lapse(entry: StateEntry): number {
  switch (entry.entry) {
    case 'counter':
      return worthless(entry);
    case 'triplet':
    case 'network':
    case 'correspondent':
    case 'reservation':
    case 'full-mailbox':
    case 'sighting':
      return entry.until;
    case 'tally':
      return entry.hour + TALLY_AGE_MS;
    case 'standing':
      return entry.until ?? Infinity;
  }
}

/** Numbers that grow, the first that differs deciding, when something happens to an entry. Empty: nothing tells the newer one. */
function rankOf(entry: StateEntry): readonly number[] {
  switch (entry.entry) {
    case 'counter':
      return [entry.time];
    case 'triplet':
      return [entry.since === null ? 1 : 0, entry.until];
    case 'network':
      return [entry.until, entry.passes];
    case 'correspondent':
    case 'full-mailbox':
      return [entry.until];
    case 'sighting':
      return [entry.time];
    case 'tally':
      return [Object.values(entry.counts).reduce((sum, count) => sum + count, 0)];
    case 'standing':
      return [entry.since];
    case 'reservation':
      // Another claim moves its end away, settling it brings it near.
      return [];
  }
}

/** What is to be done with an entry where `there` has its name. What can't be told to be newer gives way. */
export function judged(entry: StateEntry, there: StateEntry | null, newer: 'keep' | 'replace'): PutResult {
  if (there === null) return 'made';
  if (isSame(entry, there)) return 'same';
  return newer === 'keep' && isNewer(there, entry) ? 'kept' : 'changed';
}

function isSame(entry: StateEntry, there: StateEntry): boolean {
  // The end is that of a whole set, which a later value has moved.
  if (entry.entry === 'sighting' && there.entry === 'sighting') {
    return entry.time === there.time && entry.until <= there.until;
  }
  return isDeepStrictEqual(entry, there);
}

function isNewer(one: StateEntry, other: StateEntry): boolean {
  const otherRank = rankOf(other);
  for (const [place, number] of rankOf(one).entries()) {
    const than = otherRank[place] ?? number;
    if (number !== than) return number > than;
  }
  return false;
}
