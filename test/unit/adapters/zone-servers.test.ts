import { afterEach, expect, test } from 'vitest';

import {
  DETOURS_LIMIT,
  ADDRESSES_LIMIT,
  SERVERS_LIMIT,
  ZoneServers,
  type Survey,
} from '../../../src/adapters/zone-servers.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';
import { cname, framed, NameServer, reply, txt, type Asked, type Responder } from './name-server.ts';

const NAME = 's._domainkey.olimpus.example';

const open: NameServer[] = [];

afterEach(async () => {
  for (const server of open.splice(0)) await server[Symbol.asyncDispose]();
});

/** All names of servers lead to one server, which is asked for `name`. */
async function survey(
  respond: Responder,
  entries: Record<string, ZoneEntry> = {},
  timeoutMs = 2000,
): Promise<{ found: Survey; asked: readonly Asked[]; zone: Zone }> {
  const server = await NameServer.open(respond);
  open.push(server);
  const zone = new Zone({
    'olimpus.example': { NS: ['ns.olimpus.example'] },
    'ns.olimpus.example': { A: ['127.0.0.1'] },
    ...entries,
  });
  const servers = new ZoneServers(zone, { timeoutMs, port: server.address.port });
  const found = await servers.texts(NAME, 'olimpus.example', AbortSignal.timeout(15_000));
  return { found, asked: server.asked, zone };
}

function saying(asked: Asked, parts: Parameters<typeof reply>[1]): readonly Buffer[] {
  return [asked.protocol === 'udp' ? reply(asked, parts) : framed(asked, parts)];
}

const has: Responder = (asked) =>
  saying(asked, { authoritative: true, answers: [txt(asked.name, 'v=DKIM1; p=AAAA')] });

const WORD = { zone: 'olimpus.example', server: 'ns.olimpus.example', address: '127.0.0.1' };

test('the zone server is asked itself, without recursion, and the resolver never for the name', async () => {
  const { found, asked, zone } = await survey(has);
  expect(found).toEqual({
    kind: 'asked',
    words: [{ ...WORD, said: { kind: 'texts', texts: ['v=DKIM1; p=AAAA'] } }],
  });
  // RD is the lowest bit of the third octet.
  expect(asked.map(({ bytes, name, type }) => [name, type, (bytes[2] ?? 0) & 1])).toEqual([[NAME, 'TXT', 0]]);
  expect(zone.asked.filter((question) => question.includes('_domainkey'))).toEqual([]);
});

test('the zone is found above the domain', async () => {
  const server = await NameServer.open(has);
  open.push(server);
  const zone = new Zone({
    'olimpus.example': { NS: ['ns.olimpus.example'] },
    'ns.olimpus.example': { A: ['127.0.0.1'] },
  });
  const servers = new ZoneServers(zone, { timeoutMs: 2000, port: server.address.port });
  const found = await servers.texts(
    's._domainkey.a.b.olimpus.example',
    'a.b.olimpus.example',
    AbortSignal.timeout(15_000),
  );
  expect(found).toMatchObject({ kind: 'asked', words: [WORD] });
  const nowhere = await servers.texts('s._domainkey.hades', 'hades', AbortSignal.timeout(15_000));
  expect(nowhere).toEqual({ kind: 'failed', why: 'no zone of hades was found' });
});

test('no record, and no name, are answers', async () => {
  for (const rcode of ['noerror', 'nxdomain'] as const) {
    const { found } = await survey((asked) => saying(asked, { authoritative: true, rcode }));
    expect(found).toEqual({ kind: 'asked', words: [{ ...WORD, said: { kind: 'texts', texts: [] } }] });
  }
});

test.for<[string, Parameters<typeof reply>[1], string]>([
  ['a cache', { answers: [txt(NAME, 'v=DKIM1; p=AAAA')] }, 'it does not have the zone'],
  ['a secondary whose copy has expired', { rcode: 'servfail' }, 'it says SERVFAIL'],
  ['one that is none', { rcode: 'refused' }, 'it refuses to answer for the zone'],
  [
    'one that points up',
    { authorities: [{ type: 'NS', name: 'example', data: 'ns.example' }] },
    'it does not have the zone',
  ],
])('%s is no answer', async ([, parts, why]) => {
  const { found } = await survey((asked) => saying(asked, parts));
  expect(found).toEqual({ kind: 'asked', words: [{ ...WORD, said: { kind: 'failed', why } }] });
});

test('what does not fit into UDP, or does not get through, is asked over TCP', async () => {
  const truncated = await survey((asked) =>
    asked.protocol === 'udp' ? [reply(asked, { truncated: true, authoritative: true })] : has(asked),
  );
  expect(truncated.asked.map(({ protocol }) => protocol)).toEqual(['udp', 'tcp']);
  const lost = await survey((asked) => (asked.protocol === 'udp' ? [] : has(asked)), {}, 300);
  expect(lost.asked.map(({ protocol }) => protocol)).toEqual(['udp', 'tcp']);
  for (const { found } of [truncated, lost]) {
    expect(found).toMatchObject({ words: [{ said: { kind: 'texts', texts: ['v=DKIM1; p=AAAA'] } }] });
  }
});

