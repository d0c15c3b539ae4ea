import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../src/adapters/mail-auth.ts';
import { parseReversePath } from '../../src/mail/address.ts';
import type { SpfResult, SpfResultWord } from '../../src/ports/mail-auth.ts';
import { Zone, type ZoneEntry } from '../support/zone.ts';

// RFC 7208, clause by clause. Our own cases: the client is 192.0.2.1 or 2001:db8::1 and sends as `user@example.com` where nothing else
// is said.

const IP4 = '192.0.2.1';
const IP6 = '2001:db8::1';
const BUDGET = 1000;

interface Case {
  readonly client?: string;
  readonly helo?: string;
  readonly sender?: string;
  readonly identity?: 'helo' | 'mailfrom';
  /** Record of example.com. */
  readonly record?: string;
  readonly zone?: Readonly<Record<string, ZoneEntry>>;
}

async function checked(test_: Case, asked: string[] = []): Promise<SpfResult> {
  const own = test_.record === undefined ? {} : { 'example.com': { TXT: [test_.record] } };
  const zone = new Zone({ ...own, ...test_.zone });
  const auth = createMailAuth(zone, {
    hostname: 'mx.postern.example',
    clock: { now: () => 0, elapsed: () => 0 },
  });
  const query = {
    identity: test_.identity ?? 'mailfrom',
    client: test_.client ?? IP4,
    helo: test_.helo ?? 'client.example',
    sender: parseReversePath(test_.sender ?? 'user@example.com'),
  } as const;
  const result = await auth.spf(query, new AbortController().signal, BUDGET);
  asked.push(...zone.asked);
  return result;
}

async function word(test_: Case): Promise<SpfResultWord> {
  return (await checked(test_)).result;
}

type Row = readonly [why: string, result: SpfResultWord, test: Case];

const SECTIONS: (readonly [title: string, rows: readonly Row[]])[] = [];

function table(title: string, rows: readonly Row[]): void {
  SECTIONS.push([title, rows]);
}

/** So many labels of names with one address each. */
function hosts(count: number, address = '198.51.100.1'): Record<string, ZoneEntry> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => [`h${index}.example.com`, { A: [address] }]),
  );
}

function aTerms(count: number): string {
  return Array.from({ length: count }, (_, index) => `a:h${index}.example.com`).join(' ');
}

table('§2.4, §4.1, §4.3: identities', [
  ['the envelope sender', 'pass', { record: 'v=spf1 ip4:192.0.2.1 -all' }],
  ['HELO', 'pass', { identity: 'helo', helo: 'example.com', record: 'v=spf1 ip4:192.0.2.1 -all' }],
  ['HELO that is not allowed', 'fail', { identity: 'helo', helo: 'example.com', record: 'v=spf1 -all' }],
  [
    'the null path stands for postmaster at HELO',
    'fail',
    { sender: '<>', helo: 'example.com', record: 'v=spf1 -all' },
  ],
  [
    'the local part of the null path is postmaster',
    'pass',
    {
      sender: '<>',
      helo: 'example.com',
      record: 'v=spf1 exists:%{l}.l.example -all',
      zone: { 'postmaster.l.example': { A: ['127.0.0.2'] } },
    },
  ],
  ['HELO as address literal', 'none', { identity: 'helo', helo: '[192.0.2.1]' }],
  ['HELO of one label', 'none', { identity: 'helo', helo: 'localhost' }],
  ['HELO with an at sign', 'none', { identity: 'helo', helo: 'x@example.com', record: 'v=spf1 -all' }],
  ['no HELO', 'none', { identity: 'helo', helo: '' }],
  ['HELO with a space', 'none', { identity: 'helo', helo: 'x example.com', record: 'v=spf1 -all' }],
  ['a sender at an address literal', 'none', { sender: 'user@[192.0.2.1]' }],
  ['a sender without a domain', 'none', { sender: 'user' }],
  ['a sender domain of one label', 'none', { sender: 'user@localhost' }],
  ['a sender domain with an empty label', 'none', { sender: 'user@a..example.com' }],
  ['a sender domain with a long label', 'none', { sender: `user@${'a'.repeat(64)}.example.com` }],
  [
    'an upper-case sender domain',
    'pass',
    { sender: 'user@EXAMPLE.com', record: 'v=spf1 ip4:192.0.2.1 -all' },
  ],
  [
    'a quoted local part with an at sign',
    'pass',
    { sender: '"a@b"@example.com', record: 'v=spf1 ip4:192.0.2.1 -all' },
  ],
  ['a client without an address', 'none', { client: '', record: 'v=spf1 -all' }],
  [
    'a U-label',
    'fail',
    { sender: 'user@b\xc3\xbccher.example', zone: { 'xn--bcher-kva.example': { TXT: ['v=spf1 -all'] } } },
  ],
]);

