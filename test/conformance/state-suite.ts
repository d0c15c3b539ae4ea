import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { sightingTests, standingTests, tallyTests } from './state/accounts.ts';
import { bucketTests } from './state/buckets.ts';
import { entryTests } from './state/entries.ts';
import type { Given, StateUnderTest } from './state/given.ts';
import { correspondentTests, greylistTests } from './state/greylist.ts';
import { counterTests, excessTests, severalTests } from './state/limits.ts';
import { fullTests, reservationTests } from './state/quota.ts';
import { windowTests } from './state/windows.ts';

/** What every state must do. Opened once; each test has names of its own in it, so that none sees what another left. */
export function stateSuite(name: string, open: () => Promise<StateUnderTest>): void {
  describe(`${name}: state`, () => {
    let opened: StateUnderTest | null = null;
    const given: Given = () => {
      if (opened === null) throw new Error('the state is not open');
      return opened;
    };
    beforeAll(async () => {
      opened = await open();
    });
    afterAll(async () => {
      await opened?.close();
    });

    test('answers', async () => {
      await expect(given().state.ping()).resolves.toBeUndefined();
    });

    const groups: Readonly<Record<string, (given: Given) => void>> = {
      'limits: sliding window': windowTests,
      'limits: token bucket': bucketTests,
      'limits: several at once': severalTests,
      'limits: the first excess': excessTests,
      'limits: for people': counterTests,
      greylisting: greylistTests,
      correspondents: correspondentTests,
      reservations: reservationTests,
      'full mailboxes': fullTests,
      sightings: sightingTests,
      tallies: tallyTests,
      standings: standingTests,
      entries: entryTests,
    };
    for (const [group, tests] of Object.entries(groups)) {
      describe(`${name}: ${group}`, () => {
        tests(given);
      });
    }
  });
}
