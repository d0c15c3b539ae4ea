import { describe, expect, test } from 'vitest';

import type { Decision, HistoryFilter, KeptFacts, Store, TraceKeys } from '../../src/ports/store.ts';
import { decision, FULL_DECISION, MORNING, type FakeClock } from '../support/decisions.ts';

export interface StoreUnderTest extends AsyncDisposable {
  /** The store as one daemon has it. */
  readonly store: Store;
  /** The same store as another daemon has it. */
  readonly other: Store;
  /** What both take for the time. */
  readonly clock: FakeClock;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const SESSION = '192.0.2.7:40001';
const QUEUE_ID = '4gX1Yz0abcz1';

/** What policyd knows at RCPT. */
function asked(differs: Partial<TraceKeys> = {}): TraceKeys {
  return { session: SESSION, sender: 'ada@example.com', instance: 'a1.b2.c3.0', queueId: null, ...differs };
}

/** What the milter knows at the end of the message. */
function filtered(differs: Partial<TraceKeys> = {}): TraceKeys {
  return { session: SESSION, sender: 'ada@example.com', instance: null, queueId: QUEUE_ID, ...differs };
}

/** What lmtp-filter knows. */
function delivered(differs: Partial<TraceKeys> = {}): TraceKeys {
  return { session: null, sender: 'ada@example.com', instance: null, queueId: QUEUE_ID, ...differs };
}

/** As policyd does, and the other daemons ask a round trip later. */
async function opened({ store }: StoreUnderTest, keys: TraceKeys, fresh: string): Promise<string> {
  const trace = await store.openTrace(keys, fresh);
  await store.flush();
  return trace;
}

async function recorded(given: StoreUnderTest, ...decisions: readonly Decision[]): Promise<void> {
  for (const one of decisions) given.store.record(one);
  await given.store.flush();
}

async function found(given: StoreUnderTest, filter: Omit<HistoryFilter, 'limit'>): Promise<string[]> {
  const decisions = await given.other.history({ ...filter, limit: 100 });
  return decisions.map((one) => one.trace);
}

/** What every store must do. `open` gives one that holds nothing. */
export function storeSuite(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`${name}: traces`, () => {
    test('a message keeps one trace from policyd over the milter to delivery', async () => {
      await using given = await open();
      const { store, other } = given;
      expect(await opened(given, asked(), 'policyd-1')).toBe('policyd-1');
      expect(await other.joinTrace(filtered(), 'milter-1')).toBe('policyd-1');
      await other.flush();
      expect(await store.joinTrace(delivered(), 'lmtp-1')).toBe('policyd-1');
      expect(await other.joinTrace(delivered(), 'lmtp-2')).toBe('policyd-1');
    });

    test('a message that policyd was not asked about gets its trace from the milter', async () => {
      await using given = await open();
      expect(await given.store.joinTrace(filtered(), 'milter-1')).toBe('milter-1');
      expect(await given.other.joinTrace(delivered(), 'lmtp-1')).toBe('milter-1');
    });

    test('without milter, delivery finds the trace by the queue id that policyd learnt later', async () => {
      await using given = await open();
      await opened(given, asked(), 'policyd-1');
      expect(await opened(given, asked({ queueId: QUEUE_ID }), 'policyd-2')).toBe('policyd-1');
      expect(await given.other.joinTrace(delivered(), 'lmtp-1')).toBe('policyd-1');
    });

    test('a policyd that starts again in the middle of a message finds its trace', async () => {
      await using given = await open();
      await opened(given, asked({ instance: 'other' }), 'another');
      await opened(given, asked(), 'policyd-1');
      await opened(given, asked({ instance: 'later' }), 'a-later-one');
      expect(await given.other.openTrace(asked({ queueId: QUEUE_ID }), 'policyd-2')).toBe('policyd-1');
      expect(await given.other.openTrace(asked({ queueId: 'Q3', instance: 'new' }), 'policyd-3')).toBe(
        'policyd-3',
      );
    });

    test('a short queue id that Postfix uses again in the same session is a new message to policyd', async () => {
      await using given = await open();
      await given.store.openTrace(asked({ queueId: 'Q1', instance: 'one' }), 'policyd-1');
      const again = asked({ queueId: 'Q1', instance: 'two' });
      expect(await given.store.openTrace(again, 'policyd-2')).toBe('policyd-2');
    });

    test('a milter that joins before the queue id is known notes it when it joins again', async () => {
      await using given = await open();
      await opened(given, asked(), 'policyd-1');
      const early = await given.other.joinTrace(filtered({ queueId: null }), 'milter-1');
      expect(early).toBe('policyd-1');
      expect(await given.other.joinTrace(filtered(), early)).toBe('policyd-1');
      expect(await given.store.joinTrace(delivered(), 'lmtp-1')).toBe('policyd-1');
    });

    test('each message of a session gets its own trace', async () => {
      await using given = await open();
      const { other } = given;
      const traces: string[] = [];
      for (const message of ['1', '2', '3']) {
        await opened(given, asked({ instance: `a1.b2.${message}` }), `policyd-${message}`);
        traces.push(await other.joinTrace(filtered({ queueId: `Q${message}` }), `milter-${message}`));
      }
      expect(traces).toEqual(['policyd-1', 'policyd-2', 'policyd-3']);
      // The fourth was not asked about, all others are taken.
      expect(await other.joinTrace(filtered({ queueId: 'Q4' }), 'milter-4')).toBe('milter-4');
    });

    test('a message refused at RCPT leaves a trace that the next one does not take', async () => {
      await using given = await open();
      await opened(given, asked({ instance: 'a1.1' }), 'refused');
      await opened(given, asked({ instance: 'a1.2' }), 'policyd-2');
      expect(await given.other.joinTrace(filtered(), 'milter-2')).toBe('policyd-2');
    });

    test('another session or another sender does not take a trace', async () => {
      await using given = await open();
      const { other } = given;
      await opened(given, asked(), 'policyd-1');
      expect(await other.joinTrace(filtered({ session: '192.0.2.7:40002', queueId: 'Q1' }), 'm-1')).toBe(
        'm-1',
      );
      expect(await other.joinTrace(filtered({ sender: '', queueId: 'Q2' }), 'm-2')).toBe('m-2');
      expect(await other.joinTrace(filtered({ session: null, queueId: 'Q3' }), 'm-3')).toBe('m-3');
      expect(await other.joinTrace(filtered({ queueId: 'Q4' }), 'm-4')).toBe('policyd-1');
    });

    test('an hour later a trace of the session is taken no more', async () => {
      await using given = await open();
      const { other, clock } = given;
      await opened(given, asked(), 'policyd-1');
      clock.time += HOUR + 1;
      expect(await other.joinTrace(filtered({ queueId: 'Q1' }), 'm-1')).toBe('m-1');
      clock.time -= 1;
      expect(await other.joinTrace(filtered({ queueId: 'Q2' }), 'm-2')).toBe('policyd-1');
    });

    test('a short queue id that Postfix uses again names the newer message', async () => {
      await using given = await open();
      const { store, other } = given;
      expect(await store.joinTrace(filtered({ session: '192.0.2.1:1' }), 'old')).toBe('old');
      expect(await store.joinTrace(filtered({ session: '192.0.2.2:2' }), 'new')).toBe('new');
      expect(await other.joinTrace(delivered(), 'lmtp')).toBe('new');
      expect(await other.joinTrace(delivered({ session: '192.0.2.1:1' }), 'lmtp')).toBe('old');
    });

    test('a queue id counts for as long as Postfix keeps mail in its queue', async () => {
      await using given = await open();
      await given.store.joinTrace(filtered(), 'milter-1');
      given.clock.time += 5 * DAY + HOUR;
      expect(await given.other.joinTrace(delivered(), 'lmtp-1')).toBe('milter-1');
      given.clock.time += 2 * DAY;
      expect(await given.other.joinTrace(delivered(), 'lmtp-2')).toBe('lmtp-2');
    });

    test('requests without instance and messages without any key get their own', async () => {
      await using given = await open();
      const { store } = given;
      expect(await store.openTrace(asked({ instance: null }), 'one')).toBe('one');
      expect(await store.openTrace(asked({ instance: null }), 'two')).toBe('two');
      expect(await store.joinTrace(filtered({ session: null, queueId: null }), 'three')).toBe('three');
      expect(await store.joinTrace(filtered({ session: null, queueId: null }), 'four')).toBe('four');
    });

    test('many at once: no trace is claimed twice', async () => {
      await using given = await open();
      const { other } = given;
      const numbers = Array.from({ length: 20 }, (_, index) => index);
      await Promise.all(numbers.map((n) => opened(given, asked({ instance: `i${n}` }), `policyd-${n}`)));
      const claimed = await Promise.all(
        numbers.map(async (n) => await other.joinTrace(filtered({ queueId: `Q${n}` }), `m-${n}`)),
      );
      expect(new Set(claimed)).toEqual(new Set(numbers.map((n) => `policyd-${n}`)));
    });
  });

