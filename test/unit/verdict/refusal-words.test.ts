import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { replyLine } from '../../../src/mail/reply.ts';
import { decide } from '../../../src/verdict/decide.ts';
import type { Explanation, Finding, Outcome } from '../../../src/verdict/finding.ts';
import type { Rule, Rules } from '../../../src/verdict/rules.ts';

const TRACE = 'z33ihbuykfqrt5qo';
const REJECT: Rule = { action: { kind: 'reject' }, mode: 'enforce' };

function rules(entries: Readonly<Record<string, Rule>>, waivable: readonly string[] = []): Rules {
  return {
    findings: new Map(Object.entries(entries)),
    unavailable: new Map(),
    waivable: new Set(waivable),
    thresholds: { tag: null, junk: null, reject: null, discard: null },
    subjectTag: '',
  };
}

function found(check: string, ...findings: readonly Finding[]): Outcome {
  return { kind: 'found', check, findings, elapsed: 0 };
}

function refusal(explanation: Explanation, rule: Rule = REJECT): string {
  const verdict = decide(
    [found('spf', { code: 'spf.fail', detail: '', explanation })],
    rules({ 'spf.fail': rule }),
  );
  return 'reply' in verdict ? replyLine(verdict.reply, TRACE) : verdict.kind;
}

describe('a refusal with the words of a domain', () => {
  test('after ours, and as its own', () => {
    expect(refusal({ by: 'example.com', text: 'See https://example.com/spf' })).toBe(
      `550 5.7.23 SPF: the sending host is not allowed to send for this domain; example.com explains: See https://example.com/spf (${TRACE})`,
    );
  });

  test("the operator's own words stand alone", () => {
    const rule: Rule = { ...REJECT, text: 'No' };
    expect(refusal({ by: 'example.com', text: 'See us' }, rule)).toBe(`550 5.7.23 No (${TRACE})`);
  });

  test('a deferral has none', () => {
    const defer: Rule = { action: { kind: 'defer' }, mode: 'enforce' };
    expect(refusal({ by: 'example.com', text: 'See us' }, defer)).not.toContain('explains');
  });

  test('200 characters of them, and no more', () => {
    expect(refusal({ by: 'd.example', text: 'x'.repeat(200) })).toContain(`explains: ${'x'.repeat(200)} (`);
    expect(refusal({ by: 'd.example', text: 'x'.repeat(201) })).toContain(
      `explains: ${'x'.repeat(197)}... (`,
    );
  });

  test('whatever they are, one printable line comes of it that begins and ends with ours', () => {
    const text = fc.string({ unit: 'binary', maxLength: 700 });
    fc.assert(
      fc.property(text, text, (by, said) => {
        const line = refusal({ by, text: said });
        expect(line).toMatch(
          /^550 5\.7\.23 SPF: the sending host is not allowed [\x20-\x7e]* explains: [\x20-\x7e]* \(z33ihbuykfqrt5qo\)$/,
        );
        expect(line.length).toBeLessThanOrEqual(510);
      }),
    );
  });
});

function welcoming(mode: Rule['mode']): Readonly<Record<string, Rule>> {
  return {
    'spf.fail': REJECT,
    'dnsbl.welcome': { action: { kind: 'allow' }, mode },
  };
}

describe('allow', () => {
  const fail = found('spf', { code: 'spf.fail', detail: '' });
  const welcome = found('dnsbl', { code: 'dnsbl.welcome', detail: '' });

  test('of a welcome list sets aside what other waivable checks found, and its own', () => {
    const waivable = ['spf', 'dnsbl'];
    expect(decide([fail, welcome], rules(welcoming('enforce'), waivable)).kind).toBe('accept');
    expect(decide([fail, welcome], rules(welcoming('shadow'), waivable)).kind).toBe('reject');
    expect(decide([fail, welcome], rules(welcoming('enforce'), ['dnsbl'])).kind).toBe('reject');
  });
});
