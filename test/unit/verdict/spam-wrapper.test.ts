import { describe, expect, it } from 'vitest';

import { parseHeaderSection } from '../../../src/mail/header.ts';
import type { Rewriting, SpamScan } from '../../../src/mail/spam-scan.ts';
import { decide } from '../../../src/verdict/decide.ts';
import { applyEdits, messageEdits } from '../../../src/verdict/edits.ts';
import { withoutRewriting, wrapperFields, wrapperFor } from '../../../src/verdict/spam-wrapper.ts';
import type { Rules } from '../../../src/verdict/rules.ts';
import { found, GTUBE_SCAN, HAM_SCAN, rule, rules, scanned, unavailable } from '../../support/judgement.ts';

const REWRITING: Rewriting = {
  fields: parseHeaderSection(
    'Received: from localhost by mx\r\n\twith SpamAssassin\r\nReceived: from a copy\r\nFrom: x\r\nSubject: [SPAM] x\r\n' +
      'X-Spam-Flag: YES\r\nX-Copied: 1\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="B"',
  ).toArray(),
  body: '--B\r\n',
};
const WRAPPED: SpamScan = { ...GTUBE_SCAN, rewriting: REWRITING };

function wrapperOf(scan: SpamScan, own: Rules): Rewriting | null {
  const outcomes = [unavailable('virus'), scanned(scan)];
  return wrapperFor(outcomes, decide(outcomes, own));
}

const UNAVAILABLE = { virus: rule('ignore') };

function many(count: number): Rewriting {
  return {
    fields: Array.from({ length: count }, (_, index) => ({ name: `X-${index}`, value: ' 1' })),
    body: '',
  };
}

describe('the report', () => {
  it('takes the place of a message that the rules mark as spam', () => {
    expect(wrapperOf(WRAPPED, rules({ unavailable: UNAVAILABLE }))).toBe(REWRITING);
    const junk = rules({ unavailable: UNAVAILABLE, thresholds: { tag: null, junk: 10 } });
    expect(wrapperOf(WRAPPED, junk)).toBe(REWRITING);
  });

  it('does not when they don’t, or when there is none', () => {
    const lenient = rules({ unavailable: UNAVAILABLE, thresholds: { tag: 5000 } });
    expect(wrapperOf(WRAPPED, lenient)).toBeNull();
    expect(wrapperOf(GTUBE_SCAN, rules({ unavailable: UNAVAILABLE }))).toBeNull();
    expect(wrapperOf(HAM_SCAN, rules({ unavailable: UNAVAILABLE, thresholds: { tag: -9 } }))).toBeNull();
  });

  it('has fields of its own, and no copies of what is kept', () => {
    expect(wrapperFields(REWRITING).map(({ name, value }) => `${name}:${value}`)).toEqual([
      'Received: from localhost by mx\r\n\twith SpamAssassin',
      'X-Copied: 1',
      'MIME-Version: 1.0',
      'Content-Type: multipart/mixed; boundary="B"',
    ]);
  });

  it('has 64 of them at most', () => {
    expect(wrapperFields(many(64))).toHaveLength(64);
    expect(wrapperFields(many(65))).toHaveLength(64);
  });
});

describe('the edits for a report', () => {
  const headers = parseHeaderSection(
    'Received: from a\r\nDKIM-Signature: v=1\r\nFrom: thor@valhalla.example\r\nX-Spam-Flag: NO\r\nX-Spam-Prev-Subject: lie\r\nSubject: x\r\n' +
      'Received: from b\r\nMIME-Version: 1.0\r\nList-Id: <l>\r\ncontent-TYPE: text/html\r\nContent-Type: text/plain\r\nDate: now\r\nAuthentication-Results: other; spf=pass',
  );
  const outcomes = [scanned(WRAPPED)];
  const verdict = decide(outcomes, rules());
  const input = {
    headers,
    outcomes,
    verdict,
    rules: rules(),
    authservId: 'mx',
    otherAuthservIds: [],
    hostname: 'mx',
    trace: 'abcdefghijklmnop',
    daemon: 'milter',
  } as const;

  it('leave what addresses the message and its trace, and put the report’s fields on top', () => {
    const edits = messageEdits({ ...input, wrapper: REWRITING });
    const left = applyEdits(headers, edits).toArray();
    const spam = GTUBE_SCAN.fields.map(({ name }) => name);
    expect(left.map(({ name }) => name)).toEqual([
      ...spam,
      'X-Postern-Trace',
      'Received',
      'X-Copied',
      'MIME-Version',
      'Content-Type',
      'Received',
      'From',
      'Subject',
      'Received',
      'Date',
    ]);
    expect(left.find(({ name }) => name === 'Subject')?.value).toBe(' [SPAM] x');
    expect(left.find(({ name }) => name === 'Content-Type')?.value).toBe(' multipart/mixed; boundary="B"');
  });

  it('are the usual ones without it', () => {
    const names = applyEdits(headers, messageEdits(input))
      .toArray()
      .map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['DKIM-Signature', 'List-Id', 'X-Spam-Prev-Subject']));
  });
});

describe('what is kept of a scan', () => {
  it('is all but the report', () => {
    const other = found('spf', { code: 'spf.pass', detail: 'x' });
    const kept = withoutRewriting([other, scanned(WRAPPED), unavailable('dkim')], false);
    expect(kept).toEqual([other, scanned(GTUBE_SCAN), unavailable('dkim')]);
    expect(JSON.stringify(kept)).not.toContain('rewriting');
  });

  it('is the same list when there is none', () => {
    const outcomes = [scanned(GTUBE_SCAN)];
    expect(withoutRewriting(outcomes, false)).toBe(outcomes);
  });
});
