import { describe, expect, test } from 'vitest';

import { heloCheck } from '../../../src/checks/helo.ts';
import { Zone } from '../../support/zone.ts';
import { codes, codesAtOnce, HOSTILE, runCheck } from './policy-facts.ts';

test.for([
  ['odin.valhalla.example', []],
  ['odin.valhalla.example.', []],
  ['_odin.valhalla.example', []],
  ['mx.olimpus.example', ['helo.own-name']],
  ['MX.Olimpus.Example.', ['helo.own-name']],
  ['odin', ['helo.bare']],
  ['localhost', ['helo.bare']],
  ['', ['helo.syntax']],
  ['-odin.example', ['helo.syntax']],
  ['odin..example', ['helo.syntax']],
  ['od in.example', ['helo.syntax']],
  ['ödin.example', ['helo.syntax']],
  [`${'a'.repeat(63)}.example`, []],
  [`${'a'.repeat(64)}.example`, ['helo.syntax']],
  [`${'a.'.repeat(126)}exa`, []],
  [`${'a.'.repeat(127)}ex`, ['helo.syntax']],
  ['192.0.2.20', ['helo.address']],
  ['2001:db8::1', ['helo.address']],
  ['[192.0.2.20]', ['helo.literal']],
  ['[192.0.2.21]', ['helo.address']],
  ['[IPv6:::ffff:192.0.2.20]', ['helo.literal']],
  ['[ipv6:2001:db8::1]', ['helo.address']],
  ['[2001:db8::1]', ['helo.syntax']],
  ['[IPv6:192.0.2.20]', ['helo.syntax']],
  ['[192.0.2.20', ['helo.syntax']],
  ['[]', ['helo.syntax']],
  ['[mx.example]', ['helo.syntax']],
] as const)('HELO %s: %j', ([helo, expected]) => {
  expect(codesAtOnce(heloCheck, { client: { helo } })).toEqual(expected);
});

test('no HELO at all', () => {
  expect(codesAtOnce(heloCheck, { client: { helo: null } })).toEqual(['helo.syntax']);
});

test('further names of ours', () => {
  const options = { own_names: ['Olimpus.example'] };
  expect(codesAtOnce(heloCheck, { options, client: { helo: 'olimpus.example' } })).toEqual(['helo.own-name']);
  expect(codesAtOnce(heloCheck, { options, client: { helo: 'zeus.olimpus.example' } })).toEqual([]);
});

test.for(HOSTILE)('HELO %j is answered at once, and never as a good name', (helo) => {
  expect(codesAtOnce(heloCheck, { client: { helo }, options: { lookup: true } })).toHaveLength(1);
});

describe('looked up', () => {
  const options = { lookup: true };
  const zone = new Zone({
    'a.example': { A: ['192.0.2.1'] },
    'six.example': { AAAA: ['2001:db8::1'] },
    'domain.example': { MX: ['10 a.example'] },
    'empty.example': { TXT: ['nothing'] },
    'broken.example': 'servfail',
    'silent.example': 'never',
  });
  test.for([
    ['a.example', []],
    ['six.example', []],
    ['domain.example', []],
    ['empty.example', ['helo.unknown']],
    ['gone.example', ['helo.unknown']],
    ['broken.example', ['helo.temperror']],
  ] as const)('%s: %j', async ([helo, expected]) => {
    expect(
      await codes(heloCheck, { options, client: { helo, name: null }, tools: { resolver: zone } }),
    ).toEqual(expected);
  });

  test('a name server that is silent is a temperror, before the deadline', async () => {
    const values = {
      options,
      client: { helo: 'silent.example', name: null },
      tools: { resolver: zone },
      deadlineMs: 200,
    };
    expect(await codes(heloCheck, values)).toEqual(['helo.temperror']);
  });

  test('the verified name of the client is not asked for again', () => {
    expect(codesAtOnce(heloCheck, { options, client: { helo: 'Odin.Valhalla.example' } })).toEqual([]);
  });

  test('one question is enough for a name that does not exist', async () => {
    const asked = new Zone({});
    await codes(heloCheck, {
      options,
      client: { helo: 'gone.example', name: null },
      tools: { resolver: asked },
    });
    expect(asked.asked).toEqual(['A gone.example']);
  });

  test('a message that is given up ends the question', async () => {
    const abort = new AbortController();
    const values = {
      options,
      client: { helo: 'silent.example', name: null },
      tools: { resolver: zone },
      signal: abort.signal,
    };
    const found = runCheck(heloCheck, values);
    abort.abort(new Error('given up'));
    await expect(found).rejects.toThrow('given up');
  });
});
