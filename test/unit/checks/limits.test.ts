import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { CONNECTION_LIMIT, CountedConnections } from '../../../src/checks/limit-ledger.ts';
import { limitsCheck } from '../../../src/checks/limits.ts';
import { limitsEndCheck } from '../../../src/checks/limits-end.ts';
import type { Account, Directory } from '../../../src/ports/directory.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import { NO_DIRECTORY } from '../../support/checks.ts';
import { LimitsRig, NO_SETTINGS } from './limits-rig.ts';

const ZEUS = 'zeus@olimpus.example';

function limit(name: string, values: object = {}): object {
  return { name, per: ['login'], most: 2, period: '1h', ...values };
}

function recipients(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `r${index}@valhalla.example`);
}

describe('what is counted', () => {
  test('a message with 16 recipients is one message, 16 recipients and its size, in one call for each recipient', async () => {
    const rig = new LimitsRig([
      limit('m'),
      limit('r', { of: 'recipients', most: 16 }),
      limit('b', { of: 'bytes', most: '1MiB' }),
      limit('c', { of: 'connections' }),
    ]);
    const mail = rig.mail({ size: 5000 });
    for (const recipient of recipients(16)) expect(await mail.rcpt(recipient)).toEqual([]);
    expect(rig.counting.counts).toEqual({
      [`m ${ZEUS}`]: 1,
      [`r ${ZEUS}`]: 16,
      [`b ${ZEUS}`]: 5000,
      [`c ${ZEUS}`]: 1,
    });
    expect(rig.counting.calls.map((hits) => hits.length)).toEqual([4, ...Array<number>(15).fill(1)]);
  });

  test('two messages of one session are one connection; another session is another', async () => {
    const rig = new LimitsRig([limit('c', { of: 'connections', per: ['client'] })]);
    for (const port of [1000, 1000, 1001]) {
      expect(await rig.mail({ client: { address: '192.0.2.1', port } }).rcpt('a@b.example')).toEqual([]);
    }
    expect(rig.counting.counts).toEqual({ 'c 192.0.2.1': 2 });
    const third = rig.mail({ client: { address: '192.0.2.1', port: 1002 } });
    expect(await third.rcpt('a@b.example')).toEqual(['limits.c']);
    // What was refused was no connection that counts: it stays refused.
    expect(await third.rcpt('a@b.example')).toEqual(['limits.c']);
  });

  test('a session that is busy is remembered, one that was silent for ten minutes is a new one', async () => {
    const rig = new LimitsRig([limit('c', { of: 'connections', most: 9 })]);
    const send = (): Promise<readonly string[]> => rig.mail().rcpt('a@b.example');
    await send();
    rig.clock.time += 600_000;
    await send();
    rig.clock.time += 600_000;
    await send();
    expect(rig.counting.counts).toEqual({ [`c ${ZEUS}`]: 1 });
    rig.clock.time += 600_001;
    await send();
    expect(rig.counting.counts).toEqual({ [`c ${ZEUS}`]: 2 });
  });

  test('a session whose port is not known counts with each message', async () => {
    const rig = new LimitsRig([limit('c', { of: 'connections' })]);
    for (let message = 0; message < 2; message++) {
      const mail = rig.mail({ client: { port: null } });
      await mail.rcpt('a@b.example');
      await mail.rcpt('b@b.example');
    }
    expect(rig.counting.counts).toEqual({ [`c ${ZEUS}`]: 2 });
  });

  test('sessions are remembered up to a limit, the one used longest ago is forgotten', () => {
    const seen = new CountedConnections();
    for (let index = 0; index < CONNECTION_LIMIT; index++) seen.add(`${index}`, 0);
    expect(seen.has('0', 0)).toBe(true);
    seen.add('more', 0);
    expect([seen.has('0', 0), seen.has('1', 0), seen.has('2', 0), seen.has('more', 0)]).toEqual([
      true,
      false,
      true,
      true,
    ]);
  });

  test('a message that is asked about across a reload is still one', async () => {
    const rig = new LimitsRig([limit('m')]);
    const first = rig.mail();
    await first.rcpt('a@b.example');
    await rig.mail({ identity: first.identity }).rcpt('b@b.example');
    expect(rig.counting.counts).toEqual({ [`m ${ZEUS}`]: 1 });
  });

  test('a recipient asked about under a second policy_context is not counted again', async () => {
    const rig = new LimitsRig([limit('r', { of: 'recipients', most: 9 }), limit('m')]);
    const mail = rig.mail();
    await mail.rcpt('a@b.example');
    await mail.rcpt('a@b.example');
    expect(rig.counting.counts).toEqual({ [`m ${ZEUS}`]: 1, [`r ${ZEUS}`]: 1 });
  });

  test.each<[size: number | null, counted: number]>([
    [null, 1],
    [0, 1],
    [1, 1],
    [7, 7],
  ])('a declared size of %s octets counts %i at RCPT', async (size, counted) => {
    const rig = new LimitsRig([limit('b', { of: 'bytes', most: 100 })]);
    await rig.mail({ size }).rcpt('a@b.example');
    expect(rig.counting.counts).toEqual({ [`b ${ZEUS}`]: counted });
  });
});

