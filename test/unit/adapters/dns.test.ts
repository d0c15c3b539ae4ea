import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { encode, type Answer } from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  CHAIN_LIMIT,
  questionName,
  readResponse,
  RECORDS_LIMIT,
  RESPONSE_LIMIT,
} from '../../../src/adapters/dns-message.ts';
import { STRAY_LIMIT } from '../../../src/adapters/dns-transport.ts';
import {
  createResolver,
  systemServers,
  type DnsServer,
  type ResolverOptions,
} from '../../../src/adapters/dns.ts';
import { DnsError, type DnsAnswer, type RecordType } from '../../../src/ports/resolver.ts';
import { cname, framed, NameServer, reply, soa, txt, type Responder } from './name-server.ts';

/** Time that stands still until a test moves it. */
class FakeClock {
  time = 1000;
  now(): number {
    return this.time;
  }
  elapsed(): number {
    return this.time;
  }
}

const NEVER = new AbortController().signal;
/** Long enough not to matter: a guard. */
const PATIENT = 5000;
/** For servers that stay silent. */
const SHORT = 150;

interface Site extends AsyncDisposable {
  readonly server: NameServer;
  readonly clock: FakeClock;
  readonly resolver: ReturnType<typeof createResolver>;
  ask(name: string, type?: RecordType, signal?: AbortSignal): Promise<DnsAnswer>;
}

