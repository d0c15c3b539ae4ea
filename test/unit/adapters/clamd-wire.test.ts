import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { chunkHead, readPong, readScanAnswer } from '../../../src/adapters/clamd-wire.ts';
import { NeighbourError } from '../../../src/ports/neighbour-error.ts';

/** What an answer means; for one that is not clamd's, that. */
function kindOf(text: string): string {
  try {
    return readScanAnswer(text).kind;
  } catch (error) {
    if (error instanceof NeighbourError) return 'not understood';
    throw error;
  }
}

describe('what clamd answers', () => {
  it.each([
    ['stream: OK', { kind: 'clean' }],
    ['instream(127.0.0.1@40000): OK', { kind: 'clean' }],
    ['stream: Eicar-Test-Signature FOUND', { kind: 'found', signature: 'Eicar-Test-Signature' }],
    [
      'stream: Win.Test.EICAR_HDB-1(44d88612fea8a8f36de82e1278abb02f:68) FOUND',
      { kind: 'found', signature: 'Win.Test.EICAR_HDB-1' },
    ],
    ['instream(local): A FOUND', { kind: 'found', signature: 'A' }],
    ['INSTREAM size limit exceeded. ERROR', { kind: 'too-large' }],
    ["stream: Can't allocate memory ERROR", { kind: 'error', text: "Can't allocate memory" }],
    ['COMMAND READ TIMED OUT ERROR', { kind: 'error', text: 'COMMAND READ TIMED OUT' }],
  ])('"%s" is understood', (answer, meaning) => {
    expect(readScanAnswer(answer)).toEqual(meaning);
  });

  it.each(['', 'OK', 'stream: OK\n', 'stream: FOUND', 'stream:OK', '* OK IMAP4rev1', 'PONG', 'x: OK'])(
    '"%s" is none of its answers',
    (answer) => {
      expect(() => readScanAnswer(answer)).toThrow(NeighbourError);
    },
  );

  it('has names made printable and cut, since whoever makes a signature chooses its name', () => {
    expect(readScanAnswer('stream: \x1b[31mred\x9b FOUND')).toEqual({
      kind: 'found',
      signature: '?[31mred?',
    });
    const long = readScanAnswer(`stream: ${'x'.repeat(201)} FOUND`);
    expect(long).toEqual({ kind: 'found', signature: `${'x'.repeat(197)}...` });
  });

  it('is clean for no text but the two', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        fc.pre(text !== 'stream: OK' && !text.startsWith('instream('));
        expect(kindOf(text)).not.toBe('clean');
      }),
    );
  });

  it('is PONG when it is there', () => {
    expect(() => readPong('PONG')).not.toThrow();
    expect(() => readPong('PONG ')).toThrow(NeighbourError);
  });
});

it('a chunk begins with its length in network order', () => {
  expect([...chunkHead(0x01020304)]).toEqual([1, 2, 3, 4]);
});
