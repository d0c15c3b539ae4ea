import { describe } from 'vitest';

import { neighboursAvailable, type Availability } from './neighbours/available.ts';
import { networksAvailable } from './neighbours/network.ts';

/** A group of tests that need real neighbours; where these can't run it is skipped, and its title says why. */
export function describeWithNeighbours(title: string, body: () => void): void {
  describeIf(neighboursAvailable(), title, body);
}

/** The same, of tests that need several hosts. */
export function describeWithHosts(title: string, body: () => void): void {
  const neighbours = neighboursAvailable();
  describeIf(neighbours.ok ? networksAvailable() : neighbours, title, body);
}

function describeIf(available: Availability, title: string, body: () => void): void {
  const reason = available.ok ? '' : ` (skipped: ${available.reason})`;
  describe.skipIf(!available.ok)(`${title}${reason}`, () => {
    body();
  });
}
