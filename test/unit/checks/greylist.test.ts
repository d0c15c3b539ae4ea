import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { openSqliteState } from '../../../src/adapters/state-sqlite.ts';
import { greylistCheck } from '../../../src/checks/greylist.ts';
import { NAME_LIST_LIMIT } from '../../../src/checks/names.ts';
import type { State } from '../../../src/ports/state.ts';
import { NO_STATE } from '../../support/checks.ts';
import { FakeClock } from '../../support/decisions.ts';
import { codesAtOnce, codes, found, HOSTILE, runCheck, type Case } from './policy-facts.ts';

const SECOND = 1000;
const MINUTE = 60_000;
const DAY = 86_400_000;

let folder: string;
let clock: FakeClock;
let state: State & AsyncDisposable;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-greylist-'));
  clock = new FakeClock();
  state = await openSqliteState(folder, clock);
});

afterEach(async () => {
  await state[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function attempt(values: Case = {}): Promise<string[]> {
  return codes(greylistCheck, { ...values, tools: { state, clock, ...values.tools } });
}

async function detail(values: Case = {}): Promise<string | undefined> {
  return (await runCheck(greylistCheck, { ...values, tools: { state, clock } }))[0]?.detail;
}

describe('the wait', () => {
  test('deferred, deferred again when too early, passed, known', async () => {
    expect(await detail()).toBe(
      '192.0.2.0/24 <odin@valhalla.example> to <zeus@olimpus.example>: not seen before, 300 s to wait',
    );
    clock.time += 299 * SECOND;
    expect(await detail()).toContain('back too early, 1 s to wait');
    clock.time += SECOND;
    expect(await detail()).toContain('back after 300 s');
    expect(await attempt()).toEqual(['greylist.known']);
  });

  test('each of client, sender and recipient makes it new', async () => {
    expect(await attempt()).toEqual(['greylist.wait']);
    clock.time += 5 * MINUTE;
    expect(await attempt({ client: { address: '198.51.100.7' } })).toEqual(['greylist.wait']);
    expect(await attempt({ sender: 'loki@valhalla.example' })).toEqual(['greylist.wait']);
    expect(await attempt({ sender: '' })).toEqual(['greylist.wait']);
    expect(await attempt({ recipient: 'hera@olimpus.example' })).toEqual(['greylist.wait']);
    expect(await attempt()).toEqual(['greylist.passed']);
  });

  test('another host of the network may come back, and write to an extension in capitals', async () => {
    await attempt();
    clock.time += 5 * MINUTE;
    const again = {
      client: { address: '192.0.2.99' },
      sender: 'ODIN+x@valhalla.example',
      recipient: 'Zeus+in@olimpus.example',
    };
    expect(await attempt(again)).toEqual(['greylist.passed']);
  });

  test('IPv6 counts by /64, IPv4 within IPv6 as IPv4', async () => {
    await attempt({ client: { address: '2001:db8:1:2::1' } });
    await attempt({ client: { address: '::ffff:192.0.2.20' } });
    clock.time += 5 * MINUTE;
    expect(await attempt({ client: { address: '2001:db8:1:2:ffff::9' } })).toEqual(['greylist.passed']);
    expect(await attempt({ client: { address: '2001:db8:1:3::1' } })).toEqual(['greylist.wait']);
    expect(await attempt({ client: { address: '192.0.2.20' } })).toEqual(['greylist.passed']);
  });

  test('prefix lengths, delay and windows are settable', async () => {
    const options = { ipv4_prefix: 32, delay: '1m', retry_window: '1d', remember: '1d' };
    await attempt({ options });
    clock.time += MINUTE;
    expect(await attempt({ options, client: { address: '192.0.2.21' } })).toEqual(['greylist.wait']);
    expect(await attempt({ options })).toEqual(['greylist.passed']);
    clock.time += DAY - MINUTE;
    expect(await attempt({ options })).toEqual(['greylist.known']);
    clock.time += DAY + MINUTE;
    expect(await attempt({ options })).toEqual(['greylist.wait']);
    clock.time += DAY + 1;
    // The retry came too late: the wait begins anew.
    expect(await attempt({ options })).toEqual(['greylist.wait']);
  });

  test('a network that passed often enough does not wait', async () => {
    const options = { client_passes: 2 };
    for (const sender of ['a@x.example', 'b@x.example']) {
      await attempt({ options, sender });
      clock.time += 5 * MINUTE;
      expect(await attempt({ options, sender })).toEqual(['greylist.passed']);
    }
    expect(await attempt({ options, sender: 'c@x.example' })).toEqual(['greylist.known']);
    expect(await attempt({ options, sender: 'c@x.example', client: { address: '198.51.100.1' } })).toEqual([
      'greylist.wait',
    ]);
  });
});

describe('large providers', () => {
  const prior = [found('spf.pass')];
  test('where SPF passes, the retry may come from anywhere', async () => {
    expect(await attempt({ prior })).toEqual(['greylist.wait']);
    clock.time += 5 * MINUTE;
    const elsewhere = { address: '203.0.113.77' };
    expect(await attempt({ client: elsewhere, prior: [found('spf.none')] })).toEqual(['greylist.wait']);
    expect(await attempt({ client: elsewhere, prior })).toEqual(['greylist.passed']);
  });

  test('for a bounce it is the HELO name that passed', async () => {
    await attempt({ prior, sender: '', client: { helo: 'Out1.Mail.example' } });
    clock.time += 5 * MINUTE;
    const again = { prior, sender: '', client: { address: '203.0.113.77', helo: 'out1.mail.example' } };
    expect(await attempt(again)).toEqual(['greylist.passed']);
  });

  test('and not where the operator does not want it', async () => {
    const options = { by_spf_domain: false };
    await attempt({ prior, options });
    clock.time += 5 * MINUTE;
    expect(await attempt({ prior, options, client: { address: '203.0.113.77' } })).toEqual(['greylist.wait']);
  });

  test('SPF that could not be checked is no reason to fail', async () => {
    const unavailable = {
      kind: 'unavailable',
      check: 'spf',
      reason: 'deadline',
      detail: '',
      elapsed: 1,
    } as const;
    expect(await attempt({ prior: [unavailable] })).toEqual(['greylist.wait']);
  });
});

describe('exempt, without a look at the state', () => {
  test.for<[string, Case, string]>([
    ['a network', { options: { exempt_networks: ['192.0.2.0/24'] } }, '192.0.2.20 is in exempt_networks'],
    [
      'a host',
      { options: { exempt_hosts: ['*.valhalla.example'] }, client: { name: 'Odin.valhalla.example' } },
      'Odin.valhalla.example is in exempt_hosts',
    ],
    [
      'a domain for which SPF passes',
      { options: { exempt_spf: ['valhalla.example'] }, prior: [found('spf.pass')] },
      'SPF passes for valhalla.example, which is in exempt_spf',
    ],
    [
      'every domain for which SPF passes',
      { options: { exempt_spf: ['*'] }, prior: [found('spf.helo-none', 'spf.pass')] },
      'SPF passes for valhalla.example, which is in exempt_spf',
    ],
    ['a welcome list', { prior: [found('dnsbl.welcome')] }, '192.0.2.20 is on a welcome list'],
    [
      'nothing suspicious',
      { options: { mode: 'suspicious' }, prior: [found('spf.none'), found('ptr.x')] },
      'nothing speaks against the client',
    ],
    ['no address', { client: { address: '' } }, 'the client has no address'],
  ])('%s', async ([, values, why]) => {
    expect(codesAtOnce(greylistCheck, values)).toEqual(['greylist.exempt']);
    expect(await runCheck(greylistCheck, values)).toEqual([{ code: 'greylist.exempt', detail: why }]);
  });

  test.for<[string, Case]>([
    [
      'a host whose name does not lead back',
      { options: { exempt_hosts: ['*.valhalla.example'] }, client: { name: null } },
    ],
    ['SPF that fails', { options: { exempt_spf: ['*'] }, prior: [found('spf.fail')] }],
    [
      'SPF that passes for HELO alone',
      { options: { exempt_spf: ['*'] }, prior: [found('spf.helo-pass', 'spf.none')] },
    ],
    ['another domain', { options: { exempt_spf: ['midgard.example'] }, prior: [found('spf.pass')] }],
    [
      'a welcome list that does not count',
      { options: { exempt_welcome: false }, prior: [found('dnsbl.welcome')] },
    ],
    ['something suspicious', { options: { mode: 'suspicious' }, prior: [found('ptr.generic')] }],
    ['a list that asks for it', { options: { mode: 'suspicious' }, prior: [found('dnsbl.greylist')] }],
    [
      'a list that asks for it, though SPF passes',
      { options: { exempt_spf: ['*'] }, prior: [found('dnsbl.greylist'), found('spf.pass')] },
    ],
  ])('not %s', async ([, values]) => {
    expect(await attempt(values)).toEqual(['greylist.wait']);
  });

  test("the operator's own exemption stands above a list", () => {
    const values = { options: { exempt_networks: ['192.0.2.20'] }, prior: [found('dnsbl.greylist')] };
    expect(codesAtOnce(greylistCheck, values)).toEqual(['greylist.exempt']);
  });

  test('what is suspicious is settable', async () => {
    const options = { mode: 'suspicious', suspicious: ['spf.none'] };
    expect(await attempt({ options, prior: [found('spf.none')] })).toEqual(['greylist.wait']);
    expect(codesAtOnce(greylistCheck, { options, prior: [found('ptr.none')] })).toEqual(['greylist.exempt']);
  });
});

test('only some recipients', async () => {
  const options = { recipients: ['!zeus@olimpus.example', '@olimpus.example'] };
  expect(codesAtOnce(greylistCheck, { options, recipient: 'Zeus+x@olimpus.example' })).toEqual([]);
  expect(codesAtOnce(greylistCheck, { options, recipient: 'thor@asgard.example' })).toEqual([]);
  expect(await attempt({ options, recipient: 'hera@olimpus.example' })).toEqual(['greylist.wait']);
});

describe('correspondents', () => {
  test('whom we wrote to may answer at once, from anywhere', async () => {
    const letter = {
      direction: 'out',
      sender: 'Zeus+x@olimpus.example',
      recipient: 'Odin@valhalla.example',
    } as const;
    expect(await attempt(letter)).toEqual([]);
    expect(await attempt()).toEqual(['greylist.exempt']);
    expect(await detail()).toBe('zeus@olimpus.example wrote to odin@valhalla.example first');
    expect(await attempt({ sender: 'loki@valhalla.example' })).toEqual(['greylist.wait']);
    expect(await attempt({ recipient: 'hera@olimpus.example' })).toEqual(['greylist.wait']);
    clock.time += 91 * DAY;
    expect(await attempt()).toEqual(['greylist.wait']);
  });

  test.for<[string, Case]>([
    ['a bounce', { direction: 'out', sender: '' }],
    [
      'mail among ourselves',
      { direction: 'out', sender: 'zeus@olimpus.example', recipient: 'hera@olimpus.example' },
    ],
    ['mail when it is not wanted', { direction: 'out', options: { correspondents: '0s' } }],
  ])('%s is not remembered', ([, values]) => {
    expect(codesAtOnce(greylistCheck, { ...values, tools: { state: NO_STATE } })).toEqual([]);
  });
});

test('learning: nobody waits, and whoever wrote is known afterwards', async () => {
  const learning = { options: { learn: true } };
  expect(await attempt(learning)).toEqual(['greylist.learned']);
  expect(await attempt(learning)).toEqual(['greylist.known']);
  expect(await attempt()).toEqual(['greylist.known']);
  expect(await attempt({ sender: 'loki@valhalla.example' })).toEqual(['greylist.wait']);
});

test('a state that can not be asked is for the rule on unavailable checks', async () => {
  const failing = { ...NO_STATE, greylist: () => Promise.reject(new Error('no state')) };
  await expect(runCheck(greylistCheck, { tools: { state: failing } })).rejects.toThrow('no state');
  expect([greylistCheck.unavailable, greylistCheck.optIn]).toEqual(['ignore', true]);
});

test.for(HOSTILE)('a client, sender and recipient of %j', async (text) => {
  const values = {
    sender: `${text}@${text}`,
    recipient: `${text}@${text}`,
    client: { helo: text, name: text },
  };
  const prior = [found('spf.pass')];
  expect(await attempt({ ...values, prior })).toEqual(['greylist.wait']);
  clock.time += 5 * MINUTE;
  expect(await attempt({ ...values, prior })).toEqual(['greylist.passed']);
});

test.for<[string, unknown, boolean]>([
  ['delay', '12h', true],
  ['delay', '721m', false],
  ['delay', '1s', true],
  ['delay', '999ms', false],
  ['retry_window', '1d', true],
  ['retry_window', '23h', false],
  ['remember', '3650d', true],
  ['remember', '3651d', false],
  ['client_passes', 1000, true],
  ['client_passes', 1001, false],
  ['ipv4_prefix', 33, false],
  ['ipv6_prefix', 129, false],
  ['suspicious', ['dnsbl.listed'], true],
  ['suspicious', ['ptr.non'], false],
  ['exempt_hosts', ['a b'], false],
  ['exempt_hosts', Array.from({ length: NAME_LIST_LIMIT }, (_, index) => `h${index}`), true],
  ['exempt_hosts', Array.from({ length: NAME_LIST_LIMIT + 1 }, (_, index) => `h${index}`), false],
  ['exempt_networks', ['192.0.2.0/33'], false],
])('%s = %s: %s', ([key, value, expected]) => {
  expect(z.strictObject(greylistCheck.options).safeParse({ [key]: value }).success).toBe(expected);
});
