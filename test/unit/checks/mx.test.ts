import { describe, expect, test } from 'vitest';

import { mxCheck } from '../../../src/checks/mx.ts';
import { Zone, type ZoneEntry } from '../../support/zone.ts';
import { codes, codesAtOnce, HOSTILE, runCheck } from './policy-facts.ts';

const OPEN: ZoneEntry = { A: ['1.1.1.1'] };

async function found(
  zone: Readonly<Record<string, ZoneEntry>>,
  values: Parameters<typeof codes>[1] = {},
): Promise<string[]> {
  return codes(mxCheck, { ...values, tools: { resolver: new Zone(zone) } });
}

function exchangers(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${index} mx${index}.example`);
}

describe('what the DNS says of the sender domain', () => {
  test.for<[string, Readonly<Record<string, ZoneEntry>>, readonly string[]]>([
    ['a mail host', { 'valhalla.example': { MX: ['10 mx.example'] }, 'mx.example': OPEN }, []],
    [
      'a mail host with IPv6 alone',
      { 'valhalla.example': { MX: ['10 mx.example'] }, 'mx.example': { AAAA: ['2606:4700::1'] } },
      [],
    ],
    ['no MX, but an address', { 'valhalla.example': OPEN }, []],
    ['a null MX', { 'valhalla.example': { MX: ['0 '] } }, ['mx.null-sender']],
    ['a null MX of another preference', { 'valhalla.example': { MX: ['10 '] } }, ['mx.null-sender']],
    [
      '"." beside a mail host means nothing',
      { 'valhalla.example': { MX: ['0 ', '10 mx.example'] }, 'mx.example': OPEN },
      [],
    ],
    ['no such domain', {}, ['mx.no-domain']],
    ['neither MX nor address', { 'valhalla.example': { TXT: ['v=spf1 -all'] } }, ['mx.none']],
    ['a mail host that does not exist', { 'valhalla.example': { MX: ['10 mx.example'] } }, ['mx.none']],
    [
      'a mail host without address',
      { 'valhalla.example': { MX: ['10 mx.example'] }, 'mx.example': { TXT: ['x'] } },
      ['mx.none'],
    ],
    [
      'loopback',
      { 'valhalla.example': { MX: ['10 mx.example'] }, 'mx.example': { A: ['127.0.0.1'] } },
      ['mx.bogus'],
    ],
    ['private', { 'valhalla.example': { A: ['10.0.0.1'], AAAA: ['fc00::1'] } }, ['mx.bogus']],
    ['an address for a name', { 'valhalla.example': { MX: ['10 1.1.1.1'] } }, ['mx.bogus']],
    [
      'one of two is open',
      {
        'valhalla.example': { MX: ['10 a.example', '20 b.example'] },
        'a.example': { A: ['127.0.0.1'] },
        'b.example': OPEN,
      },
      [],
    ],
    ['one of two addresses is open', { 'valhalla.example': { A: ['127.0.0.1', '1.1.1.1'] } }, []],
    ['servfail', { 'valhalla.example': 'servfail' }, ['mx.temperror']],
    [
      'servfail of one host, the other is open',
      {
        'valhalla.example': { MX: ['10 a.example', '20 b.example'] },
        'a.example': 'servfail',
        'b.example': OPEN,
      },
      [],
    ],
    [
      'servfail of one host, the other is bogus',
      {
        'valhalla.example': { MX: ['10 a.example', '20 b.example'] },
        'a.example': 'servfail',
        'b.example': { A: ['127.0.0.1'] },
      },
      ['mx.temperror'],
    ],
    [
      'a mail host whose name can not be',
      { 'valhalla.example': { MX: [`10 ${'a'.repeat(64)}.example`] } },
      ['mx.none'],
    ],
  ])('%s', async ([, zone, expected]) => {
    expect(await found(zone)).toEqual(expected);
  });

  test('private addresses do where the operator says so', async () => {
    const zone = { 'valhalla.example': { A: ['10.0.0.1'] } };
    expect(await found(zone, { options: { private_hosts: true } })).toEqual([]);
  });

  test('five mail hosts are looked up; with more than that nothing is known', async () => {
    const zone = new Zone({ 'valhalla.example': { MX: exchangers(5) } });
    expect(await codes(mxCheck, { tools: { resolver: zone } })).toEqual(['mx.none']);
    const larger = new Zone({ 'valhalla.example': { MX: exchangers(6) } });
    expect(await codes(mxCheck, { tools: { resolver: larger } })).toEqual([]);
    expect(larger.asked.filter((question) => question.startsWith('A '))).toHaveLength(5);
  });

  test('the best mail host is asked first, and alone when it will do', async () => {
    const zone = new Zone({
      'valhalla.example': { MX: ['20 b.example', '10 a.example'] },
      'a.example': OPEN,
      'b.example': OPEN,
    });
    await codes(mxCheck, { tools: { resolver: zone } });
    expect(zone.asked).toEqual(['MX valhalla.example', 'A a.example']);
  });
});

test.for(['', 'zeus', 'odin@[192.0.2.20]', 'odin@[IPv6:2001:db8::1]'])(
  'sender %j has nothing to be asked for',
  (sender) => {
    expect(codesAtOnce(mxCheck, { sender })).toEqual([]);
  },
);

test('a name server that is silent is a temperror, before the deadline', async () => {
  expect(await found({ 'valhalla.example': 'never' }, { deadlineMs: 200 })).toEqual(['mx.temperror']);
});

test('a message that is given up ends the questions', async () => {
  const abort = new AbortController();
  const resolver = new Zone({ 'valhalla.example': 'never' });
  const going = runCheck(mxCheck, { tools: { resolver }, signal: abort.signal });
  abort.abort(new Error('given up'));
  await expect(going).rejects.toThrow('given up');
});

test('a resolver that breaks is no finding', async () => {
  const broken = { query: () => Promise.reject(new TypeError('a mistake of ours')) };
  await expect(runCheck(mxCheck, { tools: { resolver: broken } })).rejects.toThrow('a mistake of ours');
});

test.for(HOSTILE)('a domain %j', async (text) => {
  const zone = new Zone({});
  const list = await codes(mxCheck, { sender: `odin@${text}`, tools: { resolver: zone } });
  expect(list.filter((code) => code !== 'mx.no-domain')).toEqual([]);
});
