import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../src/adapters/mail-auth.ts';
import type { DmarcPolicy, DmarcResult } from '../../src/ports/mail-auth.ts';
import { message } from '../support/mail.ts';
import { Zone, type ZoneEntry } from '../support/zone.ts';

// RFC 9989, clause by clause; the author is `a@example.com` where nothing else is said.

const BUDGET = 1000;

interface Case {
  readonly from?: string;
  /** Header section instead of From. */
  readonly headers?: string;
  readonly spf?: readonly string[];
  readonly dkim?: readonly string[];
  /** Record of example.com. */
  readonly record?: string;
  readonly zone?: Readonly<Record<string, ZoneEntry>>;
}

function evaluated(given: Case, asked: string[] = []): Promise<DmarcResult> {
  const own = given.record === undefined ? {} : { '_dmarc.example.com': { TXT: [given.record] } };
  const zone = new Zone({ ...own, ...given.zone });
  const auth = createMailAuth(zone, { hostname: 'mx.example', clock: { now: () => 0, elapsed: () => 0 } });
  const headers = given.headers ?? `From: ${given.from ?? 'a@example.com'}\r\n`;
  const query = {
    headers: message({ headers }).headers,
    spfDomains: given.spf ?? [],
    dkimDomains: given.dkim ?? [],
  };
  return auth.dmarc(query, new AbortController().signal, BUDGET).finally(() => asked.push(...zone.asked));
}

function text(record: string): ZoneEntry {
  return { TXT: [record] };
}

type Row = readonly [why: string, result: DmarcResult['result'], policy: DmarcPolicy, given: Case];

