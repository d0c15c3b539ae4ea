import { expect, test } from 'vitest';

import { copiesFor } from '../../../src/verdict/copies.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import type { Rule, Rules } from '../../../src/verdict/rules.ts';

const AUDIT = 'audit@olimpus.example';

function rules(findings: Readonly<Record<string, Rule>> = {}): Rules {
  return {
    findings: new Map(Object.entries(findings)),
    unavailable: new Map(),
    waivable: new Set(),
    copies: new Map([
      ['content.a', [AUDIT, 'law@olimpus.example']],
      ['content.b', [AUDIT]],
    ]),
    thresholds: { tag: null, junk: null, reject: null, discard: null },
    subjectTag: '',
  };
}

function found(...codes: string[]): Outcome {
  return {
    kind: 'found',
    check: 'content',
    findings: codes.map((code) => ({ code, detail: '' })),
    elapsed: 0,
  };
}

test('who is named for what was found gets one copy', () => {
  expect(copiesFor([found('content.a', 'content.b')], rules())).toEqual([AUDIT, 'law@olimpus.example']);
  expect(copiesFor([found('content.b'), found('content.b')], rules())).toEqual([AUDIT]);
  expect(copiesFor([found('content.c')], rules())).toEqual([]);
  const { copies: _, ...without } = rules();
  expect(copiesFor([found('content.a')], without)).toEqual([]);
});

test('what is in shadow, or could not be checked, copies nothing', () => {
  const shadow: Rule = { action: { kind: 'reject' }, mode: 'shadow' };
  const enforced: Rule = { action: { kind: 'ignore' }, mode: 'enforce' };
  expect(
    copiesFor([found('content.a', 'content.b')], rules({ 'content.a': shadow, 'content.b': enforced })),
  ).toEqual([AUDIT]);
  const unavailable: Outcome = {
    kind: 'unavailable',
    check: 'content',
    reason: 'deadline',
    detail: '',
    elapsed: 0,
  };
  expect(copiesFor([unavailable], rules())).toEqual([]);
});
