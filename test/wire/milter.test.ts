import { expect, test } from 'vitest';

import { CONTINUE, encodeAnswer, encodeResponses, PROGRESS, TEMPFAIL } from '../../src/milter/responses.ts';
import { ProtocolError, type Command, type ProtocolErrorKind } from '../../src/milter/command.ts';
import { CommandDecoder, PACKET_LIMIT, SHORT_PACKET_LIMIT } from '../../src/milter/wire.ts';
import { seeded } from '../support/mutate.ts';
import { packet, words } from '../unit/milter/support.ts';

/** Golden frames: bytes, and what they mean. */
const FRAMES: readonly (readonly [bytes: Buffer, command: Command])[] = [
  // As Postfix 3.7.11 offers with milter_protocol = 6.
  [
    Buffer.from('0000000d4f00000006000001ff001fffff', 'hex'),
    { kind: 'optneg', version: 6, actions: 0x1ff, protocol: 0x1fffff },
  ],
  [packet('O', words(7, 1, 2), 'more'), { kind: 'optneg', version: 7, actions: 1, protocol: 2 }],
  [packet('D', 'H'), { kind: 'macros', stage: 'H', macros: [] }],
  [
    packet('D', 'C', 'j\0mx\0{daemon_name}\0\0'),
    { kind: 'macros', stage: 'C', macros: ['j', 'mx', '{daemon_name}', ''] },
  ],
  [packet('D', 'L', 'i\x004570\0'), { kind: 'macros', stage: 'L', macros: ['i', '4570'] }],
  [packet('D', 'B', 'i\x004570\0'), { kind: 'macros', stage: 'B', macros: ['i', '4570'] }],
  [packet('D', 'E', 'i\x004571\0'), { kind: 'macros', stage: 'E', macros: ['i', '4571'] }],
  [
    Buffer.from('00000023436f64696e2e76616c68616c6c612e6c6f63616c00349d873139322e302e322e323000', 'hex'),
    { kind: 'connect', host: 'odin.valhalla.local', family: 'inet', port: 40_327, address: '192.0.2.20' },
  ],
  [
    packet('C', 'a\0', '6', Buffer.from([0, 0]), 'IPv6:2001:db8::1\0'),
    { kind: 'connect', host: 'a', family: 'inet6', port: 0, address: 'IPv6:2001:db8::1' },
  ],
  [
    packet('C', 'localhost\0', 'L', Buffer.from([0, 0]), '/run/x\0'),
    { kind: 'connect', host: 'localhost', family: 'local', port: 0, address: '/run/x' },
  ],
  [packet('C', '\0', 'U'), { kind: 'connect', host: '', family: 'unknown', port: 0, address: '' }],
  [packet('H', 'odin\0'), { kind: 'helo', name: 'odin' }],
  [
    packet('M', '<thor@valhalla.local>\0SIZE=1234\0BODY=8BITMIME\0'),
    { kind: 'mail', path: '<thor@valhalla.local>', parameters: ['SIZE=1234', 'BODY=8BITMIME'] },
  ],
  [packet('M', '\0'), { kind: 'mail', path: '', parameters: [] }],
  [packet('R', '<"a b"@c>\0'), { kind: 'rcpt', path: '<"a b"@c>', parameters: [] }],
  [packet('T'), { kind: 'data' }],
  [packet('L', 'Subject\0 one\n\ttwo\xe4\0'), { kind: 'header', name: 'Subject', value: ' one\n\ttwo\xe4' }],
  [packet('L', '\0\0'), { kind: 'header', name: '', value: '' }],
  [packet('N'), { kind: 'end-of-headers' }],
  [packet('B', 'a\0b\r\n'), { kind: 'body', chunk: Buffer.from('a\0b\r\n') }],
  [packet('B'), { kind: 'body', chunk: Buffer.alloc(0) }],
  [packet('E'), { kind: 'end-of-message', chunk: Buffer.alloc(0) }],
  [packet('E', 'last'), { kind: 'end-of-message', chunk: Buffer.from('last') }],
  [packet('U', 'FROB\0'), { kind: 'unknown', line: 'FROB' }],
  [packet('A'), { kind: 'abort' }],
  [packet('K'), { kind: 'quit-nc' }],
  [packet('Q'), { kind: 'quit' }],
];

