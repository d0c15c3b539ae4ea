import { randomUUID } from 'node:crypto';

import type { State } from '../../../src/ports/state.ts';
import type { StateContents } from '../../../src/ports/state-entries.ts';

export interface StateUnderTest {
  readonly state: State & StateContents;
  /** Moves the time that the state goes by; never back. Between two calls it may go by itself, as long as that is far less than a second. */
  readonly advance: (ms: number) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** What is under test now. */
export type Given = () => StateUnderTest;

export const SECOND = 1000;
export const MINUTE = 60_000;
export const HOUR = 3_600_000;
export const DAY = 86_400_000;

/** A word that nothing else in the state bears. */
export function fresh(kind: string): string {
  return `${kind}-${randomUUID().slice(0, 13)}`;
}
