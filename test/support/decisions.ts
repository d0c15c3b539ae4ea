import type { Clock } from '../../src/ports/clock.ts';
import type { Decision } from '../../src/ports/store.ts';

/** 2026-11-21T09:00:00Z */
export const MORNING = 1_795_251_600_000;

/** A clock that only the test moves. */
export class FakeClock implements Clock {
  time = MORNING;

  now(): number {
    return this.time;
  }

  elapsed(): number {
    return this.time - MORNING;
  }
}

/** An ordinary decision of the milter, with what the test cares about in place of the ordinary. */
export function decision(differs: Partial<Decision> = {}): Decision {
  return {
    trace: 'aaaabbbbccccdddd',
    time: MORNING,
    daemon: 'milter',
    stage: 'message',
    direction: 'in',
    queueId: '4gX1Yz0abcz1',
    client: '192.0.2.7',
    helo: 'mx.example.com',
    login: null,
    sender: 'Ada@Example.com',
    recipients: ['bob@example.org', 'carol+lists@example.net'],
    messageId: '<1@example.com>',
    size: 1234,
    verdict: 'accept',
    rule: 'default',
    why: '',
    score: null,
    tagged: false,
    reply: 'accept',
    shadow: [],
    outcomes: [],
    elapsed: 12.5,
    ...differs,
  };
}

/** A decision that uses every part of what an outcome can hold. */
export const FULL_DECISION: Decision = decision({
  trace: 'ffffeeeeddddcccc',
  login: 'ada',
  verdict: 'reject',
  rule: 'dmarc.fail-reject',
  why: 'no aligned pass for example.com',
  score: 7.3,
  tagged: true,
  reply: '550 5.7.26 refused (ffffeeeeddddcccc)',
  shadow: [{ rule: 'spf.fail', kind: 'reject' }],
  outcomes: [
    {
      kind: 'found',
      check: 'spf',
      findings: [
        {
          code: 'spf.fail',
          detail: 'from 192.0.2.7: "-all" \u00e9\u0000\r\n',
          auth: {
            method: 'spf',
            result: 'fail',
            comment: 'why',
            properties: [['smtp.mailfrom', 'ada@example.com']],
          },
        },
      ],
      elapsed: 3.25,
    },
    { kind: 'found', check: 'dkim', findings: [], elapsed: 0 },
    {
      kind: 'found',
      check: 'spam',
      findings: [
        {
          code: 'spam.scored',
          detail: '7.3 of 5',
          score: 7.3,
          recipient: 1,
          scan: { score: 7.3, required: 5, rules: ['BAYES_99', 'URIBL_BLACK'], fields: [] },
        },
      ],
      elapsed: 801,
    },
    { kind: 'unavailable', check: 'dmarc', reason: 'deadline', detail: 'no result within 5 ms', elapsed: 5 },
  ],
});
