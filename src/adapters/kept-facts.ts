import { setTimeout as delay } from 'node:timers/promises';

import type { KeptFacts } from '../ports/store.ts';

/** How long facts may be on their way after the milter's answer: the queue manager can be faster than a busy disk, or a busy Redis. */
const PAUSES_MS = [10, 40, 150];

/** What `read` finds, looking again for a moment when there is nothing yet. */
export async function awaitFacts(read: () => Promise<KeptFacts | null>): Promise<KeptFacts | null> {
  let facts = await read();
  for (const pause of PAUSES_MS) {
    if (facts !== null) break;
    await delay(pause);
    facts = await read();
  }
  return facts;
}
