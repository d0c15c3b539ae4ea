import type { CheckTools } from '../../src/checks/check.ts';
import type { Directory } from '../../src/ports/directory.ts';
import type { State } from '../../src/ports/state.ts';

function unexpected(): never {
  throw new Error('this test asks nothing of that neighbour');
}

/** A state that nothing may be asked of. */
export const NO_STATE: State = {
  hit: unexpected,
  refund: unexpected,
  counters: unexpected,
  resetCounters: unexpected,
  greylist: unexpected,
  correspond: unexpected,
  reserve: unexpected,
  settle: unexpected,
  reservations: unexpected,
  noteFull: unexpected,
  seen: unexpected,
  tally: unexpected,
  tallies: unexpected,
  standing: unexpected,
  setStanding: unexpected,
  raiseStanding: unexpected,
  standings: unexpected,
  ping: unexpected,
};

/** A directory that nothing may be asked of. */
export const NO_DIRECTORY: Directory = {
  keepsSettings: false,
  destination: unexpected,
  account: unexpected,
  owns: unexpected,
  isLocalDomain: unexpected,
};

/** Tools for checks that ask nothing of the world but what the test gives. */
export function checkTools(values: Partial<CheckTools> = {}): CheckTools {
  return {
    clock: { now: () => Date.now(), elapsed: () => performance.now() },
    resolver: { query: unexpected },
    mailAuth: { spf: unexpected, dkim: unexpected, arc: unexpected, dmarc: unexpected },
    scanner: null,
    virusScanner: null,
    contentScanner: null,
    state: NO_STATE,
    directory: NO_DIRECTORY,
    quota: null,
    notifier: { notify: unexpected },
    blockLists: { trusted: unexpected, noted: unexpected },
    hostname: 'mx.olimpus.example',
    delimiter: '+',
    ...values,
  };
}
