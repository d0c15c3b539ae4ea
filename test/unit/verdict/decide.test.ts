import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { decide, mildest } from '../../../src/verdict/decide.ts';
import type { Finding, Outcome } from '../../../src/verdict/finding.ts';
import type { Action } from '../../../src/verdict/rules.ts';
import { severity, VERDICT_KINDS, type Verdict, type VerdictKind } from '../../../src/verdict/verdict.ts';
import { accept, found, points, rule, rules, unavailable } from '../../support/judgement.ts';

const FAIL: Finding = { code: 'spf.fail', detail: '192.0.2.20 may not send for valhalla.example' };

/** First digit of the reply code. */
const CLASSES = new Map<VerdictKind, number>([
  ['defer', 4],
  ['reject', 5],
]);
const ACTIONS: [Exclude<Action['kind'], 'score'>, VerdictKind, boolean][] = [
  ['ignore', 'accept', false],
  ['tag', 'accept', true],
  ['junk', 'junk', false],
  ['quarantine', 'quarantine', false],
  ['defer', 'defer', false],
  ['reject', 'reject', false],
  ['discard', 'discard', false],
];

function scored(score: number): Outcome {
  return found('spam', { code: 'spam.scored', detail: `${score} of 5`, score });
}

function of(kind: 'accept' | 'junk' | 'quarantine' | 'discard', tagged = false): Verdict {
  return { ...accept({ tagged, rule: kind }), kind };
}

