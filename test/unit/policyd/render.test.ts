import { expect, test } from 'vitest';

import type { Reply } from '../../../src/mail/reply.ts';
import { renderVerdict, type Occasion } from '../../../src/policyd/render.ts';
import { MAIL_STATES, type MailState } from '../../../src/policyd/request.ts';
import { actionText } from '../../../src/policyd/wire.ts';
import type { Verdict } from '../../../src/verdict/verdict.ts';

const DECIDED = { rule: 'spf.fail', why: 'because', score: null, tagged: false, shadow: [] };
const FOR_GOOD: Reply = { code: 550, detail: '7.23', text: 'no' };
const FOR_NOW: Reply = { code: 451, detail: '7.24', text: 'later' };

function verdict(kind: Verdict['kind']): Verdict {
  switch (kind) {
    case 'reject':
      return { ...DECIDED, kind, reply: FOR_GOOD };
    case 'defer':
      return { ...DECIDED, kind, reply: FOR_NOW };
    case 'accept':
    case 'junk':
    case 'quarantine':
    case 'discard':
      return { ...DECIDED, kind };
  }
}

function said(given: Verdict, changes: Partial<Occasion> = {}): string {
  const occasion: Occasion = { state: 'RCPT', trace: 'abcd', field: 'X-A: b', everyone: true, ...changes };
  return actionText(renderVerdict(given, occasion));
}

test.for<[Verdict['kind'], string]>([
  ['accept', 'PREPEND X-A: b'],
  ['junk', 'PREPEND X-A: b'],
  ['quarantine', 'HOLD spf.fail (abcd)'],
  ['defer', 'DEFER_IF_PERMIT 4.7.24 later (abcd)'],
  ['reject', '550 5.7.23 no (abcd)'],
  ['discard', 'DISCARD spf.fail (abcd)'],
])('%s at RCPT', ([kind, action]) => {
  expect(said(verdict(kind))).toBe(action);
});

test.for<MailState>(['MAIL', 'DATA', 'END-OF-MESSAGE'])('defer at %s is said with its own code', (state) => {
  expect(said(verdict('defer'), { state })).toBe('451 4.7.24 later (abcd)');
});

test('421 ends the session, which DEFER_IF_PERMIT would not', () => {
  const busy: Verdict = { ...DECIDED, kind: 'defer', reply: { ...FOR_NOW, code: 421 } };
  expect(said(busy)).toBe('421 4.7.24 later (abcd)');
});

test('a header field can be put in front until the end of the message', () => {
  expect(MAIL_STATES.map((state) => said(verdict('accept'), { state }))).toEqual([
    'PREPEND X-A: b',
    'PREPEND X-A: b',
    'PREPEND X-A: b',
    'DUNNO',
  ]);
  expect(said(verdict('accept'), { field: null })).toBe('DUNNO');
});

test.for<Verdict['kind']>(['quarantine', 'discard'])(
  '%s takes the whole message, so it is not said for one recipient of several',
  (kind) => {
    expect(said(verdict(kind), { everyone: false, field: null })).toBe('DUNNO');
    expect(said(verdict(kind), { everyone: false })).toBe('PREPEND X-A: b');
  },
);

test('a refusal stands for its recipient alone', () => {
  expect(said(verdict('reject'), { everyone: false })).toBe('550 5.7.23 no (abcd)');
});
