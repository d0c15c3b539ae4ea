import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { tallySubject } from '../../../src/checks/account-hours.ts';
import { LoginJudge } from '../../../src/policyd/logins-judge.ts';
import type { Attempt } from '../../../src/policyd/logins-request.ts';
import { NO_STATE } from '../../support/checks.ts';
import { attempt, givenLogins, type LoginsGiven } from './logins-support.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

function judgeOf(given: LoginsGiven): LoginJudge {
  return new LoginJudge(given.config, given);
}

/** Each with a password of its own, unless `differs` names one. */
async function fail(judge: LoginJudge, times: number, differs: Partial<Attempt> = {}): Promise<void> {
  for (let time = 0; time < times; time += 1) {
    expect(await judge.failed(attempt(differs))).toMatchObject({ kind: 'counted' });
  }
}

const STRANGER = '198.51.100.66';

describe('one login from one network', () => {
  test('is refused after its limit, and only there', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 10);
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    await fail(judge, 1);
    expect(await judge.judge(attempt())).toMatchObject({
      kind: 'refuse',
      rule: 'login.pair-failures',
      why: '11 wrong passwords for zeus@olimpus.example from 192.0.2.0/24 (limit 10)',
    });
    expect(await judge.judge(attempt({ remote: '192.0.2.200' }))).toMatchObject({ kind: 'refuse' });
    expect(await judge.judge(attempt({ remote: '192.0.3.7' }))).toMatchObject({ kind: 'allow' });
    expect(await judge.judge(attempt({ login: 'hera@olimpus.example' }))).toMatchObject({ kind: 'allow' });
  });

  test('upper case and IPv4 in IPv6 are no way around', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 11, { login: 'Zeus@OLIMPUS.example', remote: '::ffff:192.0.2.7' });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'refuse' });
  });

  test('may try again when the period is over', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 11);
    given.clock.time += 2 * HOUR_MS;
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
  });

  test('a success forgets the pair, and leaves the rest', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 10);
    await judge.succeeded(attempt());
    await fail(judge, 10);
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    const counters = await given.state.counters({ limit: 'login.net-failures', count: 9 });
    expect(counters).toMatchObject([{ key: '192.0.2.0/24', used: 20 }]);
  });

  test('the prefix lengths can be set', async () => {
    await using given = await givenLogins('prefix_ipv4 = 32\nprefix_ipv6 = 48');
    const judge = judgeOf(given);
    await fail(judge, 11);
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'refuse' });
    expect(await judge.judge(attempt({ remote: '192.0.2.8' }))).toMatchObject({ kind: 'allow' });
    await fail(judge, 11, { remote: '2001:db8:1:1::1' });
    expect(await judge.judge(attempt({ remote: '2001:db8:1:2::1' }))).toMatchObject({ kind: 'refuse' });
  });
});

describe('one login from everywhere', () => {
  test('is delayed, more each time, and never refused', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    const seconds: number[] = [];
    for (let n = 0; n < 200; n += 1) {
      const verdict = await judge.judge(attempt({ remote: `10.${n}.0.1` }));
      expect(verdict.kind).not.toBe('refuse');
      if (verdict.kind === 'delay') seconds.push(verdict.seconds);
      await fail(judge, 1, { remote: `10.${n}.0.1` });
    }
    expect(seconds.slice(0, 4)).toEqual([1, 2, 4, 4]);
    expect(seconds).toHaveLength(179);
  });

  test('where the login is known, it waits for nobody', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await judge.succeeded(attempt());
    for (let n = 0; n < 30; n += 1) await fail(judge, 1, { remote: `10.${n}.0.1` });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    expect(await judge.judge(attempt({ remote: STRANGER }))).toMatchObject({
      kind: 'delay',
      rule: 'login.failures',
    });
    given.clock.time += 29 * DAY_MS;
    for (let n = 0; n < 30; n += 1) await fail(judge, 1, { remote: `10.${n}.0.1` });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    given.clock.time += 61 * DAY_MS;
    for (let n = 0; n < 30; n += 1) await fail(judge, 1, { remote: `10.${n}.0.1` });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'delay' });
  });

  test('Postfix is never made to wait longer than it does', async () => {
    await using given = await givenLogins('[logins.failures]\nlimit = 1\naction = "delay 30s"');
    const judge = judgeOf(given);
    await fail(judge, 20);
    expect(await judge.judge(attempt({ remote: STRANGER, protocol: 'imap' }))).toMatchObject({ seconds: 30 });
    expect(await judge.judge(attempt({ remote: STRANGER, protocol: 'smtp' }))).toMatchObject({ seconds: 4 });
  });
});