describe('decide', () => {
  it('accepts when nothing was found', () => {
    expect(decide([], rules())).toEqual({
      kind: 'accept',
      rule: 'default',
      why: '',
      score: null,
      tagged: false,
      shadow: [],
    });
  });

  it('ignores what no rule speaks of', () => {
    expect(decide([found('spf', FAIL)], rules())).toMatchObject({ kind: 'accept', rule: 'default' });
  });

  describe.each(ACTIONS)('a finding under the rule %s', (action, kind, tagged) => {
    it('is acted on when the rule is enforced', () => {
      const verdict = decide([found('spf', FAIL)], rules({ findings: { 'spf.fail': rule(action) } }));
      const named =
        action === 'ignore' ? { rule: 'default', why: '' } : { rule: 'spf.fail', why: FAIL.detail };
      expect(verdict).toMatchObject({ kind, tagged, shadow: [], ...named });
    });

    it('is only noted when the rule is a shadow', () => {
      const verdict = decide(
        [found('spf', FAIL)],
        rules({ findings: { 'spf.fail': rule(action, 'shadow') } }),
      );
      expect(verdict).toEqual(accept({ shadow: [{ rule: 'spf.fail', kind }] }));
    });
  });

  describe.each(ACTIONS)('a check that could not be made, under the rule %s', (action, kind, tagged) => {
    it('is acted on', () => {
      const verdict = decide([unavailable('spam')], rules({ unavailable: { spam: rule(action) } }));
      const why = 'spam could not be checked (neighbour): connection refused';
      const named = action === 'ignore' ? { rule: 'default', why: '' } : { rule: 'unavailable:spam', why };
      expect(verdict).toMatchObject({ kind, tagged, ...named });
    });
  });

  it('defers when a check could not be made and no rule says what that means', () => {
    expect(decide([unavailable('spam')], rules())).toMatchObject({
      kind: 'defer',
      rule: 'unavailable:spam',
      reply: { code: 451, detail: '7.0' },
    });
  });

  it.each([
    ['reject', 'spf.fail', { code: 550, detail: '7.23' }],
    ['reject', 'spf.permerror', { code: 550, detail: '7.24' }],
    ['reject', 'dmarc.fail-reject', { code: 550, detail: '7.26' }],
    ['reject', 'other.finding', { code: 550, detail: '7.1' }],
    ['defer', 'spf.temperror', { code: 451, detail: '7.24' }],
    ['defer', 'dkim.temperror', { code: 451, detail: '7.5' }],
    ['defer', 'spf.fail', { code: 451, detail: '7.0' }],
  ] as const)('%ss %s in the words RFC 7372 has for it', (action, code, reply) => {
    const verdict = decide([found('x', { code, detail: '' })], rules({ findings: { [code]: rule(action) } }));
    expect(verdict).toMatchObject({ kind: action, reply });
  });

  it('says a refusal in the operator’s words', () => {
    const own = rules({
      findings: { 'spf.fail': { action: { kind: 'reject' }, mode: 'enforce', text: 'Go away' } },
      unavailable: { spam: { action: { kind: 'defer' }, mode: 'enforce', text: 'Come back' } },
    });
    expect(decide([found('spf', FAIL)], own)).toMatchObject({
      reply: { code: 550, detail: '7.23', text: 'Go away' },
    });
    expect(decide([unavailable('spam')], own)).toMatchObject({
      reply: { code: 451, detail: '7.0', text: 'Come back' },
    });
  });

  it('takes the most severe, whatever the order', () => {
    const own = rules({
      findings: { a: rule('tag'), b: rule('reject'), c: rule('defer'), d: rule('junk') },
    });
    const findings = ['a', 'b', 'c', 'd'].map((code) => ({ code, detail: code }));
    fc.assert(
      fc.property(fc.shuffledSubarray(findings, { minLength: 4 }), (order) => {
        expect(decide([found('x', ...order)], own)).toMatchObject({
          kind: 'reject',
          rule: 'b',
          tagged: true,
        });
      }),
    );
  });

  it('names the first of equals', () => {
    const own = rules({ findings: { a: rule('reject'), b: rule('reject') } });
    const a = found('one', { code: 'a', detail: 'first' });
    const b = found('two', { code: 'b', detail: 'second' });
    expect(decide([a, b], own)).toMatchObject({ rule: 'a', why: 'first' });
    expect(decide([b, a], own)).toMatchObject({ rule: 'b', why: 'second' });
  });

  it('names the rule that tagged when nothing is more severe', () => {
    const own = rules({ findings: { a: rule('ignore'), b: rule('tag'), c: rule('tag') } });
    const outcome = found('x', ...['a', 'b', 'c'].map((code) => ({ code, detail: code })));
    expect(decide([outcome], own)).toMatchObject({ kind: 'accept', rule: 'b', tagged: true });
  });

  it('passes over what concerns another recipient, and without a recipient over what concerns any', () => {
    const own = rules({ findings: { full: rule('reject') } });
    const outcomes = [found('quota', { code: 'full', detail: '', recipient: 1, score: 3 })];
    expect(decide(outcomes, own, 1)).toMatchObject({ kind: 'reject', score: 3 });
    expect(decide(outcomes, own, 0)).toMatchObject({ kind: 'accept', score: null });
    expect(decide(outcomes, own)).toMatchObject({ kind: 'accept', score: null });
  });

  it('never gives a refusal without words, or with words of the wrong class', () => {
    const kinds = fc.constantFrom(...ACTIONS.map(([kind]) => kind));
    fc.assert(
      fc.property(fc.array(fc.tuple(kinds, fc.boolean()), { maxLength: 6 }), (actions) => {
        const own = rules({
          findings: Object.fromEntries(
            actions.map(([kind, shadow], index) => [`c${index}`, rule(kind, shadow ? 'shadow' : 'enforce')]),
          ),
        });
        const findings = actions.map((_, index) => ({ code: `c${index}`, detail: '' }));
        const verdict = decide([found('x', ...findings)], own);
        const enforced = actions.filter(([, shadow]) => !shadow).map(([kind]) => kind);
        const worst = ACTIONS.filter(([kind]) => enforced.includes(kind)).map(([, kind]) => severity(kind));
        expect(severity(verdict.kind)).toBe(Math.max(0, ...worst));
        expect(verdict.shadow).toHaveLength(actions.length - enforced.length);
        const reply = 'reply' in verdict ? Math.floor(verdict.reply.code / 100) : null;
        expect(reply).toBe(CLASSES.get(verdict.kind) ?? null);
      }),
    );
  });
});