function drain(decoder: CommandDecoder): Command[] {
  const commands: Command[] = [];
  for (let command = decoder.next(); command !== null; command = decoder.next()) commands.push(command);
  return commands;
}

function errorOf(...chunks: readonly Buffer[]): ProtocolErrorKind | null {
  const decoder = new CommandDecoder();
  try {
    for (const chunk of chunks) {
      decoder.push(chunk);
      drain(decoder);
    }
    return null;
  } catch (error) {
    if (error instanceof ProtocolError) return error.kind;
    throw error;
  }
}

test.each(FRAMES)('golden frame %#, whole and cut at every octet', (bytes, command) => {
  for (let cut = 0; cut <= bytes.length; cut++) {
    const decoder = new CommandDecoder();
    const commands: Command[] = [];
    for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
      decoder.push(part);
      commands.push(...drain(decoder));
    }
    expect(commands).toEqual([command]);
  }
});

test('all frames joined, in chunks of every size', () => {
  const stream = Buffer.concat(FRAMES.map(([bytes]) => bytes));
  const wanted = FRAMES.map(([, command]) => command);
  for (const size of [1, 2, 3, 5, 7, 16, 64, stream.length]) {
    const decoder = new CommandDecoder();
    const commands: Command[] = [];
    for (let at = 0; at < stream.length; at += size) {
      decoder.push(stream.subarray(at, at + size));
      commands.push(...drain(decoder));
    }
    expect(commands).toEqual(wanted);
  }
});

test('chunks that were pushed before the last commands were taken out are kept', () => {
  const decoder = new CommandDecoder();
  for (const [bytes] of FRAMES) decoder.push(bytes);
  expect(drain(decoder)).toEqual(FRAMES.map(([, command]) => command));
});

test('asked again and again, it still waits for more', () => {
  const decoder = new CommandDecoder();
  expect([decoder.next(), decoder.next()]).toEqual([null, null]);
  for (const octets of [packet('A'), packet('H', 'a\0')]) {
    decoder.push(octets.subarray(0, 3));
    expect([decoder.next(), decoder.next()]).toEqual([null, null]);
    decoder.push(octets.subarray(3));
    expect(decoder.next()).not.toBeNull();
    expect([decoder.next(), decoder.next()]).toEqual([null, null]);
  }
  decoder.push(packet('Q'));
  expect(decoder.next()).toEqual({ kind: 'quit' });
});

test('macros repeated for each header are the same list, changed ones are not', () => {
  const decoder = new CommandDecoder();
  decoder.push(
    Buffer.concat([packet('D', 'L', 'i\0one\0'), packet('D', 'B', 'i\0one\0'), packet('D', 'E', 'i\0two\0')]),
  );
  const lists = drain(decoder).map((command) => (command.kind === 'macros' ? command.macros : []));
  expect(lists[1]).toBe(lists[0]);
  expect(lists[2]).toEqual(['i', 'two']);
});

test('a body is a view of what was pushed', () => {
  const decoder = new CommandDecoder();
  const bytes = packet('B', 'abc');
  decoder.push(bytes);
  const [command] = drain(decoder);
  expect(command?.kind === 'body' && command.chunk.buffer === bytes.buffer).toBe(true);
});

