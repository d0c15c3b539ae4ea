import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import {
  mailCheck,
  messageCheck,
  UnmetNeed,
  type AnyBoundCheck,
  type BoundCheck,
  type CheckTools,
  type MailFacts,
  type MessageFacts,
} from '../../../src/checks/check.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import { NULL_PATH } from '../../../src/mail/address.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { client, message } from '../../support/mail.ts';

const MAIL: MailFacts = { client: client(), direction: 'in', sender: NULL_PATH };
const MESSAGE: MessageFacts = { ...MAIL, message: message() };
const FINDING = { code: 'a.found', detail: 'x' };

type Run = BoundCheck<'mail'>['run'];

const INFO = {
  summary: '',
  directions: ['in'],
  needs: [],
  codes: {},
  unavailable: 'defer',
  deadline: '5s',
} as const;

function mail(name: string, run: Run, values: Partial<BoundCheck<'mail'>> = {}): AnyBoundCheck {
  return { ...INFO, name, stage: 'mail', deadlineMs: 5000, ready: () => true, run, ...values };
}

function whole(
  name: string,
  run: BoundCheck<'message'>['run'],
  needs: readonly string[] = [],
): AnyBoundCheck {
  return { ...INFO, name, stage: 'message', deadlineMs: 5000, ready: () => true, run, needs };
}

const finds: Run = async () => [FINDING];
const obedient: Run = ({ signal }) =>
  new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new NeighbourError('given up')));
  });
const hangs: Run = () => new Promise(() => {});

