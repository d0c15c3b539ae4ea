import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { openSqliteState, type SqliteState } from '../../../src/adapters/state-sqlite.ts';
import type { BoundCheck, CheckTools, RcptFacts } from '../../../src/checks/check.ts';
import { MAILBOX_LIMIT } from '../../../src/checks/quota-claims.ts';
import { quotaEndCheck } from '../../../src/checks/quota-end.ts';
import { obstacle, OVERHEAD, sizeText } from '../../../src/checks/quota-room.ts';
import { quotaCheck } from '../../../src/checks/quota.ts';
import { settingsKey, type Address } from '../../../src/mail/address.ts';
import type { Destination } from '../../../src/ports/directory.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Notice } from '../../../src/ports/notifier.ts';
import type { MailboxUsage } from '../../../src/ports/quota.ts';
import type { Finding } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { FakeClock } from '../../support/decisions.ts';
import { rcptFacts } from './policy-facts.ts';

const MB = 1_000_000;
const DAY = 86_400_000;
const NEVER = new AbortController().signal;

const ZEUS = 'zeus@olimpus.example';
const HERA = 'hera@olimpus.example';

let folder: string;
let clock: FakeClock;
let state: SqliteState;
let usages: Map<string, MailboxUsage | null | Error>;
let aliases: Map<string, Destination>;
let notices: Notice[];
let tools: CheckTools;
let messages = 0;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-quota-'));
  clock = new FakeClock();
  state = await openSqliteState(folder, clock);
  usages = new Map();
  aliases = new Map();
  notices = [];
  tools = checkTools({
    clock,
    state,
    quota: {
      async usage(user) {
        const usage = usages.get(user) ?? null;
        if (usage instanceof Error) throw usage;
        return usage;
      },
    },
    directory: {
      keepsSettings: false,
      destination: (address: Address) =>
        aliases.get(settingsKey(address)) ?? {
          kind: 'delivered',
          mailboxes: [settingsKey(address)],
          elsewhere: false,
        },
      account: () => ({ limits: new Map(), senders: [] }),
      owns: () => false,
      isLocalDomain: () => true,
    },
    notifier: { notify: (notice) => void notices.push(notice) },
  });
});

afterEach(async () => {
  await state[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Room in megabytes; the grace is none unless it is said. */
function mailbox(name: string, used: number, limit: number | null, grace = 0): void {
  usages.set(name, {
    used: used * MB,
    limit: limit === null ? null : limit * MB,
    grace: grace * MB,
    source: 'test',
  });
}

function admission(options: unknown): BoundCheck<'admission'> {
  const check = quotaCheck.bind(options, 3000);
  if (check.stage !== 'admission') throw new Error('it is made at another stage');
  return check;
}

function atEnd(options: unknown): BoundCheck<'end'> {
  const check = quotaEndCheck.bind(options, 3000);
  if (check.stage !== 'end') throw new Error('it is made at another stage');
  return check;
}

/** One message, from its first recipient to its end. */
class Mail {
  readonly #options: Readonly<Record<string, unknown>>;
  readonly #size: number | null;
  readonly identity = { trace: `trace${String((messages += 1)).padStart(11, 'a')}` };
  readonly accepted: Address[] = [];

  /** @param size megabytes; null: not announced */
  constructor(size: number | null, options: Readonly<Record<string, unknown>> = {}) {
    this.#size = size === null ? null : size * MB - OVERHEAD;
    this.#options = options;
  }

  async rcpt(recipient: string): Promise<string> {
    const facts = this.#facts(recipient);
    const findings = await admission(this.#options).run({
      facts,
      tools,
      prior: new Map(),
      signal: NEVER,
    });
    if (findings.length === 0) this.accepted.push(facts.recipient);
    return codes(findings);
  }

  undo(recipient: string): void {
    admission(this.#options).undo?.({
      facts: this.#facts(recipient),
      tools,
      prior: new Map(),
      signal: NEVER,
    });
  }

  /** @param size megabytes, the real ones */
  async end(
    size: number,
    recipientCount = this.accepted.length,
    moment: 'end' | 'data' = 'end',
  ): Promise<string> {
    const findings = await atEnd(this.#options).run({
      facts: {
        ...rcptFacts(),
        moment,
        size: size * MB - OVERHEAD,
        identity: this.identity,
        accepted: this.accepted,
        recipientCount,
      },
      tools,
      prior: new Map(),
      signal: NEVER,
    });
    return codes(findings);
  }

  #facts(recipient: string): RcptFacts {
    return {
      ...rcptFacts({ recipient }),
      identity: this.identity,
      size: this.#size,
      accepted: [...this.accepted],
    };
  }
}