const SECTIONS: (readonly [title: string, rows: readonly Row[]])[] = [
  [
    '§5.3.1: the author domain',
    [
      ['no From', 'permerror', 'none', { headers: 'Subject: x\r\n', record: 'v=DMARC1; p=reject' }],
      [
        'two From fields',
        'permerror',
        'none',
        { headers: 'From: a@example.com\r\nfrom: a@example.com\r\n', record: 'v=DMARC1; p=reject' },
      ],
      [
        'From with a space before the colon, twice',
        'permerror',
        'none',
        { headers: 'From : a@example.com\r\nFrom: b@example.net\r\n' },
      ],
      [
        'addresses of two domains',
        'permerror',
        'none',
        { from: 'a@example.com, b@example.net', record: 'v=DMARC1; p=reject' },
      ],
      [
        'two addresses of one domain',
        'fail',
        'reject',
        { from: 'a@example.com, b@EXAMPLE.com', record: 'v=DMARC1; p=reject' },
      ],
      [
        'an address in a group',
        'fail',
        'reject',
        { from: 'us: a@example.com;', record: 'v=DMARC1; p=reject' },
      ],
      ['no address', 'permerror', 'none', { from: 'undisclosed', record: 'v=DMARC1; p=reject' }],
      ['an empty group', 'permerror', 'none', { from: 'nobody:;', record: 'v=DMARC1; p=reject' }],
      [
        'another address in the display name',
        'fail',
        'reject',
        { from: '"ceo@bank.example" <a@example.com>', record: 'v=DMARC1; p=reject' },
      ],
      [
        'two at signs',
        'permerror',
        'none',
        { from: '<a@bank.example@example.com>', record: 'v=DMARC1; p=reject' },
      ],
      ['an address literal', 'none', 'none', { from: 'a@[192.0.2.1]' }],
      ['a folded field', 'fail', 'reject', { from: 'A\r\n <a@example.com>', record: 'v=DMARC1; p=reject' }],
      [
        'a U-label',
        'fail',
        'reject',
        {
          from: 'a@b\xc3\xbccher.example',
          zone: { '_dmarc.xn--bcher-kva.example': text('v=DMARC1; p=reject') },
        },
      ],
    ],
  ],
  [
    '§4.7, §4.10.1: the record',
    [
      ['none', 'none', 'none', {}],
      ['p=none', 'fail', 'none', { record: 'v=DMARC1; p=none' }],
      ['p=quarantine', 'fail', 'quarantine', { record: 'v=DMARC1; p=quarantine' }],
      ['p=reject', 'fail', 'reject', { record: 'v=DMARC1;p=REJECT' }],
      ['t=y: one step less than reject', 'fail', 'quarantine', { record: 'v=DMARC1; p=reject; t=y' }],
      ['t=y: one step less than quarantine', 'fail', 'none', { record: 'v=DMARC1; p=quarantine; t=y' }],
      ['pct= has no meaning any more', 'fail', 'reject', { record: 'v=DMARC1; p=reject; pct=0' }],
      ['unknown tags', 'fail', 'reject', { record: 'v=DMARC1; p=reject; x=1' }],
      ['v= is not first', 'none', 'none', { record: 'p=reject; v=DMARC1' }],
      ['v= in lower case', 'none', 'none', { record: 'v=dmarc1; p=reject' }],
      [
        'two records',
        'none',
        'none',
        { zone: { '_dmarc.example.com': { TXT: ['v=DMARC1; p=reject', 'v=DMARC1; p=none'] } } },
      ],
      [
        'beside another TXT record',
        'fail',
        'reject',
        { zone: { '_dmarc.example.com': { TXT: ['note', 'v=DMARC1; p=reject'] } } },
      ],
      [
        'a policy that is none, with an address for reports',
        'fail',
        'none',
        { record: 'v=DMARC1; p=x; rua=mailto:r@example.com' },
      ],
      ['a policy that is none', 'none', 'none', { record: 'v=DMARC1; p=x' }],
      ['SERVFAIL', 'temperror', 'none', { zone: { '_dmarc.example.com': 'servfail' } }],
    ],
  ],
  [
    '§4.4: alignment',
    [
      ['SPF, the same domain', 'pass', 'reject', { record: 'v=DMARC1; p=reject', spf: ['example.com'] }],
      [
        'DKIM, the same domain in upper case',
        'pass',
        'reject',
        { record: 'v=DMARC1; p=reject', dkim: ['Example.COM'] },
      ],
      [
        'a subdomain, relaxed',
        'pass',
        'reject',
        { record: 'v=DMARC1; p=reject', dkim: ['mail.example.com'] },
      ],
      [
        'a subdomain, adkim=s',
        'fail',
        'reject',
        { record: 'v=DMARC1; p=reject; adkim=s', dkim: ['mail.example.com'] },
      ],
      [
        'a subdomain, aspf=s',
        'fail',
        'reject',
        { record: 'v=DMARC1; p=reject; aspf=s', spf: ['mail.example.com'] },
      ],
      [
        'adkim=s says nothing about SPF',
        'pass',
        'reject',
        { record: 'v=DMARC1; p=reject; adkim=s', spf: ['mail.example.com'] },
      ],
      [
        'another domain',
        'fail',
        'reject',
        { record: 'v=DMARC1; p=reject', spf: ['example.net'], dkim: ['example.net'] },
      ],
      [
        'a domain that ends alike',
        'fail',
        'reject',
        { record: 'v=DMARC1; p=reject', dkim: ['notexample.com'] },
      ],
      [
        'one of several',
        'pass',
        'reject',
        { record: 'v=DMARC1; p=reject', dkim: ['example.net', 'example.com'] },
      ],
      ['the top-level domain', 'fail', 'reject', { record: 'v=DMARC1; p=reject', dkim: ['com'] }],
      [
        'a brother below the same organization',
        'pass',
        'reject',
        { from: 'a@www.example.com', record: 'v=DMARC1; p=reject', dkim: ['mail.example.com'] },
      ],
      [
        'a subdomain that says it is its own organization (psd=n)',
        'fail',
        'reject',
        {
          record: 'v=DMARC1; p=reject',
          dkim: ['own.example.com'],
          zone: { '_dmarc.own.example.com': text('v=DMARC1; p=none; psd=n') },
        },
      ],
    ],
  ],
  [
    '§4.10: the tree walk',
    [
      ['a subdomain takes p=', 'fail', 'reject', { from: 'a@sub.example.com', record: 'v=DMARC1; p=reject' }],
      [
        'or sp=',
        'fail',
        'quarantine',
        { from: 'a@sub.example.com', record: 'v=DMARC1; p=reject; sp=quarantine' },
      ],
      ['sp= is not for the domain itself', 'fail', 'reject', { record: 'v=DMARC1; p=reject; sp=none' }],
      [
        'np= for a name that does not exist',
        'fail',
        'reject',
        { from: 'a@no.example.com', record: 'v=DMARC1; p=none; sp=quarantine; np=reject' },
      ],
      [
        'sp= for one that does',
        'fail',
        'quarantine',
        {
          from: 'a@sub.example.com',
          record: 'v=DMARC1; p=none; sp=quarantine; np=reject',
          zone: { 'sub.example.com': { A: ['192.0.2.1'] } },
        },
      ],
      [
        'a name with other records exists',
        'fail',
        'quarantine',
        {
          from: 'a@sub.example.com',
          record: 'v=DMARC1; p=none; sp=quarantine; np=reject',
          zone: { 'sub.example.com': { MX: ['10 mx.example.com'] } },
        },
      ],
      [
        'its own record first',
        'fail',
        'none',
        {
          from: 'a@sub.example.com',
          record: 'v=DMARC1; p=reject',
          zone: { '_dmarc.sub.example.com': text('v=DMARC1; p=none') },
        },
      ],
      [
        'below a public suffix (psd=y) the label below is the organization',
        'pass',
        'reject',
        {
          from: 'a@www.shop.example',
          dkim: ['mail.shop.example'],
          zone: { '_dmarc.example': text('v=DMARC1; p=reject; psd=y') },
        },
      ],
      [
        'another organization below it is not aligned',
        'fail',
        'reject',
        {
          from: 'a@www.shop.example',
          dkim: ['other.example'],
          zone: { '_dmarc.example': text('v=DMARC1; p=reject; psd=y') },
        },
      ],
      [
        'a name of many labels skips to the last seven',
        'fail',
        'reject',
        { from: 'a@a.b.c.d.e.f.g.h.example.com', record: 'v=DMARC1; p=reject' },
      ],
      [
        'a failure on the way up',
        'temperror',
        'none',
        { from: 'a@sub.example.com', zone: { '_dmarc.example.com': 'timeout' } },
      ],
    ],
  ],
];