  describe(`${name}: kept facts`, () => {
    const scan = {
      score: -1.9,
      required: 5,
      rules: ['BAYES_00', 'SPF_PASS'],
      fields: [{ name: 'X-Spam-Status', value: ' No, score=-1.9\r\n\ttests=BAYES_00,SPF_PASS caf\u00e9' }],
      user: 'zeus@olimpus.example',
      rewritten: true,
    };
    const facts: KeptFacts = {
      direction: 'in',
      outcomes: [
        { kind: 'unavailable', check: 'spf', reason: 'deadline', detail: 'no answer', elapsed: 6000 },
        {
          kind: 'found',
          check: 'spam',
          findings: [{ code: 'spam.scored', detail: 'ham', score: -1.9, scan }],
          elapsed: 3,
        },
        {
          kind: 'found',
          check: 'settings',
          findings: [
            {
              code: 'settings.own',
              detail: 'zeus',
              recipient: 1,
              settings: [
                {
                  mailbox: 'zeus@olimpus.example',
                  thresholds: { tag: null, junk: 4.5, discard: 40 },
                  subjectTag: '',
                  rewriteBody: false,
                },
                { mailbox: null },
              ],
            },
            { code: 'lists.allow', detail: 'wanted', recipient: 1, setting: 'directory', waives: ['spam'] },
          ],
          elapsed: 1,
        },
      ],
    };

    test('the other daemon gets what was kept, byte for byte, as often as it asks', async () => {
      await using given = await open();
      given.store.keepFacts('trace-1', 'Q1', facts);
      await given.store.flush();
      expect(await given.other.keptFacts('trace-1', 'Q1')).toEqual(facts);
      expect(await given.other.keptFacts('trace-1', 'Q1')).toEqual(facts);
    });

    test('both trace and queue id must be right', async () => {
      await using given = await open();
      given.store.keepFacts('trace-1', 'Q1', facts);
      await given.store.flush();
      expect(await given.other.keptFacts('trace-1', 'Q2')).toBeNull();
      expect(await given.other.keptFacts('trace-2', 'Q1')).toBeNull();
    });

    test('they are waited for while they are on their way', async () => {
      await using given = await open();
      // What is written first opens the file.
      given.store.keepFacts('trace-0', 'Q0', facts);
      await given.store.flush();
      const kept = given.other.keptFacts('trace-1', 'Q1');
      given.store.keepFacts('trace-1', 'Q1', facts);
      expect(await kept).toEqual(facts);
    });

    test('the newest counts', async () => {
      await using given = await open();
      given.store.keepFacts('trace-1', 'Q1', facts);
      given.store.keepFacts('trace-1', 'Q1', { ...facts, direction: 'out' });
      await given.store.flush();
      expect((await given.other.keptFacts('trace-1', 'Q1'))?.direction).toBe('out');
    });

    test('they are good for a day', async () => {
      await using given = await open();
      given.store.keepFacts('trace-1', 'Q1', facts);
      await given.store.flush();
      given.clock.time += DAY;
      expect(await given.other.keptFacts('trace-1', 'Q1')).toEqual(facts);
      given.clock.time += 1;
      expect(await given.other.keptFacts('trace-1', 'Q1')).toBeNull();
    });
  });

