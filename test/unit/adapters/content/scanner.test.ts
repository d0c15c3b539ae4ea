import { afterEach, expect, test } from 'vitest';

import {
  LARGE,
  ThreadedContentScanner,
  WAITING_LIMIT,
  type ContentScannerOptions,
} from '../../../../src/adapters/content/scanner.ts';
import { HeaderList } from '../../../../src/mail/header.ts';
import type { ContentQuestion, ContentRule } from '../../../../src/ports/content-scanner.ts';
import { NeighbourError } from '../../../../src/ports/neighbour-error.ts';
import { contentRule } from '../../../support/mime.ts';

const HEADERS = new HeaderList([{ name: 'Subject', value: ' plans' }]);
const RULES = [contentRule({ words: ['top secret'] }), contentRule({ words: ['plans'], where: ['subject'] })];
const NEVER = new AbortController().signal;
/** More text than a thread gets through in a few milliseconds. */
const LONG = Buffer.alloc(2 * 1024 * 1024, 'abc ');

/** What any thread takes; one octet more, and it is for one alone. */
const LARGEST_SMALL = Buffer.alloc(LARGE, 'abc ');

const open: ThreadedContentScanner[] = [];

afterEach(async () => {
  for (const scanner of open.splice(0)) await scanner[Symbol.asyncDispose]();
});

function scannerWith(options: ContentScannerOptions = {}): {
  scanner: ThreadedContentScanner;
  lost: string[];
} {
  const lost: string[] = [];
  const scanner = new ThreadedContentScanner(
    { scanned: () => {}, threadLost: (why) => lost.push(why) },
    options,
  );
  open.push(scanner);
  return { scanner, lost };
}

function question(
  body: string | Buffer,
  rules: readonly ContentRule[] = RULES,
  bodyOctets = body.length,
): ContentQuestion {
  const octets = Buffer.from(body);
  function* chunks(): Generator<Buffer> {
    for (let at = 0; at < octets.length; at += 1000) yield octets.subarray(at, at + 1000);
  }
  return {
    rules,
    wanted: [...rules.keys()],
    headers: HEADERS,
    body: { size: octets.length, chunks },
    bodyOctets,
  };
}

const chunks = (): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error('the disk is gone')) }),
});

test('what a thread finds comes back, and what is left in the sender stays as it is', async () => {
  const { scanner } = scannerWith();
  const body = Buffer.from(`${'x '.repeat(3000)}top secret`);
  const copy = Buffer.from(body);
  const answer = await scanner.scan(question(body), NEVER);
  expect(answer).toEqual({
    hits: [
      { rule: 0, detail: '1 match: body "x x x x x t********t"' },
      { rule: 1, detail: '1 match: subject "p***s"' },
    ],
    unparsable: [],
    tooLarge: [],
  });
  expect(body).toEqual(copy);
});

test('only the beginning is looked at where that is wanted, and only the rules that are', async () => {
  const { scanner } = scannerWith();
  const body = `${'x '.repeat(50)}top secret`;
  expect((await scanner.scan(question(body, RULES, 109), NEVER)).hits).toMatchObject([{ rule: 1 }]);
  expect((await scanner.scan(question(body, RULES, 110), NEVER)).hits).toHaveLength(2);
  const one = { ...question(body), wanted: [0] };
  expect((await scanner.scan(one, NEVER)).hits).toMatchObject([{ rule: 0 }]);
});

test('rules of another configuration are taken over with the first message that goes by them', async () => {
  const { scanner } = scannerWith({ threads: 1 });
  const other = [contentRule({ words: ['hammer'] })];
  const [first, second, third] = await Promise.all([
    scanner.scan(question('hammer'), NEVER),
    scanner.scan(question('hammer', other), NEVER),
    scanner.scan(question('hammer'), NEVER),
  ]);
  expect([first, second, third].map(({ hits }) => hits.map(({ rule }) => rule))).toEqual([[1], [0], [1]]);
});

test('a message that takes too long could not be looked at, and the next one gets a new thread', async () => {
  const { scanner, lost } = scannerWith({ threads: 1, scanLimitMs: 1 });
  const late = scanner.scan(question(LONG), NEVER);
  await expect(late).rejects.toThrow(NeighbourError);
  await expect(late).rejects.toThrow(/not done within 1 ms/);
  expect(lost).toEqual(['not done within 1 ms']);

  const patient = scannerWith({ threads: 1 });
  expect((await patient.scanner.scan(question(LONG), NEVER)).hits).toMatchObject([{ rule: 1 }]);
  expect(patient.lost).toEqual([]);
}, 30_000);

