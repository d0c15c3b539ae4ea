import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { openSqliteState } from '../../../src/adapters/state-sqlite.ts';
import { tallySubject } from '../../../src/checks/account-hours.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import { systemClock } from '../../../src/cli/clock.ts';
import { parseSender, sender } from '../../../src/cli/sender.ts';
import type { Standing } from '../../../src/ports/accounts.ts';
import type { State } from '../../../src/ports/state.ts';

const HOUR_MS = 3_600_000;

describe('arguments', () => {
  test('list, release and block, with every option', () => {
    expect(parseSender(['list', '--json', '--config', 'x.toml'])).toMatchObject({
      command: 'list',
      logins: [],
      json: true,
      config: 'x.toml',
    });
    expect(parseSender(['release', 'zeus', 'hera'])).toMatchObject({
      command: 'release',
      logins: ['zeus', 'hera'],
      config: null,
    });
    const options = ['--stage', 'hold', '--for', '2h', '--why', 'by phone\n'];
    expect(parseSender(['block', 'zeus', ...options])).toEqual({
      command: 'block',
      logins: ['zeus'],
      stage: 'hold',
      lasts: 2 * HOUR_MS,
      why: 'by phone?',
      json: false,
      config: null,
    });
    expect(parseSender(['block', 'zeus'])).toMatchObject({
      stage: 'block',
      lasts: null,
      why: 'an operator said so',
    });
  });

  test('a reason is cut at 200 characters', () => {
    expect(parseSender(['block', 'zeus', '--why', 'x'.repeat(200)]).why).toBe('x'.repeat(200));
    expect(parseSender(['block', 'zeus', '--why', 'x'.repeat(201)]).why).toBe(`${'x'.repeat(197)}...`);
  });

  test.each([
    ['', 'which? There are list, release and block'],
    ['free zeus', 'there is no "free"; there are list, release and block'],
    ['list zeus', '"zeus" is not expected here'],
    ['release', 'release whom: a login?'],
    ['block', 'block whom: a login?'],
    ['release zeus --stage hold', '--stage, --for and --why are for block'],
    ['list --for 2h', '--stage, --for and --why are for block'],
    ['release zeus --why x', '--stage, --for and --why are for block'],
    ['block zeus --json', '--json is for list'],
    ['block zeus --stage free', '--stage free: expected observe, slow, hold or block'],
    ['block zeus --stage constructor', '--stage constructor: expected observe, slow, hold or block'],
    ['block zeus --for ever', '--for ever: expected a duration such as "2h" or "7d"'],
    ['block zeus --for', "option '--for <value>' argument missing"],
    ['block zeus --until x', "unknown option '--until'"],
  ])('%j is wrong', (line, message) => {
    expect(() => parseSender(line.split(' ').filter(Boolean))).toThrow(new UsageError(message, 'sender'));
  });
});

