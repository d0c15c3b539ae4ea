import { describe, expect, it } from 'vitest';

import { decide } from '../../../src/verdict/decide.ts';
import { isSpamField, spamFields } from '../../../src/verdict/spam-fields.ts';
import type { SpamScan } from '../../../src/mail/spam-scan.ts';
import type { Rules } from '../../../src/verdict/rules.ts';
import {
  accept,
  found,
  GTUBE_SCAN,
  HAM_SCAN,
  points,
  rule,
  rules,
  scanned,
} from '../../support/judgement.ts';

function fields(
  scan: SpamScan,
  own: Rules = rules(),
  more: Parameters<typeof decide>[0] = [],
): Map<string, string> {
  const verdict = decide([...more, scanned(scan)], own);
  return new Map(spamFields(scan, verdict, own, 'mx.example').map(({ name, value }) => [name, value]));
}

describe('spamFields', () => {
  it.each([
    ['spam', GTUBE_SCAN],
    ['ham', HAM_SCAN],
  ])('are the scanner’s own, byte for byte and in its order, when it agrees: %s', (_, scan) => {
    const verdict = decide([scanned(scan)], rules());
    expect(spamFields(scan, verdict, rules(), 'mx.example')).toEqual(scan.fields);
  });

  it('say what was decided when the recipient’s threshold is another', () => {
    const strict = fields(HAM_SCAN, rules({ thresholds: { tag: 0.5 } }));
    expect([...strict.keys()]).toEqual([
      'X-Spam-Checker-Version',
      'X-Spam-Flag',
      'X-Spam-Level',
      'X-Spam-Status',
    ]);
    expect(strict.get('X-Spam-Status')).toBe(
      ' Yes, score=1.0 required=0.5 tests=MSGID_SHORT,NO_RECEIVED,\r\n\tNO_RELAYS,PP_MIME_FAKE_ASCII_TEXT autolearn=no autolearn_force=no\r\n\tversion=4.0.1',
    );
    const lenient = fields(GTUBE_SCAN, rules({ thresholds: { tag: 2000 } }));
    expect([...lenient.keys()]).toEqual(['X-Spam-Checker-Version', 'X-Spam-Level', 'X-Spam-Status']);
    expect(lenient.get('X-Spam-Status')).toMatch(/^ No, score=1000\.0 required=2000\.0 tests=GTUBE/);
  });

  it('show the whole score when rules of ours add to it', () => {
    const own = rules({ findings: { 'spf.softfail': points(4.25) } });
    const result = fields(HAM_SCAN, own, [found('spf', { code: 'spf.softfail', detail: 'x' })]);
    expect(result.get('X-Spam-Status')).toMatch(/^ Yes, score=5\.25 required=5\.0 tests=MSGID/);
    expect(result.get('X-Spam-Level')).toBe(' *****');
    expect(result.get('X-Spam-Flag')).toBe(' YES');
  });

  it.each([
    [-3.5, ' '],
    [0.9, ' '],
    [49.9, ` ${'*'.repeat(49)}`],
    [50, ` ${'*'.repeat(50)}`],
    [1e6, ` ${'*'.repeat(50)}`],
  ])('draw stars for %d points', (score, level) => {
    expect(fields({ ...HAM_SCAN, score, fields: [] }).get('X-Spam-Level')).toBe(level);
  });

  it('keep the scanner’s stars when they were drawn for less than the points it shows', () => {
    const scan = { ...HAM_SCAN, score: 3, fields: [{ name: 'X-Spam-Level', value: ' **' }] };
    expect(fields(scan).get('X-Spam-Level')).toBe(' **');
    const own = rules({ findings: { 'spf.softfail': points(1) } });
    const more = [found('spf', { code: 'spf.softfail', detail: 'x' })];
    expect(fields(scan, own, more).get('X-Spam-Level')).toBe(' ****');
  });

  it('flag what is filed as junk', () => {
    const own = rules({ thresholds: { tag: null, junk: 0.5 } });
    expect(fields(HAM_SCAN, own).get('X-Spam-Status')).toMatch(/^ Yes, score=1\.0 required=0\.5 /);
    const byRule = rules({ findings: { 'dmarc.fail': rule('junk') } });
    const dmarc = found('dmarc', { code: 'dmarc.fail', detail: 'x' });
    expect(fields(HAM_SCAN, byRule, [dmarc]).get('X-Spam-Flag')).toBe(' YES');
  });

  it('leave the answer to the scanner when there is no threshold of ours, and do not flag', () => {
    const result = fields(GTUBE_SCAN, rules({ thresholds: { tag: null } }));
    expect(result.get('X-Spam-Status')).toBe(GTUBE_SCAN.fields[3]?.value);
    expect(result.has('X-Spam-Flag')).toBe(false);
    expect(result.has('X-Spam-Report')).toBe(false);
  });

  it('are made up when the scanner’s configuration leaves them out', () => {
    const names = Array.from({ length: 12 }, (_, index) => `RULE_NUMBER_${index}`);
    const result = fields({ score: 5.1, required: 8, rules: names, fields: [] });
    expect(result.get('X-Spam-Checker-Version')).toBe(' SpamAssassin on mx.example');
    const status = result.get('X-Spam-Status') ?? '';
    expect(status.replaceAll('\r\n\t', '')).toBe(` Yes, score=5.1 required=5.0 tests=${names.join(',')}`);
    for (const line of `X-Spam-Status:${status}`.split('\r\n')) expect(line.length).toBeLessThanOrEqual(79);
    expect(fields({ score: 0, required: 8, rules: [], fields: [] }).get('X-Spam-Status')).toBe(
      ' No, score=0.0 required=5.0 tests=none',
    );
  });

  it('keep fields of the scanner’s own configuration behind, up to a limit, and nothing that is none of its', () => {
    const extra = Array.from({ length: 40 }, (_, index) => ({ name: `X-Spam-Extra-${index}`, value: ' 1' }));
    const scan = {
      ...HAM_SCAN,
      fields: [
        { name: 'Subject', value: ' evil' },
        { name: 'X-Spam-Prev-Subject', value: ' evil' },
        { name: 'X-Spam-Bad\r\nEvil', value: ' evil' },
        ...extra,
        ...HAM_SCAN.fields,
        { name: 'X-Spam-Status', value: ' second' },
      ],
    };
    expect([...fields(scan).keys()]).toEqual([
      'X-Spam-Checker-Version',
      'X-Spam-Level',
      'X-Spam-Status',
      ...extra.slice(0, 32).map(({ name }) => name),
    ]);
    expect(fields(scan).get('X-Spam-Status')).toBe(HAM_SCAN.fields[2]?.value);
  });

  it('bring no bytes of the message along that could harm', () => {
    const scan = {
      ...GTUBE_SCAN,
      fields: [{ name: 'X-Spam-Report', value: ' caf\xe9\r\nX-Injected: 1\n\n\0body' }],
    };
    expect(fields(scan).get('X-Spam-Report')).toBe(' caf?\r\n\tX-Injected: 1\r\n\t?body');
  });

  it('write the verdict’s score where nothing but the scan was scored', () => {
    expect(spamFields(HAM_SCAN, accept(), rules(), 'mx.example')[2]?.value).toBe(HAM_SCAN.fields[2]?.value);
  });
});

describe('spamFields without a scan', () => {
  it('claim nothing but what the verdict is', () => {
    const flag = [{ name: 'X-Spam-Flag', value: ' YES' }];
    expect(spamFields(null, accept(), rules(), 'mx.example')).toEqual([]);
    expect(spamFields(null, accept({ tagged: true }), rules(), 'mx.example')).toEqual(flag);
    expect(spamFields(null, { ...accept(), kind: 'junk' }, rules(), 'mx.example')).toEqual(flag);
    expect(spamFields(null, { ...accept(), kind: 'quarantine' }, rules(), 'mx.example')).toEqual([]);
  });
});

describe('isSpamField', () => {
  it.each([
    ['X-Spam-Flag', true],
    ['x-SPAM-anything', true],
    ['X-Spam-', false],
    ['X-Spam', false],
    ['X-Spamd-Result', false],
    ['Subject', false],
  ])('%s: %s', (name, answer) => {
    expect(isSpamField(name)).toBe(answer);
  });
});