  describe(`${name}: history`, () => {
    test('everything of a decision is kept', async () => {
      await using given = await open();
      await recorded(given, FULL_DECISION);
      expect(await given.other.history({ limit: 10 })).toEqual([FULL_DECISION]);
    });

    test('what is null stays null, and the null path stays empty', async () => {
      await using given = await open();
      const bare = decision({
        queueId: null,
        helo: null,
        login: null,
        sender: '',
        recipients: [],
        messageId: null,
        size: null,
        client: '',
      });
      await recorded(given, bare);
      expect(await given.other.history({ limit: 10 })).toEqual([bare]);
    });

    test("the scanner's fields are not kept: its report quotes the body", async () => {
      await using given = await open();
      const quoting = decision({
        outcomes: [
          {
            kind: 'found',
            check: 'spam',
            findings: [
              {
                code: 'spam.scored',
                detail: '1 of 5',
                scan: {
                  score: 1,
                  required: 5,
                  rules: ['A'],
                  fields: [{ name: 'X-Spam-Report', value: ' Content preview: dear Bob' }],
                },
              },
            ],
            elapsed: 1,
          },
        ],
      });
      await recorded(given, quoting);
      expect(JSON.stringify(await given.other.history({ limit: 10 }))).not.toContain('preview');
    });

    test('newest first, those of one millisecond in the order they came, and no more than asked for', async () => {
      await using given = await open();
      await recorded(
        given,
        decision({ trace: 'b', time: MORNING + 5 }),
        decision({ trace: 'a', time: MORNING }),
        decision({ trace: 'c', time: MORNING + 5 }),
        decision({ trace: 'd', time: MORNING + 9 }),
      );
      expect(await found(given, {})).toEqual(['d', 'c', 'b', 'a']);
      expect((await given.other.history({ limit: 2 })).map((one) => one.trace)).toEqual(['d', 'c']);
    });

    const population = [
      decision({ trace: 'policy', daemon: 'policyd', stage: 'rcpt', queueId: null, time: MORNING }),
      decision({
        trace: 'milter',
        verdict: 'reject',
        rule: 'spf.fail',
        client: '2001:db8::1',
        time: MORNING + 1,
      }),
      decision({
        trace: 'lmtp',
        daemon: 'lmtp-filter',
        queueId: 'Q9',
        sender: '',
        recipients: ['Bob@Example.ORG'],
        verdict: 'junk',
        rule: 'score>=5',
        time: MORNING + 2,
      }),
      decision({
        trace: 'odd',
        sender: '"a@b"@sub.example.com',
        recipients: ['root'],
        rule: 'spf.softfail',
        time: MORNING + 3,
      }),
    ];
    const questions: readonly [string, Omit<HistoryFilter, 'limit'>, readonly string[]][] = [
      ['trace', { trace: 'milter' }, ['milter']],
      ['queue id', { queueId: 'Q9' }, ['lmtp']],
      ['sender, whatever its case', { sender: 'ADA@example.COM' }, ['milter', 'policy']],
      ['the null path', { sender: '' }, ['lmtp']],
      ['domain of the sender, without its subdomains', { sender: '@EXAMPLE.com' }, ['milter', 'policy']],
      ['sender with an @ in the local part', { sender: '"a@b"@sub.example.com' }, ['odd']],
      ['recipient', { recipient: 'bob@example.org' }, ['lmtp', 'milter', 'policy']],
      ['second recipient', { recipient: 'carol+lists@example.net' }, ['milter', 'policy']],
      ['domain of a recipient', { recipient: '@example.org' }, ['lmtp', 'milter', 'policy']],
      ['recipient without domain', { recipient: 'root' }, ['odd']],
      ['client', { client: '2001:db8::1' }, ['milter']],
      ['daemon', { daemon: 'policyd' }, ['policy']],
      ['verdict', { verdict: 'junk' }, ['lmtp']],
      ['rule', { rule: 'spf.fail' }, ['milter']],
      ['rules by their beginning', { rule: 'spf.*' }, ['odd', 'milter']],
      ['any rule', { rule: '*' }, ['odd', 'lmtp', 'milter', 'policy']],
      ['since, included', { since: MORNING + 2 }, ['odd', 'lmtp']],
      ['until, not included', { until: MORNING + 1 }, ['policy']],
      ['all together', { sender: '@example.com', recipient: '@example.org', daemon: 'milter' }, ['milter']],
      ['what is not there', { trace: 'milter', client: '192.0.2.99' }, []],
      ['characters that mean something to databases', { sender: "%'; DROP TABLE x@_" }, []],
    ];

    test.for(questions)('by %s', async ([, filter, traces]) => {
      await using given = await open();
      await recorded(given, ...population);
      expect(await found(given, filter)).toEqual(traces);
    });

    test('a recipient named twice is found once', async () => {
      await using given = await open();
      await recorded(given, decision({ recipients: ['bob@example.org', 'BOB@example.org'] }));
      expect(await found(given, { recipient: 'bob@example.org' })).toHaveLength(1);
    });

    test('record returns at once, and what it was given is written without flush', async () => {
      await using given = await open();
      given.store.record(decision());
      await expect.poll(() => found(given, {}), { timeout: 10_000 }).toHaveLength(1);
    });

    test('many decisions, some with many recipients', async () => {
      await using given = await open();
      const crowd = Array.from({ length: 1000 }, (_, index) => `user${index}@example.org`);
      for (let index = 0; index < 300; index++) {
        given.store.record(decision({ recipients: index % 100 === 0 ? crowd : ['bob@example.org'] }));
      }
      await given.store.flush();
      const all = await given.other.history({ limit: 1000 });
      expect(all).toHaveLength(300);
      expect((await given.other.history({ recipient: 'user999@example.org', limit: 9 })).length).toBe(3);
    });
  });

