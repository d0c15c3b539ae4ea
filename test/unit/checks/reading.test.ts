import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { bodyCheck, type BodyReader, type HeadFacts, type ReadContext } from '../../../src/checks/check.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import { NULL_PATH } from '../../../src/mail/address.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { client, message } from '../../support/mail.ts';

const MESSAGE = message({ body: 'first\r\nsecond\r\n' });
const MAIL = { client: client(), direction: 'in', sender: NULL_PATH } as const;
const HEAD: HeadFacts = {
  ...MAIL,
  headers: MESSAGE.headers,
  recipients: MESSAGE.envelope.recipients,
};
const DEADLINE_MS = 5000;

/** What one reader was given. */
interface Seen {
  head: ReadContext<unknown> | null;
  text: string;
}

function check(seen: Seen, values: Partial<BodyReader> = {}, read?: () => never) {
  return bodyCheck({
    name: 'a',
    stage: 'message',
    summary: '',
    directions: ['in'],
    needs: [],
    codes: {},
    unavailable: 'defer',
    deadline: '5s',
    options: {},
    read(context) {
      seen.head = context;
      return (
        read?.() ?? {
          write(chunk) {
            seen.text += Buffer.from(chunk).toString('latin1');
            return undefined;
          },
          end: () => [{ code: 'a.read', detail: seen.text }],
          ...values,
        }
      );
    },
  }).bind({}, DEADLINE_MS);
}

function seenNothing(): Seen {
  return { head: null, text: '' };
}

function begin(values: Partial<BodyReader> = {}, read?: () => never): { run: CheckRun; seen: Seen } {
  const seen = seenNothing();
  const run = new CheckRun([check(seen, values, read)], checkTools(), 'in');
  run.startMail(MAIL);
  run.startBody(HEAD);
  return { run, seen };
}

async function outcomeOf(run: CheckRun): Promise<Outcome | undefined> {
  run.startMessage({ ...MAIL, message: MESSAGE });
  const [outcome] = await run.settle();
  return outcome;
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('a check that reads the body while it comes', () => {
  it('is given the header section, each chunk, and the end', async () => {
    const { run, seen } = begin();
    expect(seen.head?.facts).toEqual(HEAD);
    expect(run.body(Buffer.from('one '))).toBeUndefined();
    expect(run.body(Buffer.from('two'))).toBeUndefined();
    expect(await outcomeOf(run)).toMatchObject({
      kind: 'found',
      findings: [{ code: 'a.read', detail: 'one two' }],
    });
  });

  it('reads the kept body where nothing was given while it came', async () => {
    const seen = seenNothing();
    const run = new CheckRun([check(seen)], checkTools(), 'in');
    run.startMail(MAIL);
    expect(await outcomeOf(run)).toMatchObject({ findings: [{ detail: 'first\r\nsecond\r\n' }] });
    expect(seen.head?.facts).toEqual(HEAD);
  });

  it('makes the giver wait', async () => {
    const taken = Promise.withResolvers<void>();
    const { run } = begin({ write: () => taken.promise });
    let waits = true;
    const given = run.body(Buffer.from('x'))?.then(() => (waits = false));
    await Promise.resolve();
    expect(waits).toBe(true);
    taken.resolve();
    await given;
    expect(waits).toBe(false);
  });

  const broken = new NeighbourError('the scanner hung up');
  it.each<[string, Partial<BodyReader>]>([
    [
      'throws',
      {
        write: () => {
          throw broken;
        },
      },
    ],
    ['rejects', { write: () => Promise.reject(broken) }],
    ['throws at the end', { end: () => Promise.reject(broken) }],
  ])('is unavailable when it %s, and the body goes on', async (_, values) => {
    const { run } = begin(values);
    await run.body(Buffer.from('x'));
    expect(run.body(Buffer.from('y'))).toBeUndefined();
    expect(await outcomeOf(run)).toMatchObject({
      kind: 'unavailable',
      reason: 'neighbour',
      detail: 'the scanner hung up',
    });
  });

  it('is unavailable when it can not begin', async () => {
    const { run } = begin({}, () => {
      throw broken;
    });
    expect(run.body(Buffer.from('x'))).toBeUndefined();
    expect(await outcomeOf(run)).toMatchObject({ kind: 'unavailable', reason: 'neighbour' });
  });

  it('holds nobody up for longer than its deadline', async () => {
    const { run, seen } = begin({ write: () => new Promise(() => {}) });
    const given = run.body(Buffer.from('x'));
    vi.advanceTimersByTime(DEADLINE_MS);
    await given;
    expect(seen.head?.signal.aborted).toBe(true);
    expect(run.body(Buffer.from('y'))).toBeUndefined();
    expect(await outcomeOf(run)).toMatchObject({
      kind: 'unavailable',
      reason: 'deadline',
      detail: `took no more of the body for ${DEADLINE_MS} ms`,
    });
  });

  it('has its deadline for the end, too', async () => {
    const { run, seen } = begin({ end: () => new Promise(() => {}) });
    const outcome = outcomeOf(run);
    vi.advanceTimersByTime(DEADLINE_MS);
    expect(await outcome).toMatchObject({ kind: 'unavailable', reason: 'deadline' });
    expect(seen.head?.signal.aborted).toBe(true);
  });

  it('is told when the message is given up, and lets go of the giver', async () => {
    const { run, seen } = begin({ write: () => new Promise(() => {}) });
    const given = run.body(Buffer.from('x'));
    run.abort();
    await given;
    expect(seen.head?.signal.aborted).toBe(true);
    expect(await outcomeOf(run)).toMatchObject({ kind: 'unavailable', reason: 'failed' });
  });

  it('is unavailable when the time for the whole answer is up while it reads', async () => {
    const { run } = begin();
    run.expire();
    expect(await outcomeOf(run)).toMatchObject({ kind: 'unavailable', reason: 'deadline' });
  });
});