describe('scores', () => {
  const bands = { tag: 5, junk: 8, reject: 15 };

  it.each([
    [4.9, 'accept', false, 'default'],
    [5, 'accept', true, 'score>=5'],
    [7.9, 'accept', true, 'score>=5'],
    [8, 'junk', true, 'score>=8'],
    [14.9, 'junk', true, 'score>=8'],
    [15, 'reject', true, 'score>=15'],
    [-3, 'accept', false, 'default'],
  ] as const)('of %d points make it %s (tagged: %s)', (score, kind, tagged, name) => {
    expect(decide([scored(score)], rules({ thresholds: bands }))).toMatchObject({
      kind,
      tagged,
      rule: name,
      score,
    });
  });

  it('mean nothing where a band is off', () => {
    const off = rules({ thresholds: { tag: null, junk: null, reject: null } });
    expect(decide([scored(1000)], off)).toEqual(accept({ score: 1000 }));
    const junk = rules({ thresholds: { tag: null, junk: 8, reject: null } });
    expect(decide([scored(1000)], junk)).toMatchObject({ kind: 'junk', tagged: false });
  });

  it('are refused in words of their own', () => {
    expect(decide([scored(15)], rules({ thresholds: bands }))).toMatchObject({
      why: 'score 15: 15 of 5',
      reply: { code: 550, detail: '7.1', text: 'This message was classified as spam' },
    });
  });

  it('add up over findings and rules, exact to the thousandth', () => {
    const own = rules({
      findings: { a: points(0.1), b: points(0.2), hidden: points(100, 'shadow') },
      unavailable: { dkim: points(1) },
      thresholds: { tag: 1.3 },
    });
    const outcomes = [
      found('x', { code: 'a', detail: '' }, { code: 'b', detail: '' }, { code: 'hidden', detail: '' }),
      unavailable('dkim'),
    ];
    expect(decide(outcomes, own)).toMatchObject({
      score: 1.3,
      tagged: true,
      rule: 'score>=1.3',
      why: 'score 1.3: a 0.1; b 0.2; unavailable:dkim 1',
      shadow: [{ rule: 'hidden', kind: 'accept' }],
    });
  });

  it('of shadow rules alone are no score', () => {
    const own = rules({ findings: { a: points(7, 'shadow') } });
    expect(decide([found('x', { code: 'a', detail: '' })], own).score).toBeNull();
  });

  it('of zero are a score', () => {
    expect(decide([scored(0)], rules()).score).toBe(0);
  });

  it('do not take over from a rule that is as severe', () => {
    const own = rules({ findings: { 'spf.fail': rule('junk') }, thresholds: { tag: null, junk: 8 } });
    expect(decide([scored(9), found('spf', FAIL)], own)).toMatchObject({ kind: 'junk', rule: 'spf.fail' });
  });

  it('take over from a rule that is less severe, and tag what is refused otherwise', () => {
    const own = rules({ findings: { 'spf.fail': rule('junk') }, thresholds: bands });
    expect(decide([found('spf', FAIL), scored(15)], own)).toMatchObject({
      kind: 'reject',
      rule: 'score>=15',
    });
    const strict = rules({ findings: { 'spf.fail': rule('reject') }, thresholds: bands });
    expect(decide([found('spf', FAIL), scored(8)], strict)).toMatchObject({
      kind: 'reject',
      rule: 'spf.fail',
      tagged: true,
    });
  });
});

describe('mildest', () => {
  it('is the least severe', () => {
    expect(mildest([of('discard'), of('junk'), of('quarantine')]).kind).toBe('junk');
  });

  it('is the one that does not tag, among equals', () => {
    expect(mildest([of('accept', true), of('accept', false), of('accept', true)]).tagged).toBe(false);
    expect(mildest([of('accept', true), of('junk', false)])).toMatchObject({
      kind: 'accept',
      tagged: true,
    });
  });

  it('is the first of those that do the same', () => {
    const first = of('junk');
    expect(mildest([of('discard'), first, of('junk')])).toBe(first);
  });

  it('is to accept when there is nobody to ask', () => {
    expect(mildest([])).toEqual(accept());
  });
});

describe('severity', () => {
  it('rises in the order in which a verdict stands over another', () => {
    expect(VERDICT_KINDS.map(severity)).toEqual([0, 1, 2, 3, 4, 5]);
    expect([...VERDICT_KINDS]).toEqual(['accept', 'junk', 'quarantine', 'defer', 'reject', 'discard']);
  });
});
