import type { CheckTools } from '../../src/checks/check.ts';

function unexpected(): never {
  throw new Error('this test asks nothing of that neighbour');
}

/** Tools for checks that ask nothing of the world but what the test gives. */
export function checkTools(values: Partial<CheckTools> = {}): CheckTools {
  return {
    clock: { now: () => Date.now(), elapsed: () => performance.now() },
    resolver: { query: unexpected },
    mailAuth: { spf: unexpected, dkim: unexpected, dmarc: unexpected },
    scanner: null,
    hostname: 'mx.olimpus.example',
    ...values,
  };
}
