import { describe, expect, test } from 'vitest';

import { createMailAuth } from '../../../src/adapters/mail-auth.ts';
import {
  EXPLANATION_LIMIT,
  HELO_LIMIT,
  LOCAL_LIMIT,
  RECORD_LIMIT,
} from '../../../src/adapters/mail-auth-spf.ts';
import { parseReversePath } from '../../../src/mail/address.ts';
import type { MailAuth, SpfQuery, SpfResult } from '../../../src/ports/mail-auth.ts';
import type { DnsAnswer, Resolver } from '../../../src/ports/resolver.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';

const BUDGET = 1000;

interface Stage {
  readonly auth: MailAuth;
  /** `TYPE name` */
  readonly asked: readonly string[];
  readonly time: { ms: number };
  readonly ask: (query?: Partial<Query>, signal?: AbortSignal) => SpfResult | Promise<SpfResult>;
}

type Query = Omit<SpfQuery, 'sender'> & { readonly sender: string };

const QUERY: Query = {
  identity: 'mailfrom',
  client: '192.0.2.20',
  helo: 'odin.valhalla.example',
  sender: '<thor@valhalla.example>',
};

function stage(
  zone: Readonly<Record<string, ZoneEntry>>,
  { ttls = {}, entries }: { ttls?: Readonly<Record<string, number>>; entries?: number } = {},
): Stage {
  const table = new Zone(zone);
  const resolver: Resolver = {
    async query(name, type, signal): Promise<DnsAnswer> {
      const answer = await table.query(name, type, signal);
      return { ...answer, ttl: ttls[name] ?? answer.ttl };
    },
  };
  const time = { ms: 1000 };
  const clock = { now: () => time.ms, elapsed: () => time.ms };
  const auth = createMailAuth(resolver, {
    hostname: 'mx.postern.example',
    clock,
    ...(entries === undefined ? {} : { spfEntries: entries }),
  });
  return {
    auth,
    asked: table.asked,
    time,
    ask: (query = {}, signal = new AbortController().signal) => {
      const { sender, ...rest } = { ...QUERY, ...query };
      return auth.spf({ ...rest, sender: parseReversePath(sender) }, signal, BUDGET);
    },
  };
}

const PASS = { 'valhalla.example': { TXT: ['v=spf1 ip4:192.0.2.20 -all'] } };

