import type { State } from '../../src/ports/state.ts';
import type { StateContents, StateEntry } from '../../src/ports/state-entries.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Whom entries are about, so that several of these can be in one state. */
function about(word: string, number: number): string {
  return `${word}-${number}@example.org`;
}

/**
 * Something of every kind, with every value that differs in how it is kept; about `word`. The state's time is moved on by the delay of greylisting.
 */
export async function fillState(
  state: State,
  {
    word,
    now,
    advance,
  }: { readonly word: string; readonly now: number; readonly advance: (ms: number) => Promise<void> },
): Promise<void> {
  const times = { delayMs: 5 * MINUTE, windowMs: 2 * DAY, ageMs: 30 * DAY, clientPasses: 3 };
  const triplet = (number: number) => ({
    network: `${word}/${number}`,
    sender: about('ada', number),
    recipient: about('bob', number),
  });
  const counted = { algorithm: 'window', most: 10, periodMs: HOUR, cost: 3, enforced: true } as const;
  for (let number = 0; number < 3; number++) await state.greylist(triplet(number), times);
  await advance(times.delayMs);
  await state.greylist(triplet(0), times);
  await state.greylist(triplet(1), times);
  for (let number = 0; number < 4; number++) {
    const key = about(word, number);
    await state.hit([
      { ...counted, limit: `${word}.window`, key, cost: 1 + number },
      { ...counted, limit: `${word}.bucket`, key, algorithm: 'bucket', most: 7, cost: 1 },
      { ...counted, limit: `${word}.over`, key, most: 1, cost: 2, enforced: false },
    ]);
    await state.correspond([{ local: key, remote: about('eve', number) }], 30 * DAY);
    await state.reserve(
      `${word}-${number}`,
      [1, 2].map((box) => ({
        mailbox: about(`${word}-box`, box),
        bytes: 1000 + number,
        used: 0,
        limit: null,
        grace: 0,
      })),
      HOUR,
    );
    await state.noteFull(key, true);
    await state.seen(
      [0, 1, 2].map((value) => ({
        kind: 'recipient',
        subject: key,
        value: about('to', value),
        windowMs: DAY,
      })),
    );
    await state.tally([{ subject: key, hour: now - (now % HOUR), counts: { sent: 1 + number, refused: 2 } }]);
    await state.setStanding({
      login: key,
      kind: number % 2 === 0 ? 'block' : 'slow',
      why: 'sends much \u00e9 "so"',
      by: number % 2 === 0 ? 'operator' : 'postern',
      since: now,
      until: number === 0 ? null : now + number * DAY,
    });
  }
  await state.settle(`${word}-3`, about(`${word}-box`, 1), MINUTE);
}

/** Entries of `fillState`: of each kind so many. */
export const FILLED = {
  counter: 12,
  triplet: 3,
  network: 2,
  correspondent: 4,
  reservation: 8,
  'full-mailbox': 4,
  sighting: 12,
  tally: 4,
  standing: 4,
} as const;

/** All entries, each as a line, in an order of their own. */
export async function contentsOf(state: StateContents): Promise<string[]> {
  return (await entriesOf(state)).map(lineOf).toSorted();
}

export async function entriesOf(state: StateContents): Promise<StateEntry[]> {
  const all: StateEntry[] = [];
  for await (const entries of state.entries()) all.push(...entries);
  return all;
}

/** The same for the same entry, in whatever order its fields are. */
export function lineOf(entry: StateEntry): string {
  return JSON.stringify(entry, (_, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1)))
      : value,
  );
}

export function countKinds(entries: readonly StateEntry[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { entry } of entries) counts[entry] = (counts[entry] ?? 0) + 1;
  return counts;
}