table('§3, §4.4, §4.5: records', [
  ['no such domain', 'none', {}],
  ['no TXT record', 'none', { zone: { 'example.com': { A: ['192.0.2.1'] } } }],
  [
    'other TXT records only',
    'none',
    { zone: { 'example.com': { TXT: ['verification=1', 'v=spf10 -all', 'v=spf1-all'] } } },
  ],
  [
    'among other TXT records',
    'fail',
    { zone: { 'example.com': { TXT: ['verification=1', 'v=spf1 -all'] } } },
  ],
  ['two records', 'permerror', { zone: { 'example.com': { TXT: ['v=spf1 +all', 'v=spf1 -all'] } } }],
  ['the version alone', 'neutral', { record: 'v=spf1' }],
  ['an upper-case version', 'fail', { record: 'V=SPF1 -all' }],
  ['octets that are not ASCII', 'permerror', { record: 'v=spf1 a:\xe9.example -all' }],
  ['SERVFAIL', 'temperror', { zone: { 'example.com': 'servfail' } }],
  ['a timeout', 'temperror', { zone: { 'example.com': 'timeout' } }],
  ['REFUSED', 'temperror', { zone: { 'example.com': 'refused' } }],
]);

table('§4.6, §5.1: syntax, and all', [
  ['an unknown mechanism', 'permerror', { record: 'v=spf1 foo:bar -all' }],
  ['a syntax error after the term that matches', 'permerror', { record: 'v=spf1 +all ip4:999.0.0.1' }],
  ['all with a value', 'permerror', { record: 'v=spf1 -all:example.com' }],
  ['an unknown modifier', 'fail', { record: 'v=spf1 x-note=hello -all' }],
  ['a mechanism in upper case', 'pass', { record: 'v=spf1 IP4:192.0.2.1 -ALL' }],
  ['several spaces', 'fail', { record: 'v=spf1   -all  ' }],
  ['nothing matches', 'neutral', { record: 'v=spf1 ip4:198.51.100.1' }],
  ['~all', 'softfail', { record: 'v=spf1 ~all' }],
  ['?all', 'neutral', { record: 'v=spf1 ?all' }],
  ['all without a qualifier', 'pass', { record: 'v=spf1 all' }],
  ['terms after all', 'softfail', { record: 'v=spf1 ~all -ip4:192.0.2.1' }],
]);

table('§5.2: include', [
  [
    'of a domain that passes',
    'pass',
    {
      record: 'v=spf1 include:i.example -all',
      zone: { 'i.example': { TXT: ['v=spf1 ip4:192.0.2.1 -all'] } },
    },
  ],
  [
    'with a qualifier',
    'softfail',
    { record: 'v=spf1 ~include:i.example -all', zone: { 'i.example': { TXT: ['v=spf1 +all'] } } },
  ],
  [
    'of a domain that fails',
    'neutral',
    { record: 'v=spf1 include:i.example ?all', zone: { 'i.example': { TXT: ['v=spf1 -all'] } } },
  ],
  [
    'of a domain that softfails',
    'fail',
    { record: 'v=spf1 include:i.example -all', zone: { 'i.example': { TXT: ['v=spf1 ~all'] } } },
  ],
  ['of a domain without a record', 'permerror', { record: 'v=spf1 include:i.example +all' }],
  [
    'of a domain with a broken record',
    'permerror',
    { record: 'v=spf1 include:i.example +all', zone: { 'i.example': { TXT: ['v=spf1 foo'] } } },
  ],
  [
    'of a domain that can not be asked',
    'temperror',
    { record: 'v=spf1 include:i.example +all', zone: { 'i.example': 'timeout' } },
  ],
  ['of itself', 'permerror', { record: 'v=spf1 include:example.com -all' }],
  ['without a name', 'permerror', { record: 'v=spf1 include -all' }],
]);