async function site(respond: Responder, options: Partial<ResolverOptions> = {}): Promise<Site> {
  const server = await NameServer.open(respond);
  const clock = new FakeClock();
  const resolver = createResolver(
    { servers: [server.address], timeoutMs: PATIENT, cacheEntries: 100, ...options },
    clock,
  );
  return {
    server,
    clock,
    resolver,
    ask: (name, type = 'TXT', signal = NEVER) => resolver.query(name, type, signal),
    async [Symbol.asyncDispose]() {
      await resolver[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function failure(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof DnsError) return error.code;
    throw error;
  }
  return 'no failure';
}

function answering(...answers: Answer[]): Responder {
  return (asked) => [reply(asked, { answers })];
}

/** From n0.example on. */
function aliases(length: number): Answer[] {
  return Array.from({ length }, (_, index) => cname(`n${index}.example`, `n${index + 1}.example`));
}

function flood(count: number): Responder {
  return (asked) => [
    ...Array.from({ length: count }, () => Buffer.from('noise')),
    reply(asked, { answers: [txt(asked.name, 'true')] }),
  ];
}

/** Zeros, with their length in front as TCP wants it. */
function zeros(size: number): Buffer {
  const bytes = Buffer.alloc(2 + size);
  bytes.writeUInt16BE(size);
  return bytes;
}

async function serversIn(text: string | null): Promise<readonly DnsServer[]> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-dns-'));
  try {
    const path = join(folder, 'resolv.conf');
    if (text !== null) await writeFile(path, text);
    return await systemServers(path);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('answers', () => {
  test.each<[RecordType, Answer, unknown]>([
    ['A', { type: 'A', name: 'x.example', ttl: 60, data: '192.0.2.1' }, { type: 'A', text: '192.0.2.1' }],
    [
      'AAAA',
      { type: 'AAAA', name: 'x.example', ttl: 60, data: '2001:db8::1' },
      { type: 'AAAA', text: '2001:db8::1' },
    ],
    [
      'NS',
      { type: 'NS', name: 'x.example', ttl: 60, data: 'ns.example' },
      { type: 'NS', text: 'ns.example' },
    ],
    [
      'PTR',
      { type: 'PTR', name: 'x.example', ttl: 60, data: 'host.example' },
      { type: 'PTR', text: 'host.example' },
    ],
    ['CNAME', cname('x.example', 'y.example', 60), { type: 'CNAME', text: 'y.example' }],
    [
      'MX',
      { type: 'MX', name: 'x.example', ttl: 60, data: { preference: 10, exchange: 'mx.example' } },
      { type: 'MX', preference: 10, exchange: 'mx.example' },
    ],
    // RFC 7505: the null MX.
    [
      'MX',
      { type: 'MX', name: 'x.example', ttl: 60, data: { preference: 0, exchange: '.' } },
      { type: 'MX', preference: 0, exchange: '' },
    ],
    ['SOA', soa('x.example', 60, 5), { type: 'SOA', text: 'ns.example admin.example' }],
  ])('%s', async (type, answer, data) => {
    await using it = await site(answering(answer));
    expect(await it.ask('x.example', type)).toEqual({ kind: 'records', records: [data], ttl: 60 });
  });

  test('the strings of a TXT record are joined, octets stay what they are', async () => {
    const text = `v=spf1 ${'a'.repeat(300)}\xe9\xff`;
    await using it = await site(answering(txt('x.example', text)));
    expect(await it.ask('X.Example.')).toEqual({
      kind: 'records',
      records: [{ type: 'TXT', text }],
      ttl: 300,
    });
  });

  test('records of another name, type or class are not taken', async () => {
    await using it = await site(
      answering(
        txt('other.example', 'no'),
        { type: 'A', name: 'x.example', ttl: 60, data: '192.0.2.1' },
        { type: 'TXT', name: 'x.example', ttl: 60, data: 'no', class: 'CH' },
      ),
    );
    expect(await it.ask('x.example')).toEqual({ kind: 'nodata', ttl: 0 });
  });

  test('NXDOMAIN and an empty answer keep for the lesser of the two times of the SOA', async () => {
    await using it = await site((asked) => [
      asked.name === 'gone.example'
        ? reply(asked, { rcode: 'nxdomain', authorities: [soa('example', 900, 120)] })
        : reply(asked, { authorities: [soa('example', 90, 120)] }),
    ]);
    expect(await it.ask('gone.example')).toEqual({ kind: 'nxdomain', ttl: 120 });
    expect(await it.ask('x.example')).toEqual({ kind: 'nodata', ttl: 90 });
  });

  test('CNAMEs are followed, the lowest TTL counts', async () => {
    const chain = [
      cname('a.example', 'B.example', 50),
      cname('b.example', 'c.example', 70),
      txt('c.example', 'here'),
    ];
    await using it = await site(answering(...chain));
    expect(await it.ask('a.example')).toEqual({
      kind: 'records',
      records: [{ type: 'TXT', text: 'here' }],
      ttl: 50,
    });
  });

  test('a chain of CNAMEs is followed up to a limit, a circle ends', async () => {
    await using it = await site((asked) => {
      const length = asked.type === 'A' ? CHAIN_LIMIT + 1 : CHAIN_LIMIT;
      const end = `n${length}.example`;
      const data: Answer =
        asked.type === 'A' ? { type: 'A', name: end, data: '192.0.2.1' } : txt(end, 'here');
      const circle = [cname('o.example', 'p.example'), cname('p.example', 'o.example')];
      return [reply(asked, { answers: asked.name === 'o.example' ? circle : [...aliases(length), data] })];
    });
    expect((await it.ask('n0.example', 'TXT')).kind).toBe('records');
    expect((await it.ask('n0.example', 'A')).kind).toBe('nodata');
    expect((await it.ask('o.example')).kind).toBe('nodata');
  });

  test('a TTL is cut to an hour; one with its highest bit set is zero', async () => {
    await using it = await site((asked) => [
      reply(asked, { answers: [txt(asked.name, 'x', asked.name === 'long.example' ? 86_400 : 2 ** 31)] }),
    ]);
    expect((await it.ask('long.example')).ttl).toBe(3600);
    expect((await it.ask('wrong.example')).ttl).toBe(0);
  });
});

describe('how it asks', () => {
  test('EDNS0 with 1232 octets, a new id and a new port each time', async () => {
    await using it = await site(answering());
    for (let i = 0; i < 12; i++) await it.ask(`n${i}.example`);
    expect(new Set(it.server.asked.map(({ edns }) => edns))).toEqual(new Set([1232]));
    expect(new Set(it.server.asked.map(({ port }) => port)).size).toBeGreaterThan(8);
    expect(new Set(it.server.asked.map(({ id }) => id)).size).toBeGreaterThan(8);
  });

  test('over TCP when the answer does not fit, in whatever pieces it comes', async () => {
    const text = 'x'.repeat(3000);
    await using it = await site((asked) => {
      if (asked.protocol === 'udp') return [reply(asked, { truncated: true })];
      const frame = framed(asked, { answers: [txt(asked.name, text)] });
      return [frame.subarray(0, 1), frame.subarray(1, 40), frame.subarray(40)];
    });
    const answer = await it.ask('big.example');
    expect(answer).toEqual({ kind: 'records', records: [{ type: 'TXT', text }], ttl: 300 });
    expect(it.server.asked.map(({ protocol }) => protocol)).toEqual(['udp', 'tcp']);
  });

  test('without EDNS0 when the server does not know it', async () => {
    await using it = await site((asked) => [
      asked.edns === null
        ? reply(asked, { answers: [txt(asked.name, 'old')] })
        : reply(asked, { rcode: 'formerr' }),
    ]);
    expect((await it.ask('x.example')).kind).toBe('records');
    expect(it.server.asked.map(({ edns }) => edns)).toEqual([1232, null]);
  });

  test('the next server when one is silent, says SERVFAIL or REFUSED', async () => {
    await using second = await NameServer.open(answering(txt('x.example', 'second')));
    for (const first of [(): Buffer[] => [], 'servfail', 'refused'] as const) {
      await using it = await site((asked) =>
        typeof first === 'string' ? [reply(asked, { rcode: first })] : first(),
      );
      const servers: readonly DnsServer[] = [it.server.address, second.address];
      await using resolver = createResolver({ servers, timeoutMs: SHORT, cacheEntries: 0 }, it.clock);
      expect((await resolver.query('x.example', 'TXT', NEVER)).kind).toBe('records');
      expect(it.server.asked).toHaveLength(1);
    }
  });

  test('the next server at once when nothing listens', async () => {
    await using it = await site(answering(txt('x.example', 'second')));
    const closed = await NameServer.open(answering());
    const { address } = closed;
    await closed[Symbol.asyncDispose]();
    const servers = [address, it.server.address];
    await using resolver = createResolver({ servers, timeoutMs: PATIENT, cacheEntries: 0 }, it.clock);
    expect((await resolver.query('x.example', 'TXT', NEVER)).kind).toBe('records');
  });

  test('the next server at once when there is no way to one', async () => {
    await using it = await site(answering(txt('x.example', 'second')));
    // Refused by the kernel at connect(2), as any address is on a host without a route.
    const servers: readonly DnsServer[] = [{ host: '255.255.255.255', port: 53 }, it.server.address];
    await using resolver = createResolver({ servers, timeoutMs: PATIENT, cacheEntries: 0 }, it.clock);
    expect((await resolver.query('x.example', 'TXT', NEVER)).kind).toBe('records');
  });

  test('the same server again when it is the only one: packets get lost', async () => {
    let heard = 0;
    await using it = await site(
      (asked) => (++heard === 1 ? [] : [reply(asked, { answers: [txt(asked.name, 'x')] })]),
      {
        timeoutMs: SHORT,
      },
    );
    expect((await it.ask('x.example')).kind).toBe('records');
    expect(heard).toBe(2);
  });
});

describe('failures', () => {
  test('timeout', async () => {
    await using it = await site(() => [], { timeoutMs: SHORT });
    expect(await failure(it.ask('x.example'))).toBe('timeout');
    expect(it.server.asked).toHaveLength(2);
  });

  test.each([
    ['servfail', 'servfail'],
    ['notimp', 'servfail'],
    ['refused', 'refused'],
  ] as const)('%s', async (rcode, code) => {
    await using it = await site((asked) => [reply(asked, { rcode })]);
    expect(await failure(it.ask('x.example'))).toBe(code);
  });

  test.each([
    '',
    '.',
    'a..example',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(126)}aa`,
    'a\nb.example',
    'ü.example',
  ])('badname, without asking: %j', async (name) => {
    await using it = await site(answering());
    expect(await failure(it.ask(name))).toBe('badname');
    expect(it.server.asked).toEqual([]);
  });

  test('the longest name and the longest label can be asked for', () => {
    const longest = `${'a.'.repeat(126)}a`;
    expect(longest).toHaveLength(253);
    expect(questionName(longest)).toBe(longest);
    expect(questionName(`${longest}.`)).toBe(longest);
    expect(questionName(`${'A'.repeat(63)}._x.example`)).toBe(`${'a'.repeat(63)}._x.example`);
  });

  test('aborted before and while it is asked', async () => {
    await using it = await site(() => []);
    expect(await failure(it.ask('x.example', 'TXT', AbortSignal.abort()))).toBe('aborted');
    expect(it.server.asked).toEqual([]);
    const abort = new AbortController();
    it.server.respond(() => {
      abort.abort();
      return [];
    });
    expect(await failure(it.ask('x.example', 'TXT', abort.signal))).toBe('aborted');
  });

  test('closing ends what is under way, and nothing more is asked', async () => {
    await using it = await site(() => []);
    const heard = Promise.withResolvers<void>();
    it.server.respond(() => {
      heard.resolve();
      return [];
    });
    const asked = failure(it.ask('x.example'));
    await heard.promise;
    await it.resolver[Symbol.asyncDispose]();
    expect(await asked).toBe('aborted');
    expect(await failure(it.ask('y.example'))).toBe('aborted');
  });

  test('no server at all is an error of its own', () => {
    expect(() => createResolver({ servers: [], timeoutMs: 1, cacheEntries: 0 }, new FakeClock())).toThrow(
      'there is no name server to ask',
    );
  });
});

describe('answers that are none', () => {
  test('a wrong id, another question, a query, noise: all passed over, the true answer is taken', async () => {
    await using it = await site((asked) => [
      reply(asked, { id: (asked.id + 1) % 65_536, answers: [txt(asked.name, 'forged')] }),
      reply(asked, { name: 'other.example', answers: [txt(asked.name, 'forged')] }),
      asked.bytes,
      Buffer.alloc(0),
      Buffer.from('noise'),
      reply(asked, { answers: [txt(asked.name, 'true')] }),
    ]);
    expect(await it.ask('x.example')).toMatchObject({ records: [{ text: 'true' }] });
  });

  test('a flood of them is not listened to for long', async () => {
    await using it = await site(flood(STRAY_LIMIT - 1));
    expect((await it.ask('x.example')).kind).toBe('records');
    it.server.respond(flood(STRAY_LIMIT));
    expect(await failure(it.ask('y.example'))).toBe('timeout');
  });

  test('more records than any name has', () => {
    const question = { name: 'x.example', type: 'A' } as const;
    const response = (count: number): Buffer =>
      encode({
        type: 'response',
        id: 7,
        questions: [{ ...question, class: 'IN' }],
        answers: Array.from(
          { length: count },
          () => ({ type: 'A', name: 'x.example', data: '192.0.2.1' }) as const,
        ),
      });
    expect(readResponse(response(RECORDS_LIMIT), 7, question).kind).toBe('answer');
    expect(readResponse(response(RECORDS_LIMIT + 1), 7, question).kind).toBe('other');
  });

  test('more octets than any name has', async () => {
    await using it = await site((asked) =>
      asked.protocol === 'udp' ? [reply(asked, { truncated: true })] : [zeros(RESPONSE_LIMIT + 1)],
    );
    await expect(it.ask('x.example')).rejects.toThrow(`an answer of ${RESPONSE_LIMIT + 1} octets`);
    it.server.respond((asked) => [
      asked.protocol === 'udp' ? reply(asked, { truncated: true }) : zeros(RESPONSE_LIMIT),
    ]);
    await expect(it.ask('y.example')).rejects.toThrow('what came is no answer');
  });

  test('truncated over TCP as well', async () => {
    await using it = await site((asked) => [
      (asked.protocol === 'udp' ? reply : framed)(asked, { truncated: true }),
    ]);
    expect(await failure(it.ask('x.example'))).toBe('servfail');
  });

  test('a compression pointer to itself', () => {
    const question = { name: 'x.example', type: 'A' } as const;
    const base = encode({ type: 'response', id: 7, questions: [{ ...question, class: 'IN' }] });
    const loop = Buffer.concat([
      base,
      Buffer.from([0xc0, base.length, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4]),
    ]);
    loop.writeUInt16BE(1, 6);
    expect(readResponse(loop, 7, question)).toEqual({ kind: 'other' });
  });

  test('whatever bytes come, reading ends and does not throw', () => {
    const question = { name: 'x.example', type: 'TXT' } as const;
    const good = encode({
      type: 'response',
      id: 7,
      questions: [{ ...question, class: 'IN' }],
      answers: [cname('x.example', 'y.example'), txt('y.example', 'v=spf1 -all')],
      authorities: [soa('example', 1, 1)],
    });
    const kinds = new Set<string>();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 }),
        fc.nat(good.length),
        (changes, length) => {
          const bytes = Buffer.from(good);
          for (const [at, octet] of changes) bytes[at] = octet;
          for (const packet of [bytes, bytes.subarray(0, length)])
            kinds.add(readResponse(packet, 7, question).kind);
        },
      ),
      { numRuns: 3000 },
    );
    expect(kinds).toContain('other');
    expect(kinds).toContain('answer');
  });
});

describe('what is kept', () => {
  test('an answer for its TTL, with what is left of it', async () => {
    await using it = await site((asked) => [reply(asked, { answers: [txt(asked.name, 'x', 60)] })]);
    await it.ask('x.example');
    it.clock.time += 45_000;
    expect((await it.ask('X.EXAMPLE.')).ttl).toBe(15);
    expect(it.server.asked).toHaveLength(1);
    it.clock.time += 15_000;
    expect((await it.ask('x.example')).ttl).toBe(60);
    expect(it.server.asked).toHaveLength(2);
  });

  test('a negative answer for the time of the SOA, without one not at all', async () => {
    let authorities = [soa('example', 30, 30)];
    await using it = await site((asked) => [reply(asked, { rcode: 'nxdomain', authorities })]);
    await it.ask('x.example');
    await it.ask('x.example');
    expect(it.server.asked).toHaveLength(1);
    authorities = [];
    await it.ask('y.example');
    await it.ask('y.example');
    expect(it.server.asked).toHaveLength(3);
  });

  test('SERVFAIL for a few seconds, a timeout not', async () => {
    await using it = await site(
      (asked) => (asked.name === 'x.example' ? [reply(asked, { rcode: 'servfail' })] : []),
      {
        timeoutMs: SHORT,
      },
    );
    expect(await failure(it.ask('x.example'))).toBe('servfail');
    it.clock.time += 4999;
    expect(await failure(it.ask('x.example'))).toBe('servfail');
    expect(it.server.asked).toHaveLength(1);
    it.clock.time += 1;
    expect(await failure(it.ask('x.example'))).toBe('servfail');
    expect(it.server.asked).toHaveLength(2);
    await failure(it.ask('silent.example'));
    await failure(it.ask('silent.example'));
    expect(it.server.asked).toHaveLength(6);
  });

  test('no more entries than allowed, the least recently used go', async () => {
    await using it = await site((asked) => [reply(asked, { answers: [txt(asked.name, 'x')] })], {
      cacheEntries: 2,
    });
    for (const name of ['a.example', 'b.example', 'a.example', 'c.example', 'a.example', 'b.example'])
      await it.ask(name);
    expect(it.server.asked.map(({ name }) => name)).toEqual([
      'a.example',
      'b.example',
      'c.example',
      'b.example',
    ]);
  });

  test('no more octets than that many usual entries have', async () => {
    const text = 'x'.repeat(900);
    await using it = await site((asked) => [reply(asked, { answers: [txt(asked.name, text)] })], {
      cacheEntries: 4,
    });
    for (const name of ['a.example', 'b.example', 'a.example']) await it.ask(name);
    expect(it.server.asked).toHaveLength(3);
  });

  test('nothing with a cache of no entries', async () => {
    await using it = await site((asked) => [reply(asked, { answers: [txt(asked.name, 'x')] })], {
      cacheEntries: 0,
    });
    await it.ask('x.example');
    await it.ask('x.example');
    expect(it.server.asked).toHaveLength(2);
  });
});

describe('many at once', () => {
  test('who asks the same at the same time gets the same answer, asked for once', async () => {
    await using it = await site((asked) => [reply(asked, { answers: [txt(asked.name, 'x', 0)] })]);
    const answers = await Promise.all(Array.from({ length: 20 }, () => it.ask('x.example')));
    expect(new Set(answers.map(({ kind }) => kind))).toEqual(new Set(['records']));
    expect(it.server.asked).toHaveLength(1);
  });

  test('one who gives up leaves the answer to the others', async () => {
    const impatient = new AbortController();
    await using it = await site((asked) => {
      impatient.abort();
      return [reply(asked, { answers: [txt(asked.name, 'x')] })];
    });
    const [gone, stayed] = await Promise.all([
      failure(it.ask('x.example', 'TXT', impatient.signal)),
      it.ask('x.example'),
    ]);
    expect([gone, stayed.kind]).toEqual(['aborted', 'records']);
    expect(it.server.asked).toHaveLength(1);
  });

  test('when all have given up, the next one asks anew', async () => {
    const abort = new AbortController();
    await using it = await site(() => {
      abort.abort();
      return [];
    });
    expect(await failure(it.ask('x.example', 'TXT', abort.signal))).toBe('aborted');
    it.server.respond((asked) => [reply(asked, { answers: [txt(asked.name, 'x')] })]);
    expect((await it.ask('x.example')).kind).toBe('records');
  });

  test('more questions than sockets', async () => {
    await using it = await site((asked) => [reply(asked, { answers: [txt(asked.name, 'x')] })], {
      cacheEntries: 1000,
    });
    const kinds = await Promise.all(
      Array.from({ length: 600 }, async (_, index) => (await it.ask(`n${index}.example`)).kind),
    );
    expect(kinds.filter((kind) => kind === 'records')).toHaveLength(600);
  });
});

describe('the servers of the system', () => {
  test('in their order, at most three; what is no address is passed over', async () => {
    const text =
      '# a comment\nsearch example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver dns.example\noptions edns0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n';
    expect(await serversIn(text)).toEqual([
      { host: '192.0.2.1', port: 53 },
      { host: '2001:db8::1', port: 53 },
      { host: '192.0.2.2', port: 53 },
    ]);
  });

  test('this host when none is named, or there is no file', async () => {
    expect(await serversIn('search example\n')).toEqual([{ host: '127.0.0.1', port: 53 }]);
    expect(await serversIn(null)).toEqual([{ host: '127.0.0.1', port: 53 }]);
  });
});
