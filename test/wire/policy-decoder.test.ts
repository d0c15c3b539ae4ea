import { isDeepStrictEqual } from 'node:util';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  ATTRIBUTE_LIMIT,
  LINE_LIMIT,
  REQUEST_LIMIT,
  RequestDecoder,
  type Attributes,
  type ProtocolError,
} from '../../src/policyd/wire.ts';
import { collectGarbage } from '../support/garbage.ts';
import { policyRequest } from '../support/players/policy-client.ts';

const FIRST = 'request=smtpd_access_policy\n';

interface Reading {
  readonly requests: Record<string, string>[];
  readonly error: ProtocolError | null;
  readonly midRequest: boolean;
}

function read(...chunks: (string | Buffer)[]): Reading {
  const decoder = new RequestDecoder();
  const requests: Attributes[] = [];
  let error: ProtocolError | null = null;
  for (const chunk of chunks) {
    const decoded = decoder.push(typeof chunk === 'string' ? Buffer.from(chunk, 'latin1') : chunk);
    requests.push(...decoded.requests);
    error = decoded.error;
  }
  return {
    requests: requests.map((request) => Object.fromEntries(request)),
    error,
    midRequest: decoder.midRequest,
  };
}

function bytes(buffer: Buffer): Buffer[] {
  return Array.from({ length: buffer.length }, (_, index) => buffer.subarray(index, index + 1));
}

/** A line of `length` bytes, without its LF. */
function filler(length: number): string {
  return `x=${'y'.repeat(length - 2)}`;
}

/** A request of `length` bytes. */
function requestOf(length: number): string {
  let text = FIRST;
  while (length - text.length > 8000) text += `${filler(7000)}\n`;
  return `${text}${filler(length - text.length - 2)}\n\n`;
}

describe('the form of a request', () => {
  test('lines up to the empty one; the first = splits; values may be empty, hold = and blanks', () => {
    const reading = read(`${FIRST}sender=a=b@c\nhelo_name=\nrecipient= x y \n\n`);
    expect(reading).toEqual({
      requests: [{ request: 'smtpd_access_policy', sender: 'a=b@c', helo_name: '', recipient: ' x y ' }],
      error: null,
      midRequest: false,
    });
  });

  test('attributes may come in any order, and unknown ones with any name', () => {
    const { requests, error } = read(`new_in_postfix_4=1\n=nameless\nsender=a\n${FIRST}\n`);
    expect(error).toBeNull();
    expect(requests[0]).toMatchObject({ sender: 'a', new_in_postfix_4: '1', '': 'nameless' });
  });

  test('of a repeated attribute the first counts, also when it is empty', () => {
    const { requests } = read(`${FIRST}sasl_username=\nsender=first\nsender=second\nsasl_username=zeus\n\n`);
    expect(requests[0]).toMatchObject({ sender: 'first', sasl_username: '' });
  });

  test('one CR before the LF is taken off, others stay', () => {
    const { requests, error } = read('request=smtpd_access_policy\r\nsender=a\rb\r\r\n\r\n');
    expect(error).toBeNull();
    expect(requests[0]).toEqual({ request: 'smtpd_access_policy', sender: 'a\rb\r' });
  });

  test('NUL, controls and bytes that are no UTF-8 are kept one for one', () => {
    const { requests } = read(`${FIRST}helo_name=\0\x1b[2J\x7f\x80\xff\xc3\n\n`);
    expect(requests[0]).toMatchObject({ helo_name: '\0\x1b[2J\x7f\x80\xff\xc3' });
  });

  test('a name that every object has is a name like others', () => {
    const { requests } = read(`__proto__=x\nconstructor=y\n${FIRST}\n`);
    expect(Object.entries(requests[0] ?? {})).toContainEqual(['constructor', 'y']);
  });
});