describe('one network', () => {
  test('is refused after too many wrong passwords, save where a login is known', async () => {
    await using given = await givenLogins('[logins.spraying]\naction = "ignore"');
    const judge = judgeOf(given);
    await judge.succeeded(attempt({ login: 'hera@olimpus.example' }));
    for (let n = 0; n < 31; n += 1) await fail(judge, 1, { login: `user${n}` });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'refuse', rule: 'login.net-failures' });
    expect(await judge.judge(attempt({ login: 'hera@olimpus.example' }))).toMatchObject({ kind: 'allow' });
    expect(await judge.judge(attempt({ remote: STRANGER }))).toMatchObject({ kind: 'allow' });
  });

  test('is refused after a guess or two at each of many logins', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    for (let n = 0; n < 8; n += 1) await fail(judge, 2, { login: `user${n}` });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    await fail(judge, 1, { login: 'user8' });
    expect(await judge.judge(attempt())).toMatchObject({
      kind: 'refuse',
      rule: 'login.spraying',
      why: 'wrong passwords for 9 logins from 192.0.2.0/24 (limit 8)',
    });
  });

  test('that is exempt is neither counted nor refused', async () => {
    await using given = await givenLogins('exempt_networks = ["192.0.2.0/24"]');
    const judge = judgeOf(given);
    await fail(judge, 50);
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    expect(await judge.judge(attempt({ remote: STRANGER }))).toMatchObject({ kind: 'allow' });
    expect(await given.state.counters({ count: 9 })).toEqual([]);
  });

  test('that nobody knows: only the login counts', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 21, { remote: '' });
    expect(await judge.judge(attempt({ remote: '' }))).toMatchObject({
      kind: 'delay',
      rule: 'login.failures',
    });
    expect(await judge.succeeded(attempt({ remote: '' }))).toEqual({ kind: 'counted', notes: [] });
  });
});

describe('a wrong password that comes again', () => {
  test('is no further guess', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 100, { passwordMark: '0893' });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'allow' });
    expect(await given.state.counters({ limit: 'login.failures', count: 9 })).toMatchObject([{ used: 1 }]);
    expect(await judge.failed(attempt({ passwordMark: '0893' }))).toEqual({
      kind: 'counted',
      notes: ['repeated'],
    });
  });

  test('counts where passwords can not be told apart', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 11, { passwordMark: null });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'refuse' });
  });

  test('counts anew for another login: the hash is made of both', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    for (let n = 0; n < 9; n += 1) await fail(judge, 1, { login: `user${n}`, passwordMark: '0893' });
    expect(await judge.judge(attempt())).toMatchObject({ rule: 'login.spraying' });
  });

  test('counts again when the period is over', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 1, { passwordMark: '0893' });
    given.clock.time += HOUR_MS + 1;
    expect(await judge.failed(attempt({ passwordMark: '0893' }))).toEqual({ kind: 'counted', notes: [] });
  });
});

test('asking counts nothing: Dovecot asks twice for one login', async () => {
  await using given = await givenLogins();
  const judge = judgeOf(given);
  for (let n = 0; n < 50; n += 1) await judge.judge(attempt());
  const used = (await given.state.counters({ count: 99 })).map((counter) => counter.used);
  expect(used.filter((count) => count > 0)).toEqual([]);
});

test('in shadow the same is decided, and nothing comes of it', async () => {
  await using given = await givenLogins('[logins.pair-failures]\nshadow = true');
  const judge = judgeOf(given);
  await fail(judge, 11);
  expect(await judge.judge(attempt())).toMatchObject({
    kind: 'allow',
    shadow: [{ rule: 'login.pair-failures', kind: 'refuse' }],
  });
});

test('a blocked account is refused everywhere, exempt networks included', async () => {
  await using given = await givenLogins();
  const judge = judgeOf(given);
  const now = given.clock.now();
  await given.state.setStanding({
    login: 'zeus@olimpus.example',
    kind: 'block',
    why: 'sent spam',
    by: 'operator',
    since: now,
    until: null,
  });
  const refused = { kind: 'refuse', rule: 'login.account-blocked' };
  expect(await judge.judge(attempt())).toMatchObject(refused);
  expect(await judge.judge(attempt({ remote: '127.0.0.1' }))).toMatchObject(refused);
  expect(await judge.judge(attempt({ login: 'hera@olimpus.example' }))).toMatchObject({ kind: 'allow' });
});