describe('an excess', () => {
  test('of an enforced limit is found, and counts on none of the others', async () => {
    const rig = new LimitsRig([limit('few', { most: 1 }), limit('many', { most: 100 })]);
    await rig.mail().rcpt('a@b.example');
    expect(await rig.mail().rcpt('a@b.example')).toEqual(['limits.few']);
    expect(rig.counting.counts).toEqual({ [`few ${ZEUS}`]: 1, [`many ${ZEUS}`]: 1 });
  });

  test.each([
    ['hold', {}, 'quarantine'],
    ['warn', {}, 'ignore'],
    ['defer', { shadow: true }, 'defer'],
    ['reject', { shadow: true }, 'reject'],
  ])('"%s" %j lets the message through and counts on', async (action, values, rule) => {
    const options = { limit: [limit('x', { most: 1, action, ...values })] };
    const rig = new LimitsRig(options.limit);
    await rig.mail().rcpt('a@b.example');
    expect(await rig.mail().rcpt('a@b.example')).toEqual(['limits.x']);
    expect(rig.counting.counts).toEqual({ [`x ${ZEUS}`]: 2 });
    expect(rig.counting.calls.flat().every(({ enforced }) => !enforced)).toBe(true);
    expect(limitsCheck.bind(options, 1).codes['limits.x']).toMatchObject({
      action: rule,
      shadow: 'shadow' in values,
    });
  });

  test('of an enforced limit takes back what only looks on', async () => {
    const rig = new LimitsRig([
      limit('few', { most: 1 }),
      limit('watched', { most: 1, shadow: true }),
      limit('held', { action: 'hold', of: 'recipients' }),
    ]);
    await rig.mail().rcpt('a@b.example');
    expect(await rig.mail().rcpt('a@b.example')).toEqual(['limits.few', 'limits.watched']);
    expect(rig.counting.counts).toEqual({
      [`few ${ZEUS}`]: 1,
      [`watched ${ZEUS}`]: 1,
      [`held ${ZEUS}`]: 1,
    });
  });

  test('tells the values that matter', async () => {
    const rig = new LimitsRig([limit('x', { most: 1, of: 'recipients', period: '90m' })]);
    const mail = rig.mail();
    await mail.rcpt('a@b.example');
    expect(await mail.outcome('b@b.example')).toMatchObject({
      findings: [
        {
          code: 'limits.x',
          detail: `limit "x": 1 of 1 recipients within 90m used by ${ZEUS}; room again in 90 s`,
        },
      ],
    });
  });

  test("the operator's words, and what an action is to the rules", () => {
    const { codes } = limitsCheck.bind(
      {
        limit: [
          limit('a', { text: 'Call us' }),
          limit('b', { action: 'reject' }),
          limit('c', { of: 'bytes' }),
        ],
      },
      1,
    );
    expect(codes).toEqual({
      'limits.a': {
        meaning: 'More than 2 messages within 1h, counted per login.',
        action: 'defer',
        shadow: false,
        text: 'Call us',
      },
      'limits.b': {
        meaning: 'More than 2 messages within 1h, counted per login.',
        action: 'reject',
        shadow: false,
      },
      'limits.c': {
        meaning: 'More than 2 bytes within 1h, counted per login.',
        action: 'defer',
        shadow: false,
      },
    });
  });
});

