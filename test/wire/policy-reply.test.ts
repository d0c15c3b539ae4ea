import fc from 'fast-check';
import { expect, test } from 'vitest';

import type { Reply } from '../../src/mail/reply.ts';
import { actionText, DUNNO, encodeReply, HEADER_LIMIT, type PolicyAction } from '../../src/policyd/wire.ts';

const TRACE = 'abcdefgh234567ab';
const SPF: Reply = { code: 550, detail: '7.23', text: 'SPF: not allowed' };
const LATER: Reply = { code: 451, detail: '7.24', text: 'SPF: try again later' };

test.for<[PolicyAction, string]>([
  [DUNNO, 'action=DUNNO\n\n'],
  [{ kind: 'PREPEND', field: 'Received-SPF: pass' }, 'action=PREPEND Received-SPF: pass\n\n'],
  [{ kind: 'HOLD', note: 'spf.fail (x)' }, 'action=HOLD spf.fail (x)\n\n'],
  [{ kind: 'DISCARD', note: 'spf.fail (x)' }, 'action=DISCARD spf.fail (x)\n\n'],
  [
    { kind: 'DEFER_IF_PERMIT', reply: LATER, trace: TRACE },
    `action=DEFER_IF_PERMIT 4.7.24 SPF: try again later (${TRACE})\n\n`,
  ],
  [{ kind: 'REPLY', reply: SPF, trace: TRACE }, `action=550 5.7.23 SPF: not allowed (${TRACE})\n\n`],
  [{ kind: 'REPLY', reply: LATER, trace: TRACE }, `action=451 4.7.24 SPF: try again later (${TRACE})\n\n`],
  // `action=550` alone would permit.
  [{ kind: 'REPLY', reply: { ...SPF, text: '' }, trace: TRACE }, `action=550 5.7.23  (${TRACE})\n\n`],
])('%o', ([action, bytes]) => {
  expect(encodeReply(action)).toBe(bytes);
});

function field(length: number): PolicyAction {
  return { kind: 'PREPEND', field: 'X: '.padEnd(length, 'y') };
}

test('a header field is cut at HEADER_LIMIT, not one before', () => {
  expect(actionText(field(HEADER_LIMIT))).toBe(`PREPEND X: ${'y'.repeat(HEADER_LIMIT - 3)}`);
  expect(actionText(field(HEADER_LIMIT + 1))).toHaveLength('PREPEND '.length + HEADER_LIMIT);
  expect(actionText(field(HEADER_LIMIT + 1))).toMatch(/\.\.\.$/);
});

/** What Postfix was measured to take as intended, and nothing that it takes for OK or for a broken server. */
const SOUND =
  /^action=(?:DUNNO|(?:PREPEND|HOLD|DISCARD) [\x20-\x7e]+|DEFER_IF_PERMIT 4\.\d+\.\d+ [\x20-\x7e]+|(?:4\d\d 4|5\d\d 5)\.\d+\.\d+ [\x20-\x7e]+)\n\n$/;

test('whatever the texts are made of, the reply is one sound action', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 1200 }),
    fc.constant('\naction=OK\n\n'),
    fc.constant('OK'),
  );
  const reply = fc.record({
    code: fc.constantFrom(421, 450, 451, 452, 550, 552, 554),
    detail: fc.constantFrom('7.1', '7.23'),
    text,
  }) as fc.Arbitrary<Reply>;
  const action: fc.Arbitrary<PolicyAction> = fc.oneof(
    fc.constant(DUNNO),
    text.map((value) => ({ kind: 'PREPEND', field: `X-A: ${value}` }) as const),
    fc
      .tuple(fc.constantFrom('HOLD', 'DISCARD'), text)
      .map(([kind, note]) => ({ kind, note: `x${note}` }) as const),
    reply.map((value) => ({ kind: 'REPLY', reply: value, trace: TRACE }) as const),
    fc
      .tuple(reply, fc.constant(TRACE))
      .map(([value, trace]) => ({ kind: 'DEFER_IF_PERMIT', reply: { ...value, code: 451 }, trace }) as const),
  );
  fc.assert(
    fc.property(action, (value) => {
      const bytes = encodeReply(value);
      expect(bytes).toMatch(SOUND);
      expect(bytes.length).toBeLessThan(1100);
    }),
    { numRuns: 1000 },
  );
});
