import { describe, expect, test } from 'vitest';

import { parseMailbox } from '../../../src/mail/address.ts';
import { decide } from '../../../src/verdict/decide.ts';
import { concerning } from '../../../src/verdict/finding.ts';
import type { MailboxSettings, Policy, Rules } from '../../../src/verdict/rules.ts';
import { recipientRules, settingsIn } from '../../../src/verdict/settings.ts';
import { found, HAM_SCAN, rule, rules, scanned, unavailable } from '../../support/judgement.ts';

const INFO = parseMailbox('info@alias.example');
const ZEUS: MailboxSettings = { mailbox: 'zeus@olimpus.example', thresholds: { junk: 6, reject: null } };

function policy(overrides: Readonly<Record<string, Rules>> = {}): Policy {
  return {
    site: rules({ thresholds: { reject: 15 } }),
    overrides: new Map(Object.entries(overrides)),
    delimiter: '+',
  };
}

/** Threshold for junk and tag, with one entry in [[override]] and others in the directory. */
function merged(key: string, own: Rules): unknown {
  return recipientRules(policy({ [key]: own }), INFO, [{ ...ZEUS, subjectTag: '[D]' }]).map((made) => [
    made.thresholds.junk,
    made.subjectTag,
  ]);
}

describe('rules of a recipient', () => {
  test('are those of the site where nothing is set', () => {
    const site = policy();
    expect(recipientRules(site, INFO, undefined)).toEqual([site.site]);
    expect(recipientRules(site, INFO, [{ mailbox: 'zeus@olimpus.example' }])[0]).toBe(site.site);
  });

  test('have the settings of the mailbox on top', () => {
    const [made] = recipientRules(policy(), INFO, [{ ...ZEUS, subjectTag: '', rewriteBody: true }]);
    expect(made).toMatchObject({
      thresholds: { tag: 5, junk: 6, reject: null, discard: null },
      bandsSetBy: { junk: 'directory', reject: 'directory' },
      mailbox: 'zeus@olimpus.example',
      subjectTag: '',
      rewriteBody: true,
    });
  });

  test.each([
    ['info@alias.example', 'the address'],
    ['zeus@olimpus.example', 'the mailbox'],
    ['@olimpus.example', 'the domain of the mailbox'],
    ['@alias.example', 'the domain of the address'],
  ])('%s in [[override]] is found by %s', (key) => {
    const own = rules({ subjectTag: '[OWN]' });
    expect(recipientRules(policy({ [key]: own }), INFO, [ZEUS])[0]?.subjectTag).toBe('[OWN]');
  });

  test('what is written down for one user stands above the directory, what is for a domain below', () => {
    const user = {
      ...rules({ thresholds: { junk: 9 } }),
      pinned: { thresholds: { junk: 9 }, subjectTag: '[U]' },
    };
    const domain = rules({ thresholds: { junk: 9 } });
    expect(merged('zeus@olimpus.example', user)).toEqual([[9, '[U]']]);
    expect(merged('@olimpus.example', domain)).toEqual([[6, '[D]']]);
  });

  test('are one set for each mailbox, and the site’s for what leaves', () => {
    const site = policy();
    const made = recipientRules(site, INFO, [ZEUS, { mailbox: null }]);
    expect(made.map(({ thresholds }) => thresholds.reject)).toEqual([null, 15]);
    expect(made[1]).toBe(site.site);
  });
});

test('settings are found by recipient', () => {
  const outcome = found('settings', { code: 'settings.own', detail: '', recipient: 2, settings: [ZEUS] });
  expect([...settingsIn([scanned(HAM_SCAN), outcome])]).toEqual([[2, [ZEUS]]]);
  expect(settingsIn([scanned(HAM_SCAN)]).size).toBe(0);
});