describe('SPF results that are kept', () => {
  test('a second message is answered without a promise, and equally', async () => {
    const it = stage(PASS);
    const first = await it.ask();
    expect(it.ask()).toEqual(first);
    expect(it.ask({ sender: '<loki@valhalla.example>' })).toEqual(first);
    expect(it.asked).toEqual(['TXT valhalla.example']);
  });

  test.each([
    ['client', { client: '192.0.2.21' }],
    ['HELO name', { helo: 'other.valhalla.example' }],
    ['sender domain', { sender: '<thor@asgard.example>' }],
  ])('another %s is another question', async (_, change) => {
    const it = stage(PASS);
    await it.ask();
    expect(it.ask(change)).toBeInstanceOf(Promise);
  });

  test('as long as the shortest-lived answer may be kept', async () => {
    const zone = {
      'valhalla.example': { TXT: ['v=spf1 include:i.example a:mx.example -all'] },
      'i.example': { TXT: ['v=spf1 -all'] },
      'mx.example': { A: ['192.0.2.20'] },
    };
    const it = stage(zone, { ttls: { 'valhalla.example': 600, 'i.example': 30, 'mx.example': 300 } });
    await it.ask();
    it.time.ms += 29_999;
    expect(it.ask()).toMatchObject({ result: 'pass' });
    it.time.ms += 1;
    expect(it.ask()).toBeInstanceOf(Promise);
  });

  test('a name that is not there counts with its own time', async () => {
    const it = stage(
      { 'valhalla.example': { TXT: ['v=spf1 a:gone.example -all'] } },
      { ttls: { 'gone.example': 10 } },
    );
    await it.ask();
    it.time.ms += 9999;
    expect(it.ask()).toMatchObject({ result: 'fail' });
    it.time.ms += 1;
    expect(it.ask()).toBeInstanceOf(Promise);
  });

  test('no longer than an hour', async () => {
    const it = stage(PASS, { ttls: { 'valhalla.example': 86_400 } });
    await it.ask();
    it.time.ms += 3_599_999;
    expect(it.ask()).toMatchObject({ result: 'pass' });
    it.time.ms += 1;
    expect(it.ask()).toBeInstanceOf(Promise);
  });

  test('not at all with a TTL of 0, nor without entries', async () => {
    const zero = stage(PASS, { ttls: { 'valhalla.example': 0 } });
    await zero.ask();
    expect(zero.ask()).toBeInstanceOf(Promise);
    const none = stage(PASS, { entries: 0 });
    await none.ask();
    expect(none.ask()).toBeInstanceOf(Promise);
  });

  test.each([
    ['a temperror', { 'valhalla.example': 'servfail' as const }, 'temperror'],
    [
      'a result in spite of a failure',
      { 'valhalla.example': { TXT: ['v=spf1 ptr -all'] }, '20.2.0.192.in-addr.arpa': 'servfail' as const },
      'fail',
    ],
    [
      'a failure of the explanation',
      { 'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] }, 'e.example': 'timeout' as const },
      'fail',
    ],
    [
      'an explanation with the time in it',
      { 'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] }, 'e.example': { TXT: ['at %{t}'] } },
      'fail',
    ],
  ])('%s is not kept', async (_, zone, result) => {
    const it = stage(zone);
    expect(await it.ask()).toMatchObject({ result });
    expect(it.ask()).toBeInstanceOf(Promise);
  });

  test('a broken record is, for its time', async () => {
    const it = stage({ 'valhalla.example': { TXT: ['v=spf1 nonsense'] } });
    const first = await it.ask();
    expect(first.result).toBe('permerror');
    expect(it.ask()).toEqual(first);
  });

  test('at most so many, the latest', async () => {
    const it = stage(PASS, { entries: 2 });
    for (const client of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) await it.ask({ client });
    expect(it.ask({ client: '192.0.2.1' })).toBeInstanceOf(Promise);
    expect(it.ask({ client: '192.0.2.3' })).toMatchObject({ result: 'fail' });
  });
});

describe('records with a macro for the local part', () => {
  const zone = {
    'valhalla.example': { TXT: ['v=spf1 exists:%{L}.users.example -all'] },
    'thor.users.example': { A: ['127.0.0.2'] },
  };

  test('each local part has its own result', async () => {
    const it = stage(zone);
    expect(await it.ask()).toMatchObject({ result: 'pass' });
    expect(await it.ask({ sender: '<loki@valhalla.example>' })).toMatchObject({ result: 'fail' });
    expect(it.ask()).toMatchObject({ result: 'pass' });
    expect(it.ask({ sender: '<loki@valhalla.example>' })).toMatchObject({ result: 'fail' });
  });

  test('in an explanation too', async () => {
    const it = stage({
      'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] },
      'e.example': { TXT: ['%{s} may not'] },
    });
    expect(await it.ask()).toMatchObject({ explanation: 'thor@valhalla.example may not' });
    expect(await it.ask({ sender: '<loki@valhalla.example>' })).toMatchObject({
      explanation: 'loki@valhalla.example may not',
    });
  });

  test('messages at the same time do not get one another’s', async () => {
    const it = stage(zone);
    const results = await Promise.all([it.ask(), it.ask({ sender: '<loki@valhalla.example>' }), it.ask()]);
    expect(results.map(({ result }) => result)).toEqual(['pass', 'fail', 'pass']);
  });
});

describe('one evaluation for several questions', () => {
  test('HELO name and sender of the same domain', async () => {
    const it = stage(PASS);
    const same = { helo: 'valhalla.example' };
    const [helo, mailfrom] = await Promise.all([it.ask({ ...same, identity: 'helo' }), it.ask(same)]);
    expect(helo).toBe(mailfrom);
    expect(it.asked).toEqual(['TXT valhalla.example']);
    expect(it.ask({ ...same, sender: '<>' })).toBe(helo);
  });

  test('not where the record looks at the local part: that of HELO is postmaster', async () => {
    const it = stage({
      'valhalla.example': { TXT: ['v=spf1 exists:%{l}.users.example -all'] },
      'postmaster.users.example': { A: ['127.0.0.2'] },
    });
    const same = { helo: 'valhalla.example' };
    const results = await Promise.all([it.ask({ ...same, identity: 'helo' }), it.ask(same)]);
    expect(results.map(({ result }) => result)).toEqual(['pass', 'fail']);
  });

  test('one that is given up leaves the others their result', async () => {
    const it = stage(PASS);
    const gone = new AbortController();
    const first = it.ask({}, gone.signal);
    const second = it.ask();
    gone.abort(new Error('gone'));
    await expect(first).rejects.toThrow('gone');
    expect(await second).toMatchObject({ result: 'pass' });
  });

  test('whoever waits for another can give up', async () => {
    const it = stage({ 'valhalla.example': 'never' });
    const own = new AbortController();
    const first = it.ask();
    const second = it.ask({}, own.signal);
    own.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    expect(await first).toMatchObject({ result: 'temperror' });
  });
});

describe('names with underscores', () => {
  test.each(['_spf.valhalla.example', 'mail_1.valhalla.example', 'a._b_.valhalla.example'])(
    '%s',
    async (domain) => {
      const it = stage({ [domain]: { TXT: ['v=spf1 a:%{d} -all'], A: ['192.0.2.20'] } });
      expect(await it.ask({ sender: `<u@${domain}>` })).toMatchObject({ result: 'pass', domain });
      expect(await it.ask({ identity: 'helo', helo: domain })).toMatchObject({ result: 'pass' });
    },
  );

  test.each(['valhalla._example', '-a.example', 'a-.example', 'a.1', 'a!b.example'])(
    '%s is none',
    async (domain) => {
      const it = stage({ [domain]: { TXT: ['v=spf1 -all'] } });
      expect(await it.ask({ sender: `<u@${domain}>` })).toMatchObject({ result: 'none' });
      expect(it.asked).toEqual([]);
    },
  );
});

function padded(length: number): string {
  const head = 'v=spf1 ip4:192.0.2.20 ';
  return `${head}${'x=y '.repeat(length)}`.slice(0, length).padEnd(length);
}

async function explained(length: number): Promise<string | null> {
  const it = stage({
    'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] },
    'e.example': { TXT: ['x'.repeat(length)] },
  });
  return (await it.ask()).explanation;
}

describe('SPF limits', () => {
  test('a record of so many octets, and one more', async () => {
    const most = stage({ 'valhalla.example': { TXT: [padded(RECORD_LIMIT)] } });
    expect(await most.ask()).toMatchObject({ result: 'pass' });
    const over = stage({ 'valhalla.example': { TXT: [padded(RECORD_LIMIT + 1)] } });
    expect(await over.ask()).toMatchObject({ result: 'permerror' });
  });

  test('an explanation of so many octets, and one more', async () => {
    expect(await explained(EXPLANATION_LIMIT)).toHaveLength(EXPLANATION_LIMIT);
    expect(await explained(EXPLANATION_LIMIT + 1)).toBeNull();
  });

  test('an explanation that its macros make longer is cut', async () => {
    const it = stage({
      'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] },
      'e.example': { TXT: ['%{h}'.repeat(100)] },
    });
    expect((await it.ask()).explanation).toHaveLength(EXPLANATION_LIMIT);
  });

  test('a HELO name of so many octets, and one more', async () => {
    const it = stage({
      'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] },
      'e.example': { TXT: ['%{h}'] },
    });
    const helo = 'h'.repeat(HELO_LIMIT);
    expect((await it.ask({ helo })).explanation).toBe(helo);
    expect((await it.ask({ helo: `${helo}h` })).explanation).toBe('[192.0.2.20]');
    expect(await it.ask({ helo: `${helo}h`, sender: '<>' })).toMatchObject({ result: 'none', domain: '' });
  });

  test('a local part that is longer is cut from the left', async () => {
    const it = stage({
      'valhalla.example': { TXT: ['v=spf1 -all exp=e.example'] },
      'e.example': { TXT: ['%{l}'] },
    });
    const local = `begin${'x'.repeat(LOCAL_LIMIT)}`;
    expect((await it.ask({ sender: `<${local}@valhalla.example>` })).explanation).toBe(
      'x'.repeat(LOCAL_LIMIT),
    );
  });

  test('a record made of the longest local part costs little', async () => {
    const it = stage({ 'valhalla.example': { TXT: [`v=spf1 exists:${'%{s}'.repeat(2000)}.example -all`] } });
    const local = 'a.'.repeat(1000);
    const begun = process.cpuUsage();
    expect(await it.ask({ sender: `<${local}a@valhalla.example>` })).toMatchObject({ result: 'fail' });
    const { user } = process.cpuUsage(begun);
    expect(user / 1000).toBeLessThan(500);
  });
});