describe('what is given back', () => {
  test('everything, when a later check refuses the recipient; the message is counted with the next one', async () => {
    const rig = new LimitsRig([
      limit('m'),
      limit('r', { of: 'recipients' }),
      limit('b', { of: 'bytes', most: 5000 }),
    ]);
    const mail = rig.mail();
    await mail.rcpt('a@b.example');
    mail.undo('a@b.example');
    expect(rig.counting.counts).toEqual({});
    mail.undo('a@b.example');
    await mail.rcpt('b@b.example');
    await mail.rcpt('c@b.example');
    mail.undo('c@b.example');
    expect(rig.counting.counts).toEqual({ [`m ${ZEUS}`]: 1, [`r ${ZEUS}`]: 1, [`b ${ZEUS}`]: 1000 });
  });

  test('but not the connection, which took place', async () => {
    const rig = new LimitsRig([limit('c', { of: 'connections' })]);
    const mail = rig.mail();
    await mail.rcpt('a@b.example');
    mail.undo('a@b.example');
    expect(rig.counting.counts).toEqual({ [`c ${ZEUS}`]: 1 });
  });

  test('recipients that Postfix refused after us, once, at DATA or at the end', async () => {
    const rig = new LimitsRig([
      limit('r', { of: 'recipients', most: 9 }),
      limit('each', { of: 'recipients', per: ['recipient'], most: 9 }),
      limit('m'),
    ]);
    const mail = rig.mail();
    for (const recipient of recipients(5)) await mail.rcpt(recipient);
    await mail.end('data', { refused: 2 });
    await mail.end('end', { refused: 2 });
    // Which two they were nobody tells, so each counter of a single recipient keeps its one.
    expect(rig.counting.counts).toMatchObject({
      [`r ${ZEUS}`]: 3,
      [`m ${ZEUS}`]: 1,
      'each r0@valhalla.example': 1,
    });
    await rig.mail().end('data', { refused: 2 });
    expect(rig.counting.counts).toMatchObject({ [`r ${ZEUS}`]: 3 });
  });

  test('but not from limits on chosen recipients: bad addresses elsewhere make no room there', async () => {
    const rig = new LimitsRig([
      limit('chosen', { of: 'recipients', recipients: ['@valhalla.example'], most: 9 }),
      limit('r', { of: 'recipients', most: 9 }),
    ]);
    const mail = rig.mail();
    for (const recipient of [...recipients(2), 'nobody@olimpus.example']) await mail.rcpt(recipient);
    await mail.end('data', { refused: 1 });
    expect(rig.counting.counts).toEqual({ [`chosen ${ZEUS}`]: 2, [`r ${ZEUS}`]: 2 });
  });

  test.each<[declared: number | null, real: number]>([
    [5000, 3000],
    [3000, 5000],
    [null, 5000],
    [5000, 5000],
  ])('declared %s, really %i octets: the end of the message puts it right', async (size, real) => {
    const rig = new LimitsRig([limit('b', { of: 'bytes', most: '1MiB' })]);
    const mail = rig.mail({ size });
    await mail.rcpt('a@b.example');
    await mail.rcpt('b@b.example');
    expect(await mail.end('data', { size })).toEqual([]);
    expect(await mail.end('end', { size: real })).toEqual([]);
    expect(await mail.end('end', { size: real })).toEqual([]);
    expect(rig.counting.counts).toEqual({ [`b ${ZEUS}`]: real });
  });

  test('a message that turns out too large is refused at its end, and nothing of it counts', async () => {
    const rig = new LimitsRig([
      limit('b', { of: 'bytes', most: 4000 }),
      limit('watched', { of: 'bytes', most: 4000, action: 'warn' }),
      limit('m'),
      limit('r', { of: 'recipients', most: 9 }),
    ]);
    const mail = rig.mail({ size: null });
    for (const recipient of recipients(3)) await mail.rcpt(recipient);
    expect(await mail.end('end', { size: 4001 })).toEqual(['limits.b', 'limits.watched']);
    expect(rig.counting.counts).toEqual({});
  });

  test('of which recipients were given back before, each only once', async () => {
    const rig = new LimitsRig([
      limit('b', { of: 'bytes', most: 4000 }),
      limit('r', { of: 'recipients', most: 99 }),
    ]);
    const other = rig.mail({ size: 1 });
    for (const recipient of recipients(4)) await other.rcpt(recipient);
    const mail = rig.mail({ size: null });
    for (const recipient of recipients(5)) await mail.rcpt(recipient);
    await mail.end('data', { refused: 2 });
    expect(rig.counting.counts).toMatchObject({ [`r ${ZEUS}`]: 7 });
    expect(await mail.end('end', { size: 4001, refused: 2 })).toEqual(['limits.b']);
    expect(rig.counting.counts).toEqual({ [`r ${ZEUS}`]: 4, [`b ${ZEUS}`]: 1 });
  });

  test('one that may be too large, because the limit only warns or holds, goes on and counts', async () => {
    const rig = new LimitsRig([limit('b', { of: 'bytes', most: 4000, action: 'hold' })]);
    const mail = rig.mail({ size: null });
    await mail.rcpt('a@b.example');
    expect(await mail.end('end', { size: 5000 })).toEqual(['limits.b']);
    expect(rig.counting.counts).toEqual({ [`b ${ZEUS}`]: 5000 });
  });

  test('a state that fails when something is given back breaks nothing', async () => {
    const rig = new LimitsRig([limit('m')]);
    const mail = rig.mail();
    await mail.rcpt('a@b.example');
    rig.counting.broken = new NeighbourError('down');
    mail.undo('a@b.example');
    rig.counting.broken = null;
    expect(rig.counting.counts).toEqual({ [`m ${ZEUS}`]: 1 });
  });
});

