import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openSqliteState } from '../../../src/adapters/state-sqlite.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import { parseLimits } from '../../../src/cli/limits.ts';
import type { Hit } from '../../../src/ports/limits.ts';

const MAIN = join(import.meta.dirname, '../../../src/cli/main.ts');

describe('arguments', () => {
  test('every option', () => {
    const args = 'list --limit per-login --key Zeus@Olimpus.example --over --count 7 --json --config f'.split(
      ' ',
    );
    expect(parseLimits(args)).toEqual({
      command: 'list',
      limit: 'per-login',
      key: 'zeus@olimpus.example',
      over: true,
      count: 7,
      json: true,
      config: 'f',
    });
  });

  test('none, a name as the findings have it, a key in UTF-8', () => {
    expect(parseLimits(['list'])).toMatchObject({
      limit: null,
      key: null,
      over: false,
      count: 50,
      json: false,
    });
    expect(parseLimits(['reset', '--limit', 'limits.x'])).toMatchObject({ command: 'reset', limit: 'x' });
    expect(parseLimits(['list', '--key', 'j\u00fcrgen@x']).key).toBe('j\u00c3\u00bcrgen@x');
  });

  test.each([
    ['', 'which?'],
    ['show', 'there is no "show"'],
    ['list per-login', '"per-login" is not expected here'],
    ['list --key', "option '--key <value>' argument missing"],
    ['list --nothing', "unknown option '--nothing'"],
    ['list --count 0', 'expected a number from 1 to 100000'],
    ['list --count 100001', 'expected a number from 1 to 100000'],
    ['list --count x', 'expected a number from 1 to 100000'],
    ['reset', 'reset what: --limit, --key or both?'],
    ['reset --limit x --json', 'are for list'],
    ['reset --limit x --over', 'are for list'],
    ['reset --limit x --count 5', 'are for list'],
  ])('%j is wrong', (line, message) => {
    const parse = (): unknown => parseLimits(line.split(' ').filter(Boolean));
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(message);
  });
});

function hit(limit: string, key: string, cost: number): Hit {
  return { limit, key, algorithm: 'window', most: 10, periodMs: 3_600_000, cost, enforced: false };
}

function table(name: string): string {
  return `[[checks.limits.limit]]\nname = "${name}"\nper = ["login"]\nmost = 10\nperiod = "1h"\n`;
}

describe('the command', () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-limits-'));
    await writeFile(
      join(folder, 'postern.toml'),
      `site.hostname = "mx.example.org"\n${table('one')}${table('two')}`,
    );
    await writeFile(join(folder, 'without.toml'), 'site.hostname = "mx.example.org"\n');
    const clock = { now: () => Date.now(), elapsed: () => performance.now() };
    await using state = await openSqliteState(join(folder, 'postern-state'), clock);
    await state.hit([
      hit('limits.one', 'a@x.example', 3),
      hit('limits.two', 'a@x.example', 11),
      hit('limits.two', 'b\u001b[31m@x.example', 5),
      // Counters of others, which are not limits of [checks.limits].
      hit('login.failures', 'a@x.example', 9),
    ]);
  });

  afterAll(() => rm(folder, { recursive: true }));

  function limits(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      const file = args.includes('--config') ? [] : ['--config', join(folder, 'postern.toml')];
      execFile(process.execPath, [MAIN, 'limits', ...args, ...file], (error, stdout, stderr) => {
        resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
      });
    });
  }

  test('lists, filters, forgets', async () => {
    const all = await limits('list');
    expect(all.code).toBe(0);
    const rows = all.stdout.trimEnd().split('\n');
    expect(rows.map((row) => row.split(/ {2,}/).toSpliced(3, 2))).toEqual([
      ['LIMIT', 'USED', 'WITHIN', 'KEY'],
      ['two', '11/10', '1h', 'a@x.example'],
      ['two', '5/10', '1h', 'b?[31m@x.example'],
      ['one', '3/10', '1h', 'a@x.example'],
    ]);
    const over = await limits('list', '--over', '--json');
    expect(JSON.parse(over.stdout)).toMatchObject({
      limit: 'two',
      key: 'a@x.example',
      used: 11,
      most: 10,
      period: '1h',
      algorithm: 'window',
    });
    expect((await limits('list', '--count', '1')).stdout).not.toContain('one');
    expect(await limits('reset', '--key', 'A@x.example')).toMatchObject({
      code: 0,
      stdout: '2 counters were forgotten\n',
    });
    expect(await limits('reset', '--limit', 'one')).toMatchObject({ stdout: '0 counters were forgotten\n' });
    expect((await limits('list', '--limit', 'one')).stderr).toBe('postern: nothing is counted that fits\n');
    expect((await limits('list', '--limit', 'two')).stdout).toContain('5/10');
  }, 60_000);

  test('says when there are no limits, what is wrong, and its help', async () => {
    const [without, wrong, help] = await Promise.all([
      limits('list', '--config', join(folder, 'without.toml')),
      limits('reset'),
      limits('--help'),
    ]);
    expect(without.code).toBe(0);
    expect(without.stderr).toContain('there is no [[checks.limits.limit]]');
    expect(wrong.code).toBe(64);
    expect(wrong.stderr).toContain('See: postern limits --help');
    expect(help.stdout).toMatch(/^Usage: postern limits list/);
  }, 60_000);
});
