const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;
const LINE_DOT = Buffer.from('\r\n.', 'latin1');
const NOTHING = Buffer.alloc(0);

/** Where in a line the next octet stands. */
type Place =
  | 'text'
  /** Behind a CR. */
  | 'cr'
  /** At the start of a line: behind CRLF, or at the start of the message. */
  | 'line'
  /** Behind the dot that began a line; the dot is dropped already. */
  | 'dot'
  /** Behind such a dot and a CR, which is held back. */
  | 'dot-cr';

export interface Decoded {
  /** Content, dots unstuffed; its line ends are as they came. */
  readonly content: Buffer;
  /** What follows the end of the message; null when the end has not come yet. */
  readonly rest: Buffer | null;
}

/**
 * Takes the transparency of DATA away. RFC 5321 §4.5.2.
 *
 * Lines end at CRLF here and nowhere else (§2.3.8, §4.1.1.4): the end is CRLF.CRLF, and LF.LF, CRLF.LF or LF.CRLF are content.
 * A message may be cut into pieces at any octet. Pieces are changed in place: whoever hands one over must not use it any more.
 */
export class DotDecoder {
  #place: Place = 'line';

  decode(piece: Buffer): Decoded {
    let chunk = piece;
    if (chunk.length === 0) return { content: NOTHING, rest: null };
    if (this.#place === 'dot-cr') {
      if (chunk[0] === LF) return this.#end(NOTHING, chunk, 1);
      // The CR held back was text after all; the dot before it was stuffing.
      chunk = Buffer.concat([Buffer.of(CR), chunk]);
      this.#place = 'text';
    }
    /** Content gathered at the front, and the first octet behind which nothing is gathered yet. */
    let kept = 0;
    let from = 0;
    let behindDot = this.#firstDot(chunk);
    for (;;) {
      if (behindDot === -1) {
        const found = chunk.indexOf(LINE_DOT, from);
        if (found === -1) break;
        behindDot = found + LINE_DOT.length;
      }
      kept = gather(chunk, kept, from, behindDot - 1);
      from = behindDot;
      behindDot = -1;
      const next = chunk[from];
      if (next === undefined) return this.#wait('dot', chunk, kept);
      if (next !== CR) continue;
      const last = chunk[from + 1];
      if (last === undefined) return this.#wait('dot-cr', chunk, kept);
      if (last === LF) return this.#end(chunk.subarray(0, kept), chunk, from + 2);
    }
    const place = this.#placeBehind(chunk);
    kept = gather(chunk, kept, from, chunk.length);
    return this.#wait(place, chunk, kept);
  }

  /** Index behind a line's first dot when it belongs to what came before this piece; -1 otherwise. */
  #firstDot(chunk: Buffer): number {
    switch (this.#place) {
      case 'dot':
        return 0;
      case 'line':
        return chunk[0] === DOT ? 1 : -1;
      case 'cr':
        return chunk[0] === LF && chunk[1] === DOT ? 2 : -1;
      case 'text':
      case 'dot-cr':
        return -1;
    }
  }

  #placeBehind(chunk: Buffer): Place {
    const last = chunk[chunk.length - 1];
    if (last === CR) return 'cr';
    if (last !== LF) return 'text';
    const before = chunk.length > 1 ? chunk[chunk.length - 2] === CR : this.#place === 'cr';
    return before ? 'line' : 'text';
  }

  #wait(place: Place, chunk: Buffer, kept: number): Decoded {
    this.#place = place;
    return { content: chunk.subarray(0, kept), rest: null };
  }

  #end(content: Buffer, chunk: Buffer, end: number): Decoded {
    this.#place = 'line';
    return { content, rest: chunk.subarray(end) };
  }
}

/** Moves the octets from `from` to `end` behind the first `kept`; returns how many are kept then. */
function gather(chunk: Buffer, kept: number, from: number, end: number): number {
  if (end <= from) return kept;
  if (kept !== from) chunk.copyWithin(kept, from, end);
  return kept + end - from;
}
