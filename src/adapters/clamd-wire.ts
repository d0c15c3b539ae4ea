import { printable } from '../mail/reply.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { VirusAnswer } from '../ports/virus-scanner.ts';

/**
 * clamd's commands and answers, as clamd(8) tells of them. The forms that begin with `z` end in NUL, so that no line end in a
 * signature's name can be taken for the end of an answer. Knows no sockets; text is latin1.
 */
export const PING = Buffer.from('zPING\0', 'latin1');
export const INSTREAM = Buffer.from('zINSTREAM\0', 'latin1');
/** A chunk of no octets ends the stream. */
export const END_OF_STREAM = Buffer.alloc(4);

/** Octets of one answer: the name of a signature and some words. */
export const ANSWER_LIMIT = 4096;

const SIGNATURE_LIMIT = 200;
const QUOTE_LIMIT = 200;
const ABOUT = '(?:stream|instream\\([^()\\0]{0,100}\\))';
const FOUND = new RegExp(`^${ABOUT}: (.{1,${ANSWER_LIMIT}}) FOUND$`, 's');
const CLEAN = new RegExp(`^${ABOUT}: OK$`);
/** Digest and size of what was found, behind its name (ExtendedDetectionInfo). */
const EXTENDED = /\([0-9a-f]{32,64}:\d{1,20}\)$/;
/** Said when StreamMaxLength is passed; clamd then closes the connection without reading what is on its way. */
const TOO_LARGE = 'INSTREAM size limit exceeded.';

/** What stands before the octets of a chunk. */
export function chunkHead(length: number): Buffer {
  const head = Buffer.allocUnsafe(4);
  head.writeUInt32BE(length);
  return head;
}

/** @param answer without its NUL @throws {NeighbourError} when it is none of clamd's */
export function readScanAnswer(answer: string): VirusAnswer {
  const signature = FOUND.exec(answer)?.[1];
  if (signature !== undefined) {
    return { kind: 'found', signature: printable(signature.replace(EXTENDED, ''), SIGNATURE_LIMIT) };
  }
  if (CLEAN.test(answer)) return { kind: 'clean' };
  const error = /^(?:stream: )?(.*) ERROR$/s.exec(answer)?.[1];
  if (error === undefined) throw new NeighbourError(`not clamd's language: "${quote(answer)}"`);
  return error === TOO_LARGE ? { kind: 'too-large' } : { kind: 'error', text: quote(error) };
}

/** @throws {NeighbourError} unless it is PONG */
export function readPong(answer: string): void {
  if (answer !== 'PONG') throw new NeighbourError(`clamd answered PING with "${quote(answer)}"`);
}

function quote(text: string): string {
  return printable(text, QUOTE_LIMIT);
}