describe('a success', () => {
  test('after many wrong passwords of the same network puts the account under observation, once', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    for (let round = 0; round < 2; round += 1) {
      await fail(judge, 6);
      expect(await judge.succeeded(attempt())).toMatchObject({ notes: ['login.guessed'] });
    }
    expect(await given.state.standing('zeus@olimpus.example')).toMatchObject({
      kind: 'observe',
      by: 'postern',
      why: 'a login from 192.0.2.7 succeeded after 6 wrong passwords',
      until: given.clock.now() + 7 * DAY_MS,
    });
    expect(given.notices).toMatchObject([{ event: 'account', subject: 'zeus@olimpus.example' }]);
  });

  test('after a few is nothing', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await fail(judge, 5);
    expect(await judge.succeeded(attempt())).toEqual({ kind: 'counted', notes: [] });
    expect(await given.state.standing('zeus@olimpus.example')).toBeNull();
  });

  test("at home after all the world's guesses is nothing; in a new place it is", async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    await judge.succeeded(attempt());
    for (let n = 0; n < 20; n += 1) await fail(judge, 1, { remote: `10.${n}.0.1` });
    expect(await judge.succeeded(attempt())).toMatchObject({ notes: [] });
    expect(await judge.succeeded(attempt({ remote: STRANGER }))).toMatchObject({
      notes: ['login.new-network', 'login.guessed'],
    });
  });

  test('from many far-apart networks within the period puts the account under observation', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    for (const remote of ['10.1.0.1', '10.1.9.1', '10.2.0.1', '10.3.0.1', '10.4.0.1'])
      expect(await judge.succeeded(attempt({ remote }))).not.toMatchObject({
        notes: expect.arrayContaining(['login.many-networks']) as unknown,
      });
    expect(await judge.succeeded(attempt({ remote: '10.5.0.1' }))).toMatchObject({
      notes: ['login.new-network', 'login.many-networks'],
    });
    expect(await given.state.standing('zeus@olimpus.example')).toMatchObject({ kind: 'observe' });
    expect(given.notices).toHaveLength(1);
  });

  test('does not soften what an account has come to', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    const held = {
      login: 'zeus@olimpus.example',
      kind: 'hold',
      why: 'spam',
      by: 'operator',
      since: given.clock.now(),
      until: null,
    } as const;
    await given.state.setStanding(held);
    await fail(judge, 6);
    await judge.succeeded(attempt());
    expect(await given.state.standing(held.login)).toEqual(held);
    expect(given.notices).toEqual([]);
  });

  test('is only watched for what the operator wants', async () => {
    await using given = await givenLogins(
      '[logins.guessed]\nobserve = false\n[logins.new-network]\nnotify = true\n[logins.new-device]\nnotify = true',
    );
    const judge = judgeOf(given);
    await judge.succeeded(attempt({ device: 'name=Thunderbird' }));
    expect(given.notices).toEqual([]);
    await fail(judge, 6, { remote: STRANGER });
    await judge.succeeded(attempt({ remote: STRANGER, device: 'name=curl' }));
    expect(given.notices.map(({ event, text }) => `${event}: ${text}`)).toEqual([
      'login: zeus@olimpus.example logged in from 198.51.100.66, a new network',
      'login: zeus@olimpus.example logged in with a new device',
      'login: zeus@olimpus.example: a login from 198.51.100.66 succeeded after 6 wrong passwords',
    ]);
    expect(await given.state.standing('zeus@olimpus.example')).toBeNull();
  });

  test('adds to what the login does in a day: logins, and different networks', async () => {
    await using given = await givenLogins();
    const judge = judgeOf(given);
    for (const remote of ['10.1.0.1', '10.1.0.2', '10.2.0.1']) await judge.succeeded(attempt({ remote }));
    const tallies = await given.state.tallies(
      tallySubject('zeus@olimpus.example'),
      given.clock.now() - DAY_MS,
    );
    expect(tallies).toEqual([
      {
        subject: tallySubject('zeus@olimpus.example'),
        hour: given.clock.now() - (given.clock.now() % HOUR_MS),
        counts: { logins: 3, networks: 2 },
      },
    ]);
  });
});