test('what concerns one recipient', () => {
  const mine = { code: 'lists.block', detail: '', recipient: 1 };
  const outcomes = [scanned(HAM_SCAN), found('lists', { ...mine, recipient: 0 }, mine)];
  expect(concerning(outcomes, 1)).toEqual([scanned(HAM_SCAN), found('lists', mine)]);
  expect(concerning(outcomes.slice(0, 1), 1)).toEqual(outcomes.slice(0, 1));
});

describe('what decided', () => {
  const spam = scanned({ ...HAM_SCAN, score: 7 });

  test.each([
    [{ discard: 7 }, 'discard', 'score>=7'],
    [{ discard: 7.1, reject: 7 }, 'reject', 'score>=7'],
    [{ discard: 6, reject: 7 }, 'discard', 'score>=6'],
    [{ discard: null, reject: null, junk: 7 }, 'junk', 'score>=7'],
  ])('bands %j: %s by %s', (thresholds, kind, by) => {
    expect(decide([spam], rules({ thresholds }))).toMatchObject({ kind, rule: by, tagged: true });
  });

  test('a band of the directory is named with its mailbox, one of the site is not', () => {
    const [own] = recipientRules(policy(), INFO, [ZEUS]);
    const verdict = decide([spam], own ?? rules());
    expect(verdict).toMatchObject({ kind: 'junk', setting: 'directory' });
    expect(verdict.why).toMatch(/\(zeus@olimpus\.example: junk from 6\)$/);
    expect(decide([spam], rules({ thresholds: { junk: 6 } }))).not.toHaveProperty('setting');
  });

  test('thresholds that could not be looked up: the site’s do not refuse in their place, unless its rule says so', () => {
    const missing = unavailable('settings');
    const made = rules({ thresholds: { reject: 6, discard: 7 } });
    expect(decide([missing, spam], made)).toMatchObject({
      kind: 'defer',
      rule: 'unavailable:settings',
      tagged: true,
    });
    const ignored = { ...made, unavailable: new Map([['settings', rule('ignore')]]) };
    expect(decide([missing, spam], ignored)).toMatchObject({ kind: 'discard', rule: 'score>=7' });
    const shadow = { ...made, unavailable: new Map([['settings', rule('defer', 'shadow')]]) };
    expect(decide([missing, spam], shadow)).toMatchObject({ kind: 'discard' });
    // What another rule refuses is refused.
    const virus = found('virus', { code: 'virus.found', detail: '' });
    const strict = { ...made, findings: new Map([['virus.found', rule('reject')]]) };
    expect(decide([missing, virus, spam], strict)).toMatchObject({ kind: 'reject', rule: 'virus.found' });
  });

  test('a sender whom the recipient wants: the score is set aside, other checks count', () => {
    const wanted = found('lists', {
      code: 'lists.allow',
      detail: 'wanted',
      recipient: 0,
      setting: 'directory',
      waives: ['spam'],
    });
    const made = rules({
      findings: { 'lists.allow': rule('allow'), 'virus.found': rule('reject'), 'spf.fail': rule('reject') },
      waivable: ['spf'],
      thresholds: { reject: 6 },
    });
    const spf = found('spf', { code: 'spf.fail', detail: '' });
    expect(decide([spf, wanted, spam], made, 0)).toMatchObject({
      kind: 'accept',
      tagged: false,
      score: null,
      rule: 'lists.allow',
      why: 'wanted',
      setting: 'directory',
    });
    // Not for others, not with a virus, and not when the rule is off.
    expect(decide([wanted, spam], made, 1)).toMatchObject({ kind: 'reject' });
    const virus = found('virus', { code: 'virus.found', detail: '' });
    expect(decide([virus, wanted, spam], made, 0)).toMatchObject({ kind: 'reject', rule: 'virus.found' });
    const off = { ...made, findings: new Map([['lists.allow', rule('allow', 'shadow')]]) };
    expect(decide([wanted, spam], off, 0)).toMatchObject({ kind: 'reject' });
  });
});