describe('the command', () => {
  let folder: string;
  let out: string;
  let err: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-sender-'));
    await writeFile(join(folder, 'postern.toml'), 'site.hostname = "mx.example.org"\n');
    out = '';
    err = '';
    vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      out += String(text);
      return true;
    });
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      err += String(text);
      return true;
    });
  });

  afterEach(async () => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    await rm(folder, { recursive: true });
  });

  async function said(...args: string[]): Promise<{ code: number; out: string; err: string }> {
    out = '';
    err = '';
    const code = await sender([...args, '--config', join(folder, 'postern.toml')]);
    return { code, out, err };
  }

  async function withState<T>(work: (state: State) => Promise<T>): Promise<T> {
    await using state = await openSqliteState(join(folder, 'postern-state'), systemClock);
    return await work(state);
  }

  function standing(login: string): Promise<Standing | null> {
    return withState((state) => state.standing(login));
  }

  test('blocks as policyd names the login, lists it, and releases it in whatever case', async () => {
    expect(await said('list')).toEqual({
      code: 0,
      out: '',
      err: 'postern: nothing stands against any login\n',
    });
    const before = Date.now();
    expect(await said('block', 'Zeus@Olimpus.example', 'hera', '--why', 'asked by phone')).toMatchObject({
      code: 0,
      out: 'block: Zeus@Olimpus.example\nblock: hera\n',
    });
    const set = await standing('zeus@olimpus.example');
    expect(set).toMatchObject({ kind: 'block', by: 'operator', why: 'asked by phone', until: null });
    expect(set?.since).toBeGreaterThanOrEqual(before);
    const listed = await said('list');
    expect(listed.out).toMatch(
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ {2}block {4}zeus@olimpus\.example {2}until released {2}by operator: asked by phone$/m,
    );
    expect(await said('release', 'ZEUS@olimpus.example', 'nobody')).toMatchObject({
      code: 0,
      out: 'released (it was: block) ZEUS@olimpus.example\nnothing stands against nobody\n',
    });
    expect(await standing('zeus@olimpus.example')).toBeNull();
    expect((await standing('hera'))?.kind).toBe('block');
  });

  test('a stage for some time ends by itself', async () => {
    await said('block', 'zeus', '--stage', 'slow', '--for', '2h');
    const set = await standing('zeus');
    expect(set?.kind).toBe('slow');
    expect((set?.until ?? 0) - (set?.since ?? 0)).toBe(2 * HOUR_MS);
    expect((await said('list')).out).toMatch(/ {2}slow {5}zeus {2}until \d{4}-\d\d-\d\dT[\d:]{8}Z {2}by /);
    const row = JSON.parse((await said('list', '--json')).out) as unknown;
    expect(row).toEqual({
      login: 'zeus',
      kind: 'slow',
      why: 'an operator said so',
      by: 'operator',
      since: new Date(set?.since ?? 0).toISOString(),
      until: new Date(set?.until ?? 0).toISOString(),
    });
  });

  test('a milder stage replaces a severer one, because an operator says so', async () => {
    await said('block', 'zeus');
    await said('block', 'zeus', '--stage', 'observe');
    expect((await standing('zeus'))?.kind).toBe('observe');
  });

  test('a login that is not US-ASCII is the one that Postfix names by its octets', async () => {
    const key = Buffer.from('jürgen@x.example').toString('latin1');
    await said('block', 'jürgen@x.example');
    expect((await standing(key))?.kind).toBe('block');
    expect((await said('list')).out).toContain('  j??rgen@x.example  ');
    const row: unknown = JSON.parse((await said('list', '--json')).out);
    expect(row).toMatchObject({ login: 'jürgen@x.example' });
    expect((await said('release', 'jürgen@x.example')).out).toContain('released (it was: block)');
    expect(await standing(key)).toBeNull();
  });

  test('whatever a login is, the list shows one line without control characters', async () => {
    await said('block', 'a\u001b[31m\nb');
    const { out: listed } = await said('list');
    expect(listed).toMatch(/^[\x20-\x7e]+\n$/);
    expect((await said('release', 'a\u001b[31m\nb')).out).toContain('released (it was: block)');
  });

  test('a release excuses the hour that is going on', async () => {
    const hour = Date.now() - (Date.now() % HOUR_MS);
    vi.useFakeTimers({ now: hour + HOUR_MS / 2, toFake: ['Date'] });
    const subject = tallySubject('zeus');
    await withState((state) => state.tally([{ subject, hour, counts: { recipients: 60, domains: 2 } }]));
    await said('release', 'zeus');
    expect(await withState((state) => state.tallies(subject, hour))).toMatchObject([
      { counts: { recipients: 60, domains: 2 } },
    ]);
    await said('block', 'zeus', '--stage', 'hold');
    await said('release', 'zeus');
    const [tally] = await withState((state) => state.tallies(subject, hour));
    expect(tally?.counts).toMatchObject({ recipients: 60, 'excused-recipients': 60, 'excused-domains': 2 });
  });

  test('without a configuration it says so', async () => {
    const code = await sender(['list', '--config', join(folder, 'none.toml')]);
    expect(code).toBe(78);
    expect(err).toContain('none.toml');
  });

  test('--help', async () => {
    expect(await sender(['--help'])).toBe(0);
    expect(out).toMatch(/^Usage: postern sender list/);
  });
});
