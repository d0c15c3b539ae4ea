import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { openSqliteState } from '../../../src/adapters/state-sqlite.ts';
import { accountCheck, accountEndCheck } from '../../../src/checks/account.ts';
import { releaseAccount, tallySubject } from '../../../src/checks/account-hours.ts';
import { baselineOf, signalsOf, stageFor, type Activity } from '../../../src/checks/account-baseline.ts';
import { SLOW_COUNTER } from '../../../src/checks/account-slow.ts';
import type { BoundCheck, EndFacts, RcptFacts } from '../../../src/checks/check.ts';
import { parseMailbox } from '../../../src/mail/address.ts';
import type { Tally } from '../../../src/ports/accounts.ts';
import type { Notice } from '../../../src/ports/notifier.ts';
import type { State } from '../../../src/ports/state.ts';
import { checkTools } from '../../support/checks.ts';
import { client } from '../../support/mail.ts';

const HOUR_MS = 3_600_000;
const FLOORS: Activity = { recipients: 10, domains: 10, 'new-recipients': 10, refusals: 10, networks: 3 };
const QUIET: Activity = { recipients: 0, domains: 0, 'new-recipients': 0, refusals: 0, networks: 0 };

function hours(...recipients: number[]): readonly Tally[] {
  return recipients.map((count, index) => ({
    subject: 'x',
    hour: index * HOUR_MS,
    counts: { recipients: count },
  }));
}

function facts(recipient: string, address = '192.0.2.9'): RcptFacts {
  return {
    client: client({ login: 'Zeus@olimpus.example', address }),
    direction: 'out',
    sender: { kind: 'address', address: parseMailbox('zeus@olimpus.example') },
    recipient: parseMailbox(recipient),
    size: null,
    identity: { trace: 'a' },
    accepted: [],
  };
}

function bound(options: object): BoundCheck<'admission'> {
  const check = accountCheck.bind(options, 1000);
  if (check.stage !== 'admission') throw new Error('not an admission check');
  return check;
}

describe('the baseline', () => {
  test('is the busiest ordinary hour; one hour in twenty may be busier', () => {
    const many = hours(...Array.from({ length: 19 }, () => 4), 400);
    expect(baselineOf(many)).toMatchObject({ hours: 20, usual: { recipients: 4 } });
    expect(baselineOf([...many, ...hours(400)])).toMatchObject({ usual: { recipients: 400 } });
  });

  test('of four hours is nothing, of five it counts; hours without mail are none', () => {
    expect(baselineOf(hours(9, 9, 9, 9, 0, 0)).usual.recipients).toBe(0);
    expect(baselineOf(hours(9, 9, 9, 9, 9)).usual.recipients).toBe(9);
  });

  test.each([
    [10, 0, 0],
    [11, 0, 1],
    [30, 10, 0],
    [31, 10, 1],
  ])('%d recipients where %d are usual make %d signals', (now, usual, signals) => {
    const baseline = { hours: 9, usual: { ...QUIET, recipients: usual } };
    expect(signalsOf({ ...QUIET, recipients: now }, baseline, FLOORS, 3)).toHaveLength(signals);
  });

  test('stages are reached by the number of signals; a stage that is off by none', () => {
    const stages = { observe: 1, slow: 2, hold: 3, block: false } as const;
    expect([0, 1, 2, 3, 5].map((signals) => stageFor(signals, stages))).toEqual([
      null,
      'observe',
      'slow',
      'hold',
      'hold',
    ]);
    expect(stageFor(5, { ...stages, block: 4 })).toBe('block');
  });
});

