import { expect, test } from 'vitest';

import type { StateEntry } from '../../../src/ports/state-entries.ts';
import { countKinds, entriesOf, FILLED, fillState, lineOf } from '../../support/state-contents.ts';
import { DAY, fresh, HOUR, MINUTE, type Given, type StateUnderTest } from './given.ts';

/** Whatever is about a word of ours; triplets and correspondents, which only have names, are those that were not there before. */
async function filled({ state, advance }: StateUnderTest): Promise<{ word: string; entries: StateEntry[] }> {
  const word = fresh('word');
  const before = new Set((await entriesOf(state)).map(nameOf));
  await fillState(state, { word, now: await state.now(), advance });
  const entries = (await entriesOf(state)).filter((entry) => !before.has(nameOf(entry)));
  return { word, entries };
}

function nameOf(entry: StateEntry): string {
  switch (entry.entry) {
    case 'counter':
      return `counter ${entry.limit} ${entry.key}`;
    case 'triplet':
    case 'correspondent':
      return `${entry.entry} ${entry.name}`;
    case 'network':
      return `network ${entry.network}`;
    case 'reservation':
      return `reservation ${entry.trace} ${entry.mailbox}`;
    case 'full-mailbox':
      return `full-mailbox ${entry.mailbox}`;
    case 'sighting':
      return `sighting ${entry.set} ${entry.subject} ${entry.name}`;
    case 'tally':
      return `tally ${entry.subject} ${entry.hour}`;
    case 'standing':
      return `standing ${entry.login}`;
  }
}

function kept(entry: StateEntry): StateEntry {
  // Something that happened to it since.
  switch (entry.entry) {
    case 'counter':
      return { ...entry, current: entry.current + 1, time: entry.time + 1 };
    case 'triplet':
    case 'network':
    case 'correspondent':
    case 'full-mailbox':
      return { ...entry, until: entry.until + MINUTE };
    case 'reservation':
      return { ...entry, bytes: entry.bytes + 1 };
    case 'sighting':
      return { ...entry, time: entry.time + 1 };
    case 'tally':
      return { ...entry, counts: { ...entry.counts, sent: (entry.counts['sent'] ?? 0) + 1 } };
    case 'standing':
      return { ...entry, why: 'something else', since: entry.since + 1 };
  }
}