function codes(findings: readonly Finding[]): string {
  return findings.map(({ code }) => code).join(' ') || 'room';
}

async function held(name: string): Promise<number> {
  return (await state.reservations(name)).reduce((sum, { bytes }) => sum + bytes, 0) / MB;
}

function roomOf(used: number, limit: number, grace: number) {
  return { used, limit, grace, source: '' };
}

/** So many mailboxes. */
function many(count: number): string[] {
  return Array.from({ length: count }, (_, n) => `${n}@olimpus.example`);
}

describe('Dovecot’s rule', () => {
  test.each([
    ['fits exactly', roomOf(0, 20_000, 0), 0, 20_000, null],
    ['one octet too much', roomOf(0, 20_000, 0), 0, 20_001, 'full'],
    ['the grace is for the last message', roomOf(19_000, 20_000, 10_000), 0, 11_000, null],
    ['and ends', roomOf(19_000, 20_000, 10_000), 0, 11_001, 'full'],
    ['at the limit nothing is taken', roomOf(20_000, 20_000, 10_000), 0, 1, 'full'],
    ['what is on its way counts', roomOf(0, 20_000, 0), 10_000, 10_001, 'busy'],
    ['without the grace, for it may come first', roomOf(0, 20_000, 10_000), 10_000, 10_001, 'busy'],
    ['never fits', roomOf(0, 20_000, 0), 0, 20_001 + OVERHEAD, 'too-large'],
    ['fits the empty mailbox within the grace', roomOf(0, 20_000, 10_000), 0, 30_000 + OVERHEAD, 'full'],
  ] as const)('%s', (_, room, inFlight, bytes, expected) => {
    expect(obstacle(room, inFlight, bytes)).toBe(expected);
  });

  test('whatever is let in is taken by Dovecot, in whichever order it arrives', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(
        sizes,
        fc.integer({ min: 0, max: 60_000 }),
        fc.integer({ min: 0, max: 20_000 }),
        (wanted, used, grace) => {
          const room = roomOf(used, 50_000, grace);
          const accepted: number[] = [];
          for (const bytes of wanted) {
            const inFlight = accepted.reduce((sum, each) => sum + each, 0);
            if (obstacle(room, inFlight, bytes) === null) accepted.push(bytes);
          }
          for (const order of [accepted, accepted.toReversed(), accepted.toSorted((a, b) => b - a)]) {
            let stored = used;
            for (const bytes of order) {
              expect(stored < room.limit && stored + bytes <= room.limit + grace).toBe(true);
              stored += bytes;
            }
          }
        },
      ),
    );
  });

  test.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [40 * 1024 ** 2, '40 MiB'],
    [2 ** 50, '1024 TiB'],
  ])('%d octets are %s', (octets, text) => {
    expect(sizeText(octets)).toBe(text);
  });
});

