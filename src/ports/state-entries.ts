import type { Standing, Tally } from './accounts.ts';
import type { LimitAlgorithm } from './limits.ts';
import type { Reservation } from './quota.ts';

/**
 * What a state holds, piece by piece, so that it can be moved to another one. A `name` stands for what is written nowhere else: the same in every
 * state. All times are milliseconds since 1970; `until` is when a piece lapses.
 */
interface EntryFields {
  readonly counter: {
    readonly limit: string;
    readonly key: string;
    readonly algorithm: LimitAlgorithm;
    readonly most: number;
    readonly periodMs: number;
    /** Window: begin of the period that `current` was counted in. Bucket: when `current` was in use. */
    readonly start: number;
    readonly current: number;
    readonly previous: number;
    readonly overSince: number | null;
    /** When it was last hit. */
    readonly time: number;
  };
  readonly triplet: {
    readonly name: string;
    /** When it was first seen; null: it has passed. */
    readonly since: number | null;
    readonly until: number;
  };
  /** A network with triplets that passed. */
  readonly network: { readonly network: string; readonly passes: number; readonly until: number };
  readonly correspondent: { readonly name: string; readonly until: number };
  readonly reservation: Reservation;
  readonly 'full-mailbox': { readonly mailbox: string; readonly since: number; readonly until: number };
  readonly sighting: {
    /** What kind of set. */
    readonly set: string;
    readonly subject: string;
    readonly name: string;
    /** When it was last seen. */
    readonly time: number;
    /** Of the whole set. */
    readonly until: number;
  };
  readonly tally: Tally;
  readonly standing: Standing;
}

export type EntryKind = keyof EntryFields;

export const ENTRY_KINDS = [
  'counter',
  'triplet',
  'network',
  'correspondent',
  'reservation',
  'full-mailbox',
  'sighting',
  'tally',
  'standing',
] as const satisfies readonly EntryKind[];

export type EntryOf<K extends EntryKind> = { [P in K]: { readonly entry: P } & EntryFields[P] }[K];

export type StateEntry = EntryOf<EntryKind>;

/** `kept`: what was there is newer, and stayed. */
export type PutResult = 'made' | 'changed' | 'same' | 'kept';

/** All that a state holds, to be moved. */
export interface StateContents {
  /** What time it is there. */
  now(): Promise<number>;
  /**
   * What is in force, some of it at a time. What changes meanwhile may come as it was or as it is, or twice; what is not touched comes.
   * @throws {NeighbourError}
   */
  entries(): AsyncIterable<readonly StateEntry[]>;
  /** What is in force here under the names of these, in their order; null: nothing. */
  find(entries: readonly StateEntry[]): Promise<readonly (StateEntry | null)[]>;
  /** Takes them over, each in one step. `newer`: what becomes of what is newer here. */
  put(entries: readonly StateEntry[], newer: 'keep' | 'replace'): Promise<readonly PutResult[]>;
  /** Forgets what has the names of these. */
  remove(entries: readonly StateEntry[]): Promise<void>;
}
