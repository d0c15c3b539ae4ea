import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openSqliteStore } from '../../../src/adapters/store-sqlite.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import { parseHistory } from '../../../src/cli/history-arguments.ts';
import { decision, FakeClock, FULL_DECISION, MORNING } from '../../support/decisions.ts';

const MAIN = join(import.meta.dirname, '../../../src/cli/main.ts');

describe('arguments', () => {
  test('every filter', () => {
    const args = [
      ['--trace', 't', '--queue-id', 'q', '--from', '<a@b>', '--to', '@c', '--client', '::1'],
      ['--daemon', 'lmtp-filter', '--verdict', 'junk', '--rule', 'spf.*', '--since', '2h'],
      ['--until', '2026-11-21T09:30:00+01:00', '--limit', '7', '--json', '--facts', '--config', 'f'],
    ].flat();
    expect(parseHistory(args, MORNING)).toEqual({
      config: 'f',
      json: true,
      facts: true,
      journey: true,
      filter: {
        trace: 't',
        queueId: 'q',
        sender: 'a@b',
        recipient: '@c',
        client: '::1',
        daemon: 'lmtp-filter',
        verdict: 'junk',
        rule: 'spf.*',
        since: MORNING - 7_200_000,
        until: MORNING - 1_800_000,
        limit: 7,
      },
    });
  });

  test('none', () => {
    expect(parseHistory([], MORNING)).toEqual({
      config: null,
      json: false,
      facts: false,
      journey: false,
      filter: { limit: 50 },
    });
  });

  test.for([
    ['<>', ''],
    ['', ''],
    ['Bob@Example.org', 'Bob@Example.org'],
  ])('--from %j means %j', ([text, sender]) => {
    expect(parseHistory(['--from', text ?? ''], MORNING).filter.sender).toBe(sender);
  });

  test.for([
    [['--limit', '0'], 'from 1 to 100000'],
    [['--limit', '100001'], 'from 1 to 100000'],
    [['--limit', 'many'], 'from 1 to 100000'],
    [['--since', 'yesterday'], 'how long ago'],
    [['--since', '2026-13-01'], 'how long ago'],
    [['--until', '2026-11-21T09:30:00'], 'how long ago'],
    [['--daemon', 'smtpd'], 'policyd, milter, lmtp-filter'],
    [['--verdict', 'spam'], 'accept, junk'],
    [['--trace', 'a', '--trace', 'b'], 'given twice'],
    [['--nonsense'], "unknown option '--nonsense'"],
    [['--from'], 'argument missing'],
    [['word'], '"word" is not expected'],
  ] as const)('%j is refused', ([args, why]) => {
    expect(() => parseHistory(args, MORNING)).toThrow(UsageError);
    expect(() => parseHistory(args, MORNING)).toThrow(why);
  });

  test('the limits of --limit', () => {
    expect(parseHistory(['--limit', '1'], MORNING).filter.limit).toBe(1);
    expect(parseHistory(['--limit', '100000'], MORNING).filter.limit).toBe(100_000);
  });
});

describe('the command', () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-history-'));
    await writeFile(join(folder, 'postern.toml'), 'site.hostname = "mx.example.org"\n');
    await writeFile(
      join(folder, 'empty.toml'),
      'site.hostname = "mx.example.org"\nstate.folder = "nothing-here"\n',
    );
  });

  afterAll(async () => {
    await rm(folder, { recursive: true });
  });

  function postern(...args: string[]): Promise<{ code: number | string; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      execFile(process.execPath, [MAIN, 'history', ...args], { cwd: folder }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : (error.code ?? -1), stdout, stderr });
      });
    });
  }

  test('without a store it says where it looked', async () => {
    const { code, stdout, stderr } = await postern('--config', 'empty.toml');
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toContain(`there is no history yet in ${join(folder, 'nothing-here')}`);
  });

  test('answers while a daemon has the store open, and after it is gone', async () => {
    const state = join(folder, 'postern-state');
    {
      await using store = await openSqliteStore(state, new FakeClock(), {
        writeFailed: () => {},
        lost: () => {},
        tracesLost: () => {},
      });
      store.record(decision({ trace: 'first' }));
      store.record({ ...FULL_DECISION, time: MORNING + 1 });
      await store.flush();
      const { code, stdout, stderr } = await postern();
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout.split('\n').filter((line) => line.startsWith('2026'))).toHaveLength(2);
      expect(stdout.indexOf('ffffeeeeddddcccc')).toBeLessThan(stdout.indexOf('first'));
    }
    const { stdout } = await postern('--json', '--verdict', 'reject');
    expect(JSON.parse(stdout)).toEqual({ ...FULL_DECISION, time: MORNING + 1 });
    const journey = await postern('--trace', 'ffffeeeeddddcccc');
    expect(journey.stdout).toMatch(/^trace ffffeeeeddddcccc {2}incoming\n/);
    expect(journey.stdout).toContain('dmarc: unavailable, deadline');
  });

  test('says so when nothing fits', async () => {
    const { code, stdout, stderr } = await postern('--queue-id', 'nobody');
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: '',
      stderr: 'postern: nothing is recorded that fits\n',
    });
  });

  test('a file that is no store', async () => {
    await writeFile(join(folder, 'other.toml'), 'site.hostname = "mx.example.org"\nstate.folder = "."\n');
    await writeFile(join(folder, 'postern.sqlite'), 'these are not the bytes you are looking for'.repeat(50));
    const { code, stderr } = await postern('--config', 'other.toml');
    expect(code).toBe(1);
    expect(stderr).toContain('cannot use the store');
    expect(stderr).toContain('move the file away');
  });
});