describe('whose counter', () => {
  test.each<[per: string[], values: object, recipient: string, key: string | null]>([
    [['login'], { client: { login: 'Zeus@Olimpus.EXAMPLE' } }, 'a@b.example', ZEUS],
    [['login'], { client: { login: null } }, 'a@b.example', null],
    [['sender'], { sender: 'Zeus+News@Olimpus.example' }, 'a@b.example', ZEUS],
    [['sender'], { sender: '' }, 'a@b.example', null],
    [['sender-domain'], { sender: 'x@OLIMPUS.example.' }, 'a@b.example', 'olimpus.example'],
    [['sender-domain'], { sender: '' }, 'a@b.example', null],
    [['client'], { client: { address: '2001:DB8::1' } }, 'a@b.example', '2001:db8::1'],
    [['client'], { client: { address: '' } }, 'a@b.example', null],
    [['client-net'], { client: { address: '192.0.2.77' } }, 'a@b.example', '192.0.2.0/24'],
    [['client-net'], { client: { address: '2001:db8:1:2:3::4' } }, 'a@b.example', '2001:db8:1:2::/64'],
    [['client-net'], { client: { address: 'unknown' } }, 'a@b.example', null],
    [['recipient'], {}, 'A+x@B.example', 'a@b.example'],
    [['recipient-domain'], {}, 'a@B.example', 'b.example'],
    [['recipient-domain'], {}, 'postmaster', null],
    [['all'], { client: { login: null } }, 'a@b.example', 'all'],
    [['login', 'recipient-domain'], {}, 'a@b.example', `${ZEUS}|b.example`],
    [['login', 'sender'], { sender: '' }, 'a@b.example', null],
    [
      ['sender', 'client'],
      { sender: 'a|b%7c@x.example', client: { address: '::1' } },
      'a@b.example',
      'a%7cb%257c@x.example|::1',
    ],
  ])('per %j with %j, to %s: %s', async (per, values, recipient, key) => {
    const rig = new LimitsRig([limit('x', { per })]);
    await rig.mail(values).rcpt(recipient);
    expect(Object.keys(rig.counting.counts)).toEqual(key === null ? [] : [`x ${key}`]);
  });

  test('a message counts once under each recipient domain', async () => {
    const rig = new LimitsRig([limit('x', { per: ['recipient-domain'] })]);
    const mail = rig.mail();
    for (const recipient of ['a@one.example', 'b@one.example', 'c@two.example']) await mail.rcpt(recipient);
    expect(rig.counting.counts).toEqual({ 'x one.example': 1, 'x two.example': 1 });
  });

  test('the length of networks is settable', async () => {
    const rig = new LimitsRig([limit('x', { per: ['client-net'] })], { ipv4_prefix: 16, ipv6_prefix: 48 });
    await rig.mail({ client: { address: '192.0.2.77' } }).rcpt('a@b.example');
    await rig.mail({ client: { address: '2001:db8:1:2::4' } }).rcpt('a@b.example');
    expect(Object.keys(rig.counting.counts)).toEqual(['x 192.0.0.0/16', 'x 2001:db8:1::/48']);
  });

  test('a long key is cut to 320 characters, and stays apart from others with the same beginning', async () => {
    const rig = new LimitsRig([limit('x', { per: ['sender'] })]);
    const domain = 'b.example';
    for (const local of ['a'.repeat(310), 'a'.repeat(311), `${'a'.repeat(400)}1`, `${'a'.repeat(400)}2`]) {
      await rig.mail({ sender: `${local}@${domain}` }).rcpt('a@b.example');
    }
    const keys = rig.counting.calls.flat().map(({ key }) => key);
    expect(keys.map(({ length }) => length)).toEqual([320, 320, 320, 320]);
    expect(keys[0]).toBe(`${'a'.repeat(310)}@${domain}`);
    expect(keys[1]).toMatch(/^a{287}~[0-9a-f]{32}$/);
    expect(new Set(keys).size).toBe(4);
  });
});