test('rules that can not be made ready make every message unavailable', async () => {
  const { scanner } = scannerWith({ threads: 1 });
  const broken = [contentRule({ patterns: ['('] })];
  await expect(scanner.scan(question('x', broken), NEVER)).rejects.toThrow(NeighbourError);
  await expect(scanner.scan(question('x', broken), NEVER)).rejects.toThrow(/rules could not be made ready/);
  expect((await scanner.scan(question('top secret'), NEVER)).hits).toHaveLength(2);
});

test('a body that can not be read makes its message unavailable, and no other', async () => {
  const { scanner } = scannerWith({ threads: 1 });
  const unreadable = { ...question('x'), body: { size: 1, chunks } };
  await expect(scanner.scan(unreadable, NEVER)).rejects.toThrow('the disk is gone');
  expect((await scanner.scan(question('top secret'), NEVER)).hits).toHaveLength(2);
});

test('who gives up does not wait, and takes nobody else with him', async () => {
  const { scanner, lost } = scannerWith({ threads: 1 });
  const [running, waiting] = [new AbortController(), new AbortController()];
  const first = scanner.scan(question(LONG), running.signal);
  const second = scanner.scan(question('top secret'), waiting.signal);
  const third = scanner.scan(question('top secret'), NEVER);
  waiting.abort(new Error('no more'));
  await expect(second).rejects.toThrow('no more');
  running.abort(new Error('nor this'));
  await expect(first).rejects.toThrow('nor this');
  expect((await third).hits).toHaveLength(2);
  expect(lost).toEqual([]);
  const gone = AbortSignal.abort(new Error('before'));
  await expect(scanner.scan(question('x'), gone)).rejects.toThrow('before');
}, 30_000);

test(`${WAITING_LIMIT} messages may wait, and not one more`, async () => {
  const { scanner } = scannerWith({ threads: 1 });
  const under = scanner.scan(question('top secret'), NEVER);
  const waiting = Array.from({ length: WAITING_LIMIT }, () => scanner.scan(question('top secret'), NEVER));
  await expect(scanner.scan(question('x'), NEVER)).rejects.toThrow(/more than 1000 messages wait/);
  expect((await under).hits).toHaveLength(2);
  for (const answer of await Promise.all(waiting)) expect(answer.hits).toHaveLength(2);
}, 30_000);

test('large messages are for one thread, one after the other; small ones do not wait for them', async () => {
  const { scanner } = scannerWith();
  const ends: string[] = [];
  const scan = async (name: string, body: string | Buffer): Promise<void> => {
    const { hits } = await scanner.scan(question(body), NEVER);
    expect(hits.length).toBeGreaterThan(0);
    ends.push(name);
  };
  const large = Buffer.alloc(8 * LARGE, 'abc ');
  // Both threads have started.
  await Promise.all([scan('large', LARGEST_SMALL), scan('small', LARGEST_SMALL)]);
  ends.length = 0;
  await Promise.all([
    ...['large', 'large', 'large'].map((name) => scan(name, large)),
    ...['small', 'small'].map((name) => scan(name, 'top secret')),
  ]);
  expect(ends).toEqual(['small', 'small', 'large', 'large', 'large']);
}, 30_000);

test('what a message before left in the memory of a thread is no part of the next one', async () => {
  const { scanner } = scannerWith({ threads: 1 });
  const rules = [contentRule({ words: ['top secret'] })];
  const found = async (body: string): Promise<number> =>
    (await scanner.scan(question(body, rules), NEVER)).hits.length;
  expect(await found(`${'x '.repeat(5000)}top secret`)).toBe(1);
  expect(await found('short')).toBe(0);
  expect(await found('x '.repeat(4000))).toBe(0);
  expect(await found('top secret')).toBe(1);
});

test('closed, it takes nothing any more and leaves nobody waiting', async () => {
  const { scanner, lost } = scannerWith({ threads: 1 });
  const under = scanner.scan(question(LONG), NEVER);
  const waiting = scanner.scan(question('x'), NEVER);
  const ends = Promise.allSettled([under, waiting]);
  await scanner[Symbol.asyncDispose]();
  for (const end of await ends) expect(end.status).toBe('rejected');
  await expect(scanner.scan(question('x'), NEVER)).rejects.toThrow(NeighbourError);
  expect(lost).toEqual([]);
}, 30_000);
