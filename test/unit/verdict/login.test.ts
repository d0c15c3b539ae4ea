import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  decideLogin,
  LOGIN_CODES,
  type LoginAction,
  type LoginFinding,
  type LoginRule,
  type LoginRules,
} from '../../../src/verdict/login.ts';

const IGNORE: LoginRule = { action: { kind: 'ignore' }, mode: 'enforce' };

function rules(differs: Partial<LoginRules['findings']> = {}, unavailable = IGNORE): LoginRules {
  const findings = {
    'login.account-blocked': IGNORE,
    'login.net-failures': IGNORE,
    'login.spraying': IGNORE,
    'login.pair-failures': IGNORE,
    'login.failures': IGNORE,
    ...differs,
  };
  return { findings, unavailable };
}

function rule(action: LoginAction, mode: LoginRule['mode'] = 'enforce', text?: string): LoginRule {
  return { action, mode, text };
}

function found(...findings: LoginFinding[]): Parameters<typeof decideLogin>[0] {
  return { kind: 'found', findings };
}

const FAILURES: LoginFinding = { code: 'login.failures', detail: '21 wrong passwords', excess: 1 };
const NET: LoginFinding = { code: 'login.net-failures', detail: '31 wrong passwords', excess: 1 };

test('nothing found, and what is found and ignored, may go on', () => {
  const allowed = { kind: 'allow', rule: 'none', why: '', shadow: [] };
  expect(decideLogin(found(), rules(), 30)).toEqual(allowed);
  expect(decideLogin(found(FAILURES, NET), rules(), 30)).toEqual(allowed);
});

test.each([
  [1, 1],
  [2, 2],
  [3, 4],
  [4, 8],
  [5, 10],
  [2000, 10],
])('a delay doubles with each excess, up to the rule: the %i. waits %i s', (excess, seconds) => {
  const delay = rules({ 'login.failures': rule({ kind: 'delay', most: 10 }) });
  expect(decideLogin(found({ ...FAILURES, excess }), delay, 30)).toMatchObject({ kind: 'delay', seconds });
});

test('no delay is longer than the asking protocol waits', () => {
  const delay = rules({ 'login.failures': rule({ kind: 'delay', most: 30 }) });
  expect(decideLogin(found({ ...FAILURES, excess: 9 }), delay, 4)).toMatchObject({ seconds: 4 });
});

test('a refusal stands above a delay, whatever their order', () => {
  const both = rules({
    'login.failures': rule({ kind: 'refuse' }),
    'login.net-failures': rule({ kind: 'delay', most: 30 }),
  });
  const verdict = decideLogin(found({ ...NET, excess: 9 }, FAILURES), both, 30);
  expect(verdict).toMatchObject({ kind: 'refuse', rule: 'login.failures', why: '21 wrong passwords' });
});

test('among equals the first of the list of codes decides', () => {
  const both = rules({
    'login.failures': rule({ kind: 'refuse' }),
    'login.net-failures': rule({ kind: 'refuse' }),
  });
  expect(decideLogin(found(FAILURES, NET), both, 30)).toMatchObject({ rule: 'login.net-failures' });
});

test("the operator's words replace ours", () => {
  const own = rules({ 'login.net-failures': rule({ kind: 'refuse' }, 'enforce', 'call 555') });
  expect(decideLogin(found(NET), own, 30)).toMatchObject({ text: 'call 555' });
  const ours = rules({ 'login.net-failures': rule({ kind: 'refuse' }) });
  expect(decideLogin(found(NET), ours, 30)).toMatchObject({
    text: 'Too many failed logins from your network, please try again later',
  });
});

test('a shadow rule is told of and changes nothing', () => {
  const shadow = rules({
    'login.net-failures': rule({ kind: 'refuse' }, 'shadow'),
    'login.failures': rule({ kind: 'delay', most: 4 }),
  });
  expect(decideLogin(found(NET, FAILURES), shadow, 30)).toEqual({
    kind: 'delay',
    seconds: 1,
    rule: 'login.failures',
    why: '21 wrong passwords',
    shadow: [{ rule: 'login.net-failures', kind: 'refuse' }],
  });
});

test('what can not be asked is what the operator says', () => {
  const lost = { kind: 'unavailable', detail: 'the state did not answer' } as const;
  expect(decideLogin(lost, rules(), 30)).toEqual({
    kind: 'allow',
    rule: 'unavailable',
    why: 'the state did not answer',
    shadow: [],
  });
  const strict = rules({}, rule({ kind: 'refuse' }));
  expect(decideLogin(lost, strict, 30)).toMatchObject({
    kind: 'refuse',
    rule: 'unavailable',
    why: 'the state did not answer',
  });
});

describe('whatever is found', () => {
  const action = fc.oneof(
    fc.constant({ kind: 'ignore' } as const),
    fc.constant({ kind: 'refuse' } as const),
    fc.record({ kind: fc.constant('delay' as const), most: fc.integer({ min: 1, max: 30 }) }),
  );
  const finding = fc.record({
    code: fc.constantFrom(...LOGIN_CODES),
    detail: fc.string(),
    excess: fc.integer({ min: 1, max: 100_000 }),
  });

  test('delays stay within bounds, and no text tells what was counted', () => {
    fc.assert(
      fc.property(fc.array(finding), action, fc.integer({ min: 1, max: 60 }), (findings, act, longest) => {
        const one = rule(act);
        const all = Object.fromEntries(LOGIN_CODES.map((code) => [code, one]));
        const verdict = decideLogin({ kind: 'found', findings }, rules(all), longest);
        const seconds = verdict.kind === 'delay' ? verdict.seconds : 1;
        const text = verdict.kind === 'refuse' ? verdict.text : '';
        const spoken = act.kind === 'ignore' ? 'allow' : act.kind;
        expect(verdict.kind).toBe(findings.length === 0 ? 'allow' : spoken);
        expect(Number.isInteger(seconds) && seconds >= 1 && seconds <= longest).toBe(true);
        expect(text).not.toMatch(/\d/);
      }),
    );
  });
});