describe.each(SECTIONS)('%s', (_, rows) => {
  test.each(rows)('%s: %s, %s', async (_why, result, policy, given) => {
    expect(await evaluated(given)).toMatchObject({ result, policy });
  });
});

describe('what is said and asked', () => {
  test('the author domain, and what it asks for', async () => {
    expect(await evaluated({ record: 'v=DMARC1; p=reject; t=y' })).toEqual({
      result: 'fail',
      domain: 'example.com',
      policy: 'quarantine',
      detail:
        'nothing that passed is aligned with example.com; example.com asks for quarantine (p=reject, a test (t=y))',
    });
  });

  test('what it is aligned with', async () => {
    const record = 'v=DMARC1; p=reject';
    expect((await evaluated({ record, dkim: ['m.example.com'] })).detail).toBe(
      'example.com is aligned with DKIM d=m.example.com',
    );
    expect((await evaluated({ record, spf: ['m.example.com'] })).detail).toBe(
      'example.com is aligned with SPF for m.example.com',
    );
  });

  test('at most eight questions to a walk', async () => {
    const asked: string[] = [];
    await evaluated({ from: 'a@a.b.c.d.e.f.g.h.i.example.com' }, asked);
    expect(asked).toHaveLength(8);
    expect(asked.slice(0, 2)).toEqual([
      'TXT _dmarc.a.b.c.d.e.f.g.h.i.example.com',
      'TXT _dmarc.e.f.g.h.i.example.com',
    ]);
  });

  test('nothing without an author domain', async () => {
    const asked: string[] = [];
    await evaluated({ headers: 'From: a@example.com\r\nFrom: a@example.com\r\n' }, asked);
    await evaluated({ from: 'a@example.com, b@example.net' }, asked);
    expect(asked).toEqual([]);
  });
});
