import { describe, expect, it } from 'vitest';

import { parseMailbox } from '../../../src/mail/address.ts';
import { rulesFor, type Policy } from '../../../src/verdict/rules.ts';
import { rules } from '../../support/judgement.ts';

const site = rules({ subjectTag: 'site' });
const domain = rules({ subjectTag: 'domain' });
const user = rules({ subjectTag: 'user' });
const policy: Policy = {
  site,
  delimiter: '+',
  overrides: new Map([
    ['@olimpus.example', domain],
    ['zeus@olimpus.example', user],
  ]),
};

describe('rulesFor', () => {
  it.each([
    ['zeus@olimpus.example', user],
    ['Zeus@OLIMPUS.Example', user],
    ['zeus+thunder@olimpus.example', user],
    ['"zeus"@olimpus.example', user],
    ['hera@olimpus.example', domain],
    ['zeus@valhalla.example', site],
    ['zeus@sub.olimpus.example', site],
    ['zeus', site],
  ])('%s', (mailbox, expected) => {
    expect(rulesFor(policy, parseMailbox(mailbox))).toBe(expected);
  });

  it('knows the delimiter the keys were made with', () => {
    const dashed = { ...policy, delimiter: '-' };
    expect(rulesFor(dashed, parseMailbox('zeus-thunder@olimpus.example'))).toBe(user);
    expect(rulesFor(dashed, parseMailbox('zeus+thunder@olimpus.example'))).toBe(domain);
    expect(rulesFor({ ...policy, delimiter: '' }, parseMailbox('zeus+thunder@olimpus.example'))).toBe(domain);
  });

  it('is the site’s where there is no recipient, or no override', () => {
    expect(rulesFor(policy, null)).toBe(site);
    expect(
      rulesFor({ site, overrides: new Map(), delimiter: '+' }, parseMailbox('zeus@olimpus.example')),
    ).toBe(site);
  });
});