test.each<[string, ProtocolErrorKind, Buffer]>([
  ['length 0', 'packet-length', words(0)],
  ['a length that only its first four octets tell', 'packet-length', words(0xffffffff)],
  ['an unknown command', 'unknown-command', packet('z')],
  ['a negotiation that is too short', 'malformed', packet('O', words(6, 0x1ff), 'abc')],
  ['macros of no stage', 'malformed', packet('D')],
  ['a macro without a value', 'malformed', packet('D', 'C', 'j\0mx\0v\0')],
  ['a macro without its NUL', 'malformed', packet('D', 'C', 'j\0mx')],
  ['a connection without a host', 'malformed', packet('C')],
  ['a connection without a family', 'malformed', packet('C', 'host\0')],
  ['a connection of an unknown family', 'malformed', packet('C', 'host\x005')],
  ['a connection cut in its port', 'malformed', packet('C', 'host\x004\0')],
  ['a connection without an address', 'malformed', packet('C', 'host\x004', Buffer.from([0, 1]))],
  [
    'a connection with more than an address',
    'malformed',
    packet('C', 'host\x004', Buffer.from([0, 1]), 'a\0b\0'),
  ],
  ['an unknown family with an address', 'malformed', packet('C', 'host\0U\0')],
  ['HELO without its NUL', 'malformed', packet('H', 'odin')],
  ['HELO with nothing', 'malformed', packet('H')],
  ['HELO with two names', 'malformed', packet('H', 'a\0b\0')],
  ['MAIL without an address', 'malformed', packet('M')],
  ['RCPT without its NUL', 'malformed', packet('R', '<a@b>\0NOTIFY=NEVER')],
  ['a header without a value', 'malformed', packet('L', 'Subject\0')],
  ['a header with three strings', 'malformed', packet('L', 'a\0b\0c\0')],
  ['ABORT with something', 'malformed', packet('A', 'x')],
  ['QUIT with something', 'malformed', packet('Q', 'x')],
])('%s is refused', (_, kind, bytes) => {
  expect(errorOf(bytes)).toBe(kind);
  expect(errorOf(...Array.from(bytes, (octet) => Buffer.from([octet])))).toBe(kind);
});

test('a NUL that belongs to the next packet does not end a string of this one', () => {
  expect(errorOf(Buffer.concat([packet('H', 'odin'), packet('H', 'x\0')]))).toBe('malformed');
});

test('packets at the limit are read, one octet more is refused before it has come', () => {
  for (const [code, limit] of [
    ['B', PACKET_LIMIT],
    ['L', PACKET_LIMIT],
    ['E', PACKET_LIMIT],
    ['R', SHORT_PACKET_LIMIT],
    ['D', SHORT_PACKET_LIMIT],
  ] as const) {
    const length = limit - 1;
    const payload =
      code === 'L'
        ? `X\0${'v'.repeat(length - 3)}\0`
        : code === 'D'
          ? `Cn\0${'v'.repeat(length - 4)}\0`
          : `${'v'.repeat(length - 1)}\0`;
    expect([code, errorOf(packet(code, payload))]).toEqual([code, null]);
    const head = Buffer.concat([words(limit + 1), Buffer.from(code)]);
    expect([code, errorOf(head)]).toEqual([code, 'packet-length']);
  }
});

test('memory is taken for what came, not for what a length promises', () => {
  const before = process.memoryUsage().arrayBuffers;
  const decoders = Array.from({ length: 200 }, () => {
    const decoder = new CommandDecoder();
    decoder.push(Buffer.concat([words(PACKET_LIMIT), Buffer.from('Babc')]));
    expect(decoder.next()).toBeNull();
    return decoder;
  });
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(decoders.length * 10_000);
});

test('a large packet in tiny pieces is copied in linear time and comes out whole', () => {
  const payload = Buffer.alloc(PACKET_LIMIT - 1, 'abcdefg');
  const bytes = packet('B', payload);
  const decoder = new CommandDecoder();
  const commands: Command[] = [];
  for (let at = 0; at < bytes.length; at += 11) {
    decoder.push(bytes.subarray(at, at + 11));
    commands.push(...drain(decoder));
  }
  const [command] = commands;
  expect(commands).toHaveLength(1);
  expect(command?.kind === 'body' && command.chunk.equals(payload)).toBe(true);
});