table('§5.3 to §5.6: addresses', [
  ['a', 'pass', { zone: { 'example.com': { TXT: ['v=spf1 a -all'], A: ['198.51.100.1', IP4] } } }],
  ['a of another name', 'pass', { record: 'v=spf1 a:h.example -all', zone: { 'h.example': { A: [IP4] } } }],
  [
    'a with a prefix',
    'pass',
    { record: 'v=spf1 a:h.example/24 -all', zone: { 'h.example': { A: ['192.0.2.200'] } } },
  ],
  [
    'a with a prefix that does not reach',
    'fail',
    { record: 'v=spf1 a:h.example/25 -all', zone: { 'h.example': { A: ['192.0.2.200'] } } },
  ],
  [
    'a asks for AAAA when the client has IPv6',
    'pass',
    {
      client: IP6,
      record: 'v=spf1 a:h.example//64 -all',
      zone: { 'h.example': { A: [IP4], AAAA: ['2001:db8::ffff'] } },
    },
  ],
  ['a with a prefix that is too long', 'permerror', { record: 'v=spf1 a/33 -all' }],
  [
    'mx',
    'pass',
    {
      record: 'v=spf1 mx:m.example -all',
      zone: { 'm.example': { MX: ['10 h.example'] }, 'h.example': { A: [IP4] } },
    },
  ],
  [
    'mx with a prefix',
    'pass',
    {
      record: 'v=spf1 mx:m.example/28 -all',
      zone: { 'm.example': { MX: ['10 h.example'] }, 'h.example': { A: ['192.0.2.9'] } },
    },
  ],
  ['the null MX', 'fail', { record: 'v=spf1 mx:m.example -all', zone: { 'm.example': { MX: ['0 '] } } }],
  [
    'the A record of a name that has no MX does not count',
    'fail',
    { record: 'v=spf1 mx:m.example -all', zone: { 'm.example': { A: [IP4] } } },
  ],
  ['ip4 without a prefix', 'pass', { record: 'v=spf1 ip4:192.0.2.1 -all' }],
  ['ip4 with a prefix', 'pass', { record: 'v=spf1 ip4:192.0.2.128/24 -all' }],
  ['ip4 with prefix 0', 'pass', { record: 'v=spf1 ip4:0.0.0.0/0 -all' }],
  ['ip4 with a prefix that is too long', 'permerror', { record: 'v=spf1 ip4:192.0.2.1/33 -all' }],
  ['ip4 cut short', 'permerror', { record: 'v=spf1 ip4:192.0.2 -all' }],
  ['ip6', 'pass', { client: IP6, record: 'v=spf1 ip6:2001:db8::/32 -all' }],
  [
    'ip6 with a prefix that is too long',
    'permerror',
    { client: IP6, record: 'v=spf1 ip6:2001:db8::/129 -all' },
  ],
  ['ip6 does not match an IPv4 client', 'fail', { record: 'v=spf1 ip6:::/0 -all' }],
  ['ip4 does not match an IPv6 client', 'fail', { client: IP6, record: 'v=spf1 ip4:0.0.0.0/0 -all' }],
  [
    'an IPv4-mapped client is an IPv4 client',
    'pass',
    { client: '::ffff:192.0.2.1', record: 'v=spf1 ip4:192.0.2.1 -all' },
  ],
  [
    'and not an IPv6 client',
    'fail',
    { client: '::ffff:192.0.2.1', record: 'v=spf1 ip6:::ffff:192.0.2.1 -all' },
  ],
  [
    'an address that can not be asked for',
    'temperror',
    { record: 'v=spf1 a:h.example -all', zone: { 'h.example': 'servfail' } },
  ],
]);

const PTR4 = '1.2.0.192.in-addr.arpa';