function start(checks: readonly AnyBoundCheck[], tools: CheckTools = checkTools()): CheckRun {
  const run = new CheckRun(checks, tools, 'in');
  run.startMail(MAIL);
  run.startMessage(MESSAGE);
  return run;
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('CheckRun', () => {
  it('gives the outcomes in the order of the list, whatever the order in which they are made', async () => {
    const gate = Promise.withResolvers<void>();
    const slow: Run = async () => {
      await gate.promise;
      return [];
    };
    const observed: string[] = [];
    const run = new CheckRun([mail('a', slow), mail('b', finds)], checkTools(), 'in', ({ check }) =>
      observed.push(check),
    );
    run.startMail(MAIL);
    const settled = run.settle();
    await vi.advanceTimersByTimeAsync(0);
    expect(observed).toEqual(['b']);
    gate.resolve();
    expect(await settled).toEqual([
      { kind: 'found', check: 'a', findings: [], elapsed: 0 },
      { kind: 'found', check: 'b', findings: [FINDING], elapsed: 0 },
    ]);
    expect(observed).toEqual(['b', 'a']);
  });

  it('starts a check when its facts are there, with the facts, tools and options of its own', async () => {
    const seen: unknown[] = [];
    const tools = checkTools();
    const spec = {
      ...INFO,
      options: {},
      run: async (context: { facts: unknown; tools: unknown; options: unknown }) => {
        seen.push(context.facts, context.tools, context.options);
        return [];
      },
    };
    const checks = [
      messageCheck({ ...spec, name: 'b', stage: 'message' }).bind({}, 5000),
      mailCheck({ ...spec, name: 'a', stage: 'mail' }).bind({}, 5000),
    ];
    const run = new CheckRun(checks, tools, 'in');
    run.startMail(MAIL);
    await vi.advanceTimersByTimeAsync(0);
    expect(seen).toEqual([MAIL, tools, {}]);
    run.startMessage(MESSAGE);
    expect((await run.settle()).map(({ check }) => check)).toEqual(['b', 'a']);
    expect(seen.slice(3)).toEqual([MESSAGE, tools, {}]);
  });

  it('leaves out what is not for this direction, and what has nobody to ask', async () => {
    const run = start([
      mail('out', finds, { directions: ['out'] }),
      mail('alone', finds, { ready: ({ scanner }) => scanner !== null }),
      mail('both', finds, { directions: ['out', 'in'] }),
    ]);
    expect((await run.settle()).map(({ check }) => check)).toEqual(['both']);
  });

  it('settles with nothing when nothing was started', async () => {
    expect(await new CheckRun([mail('a', finds)], checkTools(), 'in').settle()).toEqual([]);
  });

  it.each<[string, Run, Partial<Extract<Outcome, { kind: 'unavailable' }>>]>([
    [
      'an error',
      async () => {
        throw new Error('broken', { cause: new Error('because') });
      },
      { reason: 'failed', detail: 'broken: because' },
    ],
    [
      'an error thrown at once',
      () => {
        throw new TypeError('not a promise');
      },
      { reason: 'failed', detail: 'not a promise' },
    ],
    [
      'an error without a message',
      async () => {
        throw new RangeError();
      },
      { reason: 'failed', detail: 'RangeError' },
    ],
    [
      'something that is no error',
      () => Promise.reject('text'),
      { reason: 'failed', detail: 'something that is no error was thrown' },
    ],
    [
      'a neighbour’s failure',
      async () => {
        throw new NeighbourError('spamd', { cause: new Error('ECONNREFUSED') });
      },
      { reason: 'neighbour', detail: 'spamd: ECONNREFUSED' },
    ],
    [
      'a failure at each address of a neighbour',
      async () => {
        const parts = [new Error('refused ::1'), new Error('refused 127.0.0.1')];
        throw new NeighbourError('spamd', { cause: new AggregateError(parts) });
      },
      { reason: 'neighbour', detail: 'spamd: refused ::1, refused 127.0.0.1' },
    ],
    [
      'a missing outcome',
      async () => {
        throw new UnmetNeed('no SPF result');
      },
      { reason: 'needs', detail: 'no SPF result' },
    ],
  ])('makes an outcome of %s', async (_, run, outcome) => {
    expect(await start([mail('a', run), mail('b', finds)]).settle()).toEqual([
      { kind: 'unavailable', check: 'a', elapsed: 0, ...outcome },
      { kind: 'found', check: 'b', findings: [FINDING], elapsed: 0 },
    ]);
  });

  it('names no more than five links of a chain of causes, even one without an end', async () => {
    const error = new Error('again');
    error.cause = error;
    const [outcome] = await start([mail('a', () => Promise.reject(error))]).settle();
    expect(outcome).toMatchObject({ detail: 'again: again: again: again: again' });
  });
});

describe('the deadline of a check', () => {
  it('is kept to the millisecond, even by a check that ignores its signal', async () => {
    const made: Outcome[] = [];
    const run = new CheckRun([mail('a', hangs)], checkTools(), 'in', (outcome) => made.push(outcome));
    run.startMail(MAIL);
    await vi.advanceTimersByTimeAsync(4999);
    expect(made).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(made).toEqual([
      {
        kind: 'unavailable',
        check: 'a',
        reason: 'deadline',
        detail: 'no result within 5000 ms',
        elapsed: 5000,
      },
    ]);
    expect(await run.settle()).toEqual(made);
  });

  it('reaches the check as an aborted signal, and its late end changes nothing', async () => {
    const unhandled = vi.fn<() => void>();
    process.on('unhandledRejection', unhandled);
    const gate = Promise.withResolvers<void>();
    let aborted = false;
    const late: Run = async ({ signal }) => {
      signal.addEventListener('abort', () => (aborted = true));
      await gate.promise;
      throw new Error('too late');
    };
    const run = start([mail('a', late)]);
    await vi.advanceTimersByTimeAsync(5000);
    expect(aborted).toBe(true);
    gate.resolve();
    expect(await run.settle()).toMatchObject([{ kind: 'unavailable', reason: 'deadline' }]);
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  it('counts as missed even when the check rejects the moment it is aborted', async () => {
    const run = start([mail('a', obedient)]);
    await vi.advanceTimersByTimeAsync(5000);
    expect(await run.settle()).toMatchObject([{ reason: 'deadline' }]);
  });

  it('leaves no timer behind when the check ends in time', async () => {
    await start([mail('a', finds), whole('b', finds)]).settle();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('is each check’s own', async () => {
    const run = start([mail('a', hangs, { deadlineMs: 10 }), mail('b', hangs, { deadlineMs: 20 })]);
    await vi.advanceTimersByTimeAsync(20);
    expect((await run.settle()).map(({ elapsed }) => elapsed)).toEqual([10, 20]);
  });
});

describe('a check that needs others', () => {
  it('waits for their outcomes and sees them, and only them', async () => {
    const seen: string[][] = [];
    const run = start([
      mail('spf', finds),
      mail('other', finds),
      whole('dkim', async () => []),
      whole(
        'dmarc',
        async ({ prior }) => {
          seen.push([...prior.keys()]);
          return [...prior.values()].flatMap((outcome) => (outcome.kind === 'found' ? outcome.findings : []));
        },
        ['spf', 'dkim'],
      ),
    ]);
    const outcomes = await run.settle();
    expect(seen).toEqual([['spf', 'dkim']]);
    expect(outcomes[3]).toMatchObject({ kind: 'found', check: 'dmarc', findings: [FINDING] });
  });

  it('goes without those that did not take part', async () => {
    const [outcome] = await start([
      whole('dmarc', async ({ prior }) => [{ code: 'n', detail: String(prior.size) }], ['spf']),
    ]).settle();
    expect(outcome).toMatchObject({ findings: [{ detail: '0' }] });
  });

  it('is told that one could not be made, and has its own deadline from then on', async () => {
    const run = start([
      mail('spf', hangs),
      whole(
        'dmarc',
        async ({ prior }) => {
          if (prior.get('spf')?.kind === 'unavailable') throw new UnmetNeed('no SPF');
          return [];
        },
        ['spf'],
      ),
    ]);
    await vi.advanceTimersByTimeAsync(5000);
    expect(await run.settle()).toMatchObject([
      { reason: 'deadline', elapsed: 5000 },
      { reason: 'needs', detail: 'no SPF', elapsed: 5000 },
    ]);
  });
});

describe('a message that is given up', () => {
  it('ends everything at once', async () => {
    const signals: AbortSignal[] = [];
    const run = start([
      mail('a', ({ signal }) => {
        signals.push(signal);
        return new Promise(() => {});
      }),
      whole('b', hangs, ['a']),
      mail('c', finds),
    ]);
    await vi.advanceTimersByTimeAsync(100);
    run.abort();
    expect(await run.settle()).toMatchObject([
      { check: 'a', reason: 'failed', detail: 'the message was given up', elapsed: 100 },
      { check: 'b', reason: 'failed', detail: 'the message was given up' },
      { check: 'c', kind: 'found' },
    ]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('starts nothing that could go on', async () => {
    const run = new CheckRun([mail('a', hangs)], checkTools(), 'in');
    run.abort();
    run.startMail(MAIL);
    expect(await run.settle()).toMatchObject([{ reason: 'failed', detail: 'the message was given up' }]);
  });

  it('is something else than an answer whose time is up', async () => {
    const run = start([mail('a', hangs), mail('b', finds)]);
    await vi.advanceTimersByTimeAsync(100);
    run.expire();
    expect(await run.settle()).toMatchObject([
      { check: 'a', reason: 'deadline', detail: 'the time for the whole answer was used up', elapsed: 100 },
      { check: 'b', kind: 'found' },
    ]);
  });
});