test('120,000 mutated frames: a command, more to come, or a typed error; never anything else', () => {
  const random = seeded(20_261_121);
  const below = (limit: number): number => Math.floor(random() * limit);
  const frames = FRAMES.map(([bytes]) => bytes);
  let errors = 0;
  let commands = 0;
  for (let round = 0; round < 120_000; round++) {
    const first = Buffer.from(frames[below(frames.length)] ?? '');
    for (let changes = 1 + below(3); changes > 0; changes--) {
      // The octets of the length most of all.
      first[below(below(2) === 0 ? 6 : first.length)] = below(8) === 0 ? 0 : below(256);
    }
    const bytes = Buffer.concat([
      first.subarray(0, first.length - (below(4) === 0 ? below(first.length) : 0)),
      frames[below(frames.length)] ?? Buffer.alloc(0),
    ]);
    const decoder = new CommandDecoder();
    const cut = below(bytes.length + 1);
    try {
      for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
        decoder.push(part);
        commands += drain(decoder).length;
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      errors++;
    }
  }
  expect(errors).toBeGreaterThan(10_000);
  expect(commands).toBeGreaterThan(10_000);
}, 10_000);

test('one octet answers', () => {
  expect(CONTINUE).toEqual(packet('c'));
  expect(TEMPFAIL).toEqual(packet('t'));
  expect(PROGRESS).toEqual(packet('p'));
  expect(encodeAnswer({ version: 6, actions: 0x31, protocol: 0x1cf180 })).toEqual(
    packet('O', words(6, 0x31, 0x1cf180)),
  );
});

test('all responses of an answer are one buffer', () => {
  const bytes = encodeResponses([
    { kind: 'change-header', index: 2, name: 'X-Spam-Flag', value: '' },
    { kind: 'add-header', name: 'X-A', value: ' a' },
    { kind: 'insert-header', index: 0, name: 'X-B', value: ' b\r\n\tc\xe4' },
    { kind: 'quarantine', reason: 'held' },
    { kind: 'continue' },
  ]);
  expect(bytes).toEqual(
    Buffer.concat([
      packet('m', words(2), 'X-Spam-Flag\0\0'),
      packet('h', 'X-A\0 a\0'),
      packet('i', words(0), 'X-B\0 b\n\tc\xe4\0'),
      packet('q', 'held\0'),
      packet('c'),
    ]),
  );
  expect(encodeResponses([{ kind: 'discard' }])).toEqual(packet('d'));
});

test('a percent sign is doubled in a reply', () => {
  expect(encodeResponses([{ kind: 'reply', line: '550 5.7.1 100% sure, %s and %%' }])).toEqual(
    packet('y', '550 5.7.1 100%% sure, %%s and %%%%\0'),
  );
});

test.each([
  ['a line break that is no fold', ' a\r\nInjected: yes', ' a\n\tInjected: yes'],
  ['a bare line feed', ' a\nInjected: yes', ' a\n\tInjected: yes'],
  ['a bare carriage return', ' a\rb', ' a?b'],
  ['a NUL', ' a\0b', ' a?b'],
  ['a character whose low octet is a line feed', ' a\u010ab', ' a?b'],
  ['a fold', ' a\r\n b', ' a\n b'],
])('%s in a value stays inside the value', (_, value, wanted) => {
  expect(encodeResponses([{ kind: 'add-header', name: 'X', value }])).toEqual(packet('h', `X\0${wanted}\0`));
});

test('a reply, a reason and a field name are one line of printable ASCII', () => {
  expect(encodeResponses([{ kind: 'reply', line: '550 5.7.1 a\r\nb\0c\u010a' }])).toEqual(
    packet('y', '550 5.7.1 a??b?c?\0'),
  );
  expect(encodeResponses([{ kind: 'quarantine', reason: 'a\nb' }])).toEqual(packet('q', 'a?b\0'));
  expect(encodeResponses([{ kind: 'add-header', name: 'X\n', value: '' }])).toEqual(packet('h', 'X?\0\0'));
});