table('§5.5, §5.7: ptr and exists', [
  [
    'ptr of a host in the domain',
    'pass',
    {
      record: 'v=spf1 ptr -all',
      zone: { [PTR4]: { PTR: ['h.example.com'] }, 'h.example.com': { A: [IP4] } },
    },
  ],
  [
    'ptr whose name has another address',
    'fail',
    {
      record: 'v=spf1 ptr -all',
      zone: { [PTR4]: { PTR: ['h.example.com'] }, 'h.example.com': { A: ['198.51.100.1'] } },
    },
  ],
  [
    'ptr of a host in another domain',
    'fail',
    {
      record: 'v=spf1 ptr -all',
      zone: { [PTR4]: { PTR: ['h.example.net'] }, 'h.example.net': { A: [IP4] } },
    },
  ],
  [
    'ptr of a name that ends alike',
    'fail',
    {
      record: 'v=spf1 ptr -all',
      zone: { [PTR4]: { PTR: ['notexample.com'] }, 'notexample.com': { A: [IP4] } },
    },
  ],
  [
    'ptr that can not be asked for does not match',
    'fail',
    { record: 'v=spf1 ptr -all', zone: { [PTR4]: 'servfail' } },
  ],
  [
    'only the first ten names of ptr count',
    'fail',
    {
      record: 'v=spf1 ptr -all',
      zone: {
        [PTR4]: {
          PTR: [...Array.from({ length: 10 }, (_, index) => `h${index}.example.net`), 'h.example.com'],
        },
        'h.example.com': { A: [IP4] },
      },
    },
  ],
  ['exists', 'pass', { record: 'v=spf1 exists:x.example -all', zone: { 'x.example': { A: ['127.0.0.2'] } } }],
  [
    'exists asks for A, even of an IPv6 client',
    'fail',
    { client: IP6, record: 'v=spf1 exists:x.example -all', zone: { 'x.example': { AAAA: ['2001:db8::2'] } } },
  ],
  ['exists without a name', 'permerror', { record: 'v=spf1 exists -all' }],
]);

table('§4.6.4: limits', [
  [
    'ten lookups',
    'pass',
    { record: `v=spf1 ${aTerms(9)} a:ok.example -all`, zone: { ...hosts(9), 'ok.example': { A: [IP4] } } },
  ],
  [
    'eleven lookups',
    'permerror',
    { record: `v=spf1 ${aTerms(10)} a:ok.example -all`, zone: { ...hosts(10), 'ok.example': { A: [IP4] } } },
  ],
  [
    'the tenth decides, the eleventh is not reached',
    'pass',
    {
      record: `v=spf1 ${aTerms(9)} a:ok.example a:h0.example.com -all`,
      zone: { ...hosts(9), 'ok.example': { A: [IP4] } },
    },
  ],
  [
    'included lookups count',
    'permerror',
    {
      record: 'v=spf1 include:i.example a:ok.example -all',
      zone: { ...hosts(9), 'i.example': { TXT: [`v=spf1 ${aTerms(9)}`] }, 'ok.example': { A: [IP4] } },
    },
  ],
  [
    'ip4, ip6 and all do not count',
    'pass',
    {
      record: `v=spf1 ${'ip4:198.51.100.1 '.repeat(20)} ${aTerms(9)} a:ok.example -all`,
      zone: { ...hosts(9), 'ok.example': { A: [IP4] } },
    },
  ],
  ['two void lookups', 'fail', { record: 'v=spf1 a:v1.example a:v2.example -all' }],
  ['three void lookups', 'permerror', { record: 'v=spf1 a:v1.example a:v2.example a:v3.example -all' }],
  [
    'an empty answer is void too',
    'permerror',
    {
      record: 'v=spf1 a:v1.example mx:v1.example exists:v1.example -all',
      zone: { 'v1.example': { TXT: ['x'] } },
    },
  ],
  [
    'ten hosts of one mx',
    'pass',
    {
      record: 'v=spf1 mx:m.example -all',
      zone: {
        ...hosts(9),
        'm.example': {
          MX: [...Array.from({ length: 9 }, (_, index) => `1 h${index}.example.com`), '2 ok.example'],
        },
        'ok.example': { A: [IP4] },
      },
    },
  ],
  [
    'eleven hosts of one mx',
    'permerror',
    {
      record: 'v=spf1 mx:m.example -all',
      zone: {
        ...hosts(10),
        'm.example': {
          MX: [...Array.from({ length: 10 }, (_, index) => `1 h${index}.example.com`), '2 ok.example'],
        },
        'ok.example': { A: [IP4] },
      },
    },
  ],
  ['a name server that never answers', 'temperror', { zone: { 'example.com': 'never' } }],
]);

