import { mkdir, mkdtemp, open, readdir, rename, rm, stat, writeFile, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';

import { openSqliteState, type SqliteState } from '../../../src/adapters/state-sqlite.ts';
import { openSqliteStore } from '../../../src/adapters/store-sqlite.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import { command } from '../../../src/cli/command.ts';
import { parseStore } from '../../../src/cli/store.ts';
import type { Hit } from '../../../src/ports/limits.ts';
import { decision, FakeClock } from '../../support/decisions.ts';
import { contentsOf, countKinds, entriesOf, FILLED, fillState } from '../../support/state-contents.ts';

function parse(line: string): unknown {
  return parseStore(line.split(' '));
}

describe('arguments', () => {
  test('of each command', () => {
    expect(parse('copy --from sqlite --to redis')).toEqual({
      command: 'copy',
      from: 'sqlite',
      to: 'redis',
      existing: 'refuse',
      config: null,
    });
    expect(parse('copy --from a.toml --to redis --merge --config b')).toMatchObject({
      existing: 'merge',
      config: 'b',
    });
    expect(parse('copy --from sqlite --to redis --replace')).toMatchObject({ existing: 'replace' });
    expect(parse('check --json')).toEqual({ command: 'check', json: true, config: null });
    expect(parse('check')).toMatchObject({ json: false });
    expect(parse('backup history file')).toEqual({
      command: 'backup',
      of: 'history',
      file: 'file',
      config: null,
    });
  });

  test.each([
    ['', 'which? There are copy, check, backup'],
    ['restore', 'which? There are copy, check, backup'],
    ['copy', 'copy needs --from and --to'],
    ['copy --from sqlite', 'copy needs --from and --to'],
    ['copy --from sqlite --to redis --merge --replace', '--merge or --replace, not both'],
    ['copy sqlite redis --from sqlite --to redis', '"sqlite" is not expected here'],
    ['copy --from sqlite --to redis --json', '--json is not for copy'],
    ['check --merge', '--merge is not for check'],
    ['check it', '"it" is not expected here'],
    ['backup', 'backup of what: state or history?'],
    ['backup file', 'backup of what: state or history?'],
    ['backup state', 'backup to which file?'],
    ['backup state one two', '"two" is not expected here'],
    ['backup state file --json', '--json is not for backup'],
    ['check --nothing', "unknown option '--nothing'"],
  ])('%j is wrong', (line, message) => {
    const parsing = (): unknown => parseStore(line.split(' ').filter(Boolean));
    expect(parsing).toThrow(UsageError);
    expect(parsing).toThrow(message);
  });
});

let folder: string;
let clock: { now(): number; elapsed(): number; ms: number };
let out: string;
let problems: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-store-command-'));
  clock = { ms: 0, now: () => Date.now() + clock.ms, elapsed: () => performance.now() };
  for (const name of ['here', 'there']) await configure(name);
  out = '';
  problems = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    out += String(chunk);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((chunk) => {
    problems += String(chunk);
    return true;
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

async function configure(name: string, ...more: readonly string[]): Promise<void> {
  const lines = ['[state]', `folder = "${name}"`, ...more, ''];
  await writeFile(join(folder, `${name}.toml`), lines.join('\n'));
}

function path(...parts: readonly string[]): string {
  return join(folder, ...parts);
}

function config(name: string): string {
  return path(`${name}.toml`);
}

function openState(name: string): Promise<SqliteState> {
  return openSqliteState(path(name), clock);
}

/** Something of everything, a while ago: nothing in it is ahead of the time that the command goes by. */
async function fill(name: string): Promise<string[]> {
  clock.ms = -10 * 60_000;
  await using state = await openState(name);
  await fillState(state, {
    word: 'word',
    now: clock.now(),
    advance: (ms) => {
      clock.ms += ms;
      return Promise.resolve();
    },
  });
  clock.ms = 0;
  return await contentsOf(state);
}

async function contents(name: string): Promise<string[]> {
  await using state = await openState(name);
  return await contentsOf(state);
}

function hit(key: string): Hit {
  return {
    limit: 'per-login',
    key,
    algorithm: 'window',
    most: 9,
    periodMs: 3_600_000,
    cost: 1,
    enforced: true,
  };
}

function copy(...more: readonly string[]): Promise<number> {
  return command([
    'store',
    'copy',
    '--from',
    config('here'),
    '--to',
    config('there'),
    '--config',
    config('here'),
    ...more,
  ]);
}

describe('copy', () => {
  test('tells how many of each kind it copied, and again that all are as before', async () => {
    const before = await fill('here');
    expect(await copy()).toBe(0);
    expect(await contents('there')).toEqual(before);
    expect(out).toBe(
      [
        `from ${path('here/state.sqlite')}`,
        `to   ${path('there/state.sqlite')}`,
        '                           new',
        'counters of limits          12',
        'greylist triplets            3',
        'networks that passed         2',
        'correspondents               4',
        // One was settled, and lapsed meanwhile.
        'quota reservations           7',
        'full mailboxes               4',
        'values seen with accounts   12',
        'hours of accounts            4',
        'standings of accounts        4',
        '',
      ].join('\n'),
    );
    out = '';
    expect(await copy()).toBe(0);
    expect(out).toMatch(/^ +new +as before\ncounters of limits +0 +12$/m);
    expect(problems).toBe('');
  });

  test('refuses where there is other state, until it is told what to do with it', async () => {
    const before = await fill('here');
    {
      await using there = await openState('there');
      await there.hit([hit('ada')]);
    }
    expect(await copy()).toBe(1);
    expect(out).toBe('');
    expect(problems).toContain(
      `postern: nothing was copied: ${path('there/state.sqlite')} holds state that ${path('here/state.sqlite')} does not have\n`,
    );
    expect(problems).toMatch(/^ +newer there +only there\ncounters of limits +0 +1$/m);
    expect(await contents('there')).toHaveLength(1);
    expect(await copy('--merge')).toBe(0);
    expect(await contents('there')).toHaveLength(before.length + 1);
    expect(await copy('--replace')).toBe(0);
    expect(out).toMatch(/^ +new +as before +removed\ncounters of limits +0 +12 +1$/m);
    expect(await contents('there')).toEqual(before);
  });

  test('what can not be copied', async () => {
    expect(await copy()).toBe(1);
    expect(problems).toBe(
      `postern: cannot use the store ${path('here/state.sqlite')}: there is no such file\n`,
    );
    // Nothing was made.
    expect((await readdir(folder)).toSorted()).toEqual(['here.toml', 'there.toml']);
    const ends = async (from: string, to: string): Promise<string> => {
      problems = '';
      const code = await command(['store', 'copy', '--from', from, '--to', to, '--config', config('here')]);
      return `${code} ${problems.split('\n')[0] ?? ''}`;
    };
    expect(await ends('sqlite', config('here'))).toBe('64 postern: --from and --to are the same');
    expect(await ends('sqlite', 'redis')).toBe(
      '64 postern: "redis": the configuration names no Redis in [state.redis]',
    );
    expect(await ends('sqlite', path('none.toml'))).toMatch(/^78 .*none.toml: can't be read/);
    await fill('here');
    await configure('away', '[state.redis]', 'address = "127.0.0.1:1"');
    expect(await ends('sqlite', config('away'))).toMatch(/^1 postern: redis at 127.0.0.1:1: no connection/);
  });
});

const HEALTH = z.looseObject({
  store: z.string(),
  ok: z.boolean(),
  there: z.boolean(),
  faults: z.array(z.string()),
  warnings: z.array(z.string()),
});

async function health(name = 'here'): Promise<{ code: number; stores: z.infer<typeof HEALTH>[] }> {
  out = '';
  const code = await command(['store', 'check', '--json', '--config', config(name)]);
  const stores = out
    .split('\n')
    .filter(Boolean)
    .map((line) => HEALTH.parse(JSON.parse(line)));
  return { code, stores };
}

function fails(): never {
  throw new Error('not written');
}

async function fillHistory(): Promise<void> {
  await using history = await openSqliteStore(path('here'), new FakeClock(), {
    writeFailed: fails,
    lost: fails,
    tracesLost: fails,
  });
  for (let number = 0; number < 20; number++) history.record(decision({ trace: `trace-${number}` }));
}

describe('check', () => {
  test('of files that are not there yet', async () => {
    expect(await command(['store', 'check', '--config', config('here')])).toBe(0);
    expect(out).toBe(
      ['state.sqlite', 'postern.sqlite']
        .map((name) => `${path('here', name)}: not there yet; the daemons make it\n`)
        .join(''),
    );
    expect((await health()).stores).toMatchObject([
      { there: false, ok: true },
      { there: false, ok: true },
    ]);
  });

  test('of files in order, while they are in use and after', async () => {
    await fill('here');
    await fillHistory();
    await using state = await openState('here');
    await state.ping();
    expect(await command(['store', 'check', '--config', config('here')])).toBe(0);
    expect(out).toContain(`${path('here/state.sqlite')}: in order\n`);
    expect(out).toMatch(/^ {2}schema +1$/m);
    expect(out).toMatch(/^ {2}size +\d+\.?\d* KiB, 0 B of it free; log \d/m);
    expect(out).toMatch(/^ {2}counters of limits +12$/m);
    expect(out).toMatch(/^ {2}decisions +20$/m);
    const { code, stores } = await health();
    expect(code).toBe(0);
    expect(stores).toMatchObject([
      {
        store: 'state',
        kind: 'sqlite',
        ok: true,
        version: 1,
        freeOctets: 0,
        rows: { counter: 12, standing: 4 },
      },
      { store: 'history', ok: true, rows: { decision: 20 } },
    ]);
  });

  test('of a file that is damaged, or miscounts its rows', async () => {
    await fill('here');
    await fillHistory();
    const database = new DatabaseSync(path('here/state.sqlite'));
    database.exec("UPDATE size SET rows = 99 WHERE name = 'counter'");
    database.close();
    const miscounted = await health();
    expect(miscounted.code).toBe(1);
    expect(miscounted.stores).toMatchObject([
      { ok: false, faults: ['counter has 12 rows, and is noted to have 99'] },
      { ok: true },
    ]);
    const history = new DatabaseSync(path('here/postern.sqlite'));
    const page = history.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'decision_time'").get()?.[
      'rootpage'
    ];
    history.close();
    const damaged = await open(path('here/postern.sqlite'), 'r+');
    // No page begins so: https://sqlite.org/fileformat2.html#b_tree_pages
    await damaged.write(Buffer.alloc(4096, 0xff), 0, 4096, (Number(page) - 1) * 4096);
    await damaged.close();
    const { code, stores } = await health();
    expect(code).toBe(1);
    expect(stores[1]?.faults.join('\n')).toMatch(/malformed|invalid page|Tree/);
    expect(await command(['store', 'check', '--config', config('here')])).toBe(1);
    expect(out).toContain(`${path('here/postern.sqlite')}: NOT in order\n  wrong: `);
  });

  test('of what is no database, is of a newer version, or may be opened by others', async () => {
    await fill('here');
    await writeFile(path('here/postern.sqlite'), 'x'.repeat(5000), { mode: 0o644 });
    const database = new DatabaseSync(path('here/state.sqlite'));
    database.exec('PRAGMA user_version = 99');
    database.close();
    const { code, stores } = await health();
    expect(code).toBe(1);
    expect(stores[0]?.faults).toMatchObject([expect.stringContaining('it has schema version 99')]);
    expect(stores[1]?.faults).toMatchObject([expect.stringContaining('file is not a database')]);
    expect(stores[1]?.warnings).toEqual(['others than its owner may open it (mode 0644); chmod 600']);
  });

  test('of a Redis that is away', async () => {
    await configure('away', '[state.redis]', 'address = "127.0.0.1:1"');
    const { code, stores } = await health('away');
    expect(code).toBe(1);
    expect(stores).toMatchObject([
      { kind: 'redis', there: false, faults: [expect.stringContaining('ECONNREFUSED 127.0.0.1:1')] },
    ]);
  });
});

function backup(of: string, file: string): Promise<number> {
  return command(['store', 'backup', of, file, '--config', config('here')]);
}

describe('backup', () => {
  test('is whole and private, whatever the umask, and nothing is left beside it', async () => {
    const before = await fill('here');
    await fillHistory();
    const umask = process.umask(0);
    try {
      await mkdir(path('kept'));
      expect(await backup('state', path('kept/state'))).toBe(0);
      expect(await backup('history', path('kept/history'))).toBe(0);
    } finally {
      process.umask(umask);
    }
    expect(out).toMatch(/^\S+\/kept\/state: \d+(\.\d)? KiB\n\S+\/kept\/history: \d+(\.\d)? KiB\n$/);
    expect((await readdir(path('kept'))).toSorted()).toEqual(['history', 'state']);
    for (const name of ['state', 'history']) {
      expect((await stat(path('kept', name))).mode & 0o777).toBe(0o600);
    }
    await mkdir(path('there'));
    await rename(path('kept/state'), path('there/state.sqlite'));
    expect(await contents('there')).toEqual(before);
  });

  test('overwrites nothing, and makes nothing of nothing', async () => {
    expect(await backup('state', path('copy'))).toBe(1);
    expect(problems).toBe(`postern: there is no ${path('here/state.sqlite')} yet\n`);
    await fill('here');
    await writeFile(path('copy'), 'precious');
    problems = '';
    expect(await backup('state', path('copy'))).toBe(1);
    expect(problems).toBe(
      `postern: cannot use the store ${path('copy')}: it is there already; name another file, nothing is overwritten\n`,
    );
    expect(await readFile(path('copy'), 'utf8')).toBe('precious');
    problems = '';
    expect(await backup('state', path('no/such/folder'))).toBe(1);
    expect(problems).toContain('ENOENT');
    expect((await readdir(folder)).toSorted()).toEqual(['copy', 'here', 'here.toml', 'there.toml']);
  });

  test('while others write: as of one moment, and they go on', async () => {
    await using state = await openState('here');
    const stop = new AbortController();
    const begun = Promise.withResolvers<void>();
    let written = 0;
    const writing = (async () => {
      while (!stop.signal.aborted) {
        // Both or none.
        await state.hit([hit(`one-${written}`), hit(`two-${written}`)]);
        written++;
        if (written === 200) begun.resolve();
      }
    })();
    await begun.promise;
    const before = written;
    expect(await backup('state', path('copy'))).toBe(0);
    const after = written;
    stop.abort();
    await writing;
    expect(after).toBeGreaterThan(before);
    await mkdir(path('there'));
    await rename(path('copy'), path('there/state.sqlite'));
    await using there = await openState('there');
    const counters = (await entriesOf(there)).flatMap((entry) =>
      entry.entry === 'counter' ? [entry.key] : [],
    );
    const [ones, twos] = ['one', 'two'].map((word) => counters.filter((key) => key.startsWith(word)).length);
    expect(ones).toBe(twos);
    expect(ones).toBeGreaterThanOrEqual(before);
    expect(ones).toBeLessThanOrEqual(after);
  });

  test('where the state is in Redis, is not ours to make', async () => {
    await configure('here', '[state.redis]', 'address = "127.0.0.1:1"');
    expect(await backup('state', path('copy'))).toBe(1);
    expect(problems).toContain('state and history are in redis 127.0.0.1:1');
  });
});

test('everything that is kept is filled in', async () => {
  await fill('here');
  await using state = await openState('here');
  expect(countKinds(await entriesOf(state))).toEqual({ ...FILLED, reservation: 7 });
});
