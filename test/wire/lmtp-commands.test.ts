import { expect, test } from 'vitest';

import { PARAMETER_LIMIT, parseCommand } from '../../src/lmtp-filter/command.ts';
import { forward, NOTHING_FORWARDED, VALUE_LIMIT } from '../../src/lmtp-filter/xforward.ts';

test.each([
  ['LHLO delphos.olimpus.local', { verb: 'LHLO', name: 'delphos.olimpus.local' }],
  ['lhlo x', { verb: 'LHLO', name: 'x' }],
  ['DATA', { verb: 'DATA' }],
  ['rset ', { verb: 'RSET' }],
  ['QUIT', { verb: 'QUIT' }],
  ['NOOP whatever', { verb: 'NOOP' }],
  ['VRFY zeus', { verb: 'VRFY' }],
  ['XFORWARD SOURCE=LOCAL', { verb: 'XFORWARD', attributes: 'SOURCE=LOCAL' }],
  ['MAIL FROM:<>', { verb: 'MAIL', path: '<>', parameters: [] }],
  [
    'MAIL FROM:<thor@valhalla.local> SIZE=279 body=8BITMIME ENVID=env+2B1 RET=FULL',
    {
      verb: 'MAIL',
      path: '<thor@valhalla.local>',
      parameters: [
        { keyword: 'SIZE', value: '279' },
        { keyword: 'BODY', value: '8BITMIME' },
        { keyword: 'ENVID', value: 'env+2B1' },
        { keyword: 'RET', value: 'FULL' },
      ],
    },
  ],
  [
    'RCPT TO:<"a b>\\"c"@olimpus.local> ORCPT=rfc822;zeus@olimpus.local',
    {
      verb: 'RCPT',
      path: '<"a b>\\"c"@olimpus.local>',
      parameters: [{ keyword: 'ORCPT', value: 'rfc822;zeus@olimpus.local' }],
    },
  ],
  [
    'mail from:<th\u00c3\u00b6r@valhalla.local> SMTPUTF8',
    {
      verb: 'MAIL',
      path: '<th\u00c3\u00b6r@valhalla.local>',
      parameters: [{ keyword: 'SMTPUTF8', value: null }],
    },
  ],
])('%s', (line, command) => {
  expect(parseCommand(line)).toEqual(command);
});

test.each([
  ['', 'unknown'],
  ['HELO x', 'unknown'],
  ['EHLO x', 'unknown'],
  ['BDAT 4 LAST', 'unknown'],
  ['LHLO', 'arguments'],
  ['DATA now', 'arguments'],
  ['MAIL', 'arguments'],
  ['MAIL TO:<a@b>', 'arguments'],
  ['MAIL FROM:a@b', 'path'],
  ['MAIL FROM: <a@b>', 'path'],
  ['MAIL FROM:<a@b', 'path'],
  ['MAIL FROM:<a b@c>', 'path'],
  ['MAIL FROM:<a<b@c>', 'path'],
  ['MAIL FROM:<"a@b>', 'path'],
  ['MAIL FROM:<a@b>SIZE=1', 'path'],
  ['MAIL FROM:<a@b> SIZE=', 'parameters'],
  ['MAIL FROM:<a@b> =1', 'parameters'],
  ['MAIL FROM:<a@b> A=b=c', 'parameters'],
  ['RCPT TO:<a@b>\rRCPT TO:<c@d>', 'characters'],
  ['RCPT TO:<a\0@b>', 'characters'],
  ['MAIL FROM:<a@b>\tSIZE=1', 'characters'],
])('%j is refused for its %s', (line, problem) => {
  expect(parseCommand(line)).toEqual({ verb: 'none', problem });
});

test('a command may have so many parameters, and one more is too many', () => {
  const most = `RCPT TO:<a@b>${' A=1'.repeat(PARAMETER_LIMIT)}`;
  expect(parseCommand(most)).toMatchObject({ verb: 'RCPT' });
  expect(parseCommand(`${most} A=1`)).toEqual({ verb: 'none', problem: 'parameters' });
});

test('XFORWARD tells of the client in two commands, as Postfix sends them', () => {
  const first = forward(NOTHING_FORWARDED, 'NAME=odin.valhalla.local ADDR=192.0.2.20 PORT=43741');
  if (first === null) throw new Error('refused');
  expect(forward(first, 'PROTO=ESMTP HELO=odin+2Evalhalla.local IDENT=C611424C47D SOURCE=REMOTE')).toEqual({
    client: {
      ...NOTHING_FORWARDED.client,
      name: 'odin.valhalla.local',
      address: '192.0.2.20',
      port: 43_741,
      helo: 'odin.valhalla.local',
    },
    source: 'remote',
    queueId: 'C611424C47D',
  });
});

test.each([
  ['ADDR=IPV6:2001:db8::20', { client: { address: '2001:db8::20' } }],
  ['ADDR=2001:db8::20', { client: { address: '2001:db8::20' } }],
  [
    'ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL] PORT=[UNAVAILABLE]',
    { client: { address: '', name: null, port: null } },
  ],
  ['addr=192.0.2.1 source=local', { client: { address: '192.0.2.1' }, source: 'local' }],
  ['SOURCE=[UNAVAILABLE] IDENT=4gX1Yz0abcz1', { source: null, queueId: '4gX1Yz0abcz1' }],
  ['IDENT=not+20an+20id', { queueId: null }],
  [`HELO=${'h'.repeat(VALUE_LIMIT)}`, { client: { helo: 'h'.repeat(VALUE_LIMIT) } }],
])('XFORWARD %s', (attributes, expected) => {
  expect(forward(NOTHING_FORWARDED, attributes)).toMatchObject(expected);
});

test.each([
  '',
  'ADDR',
  '=x',
  'ADDR=999.1.1.1',
  'PORT=65536',
  'PORT=-1',
  'SOURCE=MOON',
  'LOGIN=zeus',
  'HELO=a+0Ab',
  'HELO=a+zzb',
  'HELO=a+',
  'HELO=a=b',
  `HELO=${'h'.repeat(VALUE_LIMIT + 1)}`,
])('XFORWARD %j is refused', (attributes) => {
  expect(forward(NOTHING_FORWARDED, attributes)).toBeNull();
});