table('§6.1: redirect', [
  [
    'to a record that passes',
    'pass',
    { record: 'v=spf1 redirect=r.example', zone: { 'r.example': { TXT: ['v=spf1 ip4:192.0.2.1 -all'] } } },
  ],
  [
    'to a record that fails',
    'fail',
    { record: 'v=spf1 redirect=r.example', zone: { 'r.example': { TXT: ['v=spf1 -all'] } } },
  ],
  ['to a domain without a record', 'permerror', { record: 'v=spf1 redirect=r.example' }],
  [
    'does not count beside all',
    'softfail',
    { record: 'v=spf1 redirect=r.example ~all', zone: { 'r.example': { TXT: ['v=spf1 +all'] } } },
  ],
  [
    'only when nothing matches',
    'pass',
    { record: 'v=spf1 redirect=r.example ip4:192.0.2.1', zone: { 'r.example': { TXT: ['v=spf1 -all'] } } },
  ],
  [
    'twice',
    'permerror',
    {
      record: 'v=spf1 redirect=r.example redirect=r.example',
      zone: { 'r.example': { TXT: ['v=spf1 +all'] } },
    },
  ],
  ['in a circle', 'permerror', { record: 'v=spf1 redirect=example.com' }],
]);

table('§7: macros', [
  [
    '%{s} %{l} %{o} %{d}',
    'pass',
    {
      sender: 'a.b@example.com',
      record: 'v=spf1 exists:%{l}.%{o}.%{d}.m.example -all',
      zone: { 'a.b.example.com.example.com.m.example': { A: ['127.0.0.2'] } },
    },
  ],
  [
    '%{ir}.%{v}',
    'pass',
    {
      record: 'v=spf1 exists:%{ir}.%{v}.m.example -all',
      zone: { '1.2.0.192.in-addr.m.example': { A: ['127.0.0.2'] } },
    },
  ],
  [
    '%{i} of IPv6 is nibbles',
    'pass',
    {
      client: IP6,
      record: 'v=spf1 exists:%{i}.%{v}.m.example -all',
      zone: {
        '2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.ip6.m.example': { A: ['127.0.0.2'] },
      },
    },
  ],
  [
    '%{h}',
    'pass',
    {
      helo: 'my.host.example',
      record: 'v=spf1 exists:%{h}.m.example -all',
      zone: { 'my.host.example.m.example': { A: ['127.0.0.2'] } },
    },
  ],
  [
    '%{d2} and %{d1r}',
    'pass',
    {
      sender: 'user@a.example.com',
      zone: {
        'a.example.com': { TXT: ['v=spf1 exists:%{d2}.%{d1r}.m.example -all'] },
        'example.com.a.m.example': { A: ['127.0.0.2'] },
      },
    },
  ],
  [
    '%{l-} splits at another delimiter',
    'pass',
    {
      sender: 'list-user-name@example.com',
      record: 'v=spf1 exists:%{lr-}.m.example -all',
      zone: { 'name.user.list.m.example': { A: ['127.0.0.2'] } },
    },
  ],
  [
    '%% %_ %-',
    'pass',
    {
      record: 'v=spf1 exists:a%%b%_c%-d.m.example -all',
      zone: { 'a%b c%20d.m.example': { A: ['127.0.0.2'] } },
    },
  ],
  ['an unknown letter', 'permerror', { record: 'v=spf1 exists:%{q}.m.example -all' }],
  ['a percent sign alone', 'permerror', { record: 'v=spf1 exists:%a.m.example -all' }],
  ['%{c} outside an explanation', 'permerror', { record: 'v=spf1 exists:%{c}.m.example -all' }],
  ['%{d0}', 'permerror', { record: 'v=spf1 exists:%{d0}.m.example -all' }],
  [
    '%{p} of a host without a name is unknown',
    'pass',
    { record: 'v=spf1 exists:%{p}.m.example -all', zone: { 'unknown.m.example': { A: ['127.0.0.2'] } } },
  ],
  [
    'a name that gets too long loses labels from the left',
    'pass',
    {
      sender: `${'a.'.repeat(125)}b@example.com`,
      record: 'v=spf1 exists:%{l}.m.example -all',
      zone: { [`${'a.'.repeat(121)}b.m.example`]: { A: ['127.0.0.2'] } },
    },
  ],
]);

