import { describe } from 'vitest';

import { neighboursAvailable } from './neighbours/available.ts';

/** A group of tests that need real neighbours; where these can't run it is skipped, and its title says why. */
export function describeWithNeighbours(title: string, body: () => void): void {
  const available = neighboursAvailable();
  const reason = available.ok ? '' : ` (skipped: ${available.reason})`;
  describe.skipIf(!available.ok)(`${title}${reason}`, () => {
    body();
  });
}
