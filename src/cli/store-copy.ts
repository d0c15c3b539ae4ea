import { judged, lapse } from '../adapters/state-order.ts';
import { ENTRY_KINDS, type EntryKind, type StateContents, type StateEntry } from '../ports/state-entries.ts';

/** What becomes of state that the target holds already and the source does not, or that is newer there. */
export type Existing =
  /** Nothing is copied. */
  | 'refuse'
  /** It stays, and the rest is added. */
  | 'merge'
  /** It goes: the target becomes the same as the source. */
  | 'replace';

/** A number for each kind of entry that occurs. */
export type KindCounts = ReadonlyMap<EntryKind, number>;

export type CopyResult =
  | {
      readonly kind: 'copied';
      readonly made: KindCounts;
      readonly changed: KindCounts;
      readonly same: KindCounts;
      /** Newer there. */
      readonly kept: KindCounts;
      readonly removed: KindCounts;
    }
  | { readonly kind: 'refused'; readonly newer: KindCounts; readonly others: KindCounts };

/** What lapses so soon may have lapsed at the source already. */
const SOON_MS = 60_000;

/** Copies all state, some of it at a time. What was copied before costs nothing but the look at it. */
export async function copyState(
  from: StateContents,
  to: StateContents,
  existing: Existing,
): Promise<CopyResult> {
  if (existing === 'refuse') {
    const conflicts = await conflictsOf(from, to);
    if (conflicts !== null) return conflicts;
  }
  const counts = { made: new Counts(), changed: new Counts(), same: new Counts(), kept: new Counts() };
  const removed = new Counts();
  for await (const entries of from.entries()) {
    const results = await to.put(entries, existing === 'replace' ? 'replace' : 'keep');
    for (const [place, entry] of entries.entries()) counts[results[place] ?? 'kept'].add(entry);
  }
  if (existing === 'replace') {
    for await (const entries of to.entries()) {
      const surplus = await othersThan(from, entries);
      await to.remove(surplus);
      for (const entry of surplus) removed.add(entry);
    }
  }
  return { kind: 'copied', ...counts, removed };
}

/** What speaks against copying; null: nothing. */
async function conflictsOf(
  from: StateContents,
  to: StateContents,
): Promise<Extract<CopyResult, { kind: 'refused' }> | null> {
  const newer = new Counts();
  const others = new Counts();
  const soon = (await from.now()) + SOON_MS;
  for await (const entries of to.entries()) {
    const there = await from.find(entries);
    for (const [place, entry] of entries.entries()) {
      const source = there[place] ?? null;
      if (source === null) {
        if (lapse(entry) > soon) others.add(entry);
      } else if (judged(source, entry, 'keep') === 'kept') newer.add(entry);
    }
  }
  return newer.size === 0 && others.size === 0 ? null : { kind: 'refused', newer, others };
}

async function othersThan(
  from: StateContents,
  entries: readonly StateEntry[],
): Promise<readonly StateEntry[]> {
  const there = await from.find(entries);
  return entries.filter((_, place) => there[place] === null);
}

class Counts extends Map<EntryKind, number> {
  add({ entry }: StateEntry): void {
    this.set(entry, (this.get(entry) ?? 0) + 1);
  }
}

/** For people. */
export const KIND_WORDS: Readonly<Record<EntryKind, string>> = {
  counter: 'counters of limits',
  triplet: 'greylist triplets',
  network: 'networks that passed',
  correspondent: 'correspondents',
  reservation: 'quota reservations',
  'full-mailbox': 'full mailboxes',
  sighting: 'values seen with accounts',
  tally: 'hours of accounts',
  standing: 'standings of accounts',
};

/** A table with a line for each kind that occurs. */
export function kindTable(columns: readonly (readonly [name: string, counts: KindCounts])[]): string[] {
  const shown = columns.filter(([, counts], place) => place === 0 || counts.size > 0);
  const rows = ENTRY_KINDS.filter((kind) => shown.some(([, counts]) => counts.has(kind))).map((kind) => [
    KIND_WORDS[kind],
    ...shown.map(([, counts]) => `${counts.get(kind) ?? 0}`),
  ]);
  if (rows.length === 0) return ['nothing'];
  const all = [['', ...shown.map(([name]) => name)], ...rows];
  const widths = all[0]?.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0))) ?? [];
  return all.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  '),
  );
}