  describe(`${name}: labels`, () => {
    const label = { message: 'milter-1', user: 'bob@example.org', label: 'spam', time: MORNING } as const;

    test('are shown with each decision about the message, by its trace or its Message-ID', async () => {
      await using given = await open();
      const { store, other } = given;
      await recorded(
        given,
        decision({ trace: 'milter-1' }),
        decision({ trace: 'milter-2', messageId: '<2@x>' }),
      );
      expect((await other.history({ limit: 10 })).map((one) => 'labels' in one)).toEqual([false, false]);
      const byId = { message: '<2@x>', user: '', label: 'ham', time: MORNING } as const;
      await store.label(label);
      await store.label(byId);
      expect((await other.history({ trace: 'milter-1', limit: 10 }))[0]?.labels).toEqual([label]);
      expect((await other.history({ trace: 'milter-2', limit: 10 }))[0]?.labels).toEqual([byId]);
    });

    test('there is one for each message and user, the last', async () => {
      await using given = await open();
      const { store, other } = given;
      await recorded(given, decision({ trace: 'milter-1', messageId: '<1@x>' }));
      const hers = { ...label, user: 'carol@example.net', time: MORNING + 1 };
      const last = { ...label, label: 'ham', time: MORNING + 2 } as const;
      await store.label(label);
      await store.label(hers);
      await store.label(last);
      // Told late.
      await store.label({ ...label, time: MORNING + 1 });
      expect((await other.history({ limit: 10 }))[0]?.labels).toEqual([hers, last]);
      // Of the same message by its other name.
      const byId = { ...label, message: '<1@x>', time: MORNING + 3 };
      await store.label(byId);
      expect((await other.history({ limit: 10 }))[0]?.labels).toEqual([hers, byId]);
    });

    test('go with the decisions of their time', async () => {
      await using given = await open();
      const { store, other } = given;
      await recorded(given, decision({ trace: 'milter-1', time: MORNING + 10 }));
      for (let user = 0; user < 250; user++) await store.label({ ...label, user: `u${user}`, time: MORNING });
      await store.label({ ...label, time: MORNING + 10 });
      await other.expire(MORNING + 10);
      expect((await other.history({ limit: 10 }))[0]?.labels).toEqual([{ ...label, time: MORNING + 10 }]);
    });
  });