describe('at RCPT', () => {
  test('room is held, so that the next message does not get it too', async () => {
    mailbox(ZEUS, 5, 20);
    expect(await new Mail(10).rcpt(ZEUS)).toBe('room');
    expect(await held(ZEUS)).toBe(10);
    expect(await new Mail(10).rcpt(ZEUS)).toBe('quota.full');
    expect(await new Mail(5).rcpt(ZEUS)).toBe('room');
    expect(await new Mail(1).rcpt(ZEUS)).toBe('quota.full');
  });

  test('it lapses when the message never comes', async () => {
    mailbox(ZEUS, 5, 20);
    await new Mail(10, { transfer_hold: '10m' }).rcpt(ZEUS);
    clock.time += 599_000;
    expect(await new Mail(10).rcpt(ZEUS)).toBe('quota.full');
    clock.time += 2000;
    expect(await new Mail(10).rcpt(ZEUS)).toBe('room');
  });

  test('the grace is for one message, while nothing else is on its way', async () => {
    mailbox(ZEUS, 15, 20, 10);
    const first = new Mail(12);
    expect(await first.rcpt(ZEUS)).toBe('room');
    expect(await new Mail(1).rcpt(ZEUS)).toBe('quota.full');
    await state.settle(first.identity.trace, null, 0);
    expect(await new Mail(1).rcpt(ZEUS)).toBe('room');
    expect(await new Mail(12).rcpt(ZEUS)).toBe('quota.full');
    // And what was asked for in vain is not held.
    expect(await held(ZEUS)).toBe(1);
  });

  test('a mailbox without a limit, an unknown user and an unknown address are let pass, and nothing is held', async () => {
    mailbox(ZEUS, 5, null);
    aliases.set('odin@valhalla.example', { kind: 'unknown' });
    const mail = new Mail(100);
    expect(await mail.rcpt(ZEUS)).toBe('room');
    expect(await mail.rcpt(HERA)).toBe('room');
    expect(await mail.rcpt('odin@valhalla.example')).toBe('room');
    expect(await held(ZEUS)).toBe(0);
  });

  test('an alias is refused only when all its mailboxes are full', async () => {
    aliases.set('all@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS, HERA], elsewhere: false });
    aliases.set('out@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS], elsewhere: true });
    mailbox(ZEUS, 20, 20);
    mailbox(HERA, 5, 20);
    expect(await new Mail(10).rcpt('all@olimpus.example')).toBe('room');
    expect(await held(HERA)).toBe(10);
    expect(await held(ZEUS)).toBe(0);
    expect(await new Mail(10).rcpt('all@olimpus.example')).toBe('quota.full');
    expect(await new Mail(10).rcpt('out@olimpus.example')).toBe('room');
  });

  test('an alias for as many mailboxes as are looked at, and one more', async () => {
    for (const name of many(MAILBOX_LIMIT + 1)) mailbox(name, 20, 20);
    aliases.set('many@olimpus.example', {
      kind: 'delivered',
      mailboxes: many(MAILBOX_LIMIT),
      elsewhere: false,
    });
    aliases.set('more@olimpus.example', {
      kind: 'delivered',
      mailboxes: many(MAILBOX_LIMIT + 1),
      elsewhere: false,
    });
    expect(await new Mail(1).rcpt('many@olimpus.example')).toBe('quota.full');
    expect(await new Mail(1).rcpt('more@olimpus.example')).toBe('room');
  });

  test('a message that reaches a mailbox twice is held twice', async () => {
    aliases.set('sky@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS], elsewhere: false });
    mailbox(ZEUS, 5, 20);
    const mail = new Mail(7);
    expect(await mail.rcpt(ZEUS)).toBe('room');
    expect(await mail.rcpt('sky@olimpus.example')).toBe('room');
    expect(await held(ZEUS)).toBe(14);
    mail.undo('sky@olimpus.example');
    await expect.poll(() => held(ZEUS)).toBe(7);
    mail.undo(ZEUS);
    await expect.poll(() => held(ZEUS)).toBe(0);
  });

  test('postmaster and abuse are never refused', async () => {
    aliases.set('postmaster@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS], elsewhere: false });
    aliases.set('abuse@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS], elsewhere: false });
    mailbox(ZEUS, 20, 20);
    expect(await new Mail(1).rcpt('Postmaster@olimpus.example')).toBe('room');
    expect(await new Mail(null).rcpt('abuse@olimpus.example')).toBe('room');
  });

  test('full for a while, then for good; mail that is taken begins it anew', async () => {
    mailbox(ZEUS, 20, 20);
    const options = { temporary_for: '7d' };
    expect(await new Mail(1, options).rcpt(ZEUS)).toBe('quota.full');
    clock.time += 7 * DAY - 1000;
    expect(await new Mail(1, options).rcpt(ZEUS)).toBe('quota.full');
    clock.time += 2000;
    expect(await new Mail(1, options).rcpt(ZEUS)).toBe('quota.full-long');
    mailbox(ZEUS, 1, 20);
    expect(await new Mail(1, options).rcpt(ZEUS)).toBe('room');
    mailbox(ZEUS, 20, 20);
    await expect.poll(() => new Mail(1, options).rcpt(ZEUS)).toBe('quota.full');
  });

  test('an alias stays temporary as long as one of its mailboxes is so', async () => {
    aliases.set('all@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS, HERA], elsewhere: false });
    mailbox(ZEUS, 20, 20);
    mailbox(HERA, 20, 20);
    await new Mail(1).rcpt(ZEUS);
    clock.time += 8 * DAY;
    expect(await new Mail(1).rcpt('all@olimpus.example')).toBe('quota.full');
    clock.time += 8 * DAY;
    expect(await new Mail(1).rcpt('all@olimpus.example')).toBe('quota.full-long');
  });

  test('what would not fit the empty mailbox is refused for good', async () => {
    mailbox(ZEUS, 1, 20, 1);
    expect(await new Mail(21).rcpt(ZEUS)).toBe('quota.full');
    expect(await new Mail(22).rcpt(ZEUS)).toBe('quota.too-large');
  });

  test('a neighbour that fails is told to the runner', async () => {
    usages.set(ZEUS, new NeighbourError('doveadm is away'));
    await expect(new Mail(1).rcpt(ZEUS)).rejects.toThrow('doveadm is away');
  });
});

describe('a message whose size was not announced', () => {
  const options = { largest_message: '10000000B' };

  test('holds room for the largest, until its end', async () => {
    mailbox(ZEUS, 0, 30);
    mailbox(HERA, 0, 30);
    const mail = new Mail(null, options);
    expect(await mail.rcpt(ZEUS)).toBe('room');
    expect(await mail.rcpt(HERA)).toBe('room');
    expect(await held(ZEUS)).toBeCloseTo(10, 1);
    expect(await mail.end(2)).toBe('room');
    expect(await held(ZEUS)).toBe(2);
  });

  test('comes alone to a mailbox that is nearly full, and can be refused at its end', async () => {
    mailbox(ZEUS, 15, 20);
    mailbox(HERA, 0, 30);
    const mail = new Mail(null, options);
    expect(await mail.rcpt(ZEUS)).toBe('room');
    expect(await mail.rcpt(HERA)).toBe('quota.alone');
    expect(await mail.end(6)).toBe('quota.full');
    expect(await held(ZEUS)).toBe(0);
    const small = new Mail(null, options);
    expect(await small.rcpt(ZEUS)).toBe('room');
    expect(await small.end(4)).toBe('room');
    expect(await held(ZEUS)).toBe(4);
  });

  test('goes elsewhere first: then the one that is nearly full must come alone', async () => {
    mailbox(ZEUS, 15, 20);
    mailbox(HERA, 0, 30);
    const mail = new Mail(null, options);
    expect(await mail.rcpt(HERA)).toBe('room');
    expect(await mail.rcpt(ZEUS)).toBe('quota.alone');
    expect(await held(ZEUS)).toBe(0);
    expect(await mail.rcpt(HERA)).toBe('room');
  });

  test('when a later check refuses the one who was alone, others may come', async () => {
    mailbox(ZEUS, 15, 20);
    mailbox(HERA, 0, 30);
    const mail = new Mail(null, options);
    await mail.rcpt(ZEUS);
    mail.undo(ZEUS);
    mail.accepted.pop();
    expect(await mail.rcpt(HERA)).toBe('room');
    await expect.poll(() => held(ZEUS)).toBe(0);
  });

  test('that comes in vain again and again is refused for good after a while; one that is taken begins it anew', async () => {
    mailbox(ZEUS, 15, 20);
    const brief = { ...options, temporary_for: '7d' };
    const endOf = async (size: number): Promise<string> => {
      const mail = new Mail(null, brief);
      expect(await mail.rcpt(ZEUS)).toBe('room');
      return await mail.end(size);
    };
    expect(await endOf(6)).toBe('quota.full');
    clock.time += 7 * DAY - 1000;
    expect(await endOf(6)).toBe('quota.full');
    clock.time += 2000;
    expect(await endOf(6)).toBe('quota.full-long');
    expect(await endOf(1)).toBe('room');
    await expect.poll(() => endOf(6)).toBe('quota.full');
  });

  test('a mailbox that is full refuses it at once', async () => {
    mailbox(ZEUS, 20, 20);
    expect(await new Mail(null, options).rcpt(ZEUS)).toBe('quota.full');
  });

  test('an alias with one roomy mailbox needs not come alone', async () => {
    aliases.set('all@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS, HERA], elsewhere: false });
    mailbox(ZEUS, 15, 20);
    mailbox(HERA, 0, 30);
    const mail = new Mail(null, options);
    expect(await mail.rcpt('all@olimpus.example')).toBe('room');
    expect(await mail.rcpt(HERA)).toBe('room');
  });
});

describe('an alias whose mailboxes must all have room', () => {
  const options = { alias_room: 'all', largest_message: '10000000B' };

  beforeEach(() => {
    aliases.set('all@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS, HERA], elsewhere: false });
    aliases.set('out@olimpus.example', { kind: 'delivered', mailboxes: [ZEUS], elsewhere: true });
    mailbox(ZEUS, 5, 20);
    mailbox(HERA, 18, 20);
  });

  test('is refused when one has none, and holds nothing then', async () => {
    expect(await new Mail(3, options).rcpt('all@olimpus.example')).toBe('quota.full');
    expect(await held(ZEUS)).toBe(0);
    expect(await new Mail(2, options).rcpt('all@olimpus.example')).toBe('room');
    expect([await held(ZEUS), await held(HERA)]).toEqual([2, 2]);
    mailbox(ZEUS, 20, 20);
    expect(await new Mail(1, options).rcpt('out@olimpus.example')).toBe('quota.full');
  });

  test('keeps what the message held before', async () => {
    const mail = new Mail(3, options);
    expect(await mail.rcpt(ZEUS)).toBe('room');
    expect(await mail.rcpt('all@olimpus.example')).toBe('quota.full');
    expect(await held(ZEUS)).toBe(3);
  });

  test('comes alone when no size was announced, and is refused at the end if one lacks room', async () => {
    const mail = new Mail(null, options);
    expect(await mail.rcpt('all@olimpus.example')).toBe('room');
    expect(await mail.rcpt(ZEUS)).toBe('quota.alone');
    expect(await mail.end(3)).toBe('quota.full');
    expect([await held(ZEUS), await held(HERA)]).toEqual([0, 0]);
    const other = new Mail(null, options);
    expect(await other.rcpt(ZEUS)).toBe('room');
    const before = await held(ZEUS);
    expect(await other.rcpt('all@olimpus.example')).toBe('quota.alone');
    expect(await held(ZEUS)).toBe(before);
  });

  test('a mailbox without a limit, and postmaster, are as ever', async () => {
    mailbox(ZEUS, 5, null);
    aliases.set('postmaster@olimpus.example', { kind: 'delivered', mailboxes: [HERA], elsewhere: false });
    expect(await new Mail(2, options).rcpt('all@olimpus.example')).toBe('room');
    expect(await new Mail(9, options).rcpt('postmaster@olimpus.example')).toBe('room');
    expect(await new Mail(9, options).rcpt('out@olimpus.example')).toBe('room');
  });
});

describe('at the end', () => {
  test('a message that is larger than it said is refused, and what it held is free', async () => {
    mailbox(ZEUS, 5, 20);
    const mail = new Mail(1);
    await mail.rcpt(ZEUS);
    expect(await mail.end(16)).toBe('quota.full');
    expect(await held(ZEUS)).toBe(0);
  });

  test('it goes on when one of its recipients has room, and holds what it may overdraw', async () => {
    mailbox(ZEUS, 5, 20);
    mailbox(HERA, 0, 20);
    const mail = new Mail(10);
    await mail.rcpt(ZEUS);
    await mail.rcpt(HERA);
    // Its user has put something in.
    mailbox(ZEUS, 15, 20);
    expect(await mail.end(9)).toBe('room');
    expect(await held(HERA)).toBe(9);
    expect(await held(ZEUS)).toBe(10);
  });

  test('of a larger size than was announced it is refused as soon as one of its recipients lacks room', async () => {
    mailbox(ZEUS, 5, 20);
    mailbox(HERA, 0, 20);
    const mail = new Mail(1);
    await mail.rcpt(ZEUS);
    await mail.rcpt(HERA);
    expect(await mail.end(15)).toBe('room');
    expect(await mail.end(16)).toBe('quota.full');
    expect(await held(HERA)).toBe(0);
    expect(await held(ZEUS)).toBe(0);
  });

  test('it goes on when it has recipients whom nobody asked about', async () => {
    mailbox(ZEUS, 5, 20);
    const mail = new Mail(10);
    await mail.rcpt(ZEUS);
    mailbox(ZEUS, 15, 20);
    expect(await mail.end(10, 2)).toBe('room');
    expect(await mail.end(10, 1)).toBe('quota.full');
  });

  test('room is held for longer from then on', async () => {
    mailbox(ZEUS, 5, 20);
    const mail = new Mail(10, { transfer_hold: '10m', hold: '1h' });
    await mail.rcpt(ZEUS);
    await mail.end(9);
    clock.time += 3_500_000;
    expect(await held(ZEUS)).toBe(9);
    clock.time += 101_000;
    expect(await held(ZEUS)).toBe(0);
  });

  test('at DATA, and for a message that nothing is known of, it says nothing', async () => {
    mailbox(ZEUS, 5, 20);
    const mail = new Mail(1);
    expect(await mail.end(16)).toBe('room');
    await mail.rcpt(ZEUS);
    expect(await mail.end(16, 1, 'data')).toBe('room');
  });
});

describe('a notice', () => {
  test('at each threshold once, whichever message comes', async () => {
    mailbox(ZEUS, 79, 100);
    await new Mail(1).rcpt(ZEUS);
    mailbox(ZEUS, 80, 100);
    await new Mail(1).rcpt(ZEUS);
    await expect.poll(() => notices.length).toBe(1);
    await new Mail(1).rcpt(ZEUS);
    mailbox(ZEUS, 96, 100);
    await new Mail(1).rcpt(ZEUS);
    await expect.poll(() => notices.length).toBe(2);
    expect(notices.map(({ text }) => text)).toEqual([
      `The mailbox ${ZEUS} is 80 % full: 76.3 MiB of 95.4 MiB.`,
      `The mailbox ${ZEUS} is 96 % full: 91.6 MiB of 95.4 MiB.`,
    ]);
    expect(notices[0]).toMatchObject({
      event: 'quota',
      subject: ZEUS,
      facts: { percent: 80, threshold: 80 },
    });
  });

  test('once for all processes, and not on the way down', async () => {
    mailbox(ZEUS, 96, 100);
    await new Mail(1).rcpt(ZEUS);
    await expect.poll(() => notices.length).toBe(1);
    await using other = await openSqliteState(folder, clock);
    tools = { ...tools, state: other };
    await new Mail(1).rcpt(ZEUS);
    mailbox(ZEUS, 85, 100);
    await new Mail(1).rcpt(ZEUS);
    mailbox(HERA, 96, 100);
    await new Mail(1).rcpt(HERA);
    await expect.poll(() => notices.map(({ subject }) => subject)).toEqual([ZEUS, HERA]);
  });
});

test('without somebody to ask the check is not made', () => {
  const bare = checkTools({ quota: null });
  expect(quotaCheck.bind({}, 1000).ready(bare)).toBe(false);
  expect(quotaEndCheck.bind({}, 1000).ready(bare)).toBe(false);
  expect(quotaCheck.bind({}, 1000).ready(tools)).toBe(true);
});