describe.each(SECTIONS)('%s', (_, rows) => {
  test.each(rows)('%s: %s', async (_why, expected, given) => {
    expect(await word(given)).toBe(expected);
  });
});

function failing(text: string): Case {
  return { record: 'v=spf1 -all exp=e.example', zone: { 'e.example': { TXT: [text] } } };
}

describe('§6.2: the explanation', () => {
  test.each<readonly [string, string | null, Case]>([
    ['text', 'Go away', failing('Go away')],
    [
      'macros',
      '192.0.2.1 is not user@example.com, says mx.postern.example',
      failing('%{c} is not %{s}, says %{r}'),
    ],
    ['octets that are not ASCII', null, failing('Va-t\xe9')],
    ['a line end', null, failing('a\r\nSubject: b')],
    ['a broken macro', null, failing('%{q}')],
    ['no such text', null, { record: 'v=spf1 -all exp=none.example' }],
    ['two texts', null, { record: 'v=spf1 -all exp=e.example', zone: { 'e.example': { TXT: ['a', 'b'] } } }],
    [
      'only for fail',
      null,
      { record: 'v=spf1 ~all exp=e.example', zone: { 'e.example': { TXT: ['Go away'] } } },
    ],
    [
      'of the record that was redirected to',
      'theirs',
      {
        record: 'v=spf1 redirect=r.example exp=e.example',
        zone: {
          'r.example': { TXT: ['v=spf1 -all exp=f.example'] },
          'e.example': { TXT: ['ours'] },
          'f.example': { TXT: ['theirs'] },
        },
      },
    ],
    [
      'not of an included record',
      'ours',
      {
        record: 'v=spf1 include:i.example -all exp=e.example',
        zone: {
          'i.example': { TXT: ['v=spf1 -all exp=f.example'] },
          'e.example': { TXT: ['ours'] },
          'f.example': { TXT: ['theirs'] },
        },
      },
    ],
  ])('%s: %s', async (_, expected, given) => {
    expect((await checked(given)).explanation).toBe(expected);
  });
});

describe('what is said of it', () => {
  test('the domain that was evaluated, and its record', async () => {
    const result = await checked({ record: 'v=spf1 ip4:198.51.100.0/24 -all' });
    expect(result).toEqual({
      result: 'fail',
      domain: 'example.com',
      detail: '192.0.2.1 may not send for example.com (v=spf1 ip4:198.51.100.0/24 -all)',
      explanation: null,
    });
  });

  test('what is wrong with a record', async () => {
    const { detail } = await checked({ record: 'v=spf1 foo -all' });
    expect(detail).toBe('example.com: Unknown mechanism "foo"');
  });

  test('nothing is asked when there is nothing to ask about', async () => {
    const asked: string[] = [];
    await checked({ identity: 'helo', helo: '[192.0.2.1]' }, asked);
    await checked({ client: '', record: 'v=spf1 -all' }, asked);
    await checked({ sender: 'user' }, asked);
    expect(asked).toEqual([]);
  });

  test('each question is asked once', async () => {
    const asked: string[] = [];
    await checked(
      {
        record: 'v=spf1 a:h.example a:h.example a:h.example -all',
        zone: { 'h.example': { A: ['198.51.100.1'] } },
      },
      asked,
    );
    expect(asked).toEqual(['TXT example.com', 'A h.example']);
  });
});
