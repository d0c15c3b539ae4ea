import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { decisionText, readDecision } from '../../../src/adapters/redis-decision-text.ts';
import { lookupOf, matches, TERM_LENGTH, termsOf } from '../../../src/adapters/redis-history-terms.ts';
import type { Decision, HistoryFilter } from '../../../src/ports/store.ts';
import { decision, FULL_DECISION } from '../../support/decisions.ts';

describe('a decision as text', () => {
  test('is the same when it is read, with its host and its place', () => {
    const read = readDecision(decisionText(FULL_DECISION, 'mx1.example.org', 7));
    expect(read).toEqual({ decision: { ...FULL_DECISION, host: 'mx1.example.org' }, serial: 7 });
    expect(readDecision(decisionText(FULL_DECISION, '', 7))?.decision).toEqual(FULL_DECISION);
  });

  test('begins with its time, which scripts read there', () => {
    expect(decisionText(decision({ time: 1_795_251_600_000 }), '', 1)).toMatch(/^\[1795251600000,1,/);
  });

  test('keeps what a finding says of its own words and its recipient', () => {
    const finding = {
      code: 'spf.fail',
      detail: 'd',
      recipient: 1,
      explanation: { by: 'example.com', text: 'go away' },
    };
    const given = decision({ outcomes: [{ kind: 'found', check: 'spf', findings: [finding], elapsed: 1 }] });
    expect(readDecision(decisionText(given, '', 1))?.decision).toEqual(given);
  });

  test('anything else is none', () => {
    const text = decisionText(FULL_DECISION, '', 1);
    const others = fc.oneof(
      fc.string(),
      fc.json(),
      fc.nat(text.length - 1).map((end) => text.slice(0, end)),
    );
    fc.assert(fc.property(others, (other) => readDecision(other) === null));
    const values: unknown = JSON.parse(text);
    if (!Array.isArray(values)) throw new Error('a list');
    // Any one of its parts.
    for (let place = 0; place < values.length; place++) {
      expect([place, readDecision(JSON.stringify(values.with(place, { not: 'ours' })))]).toEqual([
        place,
        null,
      ]);
    }
  });
});

describe('terms', () => {
  const local = fc.constantFrom('ada', 'Bob', '"a@b"', 'root', '');
  const domain = fc.constantFrom('example.com', 'EXAMPLE.com', 'sub.example.com', '');
  const address = fc.tuple(local, domain).map(([one, other]) => (other === '' ? one : `${one}@${other}`));
  const word = fc.constantFrom('a', 'b', 'c');
  const rule = fc.constantFrom('default', 'spf.fail', 'spf.softfail', 'score>=5');
  const decisions: fc.Arbitrary<Decision> = fc
    .record({
      trace: word,
      queueId: fc.option(word),
      sender: address,
      recipients: fc.array(address, { maxLength: 3 }),
      client: word,
      daemon: fc.constantFrom('policyd', 'milter', 'lmtp-filter'),
      verdict: fc.constantFrom('accept', 'reject', 'junk'),
      rule,
      reply: fc.constantFrom('250 ok', '552 5.2.2 full', '452-4.2.2 full', '452 4.3.1 no room'),
    })
    .map(decision);
  const wanted = fc.oneof(
    address,
    domain.map((name) => `@${name}`),
  );
  const conditions = [
    word.map((trace) => ({ trace })),
    word.map((queueId) => ({ queueId })),
    wanted.map((sender) => ({ sender })),
    wanted.map((recipient) => ({ recipient })),
    word.map((client) => ({ client })),
    fc.constantFrom('accept', 'reject', 'junk').map((verdict) => ({ verdict })),
    fc
      .oneof(rule, fc.constantFrom('*', 's*', 'spf.*', 'spf.f*', 'default*', 'score*'))
      .map((wantedRule) => ({ rule: wantedRule })),
    fc.constant({ backscatter: true }),
  ] as const;
  // Two at most: with more, hardly any decision is meant.
  const filters: fc.Arbitrary<HistoryFilter> = fc
    .array(fc.oneof(...conditions), { minLength: 1, maxLength: 2 })
    .map((some) => some.reduce<HistoryFilter>((all, one) => ({ ...all, ...one }), { limit: 1 }));

  test('whatever a filter means has the term that it is looked up by', () => {
    let met = 0;
    fc.assert(
      fc.property(decisions, filters, (one, filter) => {
        if (!matches(one, filter)) return true;
        met++;
        const term = lookupOf(filter);
        const terms = termsOf(one);
        const places = Array.from({ length: terms.length / TERM_LENGTH }, (_, place) => place * TERM_LENGTH);
        return term === '' || places.some((place) => terms.startsWith(term, place));
      }),
      { numRuns: 5000 },
    );
    expect(met).toBeGreaterThan(100);
  });

  test('a decision has each once, however many recipients it names', () => {
    const crowd = Array.from({ length: 1000 }, (_, index) => `user${index % 10}@example.org`);
    expect(termsOf(decision({ recipients: crowd })).length).toBeLessThan(25 * TERM_LENGTH);
  });
});