describe('chunks', () => {
  const one = policyRequest({ sender: 'thor@valhalla.example', helo_name: 'odin' });
  const two = policyRequest({ protocol_state: 'DATA', recipient_count: '2', helo_name: 'caf\xe9' });
  const both = Buffer.concat([one, two]);
  const whole = read(both);

  test('two requests in one chunk are two requests', () => {
    expect(whole.requests).toHaveLength(2);
    expect(whole.requests[0]).toMatchObject({ protocol_state: 'RCPT', sender: 'thor@valhalla.example' });
    expect(whole.requests[1]).toMatchObject({ protocol_state: 'DATA', helo_name: 'caf\xe9' });
  });

  test('split at every byte', () => {
    for (let cut = 0; cut <= both.length; cut++) {
      expect(read(both.subarray(0, cut), both.subarray(cut))).toEqual(whole);
    }
  });

  test('byte by byte', () => {
    expect(read(...bytes(both))).toEqual(whole);
  });

  test('a request that has begun is told apart from none', () => {
    const decoder = new RequestDecoder();
    expect(decoder.midRequest).toBe(false);
    decoder.push(Buffer.from('r'));
    expect(decoder.midRequest).toBe(true);
    decoder.push(one.subarray(1));
    expect(decoder.midRequest).toBe(false);
    decoder.push(Buffer.from('\r'));
    expect(decoder.midRequest).toBe(true);
  });
});

describe('limits', () => {
  test.for([
    ['whole', (text: string) => [text]],
    ['byte by byte', (text: string) => bytes(Buffer.from(text, 'latin1'))],
  ] as const)('a line of LINE_LIMIT bytes is read, one more is not: %s', ([, cut]) => {
    expect(read(...cut(`${FIRST}${filler(LINE_LIMIT)}\n\n`))).toMatchObject({ error: null });
    const over = read(...cut(`${FIRST}${filler(LINE_LIMIT + 1)}\n\n`));
    expect(over).toMatchObject({ requests: [], error: 'line-too-long' });
  });

  test('a line is too long before its end has come', () => {
    expect(read(FIRST, 'y'.repeat(LINE_LIMIT)).error).toBeNull();
    expect(read(FIRST, 'y'.repeat(LINE_LIMIT), 'y').error).toBe('line-too-long');
  });

  test('ATTRIBUTE_LIMIT attributes are read, one more is not, repeated ones included', () => {
    expect(read(`${FIRST}${'a=b\n'.repeat(ATTRIBUTE_LIMIT - 1)}\n`)).toMatchObject({ error: null });
    expect(read(`${FIRST}${'a=b\n'.repeat(ATTRIBUTE_LIMIT)}\n`).error).toBe('too-many-attributes');
  });

  test('a request of REQUEST_LIMIT bytes is read, one more is not, however it comes', () => {
    for (const [length, error] of [
      [REQUEST_LIMIT, null],
      [REQUEST_LIMIT + 1, 'request-too-long'],
    ] as const) {
      const text = requestOf(length);
      expect(text).toHaveLength(length);
      expect(read(text).error).toBe(error);
      expect(read(...(text.match(/[^]{1,1000}/g) ?? [])).error).toBe(error);
    }
  });

  test('the count starts anew with each request', () => {
    const big = `${FIRST}${`${filler(5000)}\n`.repeat(10)}\n`;
    expect(read(big.repeat(5))).toMatchObject({ requests: { length: 5 }, error: null });
  });
});

describe('what is no request', () => {
  test.for([
    ['a line without =', `${FIRST}sender\n\n`, 'no-equals-sign'],
    ['another request', 'request=junk\n\n', 'not-a-policy-request'],
    ['no request attribute', 'protocol_state=RCPT\n\n', 'not-a-policy-request'],
    ['an empty line alone', '\n', 'not-a-policy-request'],
    ['HTTP', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'no-equals-sign'],
  ] as const)('%s', ([, text, error]) => {
    expect(read(text)).toMatchObject({ requests: [], error });
  });

  test('requests before it are given, and nothing after it', () => {
    const decoder = new RequestDecoder();
    const first = decoder.push(Buffer.from(`${FIRST}\njunk\n${FIRST}\n`));
    expect(first).toMatchObject({ requests: { length: 1 }, error: 'no-equals-sign' });
    expect(decoder.push(policyRequest({}))).toEqual({ requests: [], error: 'no-equals-sign' });
  });
});