describe('which mail', () => {
  const FROM_OUTSIDE = {
    direction: 'in',
    client: { login: null, address: '192.0.2.9' },
    sender: 'odin@valhalla.example',
  } as const;

  test.each<[condition: object, out: boolean, outside: boolean]>([
    [{}, true, true],
    [{ direction: 'out' }, true, false],
    [{ direction: 'in' }, false, true],
    [{ without_login: true }, false, true],
    [{ logins: ['*'] }, true, false],
    [{ logins: ['@olimpus.example'] }, true, false],
    [{ logins: ['!ZEUS@olimpus.example'] }, false, true],
    [{ logins: ['!zeus@olimpus.example', '*'] }, false, false],
    [{ logins: ['*', '!zeus@olimpus.example'] }, true, false],
    [{ senders: ['@*.example'] }, true, true],
    [{ senders: ['@valhalla.example'] }, false, true],
    [{ recipients: ['a@b.example'] }, true, true],
    [{ recipients: ['!*@b.example'] }, false, false],
    [{ clients: ['192.0.2.0/29'] }, false, false],
    [{ clients: ['192.0.2.9'] }, false, true],
    [{ not_clients: ['192.0.2.0/28'] }, true, false],
  ])('%j counts a login: %s, mail from outside: %s', async (condition, out, outside) => {
    const rig = new LimitsRig([limit('x', { per: ['all'], most: 9, ...condition })]);
    await rig.mail().rcpt('A@b.example');
    expect(rig.counting.calls.length > 0).toBe(out);
    const before = rig.counting.calls.length;
    await rig.mail(FROM_OUTSIDE).rcpt('a@b.example');
    expect(rig.counting.calls.length > before).toBe(outside);
  });

  test('no limit for this mail: an answer at once, and nothing is asked', async () => {
    const rig = new LimitsRig([limit('x', { direction: 'in' })]);
    expect(await rig.mail().rcpt('a@b.example')).toEqual([]);
    expect(rig.counting.calls).toEqual([]);
  });

  test('without limits the checks take no part', async () => {
    const rig = new LimitsRig([]);
    expect(await rig.mail().outcome('a@b.example')).toBeUndefined();
    expect(await rig.mail().end('end')).toEqual([]);
    expect(limitsEndCheck.partOf).toBe(limitsCheck.name);
  });
});