describe('the check', () => {
  let folder: string;
  let state: State & AsyncDisposable;
  let now: number;
  let notices: Notice[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'postern-account-'));
    now = 1_700_000_000_000;
    now -= now % HOUR_MS;
    notices = [];
    state = await openSqliteState(folder, clock());
  });
  afterEach(async () => {
    await state[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const clock = (): { now(): number; elapsed(): number } => ({ now: () => now, elapsed: () => now });
  const tools = (): ReturnType<typeof checkTools> =>
    checkTools({ state, clock: clock(), notifier: { notify: (notice) => void notices.push(notice) } });
  const contextOf = (about: RcptFacts): Parameters<BoundCheck<'admission'>['run']>[0] => ({
    facts: about,
    tools: tools(),
    prior: new Map(),
    signal: AbortSignal.timeout(5000),
  });
  const send = async (options: object, recipient: string, address?: string): Promise<readonly string[]> => {
    const found = await bound(options).run(contextOf(facts(recipient, address)));
    return found.map(({ code }) => code);
  };
  /** Recipients that are counted while a login is slow. */
  const used = async (): Promise<number> => {
    const [counter] = await state.counters({ limit: SLOW_COUNTER, count: 1 });
    return counter?.used ?? 0;
  };
  /** Commands that a notice about this login gives. */
  const advice = async (login: string): Promise<readonly string[]> => {
    notices = [];
    for (const recipient of ['a@x.example', 'b@x.example'])
      await bound({ recipients: 1 }).run(contextOf({ ...facts(recipient), client: client({ login }) }));
    return notices.flatMap((notice) => notice.advice).slice(1);
  };
  const slowed = (): Promise<void> =>
    state.setStanding({
      login: 'zeus@olimpus.example',
      kind: 'slow',
      why: 'x',
      by: 'operator',
      since: now,
      until: null,
    });

  test('lets a login do what it always does, however much that is', async () => {
    const past = Array.from({ length: 30 }, (_, index) => ({
      subject: tallySubject('zeus@olimpus.example'),
      hour: now - (index + 1) * HOUR_MS,
      counts: { recipients: 8, domains: 8, 'new-recipients': 8, networks: 1 },
    }));
    await state.tally(past);
    const options = { recipients: 2, domains: 2, new_recipients: 2 };
    for (let one = 0; one < 20; one++) expect(await send(options, `a@d${one}.example`)).toEqual([]);
    expect(notices).toEqual([]);
  });

  test('walks up the stages, tells somebody of each once, and stops what is sent', async () => {
    const options = { recipients: 4, domains: 6, new_recipients: 8, slow_recipients: 100 };
    const codes: (string | undefined)[] = [];
    for (let one = 1; one <= 9; one++) codes.push((await send(options, `a@d${one}.example`))[0]);
    expect(codes).toEqual([
      ...[1, 2, 3, 4].map(() => undefined),
      'account.observe',
      'account.observe',
      'account.observe', // slow, with room left
      'account.observe',
      'account.hold',
    ]);
    expect(notices.map(({ facts: { stage } }) => stage)).toEqual(['observe', 'slow', 'hold']);
    expect(notices[2]?.subject).toBe('zeus@olimpus.example');
    expect(await send({}, 'a@d1.example')).toEqual(['account.hold']);
  });

  test('writing to the same people again is no signal', async () => {
    for (let one = 0; one < 30; one++)
      expect(await send({ recipients: 3 }, 'hera@olimpus.example')).toEqual([]);
  });

  test('in the stage "slow" so many recipients an hour are let through', async () => {
    await slowed();
    const codes: (string | undefined)[] = [];
    for (let one = 0; one < 3; one++)
      codes.push((await send({ slow_recipients: 2 }, `u${one}@x.example`))[0]);
    expect(codes).toEqual(['account.observe', 'account.observe', 'account.slow']);
    const found = await bound({ slow_recipients: 2 }).run(contextOf(facts('u9@x.example')));
    expect(found[0]?.detail).toBe('zeus@olimpus.example: x; slow: 2 of 2 recipients used within 1h');
  });

  test('a recipient that a later check refuses does not count against a slow login, and none counts twice', async () => {
    await slowed();
    const check = bound({ slow_recipients: 2 });
    const identity = { trace: 'b' };
    const about = (recipient: string): RcptFacts => ({ ...facts(recipient), identity });
    await check.run(contextOf(about('one@x.example')));
    await check.run(contextOf(about('one@x.example')));
    expect(await used()).toBe(1);
    await check.run(contextOf(about('two@x.example')));
    expect(await used()).toBe(2);
    // The third has no room, so that there is nothing to give back.
    await check.run(contextOf(about('three@x.example')));
    check.undo?.(contextOf(about('three@x.example')));
    check.undo?.(contextOf(about('two@x.example')));
    check.undo?.(contextOf(about('two@x.example')));
    await expect.poll(used).toBe(1);
    const [found] = await check.run(contextOf(about('four@x.example')));
    expect(found?.code).toBe('account.observe');
    expect(await used()).toBe(2);
  });

  test('a released login begins its hour anew; what it did stays in its past', async () => {
    const options = { recipients: 3, observe: false, slow: false, hold: 1 };
    for (let one = 1; one <= 4; one++) await send(options, `a${one}@x.example`);
    expect(await send(options, 'a1@x.example')).toEqual(['account.hold']);
    const released = await releaseAccount(state, 'zeus@olimpus.example', now);
    expect(released).toMatchObject({ kind: 'hold', by: 'postern' });
    expect(await state.standings()).toEqual([]);
    for (let one = 5; one <= 7; one++) expect(await send(options, `a${one}@x.example`)).toEqual([]);
    expect(await send(options, 'a8@x.example')).toEqual(['account.hold']);
    await releaseAccount(state, 'zeus@olimpus.example', now);
    expect(await send(options, 'a9@x.example')).toEqual([]);
    const [hour] = await state.tallies(tallySubject('zeus@olimpus.example'), 0);
    expect(hour?.counts).toMatchObject({ recipients: 9, 'excused-recipients': 8 });
    expect(await releaseAccount(state, 'zeus@olimpus.example', now)).toBeNull();
  });

  test('a released login has all that a slow one may send', async () => {
    await slowed();
    expect(await send({ slow_recipients: 1 }, 'a@x.example')).toEqual(['account.observe']);
    expect(await send({ slow_recipients: 1 }, 'b@x.example')).toEqual(['account.slow']);
    await releaseAccount(state, 'zeus@olimpus.example', now);
    await slowed();
    expect(await send({ slow_recipients: 1 }, 'b@x.example')).toEqual(['account.observe']);
  });

  test('an operator is told what to copy into a shell, unless the login can not stand there', async () => {
    expect(await advice('$(reboot)')).toEqual([
      'postern sender list',
      "postern sender release '$(reboot)'",
      "postern sender block '$(reboot)'",
    ]);
    expect(await advice('j\u00c3\u00bcrgen')).toEqual(['postern sender list']);
  });

  test('many networks in a day are a signal, several addresses of one are not', async () => {
    for (let one = 0; one < 9; one++)
      expect(await send({ networks: 2 }, 'a@x.example', `192.0.2.${one}`)).toEqual([]);
    expect(await send({ networks: 2 }, 'a@x.example', '198.51.100.1')).toEqual([]);
    expect(await send({ networks: 2 }, 'a@x.example', '203.0.113.1')).toEqual(['account.observe']);
  });

  test('refused recipients are counted at the end, once', async () => {
    const check = accountEndCheck.bind({}, 1000);
    if (check.stage !== 'end') throw new Error('not an end check');
    const { recipient, ...rest } = facts('a@x.example');
    for (const moment of ['data', 'end'] as const) {
      const end: EndFacts = {
        ...rest,
        moment,
        size: 1,
        accepted: [recipient, recipient, recipient],
        recipientCount: 1,
      };
      await check.run({ facts: end, tools: tools(), prior: new Map(), signal: AbortSignal.timeout(5000) });
    }
    expect(await state.tallies(tallySubject('zeus@olimpus.example'), 0)).toMatchObject([
      { counts: { refusals: 2 } },
    ]);
  });

  test("mail without a login is nobody's", async () => {
    const check = accountCheck.bind({}, 1000);
    if (check.stage !== 'admission') throw new Error('not an admission check');
    const found = await check.run({
      facts: { ...facts('a@x.example'), client: client({ login: null }) },
      tools: checkTools(),
      prior: new Map(),
      signal: AbortSignal.timeout(5000),
    });
    expect(found).toEqual([]);
  });
});
