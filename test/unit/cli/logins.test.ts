import { describe, expect, test } from 'vitest';

import { UsageError } from '../../../src/cli/arguments.ts';
import { overLimit, parseLogins, release } from '../../../src/cli/logins.ts';
import { LoginJudge } from '../../../src/policyd/logins-judge.ts';
import { attempt, givenLogins, type LoginsGiven } from '../policyd/logins-support.ts';

const HOUR_MS = 3_600_000;

describe('the command line', () => {
  test('list and release', () => {
    expect(parseLogins(['list', '--json', '--limit', '5', '--config', 'x.toml'])).toEqual({
      command: 'list',
      names: [],
      limit: 5,
      json: true,
      config: 'x.toml',
    });
    expect(parseLogins(['release', '192.0.2.0/24', 'zeus'])).toEqual({
      command: 'release',
      names: ['192.0.2.0/24', 'zeus'],
      limit: 100,
      json: false,
      config: null,
    });
  });

  test.each([
    [[], 'which? There are list and release'],
    [['block'], 'there is no "block"; there are list and release'],
    [['list', 'zeus'], '"zeus" is not expected here'],
    [['release'], 'release whom: a network, an address or a login?'],
    [['release', 'zeus', '--json'], '--json and --limit are for list'],
    [['list', '--limit', '0'], '--limit 0: expected a number from 1 to 100000'],
    [['list', '--limit', '100001'], '--limit 100001: expected a number from 1 to 100000'],
    [['list', '--limit', 'x'], '--limit x: expected a number from 1 to 100000'],
    [['list', '--all'], "unknown option '--all'"],
  ])('%j: %s', (args, message) => {
    expect(() => parseLogins(args)).toThrow(new UsageError(message, 'logins'));
  });
});

async function guessed(given: LoginsGiven): Promise<void> {
  const judge = new LoginJudge(given.config, given);
  for (let n = 0; n < 11; n += 1) await judge.failed(attempt());
  for (let n = 0; n < 11; n += 1) await judge.failed(attempt({ remote: '198.51.100.7' }));
  for (let n = 0; n < 11; n += 1) await judge.failed(attempt({ login: 'hera', remote: '192.0.2.8' }));
}

async function pairs(given: LoginsGiven): Promise<string[]> {
  const over = await overLimit(given.state, given.config, 100);
  return over.map(({ code, login, network, used }) => `${code} ${login} ${network} ${used}`);
}

describe('who is over a limit', () => {
  const ZEUS_AT_ONE = 'login.pair-failures zeus@olimpus.example 192.0.2.0/24 11';
  const ZEUS_AT_OTHER = 'login.pair-failures zeus@olimpus.example 198.51.100.0/24 11';
  const HERA = 'login.pair-failures hera 192.0.2.0/24 11';
  const EVERYWHERE = 'login.failures zeus@olimpus.example null 22';

  test('pairs, logins and networks, with what is done about them', async () => {
    await using given = await givenLogins('[logins.net-failures]\nlimit = 20\nshadow = true');
    await guessed(given);
    expect((await pairs(given)).toSorted()).toEqual(
      [ZEUS_AT_ONE, ZEUS_AT_OTHER, HERA, EVERYWHERE, 'login.net-failures null 192.0.2.0/24 22'].toSorted(),
    );
    const over = await overLimit(given.state, given.config, 100);
    expect(over.find(({ code }) => code === 'login.net-failures')).toMatchObject({
      limit: 20,
      action: 'refuse (shadow)',
      since: given.clock.now(),
    });
    expect(over.find(({ code }) => code === 'login.failures')).toMatchObject({ action: 'delay up to 4 s' });
    expect(await overLimit(given.state, given.config, 1)).toHaveLength(3);
  });

  test('no longer, once the time has passed', async () => {
    await using given = await givenLogins();
    await guessed(given);
    given.clock.time += HOUR_MS + HOUR_MS / 2;
    expect(await pairs(given)).toEqual([]);
  });

  test('a login is released everywhere, in whatever case it is written', async () => {
    await using given = await givenLogins();
    await guessed(given);
    expect(await release(given.state, given.config, 'Zeus@olimpus.example')).toBe(3);
    expect(await pairs(given)).toEqual([HERA]);
    expect(await release(given.state, given.config, 'zeus@olimpus.example')).toBe(0);
  });

  test.each(['192.0.2.0/24', '192.0.2.77'])('%s releases the network and its pairs', async (name) => {
    await using given = await givenLogins();
    await guessed(given);
    // Its failures, its sprayed logins, and two pairs.
    expect(await release(given.state, given.config, name)).toBe(4);
    expect((await pairs(given)).toSorted()).toEqual([EVERYWHERE, ZEUS_AT_OTHER]);
  });
});