  describe(`${name}: expiry`, () => {
    test('removes what is older, tells how many, keeps the rest', async () => {
      await using given = await open();
      for (let index = 0; index < 250; index++) {
        given.store.record(decision({ trace: `t${index}`, time: MORNING + index }));
      }
      await given.store.flush();
      expect(await given.other.expire(MORNING + 180)).toBe(180);
      expect(await given.other.expire(MORNING + 180)).toBe(0);
      const left = await given.store.history({ recipient: 'bob@example.org', limit: 1000 });
      expect(left.map((one) => one.trace)).toEqual(
        Array.from({ length: 70 }, (_, index) => `t${249 - index}`),
      );
    });

    test('leaves traces and facts of mail that is still on its way', async () => {
      await using given = await open();
      await given.store.joinTrace(filtered(), 'milter-1');
      const facts: KeptFacts = { direction: 'in', outcomes: [] };
      given.store.keepFacts('milter-1', QUEUE_ID, facts);
      await given.store.flush();
      given.clock.time += DAY - HOUR;
      await given.store.expire(MORNING - DAY);
      expect(await given.other.joinTrace(delivered(), 'lmtp-1')).toBe('milter-1');
      expect(await given.other.keptFacts('milter-1', QUEUE_ID)).toEqual(facts);
    });

    test('keeps no addresses in traces for longer than decisions may be kept', async () => {
      await using given = await open();
      await given.store.joinTrace(filtered(), 'milter-1');
      await given.store.expire(MORNING + 1);
      expect(await given.other.joinTrace(delivered(), 'lmtp-1')).toBe('lmtp-1');
    });
  });
}
