import { expect, test } from 'vitest';

import { lmtpStorm, mistakes } from '../support/lmtp-storm.ts';
import { describeWithNeighbours } from '../support/with-neighbours.ts';

// npm run storm does the same with 10,000 messages.
const MESSAGES = 400;

describeWithNeighbours('lmtp-filter and Dovecot killed at every step of their dialogue', () => {
  test(
    'delivered and bounced is all that was sent, and nobody has a copy too many without an excuse',
    { timeout: 400_000 },
    async () => {
      const report = await lmtpStorm({ messages: MESSAGES });
      expect(mistakes(report)).toEqual([]);
      const copies = report.deliveries.reduce((sum, delivery) => sum + Math.max(0, delivery.copies - 1), 0);
      const excuses = report.deliveries.reduce((sum, delivery) => sum + delivery.excuses, 0);
      expect(copies).toBeLessThanOrEqual(excuses);
      // Dovecot was killed behind the dot: somebody may have got it.
      expect(report.possibleDuplicates).toBeGreaterThan(0);
    },
  );
});