test('the first excess is told of once, when the operator wants to hear of it', async () => {
  await using given = await givenLogins('[logins.pair-failures]\nnotify = true');
  const judge = judgeOf(given);
  await fail(judge, 15);
  expect(given.notices).toMatchObject([
    {
      event: 'login',
      subject: 'zeus@olimpus.example|192.0.2.0/24',
      facts: { code: 'login.pair-failures', limit: 10, remote: '192.0.2.7' },
      advice: ['postern logins list', 'postern logins release zeus@olimpus.example'],
    },
  ]);
});

test.each([
  ["o'hara", ['postern logins list', String.raw`postern logins release 'o'\''hara'`]],
  ["'; reboot; '", ['postern logins list', String.raw`postern logins release ''\''; reboot; '\'''`]],
  ['jürgen', ['postern logins list']],
])('what the login %j chose does nothing in a shell', async (login, advice) => {
  await using given = await givenLogins('[logins.pair-failures]\nnotify = true');
  const judge = judgeOf(given);
  for (let n = 0; n < 11; n += 1) await judge.failed(attempt({ login }));
  expect(given.notices.map((notice) => notice.advice)).toEqual([advice]);
});

describe('a state that can not be asked', () => {
  const broken = {
    ...NO_STATE,
    hit: () => Promise.reject(new Error('out of order')),
    seen: () => Promise.reject(new Error('out of order')),
    standing: () => Promise.resolve(null),
  };
  const silent = {
    ...broken,
    hit: () => new Promise<never>(() => {}),
    seen: () => new Promise<never>(() => {}),
  };

  test('lets logins go on, and says so', async () => {
    await using given = await givenLogins();
    const judge = new LoginJudge(given.config, { ...given, state: broken });
    expect(await judge.judge(attempt())).toMatchObject({
      kind: 'allow',
      rule: 'unavailable',
      why: 'out of order',
    });
    expect(await judge.failed(attempt())).toEqual({ kind: 'unavailable', detail: 'out of order' });
    expect(await judge.succeeded(attempt())).toEqual({ kind: 'unavailable', detail: 'out of order' });
  });

  test('or refuses them, as the operator says', async () => {
    await using given = await givenLogins('unavailable = "refuse"');
    const judge = new LoginJudge(given.config, { ...given, state: broken });
    expect(await judge.judge(attempt())).toMatchObject({ kind: 'refuse', rule: 'unavailable' });
  });

  test('and is not waited for past the deadline', async () => {
    await using given = await givenLogins('deadline = "5ms"\nunavailable = "delay 1s"');
    const judge = new LoginJudge(given.config, { ...given, state: silent });
    expect(await judge.judge(attempt())).toMatchObject({
      kind: 'delay',
      rule: 'unavailable',
      why: 'the state did not answer within 5 ms',
    });
    expect(await judge.failed(attempt())).toMatchObject({ kind: 'unavailable' });
  });
});

test('whatever happens, wrong passwords are counted once each, and nothing else is', async () => {
  const event = fc.record({
    kind: fc.constantFrom('ask', 'failed', 'succeeded'),
    login: fc.constantFrom('zeus', 'hera', 'ares'),
    remote: fc.constantFrom('10.1.0.1', '10.2.0.1'),
    passwordMark: fc.constantFrom('0001', '0002', '0003', '0004'),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 30 }), async (events) => {
      await using given = await givenLogins();
      const judge = judgeOf(given);
      const guesses = new Map<string, Set<string>>();
      const byNetwork = new Map<string, number>();
      for (const { kind, ...rest } of events) {
        const one = attempt(rest);
        if (kind === 'ask') await judge.judge(one);
        if (kind === 'succeeded') await judge.succeeded(one);
        if (kind !== 'failed') continue;
        await judge.failed(one);
        const tried = guesses.get(rest.login) ?? new Set();
        const network = rest.remote.replace(/\.1$/, '.0/24');
        if (!tried.has(rest.passwordMark)) byNetwork.set(network, (byNetwork.get(network) ?? 0) + 1);
        guesses.set(rest.login, tried.add(rest.passwordMark));
      }
      const counted = async (limit: string): Promise<Record<string, number>> => {
        const counters = await given.state.counters({ limit, count: 99 });
        return Object.fromEntries(
          counters.filter(({ used }) => used > 0).map(({ key, used }) => [key, used]),
        );
      };
      const byLogin = Array.from(guesses, ([login, marks]) => [login, marks.size] as const);
      expect(await counted('login.failures')).toEqual(Object.fromEntries(byLogin));
      expect(await counted('login.net-failures')).toEqual(Object.fromEntries(byNetwork));
    }),
    { numRuns: 25 },
  );
});
