import type { Quarantine } from '../../src/ports/quarantine.ts';

function unexpected(): never {
  throw new Error('this test asks nothing of the quarantine');
}

/** A quarantine that nothing may be asked of. */
export const NO_QUARANTINE: Quarantine = { store: unexpected, released: unexpected };