function account(most: number): Account {
  return { limits: new Map([['x', most]]), senders: [] };
}

describe('values of single accounts', () => {
  test.each<[per: string[], values: object, name: string]>([
    [['login'], {}, ZEUS],
    [['login', 'recipient'], {}, ZEUS],
    [['recipient'], {}, 'a@b.example'],
    [['sender', 'client'], { sender: 'odin+x@valhalla.example' }, 'odin@valhalla.example'],
    [['recipient-domain'], {}, '@b.example'],
    [['sender-domain'], { sender: 'odin@valhalla.example' }, '@valhalla.example'],
  ])('per %j: %j is looked up as %s', async (per, values, name) => {
    const asked: string[] = [];
    const directory: Directory = {
      ...NO_SETTINGS,
      account: (of) => {
        asked.push(of);
        return account(7);
      },
    };
    const rig = new LimitsRig([limit('x', { per }), limit('y', { per })], { directory });
    await rig.mail(values).rcpt('A+tag@b.example');
    expect(asked).toEqual([name]);
    expect(rig.counting.calls[0]?.map(({ limit: of, most }) => [of, most])).toEqual([
      ['limits.x', 7],
      ['limits.y', 2],
    ]);
  });

  test.each([['client'], ['all']])('per %s nobody is looked up', async (per) => {
    const rig = new LimitsRig([limit('x', { per: [per] })], { directory: NO_DIRECTORY });
    expect(await rig.mail().rcpt('a@b.example')).toEqual([]);
  });

  test('0 lets nothing through', async () => {
    const rig = new LimitsRig([limit('x')], { directory: { ...NO_SETTINGS, account: () => account(0) } });
    expect(await rig.mail().rcpt('a@b.example')).toEqual(['limits.x']);
  });

  test('a directory that takes its time, and one that fails', async () => {
    const late: Directory = { ...NO_SETTINGS, account: () => Promise.resolve(account(1)) };
    const rig = new LimitsRig([limit('x', { of: 'recipients' })], { directory: late });
    const mail = rig.mail();
    expect([await mail.rcpt('a@b.example'), await mail.rcpt('b@b.example')]).toEqual([[], ['limits.x']]);

    const broken: Directory = {
      ...NO_SETTINGS,
      account: () => Promise.reject(new NeighbourError('no table')),
    };
    const without = new LimitsRig([limit('x')], { directory: broken });
    expect(await without.mail().outcome('a@b.example')).toMatchObject({
      kind: 'unavailable',
      reason: 'neighbour',
    });
    expect(without.counting.calls).toEqual([]);
  });

  test('a state that fails makes the check unavailable', async () => {
    const rig = new LimitsRig([limit('x')]);
    rig.counting.broken = new NeighbourError('no answer from Redis');
    expect(await rig.mail().outcome('a@b.example')).toMatchObject({
      kind: 'unavailable',
      check: 'limits',
      reason: 'neighbour',
      detail: 'no answer from Redis',
    });
    expect(limitsCheck.unavailable).toBe('ignore');
  });
});

