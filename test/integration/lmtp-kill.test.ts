import { expect, test } from 'vitest';

import { lmtpStorm } from '../support/lmtp-storm.ts';
import { mistakes, sums } from '../support/storm/account.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

// npm run storm does the same with 10,000 messages in each storm.
const DIALOGUE_MESSAGES = 200;
const MESSAGES = 100;
const PATIENCE = { timeout: 400_000 };

describeWithNeighbours('killed at every step, while mail flows', () => {
  test(
    'lmtp-filter and Dovecot: delivered and bounced is all that was sent, and nobody has a copy too many without an excuse',
    PATIENCE,
    async () => {
      const report = await lmtpStorm({ messages: DIALOGUE_MESSAGES });
      expect(mistakes(report)).toEqual([]);
      const { recipients, delivered, bounced, queued, duplicates, inDoubt, toldOf } = sums(report);
      expect(delivered + bounced).toBe(recipients);
      expect(queued).toBe(0);
      expect(duplicates).toBeLessThanOrEqual(inDoubt);
      // Dovecot was killed behind the dot: somebody may have got it.
      expect(toldOf).toBeGreaterThan(0);
    },
  );

  test('spamd, where mail that can not be scanned waits: none is delivered unscanned', PATIENCE, async () => {
    const report = await lmtpStorm({ messages: MESSAGES, storm: 'spamd-defer' });
    expect(mistakes(report)).toEqual([]);
    const { recipients, delivered, bounced, duplicates, scanned, putOff, toldOf } = sums(report);
    expect(delivered + bounced).toBe(recipients);
    expect([duplicates, toldOf]).toEqual([0, 0]);
    expect(scanned).toBe(delivered);
    expect(putOff).toBeGreaterThan(0);
  });

  test('spamd, where mail goes on: none waits', PATIENCE, async () => {
    const report = await lmtpStorm({ messages: MESSAGES, storm: 'spamd-ignore' });
    expect(mistakes(report)).toEqual([]);
    const { recipients, delivered, bounced, duplicates, scanned, putOff, toldOf } = sums(report);
    expect(delivered + bounced).toBe(recipients);
    expect([duplicates, toldOf, putOff]).toEqual([0, 0, 0]);
    expect(scanned).toBeGreaterThan(0);
    expect(scanned).toBeLessThan(delivered);
  });

  test.each([
    ['redis', [/"neighbour":"redis".*"state":"not there"/]],
    ['files', [/"why":"database is locked/, /"why":"database or disk is full/]],
  ] as const)('the store (%s): mail goes on as if nothing were', PATIENCE, async (storm, complaints) => {
    const report = await lmtpStorm({ messages: MESSAGES, storm });
    expect(mistakes(report)).toEqual([]);
    const { recipients, delivered, bounced, duplicates, putOff, toldOf } = sums(report);
    expect(delivered + bounced).toBe(recipients);
    expect([duplicates, toldOf, putOff]).toEqual([0, 0, 0]);
    for (const complaint of complaints) expect(report.log.search(complaint)).toBeGreaterThan(-1);
  });
});