test('silence ends, and is told', async () => {
  const { found } = await survey(() => [], {}, 100);
  expect(found).toMatchObject({ words: [{ said: { kind: 'failed', why: 'no answer within 100 ms' } }] });
});

test('an alias is followed to the servers of its own zone', async () => {
  const { found } = await survey(
    (asked) =>
      asked.name === NAME
        ? saying(asked, { authoritative: true, answers: [cname(NAME, 's.dkim.hera.example')] })
        : has(asked),
    { 'hera.example': { NS: ['ns.olimpus.example'] } },
  );
  expect(found).toMatchObject({
    kind: 'asked',
    words: [
      { zone: 'olimpus.example', said: { kind: 'elsewhere', name: 's.dkim.hera.example' } },
      { zone: 'hera.example', said: { kind: 'texts', texts: ['v=DKIM1; p=AAAA'] } },
    ],
  });
});

test('a zone below is asked where it was delegated to', async () => {
  let count = 0;
  const { found } = await survey((asked) =>
    count++ === 0
      ? saying(asked, {
          authorities: [{ type: 'NS', name: `_domainkey.olimpus.example`, data: 'ns.olimpus.example' }],
        })
      : has(asked),
  );
  expect(found).toMatchObject({
    words: [
      { zone: 'olimpus.example', said: { kind: 'elsewhere' } },
      { zone: '_domainkey.olimpus.example', said: { kind: 'texts' } },
    ],
  });
});

test('aliases that lead in a circle, or too far, end', async () => {
  const circle = await survey((asked) =>
    saying(asked, {
      authoritative: true,
      answers: [cname(asked.name, asked.name === NAME ? 'a.olimpus.example' : NAME)],
    }),
  );
  expect(circle.found).toEqual({ kind: 'failed', why: `${NAME} leads in a circle` });
  const chain = (length: number) => {
    let step = 0;
    return survey((asked) =>
      step++ < length
        ? saying(asked, { authoritative: true, answers: [cname(asked.name, `n${step}.olimpus.example`)] })
        : has(asked),
    );
  };
  expect((await chain(DETOURS_LIMIT - 1)).found.kind).toBe('asked');
  expect((await chain(DETOURS_LIMIT)).found).toEqual({
    kind: 'failed',
    why: `${NAME} leads over more than ${DETOURS_LIMIT} aliases and zones`,
  });
});

test('servers without an address, and more of them than a zone has', async () => {
  const none = await survey(has, { 'ns.olimpus.example': { TXT: ['x'] } });
  expect(none.found).toMatchObject({
    words: [{ address: null, said: { kind: 'failed', why: 'it has no address' } }],
  });
  const broken = await survey(has, { 'ns.olimpus.example': 'servfail' });
  expect(JSON.stringify(broken.found)).toMatch(
    'its address could not be found: ns.olimpus.example: servfail',
  );
  const addresses = (count: number) =>
    survey(has, { 'ns.olimpus.example': { A: Array.from({ length: count }, () => '127.0.0.1') } });
  expect((await addresses(ADDRESSES_LIMIT)).found).toMatchObject({
    words: Array.from({ length: ADDRESSES_LIMIT }, () => WORD),
  });
  expect((await addresses(ADDRESSES_LIMIT + 1)).found).toMatchObject({
    words: [{ said: { kind: 'failed', why: 'it has more than 8 addresses' } }],
  });
  const servers = (count: number) =>
    survey(has, {
      'olimpus.example': { NS: Array.from({ length: count }, (_, index) => `ns${index}.olimpus.example`) },
      '*.olimpus.example': { A: ['127.0.0.1'] },
    });
  const most = await servers(SERVERS_LIMIT);
  expect(most.found.kind === 'asked' ? most.found.words.length : 0).toBe(SERVERS_LIMIT);
  expect((await servers(SERVERS_LIMIT + 1)).found).toEqual({
    kind: 'failed',
    why: 'olimpus.example has more than 32 name servers',
  });
});

test('a resolver that fails, and a name that can not be', async () => {
  const { found } = await survey(has, { 'olimpus.example': 'timeout' });
  expect(found).toEqual({ kind: 'failed', why: 'olimpus.example: timeout' });
  const servers = new ZoneServers(new Zone({}), { timeoutMs: 100 });
  expect(
    await servers.texts(`${'x'.repeat(64)}._domainkey.a.example`, 'a.example', AbortSignal.timeout(1000)),
  ).toMatchObject({ kind: 'failed' });
});