export function entryTests(given: Given): void {
  test('gives all that it holds', async () => {
    const { entries } = await filled(given());
    expect(countKinds(entries)).toEqual(FILLED);
    const { state } = given();
    expect((await state.find(entries)).map((entry) => (entry === null ? '' : lineOf(entry)))).toEqual(
      entries.map(lineOf),
    );
  });

  test('forgets what it is told to, and takes it over again, to the last digit', async () => {
    const { state } = given();
    const { word, entries } = await filled(given());
    await state.remove(entries);
    expect(await state.find(entries)).toEqual(entries.map(() => null));
    const names = new Set(entries.map(nameOf));
    expect((await entriesOf(state)).filter((entry) => names.has(nameOf(entry)))).toEqual([]);
    expect(await state.reservations(`${word}-box-2@example.org`)).toEqual([]);
    expect(await state.standing(`${word}-0@example.org`)).toBeNull();

    expect(await state.put(entries, 'keep')).toEqual(entries.map(() => 'made'));
    const again = (await entriesOf(state)).filter((entry) => names.has(nameOf(entry)));
    expect(again.map(lineOf).toSorted()).toEqual(entries.map(lineOf).toSorted());
    expect(await state.put(entries, 'keep')).toEqual(entries.map(() => 'same'));
    expect(await state.put(entries, 'replace')).toEqual(entries.map(() => 'same'));
  });

  test('what was taken over says what it said before', async () => {
    const { state, advance } = given();
    const { word, entries } = await filled(given());
    await state.remove(entries);
    await state.put(entries, 'keep');
    const key = `${word}-3@example.org`;
    const times = { delayMs: 5 * MINUTE, windowMs: 2 * DAY, ageMs: 30 * DAY, clientPasses: 3 };
    const triplet = (number: number) => ({
      network: `${word}/${number}`,
      sender: `ada-${number}@example.org`,
      recipient: `bob-${number}@example.org`,
    });
    expect(await state.greylist(triplet(0), times)).toEqual({ kind: 'known' });
    expect(await state.greylist(triplet(2), times)).toMatchObject({ kind: 'passed' });
    expect(
      await state.greylist({ network: fresh('net'), sender: 'eve-3@example.org', recipient: key }, times),
    ).toEqual({ kind: 'correspondent' });
    const hit = {
      limit: `${word}.window`,
      key,
      algorithm: 'window',
      most: 10,
      periodMs: HOUR,
      cost: 6,
      enforced: true,
    } as const;
    expect(await state.hit([hit, { ...hit, cost: 1 }])).toMatchObject([
      { within: true, used: 4 },
      { within: false },
    ]);
    expect(await state.counters({ limit: `${word}.over`, count: 9, overOnly: true })).toHaveLength(4);
    expect(await state.reservations(`${word}-box-2@example.org`)).toHaveLength(4);
    const claim = { mailbox: `${word}-box-2@example.org`, bytes: 1, used: 0, limit: null, grace: 0 };
    expect(await state.reserve('other', [claim], HOUR)).toEqual([{ granted: true, inFlight: 4006 }]);
    // Whoever only knows the message still finds its mailboxes.
    await state.settle(`${word}-0`, null, 0);
    expect(await state.reservations(`${word}-box-2@example.org`)).toHaveLength(4);
    expect(await state.reservations(`${word}-box-1@example.org`)).toHaveLength(3);
    const value = { kind: 'recipient', subject: key, value: 'to-1@example.org', windowMs: DAY };
    expect(await state.seen([value, { ...value, value: 'new' }])).toEqual([
      { fresh: false, distinct: 3 },
      { fresh: true, distinct: 4 },
    ]);
    expect(await state.tallies(key, 0)).toMatchObject([{ counts: { sent: 4, refused: 2 } }]);
    expect(await state.standing(key)).toMatchObject({
      kind: 'slow',
      by: 'postern',
      why: 'sends much \u00e9 "so"',
    });
    expect(await state.noteFull(key, true)).toBeLessThanOrEqual(await state.now());
    await advance(40 * DAY);
    expect(await state.greylist(triplet(0), times)).toMatchObject({ kind: 'wait', first: true });
    expect(await state.standing(key)).toBeNull();
    expect(await state.standing(`${word}-0@example.org`)).toMatchObject({ kind: 'block' });
  });

  test('keeps what is newer, or lets it go, as it is told', async () => {
    const { state } = given();
    const { entries } = await filled(given());
    const newer = entries.map(kept);
    expect(await state.put(newer, 'keep')).toEqual(entries.map(() => 'changed'));
    expect(await state.put(newer, 'keep')).toEqual(entries.map(() => 'same'));
    // Nothing tells which of two reservations is the newer one.
    const results = await state.put(entries, 'keep');
    expect(results).toEqual(entries.map(({ entry }) => (entry === 'reservation' ? 'changed' : 'kept')));
    const still = (await state.find(newer)).map((entry) => (entry === null ? '' : lineOf(entry)));
    expect(still).toEqual(
      newer.map((entry, at) => lineOf(entry.entry === 'reservation' ? (entries[at] ?? entry) : entry)),
    );
    expect(await state.put(entries, 'replace')).toEqual(
      entries.map(({ entry }) => (entry === 'reservation' ? 'same' : 'changed')),
    );
    expect((await state.find(entries)).map((entry) => (entry === null ? '' : lineOf(entry)))).toEqual(
      entries.map(lineOf),
    );
  });

  test('gives nothing that has lapsed', async () => {
    const { state, advance } = given();
    const { word, entries } = await filled(given());
    await advance(3 * HOUR);
    const now = await state.now();
    const names = new Set(entries.map(nameOf));
    const left = (await entriesOf(state)).filter((entry) => names.has(nameOf(entry)));
    expect(countKinds(left)).toEqual({
      triplet: 3,
      network: 2,
      correspondent: 4,
      'full-mailbox': 4,
      sighting: 12,
      tally: 4,
      standing: 4,
    });
    // In place of what has lapsed anything can be put, however new that was.
    const counters = entries.filter(({ entry }) => entry === 'counter');
    const later = counters.flatMap((entry) =>
      entry.entry === 'counter' ? [{ ...entry, start: now, current: 1, time: entry.time - 1 }] : [],
    );
    expect(await state.put(later, 'keep')).toEqual(counters.map(() => 'made'));
    expect(await state.counters({ limit: `${word}.window`, count: 9 })).toHaveLength(4);
  });
}