describe('notices', () => {
  test('at the first excess, with what to do', async () => {
    const rig = new LimitsRig([limit('per-login', { most: 1 })]);
    for (let count = 0; count < 4; count++) await rig.mail().rcpt('a@b.example');
    expect(rig.notices).toEqual([
      {
        event: 'limit',
        time: rig.clock.time,
        subject: ZEUS,
        text: `limit "per-login": 1 of 1 messages within 1h used by ${ZEUS}; more is deferred until there is room`,
        advice: [
          `postern limits list --limit per-login --key ${ZEUS}`,
          `postern limits reset --limit per-login --key ${ZEUS}`,
        ],
        facts: {
          limit: 'per-login',
          key: ZEUS,
          counted: 'messages',
          used: 1,
          most: 1,
          period: '1h',
          action: 'defer',
          direction: 'out',
          client: '192.0.2.20',
          login: ZEUS,
        },
      },
    ]);
  });

  test('also of an excess that the end of the message shows', async () => {
    const rig = new LimitsRig([limit('b', { of: 'bytes', most: 10, action: 'warn' })]);
    const mail = rig.mail({ size: null });
    await mail.rcpt('a@b.example');
    expect(rig.notices).toEqual([]);
    await mail.end('end', { size: 11 });
    expect(rig.notices).toMatchObject([{ subject: ZEUS, facts: { used: 11, most: 10 } }]);
  });

  test.each([{ notify: false }, { shadow: true }])('none with %j', async (values) => {
    const rig = new LimitsRig([limit('x', { most: 1, ...values })]);
    for (let count = 0; count < 3; count++) await rig.mail().rcpt('a@b.example');
    expect(rig.notices).toEqual([]);
  });

  test.each([
    ["o'hara@x.example", String.raw`postern limits reset --limit x --key 'o'\''hara@x.example'`],
    ['$(reboot)@x.example', "postern limits reset --limit x --key '$(reboot)@x.example'"],
    ['-rf@x.example', "postern limits reset --limit x --key '-rf@x.example'"],
    ['caf\u00c3\u00a9@x.example', 'postern limits list --limit x --over'],
    ['a\u001b[31m@x.example', 'postern limits list --limit x --over'],
  ])('what %j chose does nothing in a shell', async (sender, last) => {
    const rig = new LimitsRig([limit('x', { per: ['sender'], most: 1 })]);
    for (let count = 0; count < 2; count++) await rig.mail({ sender }).rcpt('a@b.example');
    expect(rig.notices[0]?.advice.at(-1)).toBe(last);
    expect(rig.notices[0]?.text).toMatch(/^[\x20-\x7e]+$/);
  });
});

test('whatever is admitted, undone, refused later or resized: what stands is what was sent', async () => {
  const message = fc.record({
    size: fc.option(fc.integer({ min: 1, max: 100 })),
    real: fc.integer({ min: 1, max: 100 }),
    recipients: fc.array(fc.record({ name: fc.integer({ min: 0, max: 5 }), undone: fc.boolean() }), {
      maxLength: 8,
    }),
    refused: fc.integer({ min: 0, max: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(message, { maxLength: 5 }), async (messages) => {
      const rig = new LimitsRig([
        limit('m', { most: 1_000_000 }),
        limit('r', { of: 'recipients', most: 1_000_000 }),
        limit('b', { of: 'bytes', most: 1_000_000 }),
      ]);
      const expected = { m: 0, r: 0, b: 0 };
      for (const { size, real, recipients: asked, refused } of messages) {
        const mail = rig.mail({ size });
        const accepted = new Set<string>();
        for (const { name, undone } of asked) {
          const recipient = `r${name}@x.example`;
          if (accepted.has(recipient)) continue;
          await mail.rcpt(recipient);
          if (undone) mail.undo(recipient);
          else accepted.add(recipient);
        }
        if (accepted.size === 0) continue;
        const lost = Math.min(refused, accepted.size - 1);
        await mail.end('data', { size, refused: lost });
        await mail.end('end', { size: real, refused: lost });
        expected.m += 1;
        expected.r += accepted.size - lost;
        expected.b += real;
      }
      const { counts } = rig.counting;
      expect({
        m: counts[`m ${ZEUS}`] ?? 0,
        r: counts[`r ${ZEUS}`] ?? 0,
        b: counts[`b ${ZEUS}`] ?? 0,
      }).toEqual(expected);
    }),
    { numRuns: 200 },
  );
});