describe('any bytes', () => {
  const name = fc.string({
    unit: fc.constantFrom('a', 'b', '_', '=', '\r', ' ', 'x'),
    minLength: 1,
    maxLength: 12,
  });
  const text = fc.string({ unit: 'binary', maxLength: 60 }).map((value) => latin1(value));

  test('what was written is read, wherever it is cut', () => {
    const attribute = fc.tuple(
      name.map((value) => `n${value.replaceAll(/[=\r]/g, '')}`),
      text,
    );
    fc.assert(
      fc.property(
        fc.array(fc.array(attribute, { maxLength: 20 }), { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat({ max: 3000 }), { maxLength: 6 }),
        (requests, cuts) => {
          const wire = requests
            .map((lines) => `${FIRST}${lines.map(([key, value]) => `${key}=${value}\n`).join('')}\n`)
            .join('');
          const expected = requests.map((lines) => ({
            ...Object.fromEntries(lines.toReversed()),
            request: 'smtpd_access_policy',
          }));
          const ends = [0, ...cuts.filter((cut) => cut < wire.length).toSorted((a, b) => a - b), wire.length];
          const chunks = ends.slice(1).map((end, index) => wire.slice(ends[index], end));
          expect(read(...chunks).requests).toEqual(expected);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('100,000 spoilt requests: each is read or refused, alike in one piece and in two, and nothing piles up', () => {
    const random = mulberry32(0x5eed);
    const whole = policyRequest({ sender: 'thor@valhalla.example', instance: '74fc.6b01513a.6a32c.0' });
    const seen = new Map<string, number>();
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    const differing: Buffer[] = [];
    const endless = new RequestDecoder();
    let endlessRequests = 0;
    for (let run = 0; run < 100_000; run++) {
      const spoilt = spoil(whole, random);
      const decoder = new RequestDecoder();
      const { requests, error } = decoder.push(spoilt);
      for (const request of requests) {
        if (request.get('request') !== 'smtpd_access_policy') throw new Error('not a policy request');
      }
      if (run % 10 === 0) {
        const cut = Math.floor(random() * spoilt.length);
        const halves = read(spoilt.subarray(0, cut), spoilt.subarray(cut));
        if (!isDeepStrictEqual(halves, read(spoilt))) differing.push(spoilt);
      }
      const outcome = error ?? (requests.length > 0 ? 'read' : 'unfinished');
      seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
      endlessRequests += endless.push(spoilt).requests.length;
    }
    expect(differing).toEqual([]);
    // The mutations reach all that can come of a request, but for sizes, which have tests of their own.
    expect([...seen.keys()].toSorted()).toEqual(
      expect.arrayContaining(['no-equals-sign', 'not-a-policy-request', 'read', 'unfinished']),
    );
    expect(endlessRequests).toBeLessThan(100_000);
    collectGarbage();
    const held = process.memoryUsage().heapUsed - before;
    expect(held).toBeLessThan(5 * 1024 ** 2);
  }, 20_000);
});

function latin1(value: string): string {
  // One character per byte, and none of those that end lines.
  return Array.from(value, (character) => String.fromCharCode((character.codePointAt(0) ?? 0) & 0xff))
    .join('')
    .replaceAll(/[\r\n]/g, '');
}

function spoil(whole: Buffer, random: () => number): Buffer {
  const pick = (limit: number): number => Math.floor(random() * limit);
  let bad = Buffer.from(whole);
  for (let edits = 1 + pick(4); edits > 0; edits--) {
    const at = pick(bad.length);
    switch (pick(6)) {
      case 0:
        bad[at] = pick(256);
        break;
      case 1:
        bad = Buffer.concat([bad.subarray(0, at), bad.subarray(at + 1 + pick(20))]);
        break;
      case 2:
        bad = Buffer.concat([
          bad.subarray(0, at),
          Buffer.from(pick(2) === 0 ? '\n' : '\r\n'),
          bad.subarray(at),
        ]);
        break;
      case 3:
        bad = Buffer.concat([
          bad.subarray(0, at),
          bad.subarray(pick(bad.length), pick(bad.length)),
          bad.subarray(at),
        ]);
        break;
      case 4:
        bad = bad.subarray(0, at + 1);
        break;
      default:
        bad = Buffer.concat([bad, whole.subarray(at)]);
    }
  }
  return bad;
}

/** A small generator with a seed, so that a failure can be had again. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
