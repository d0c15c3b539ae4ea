export type Canonicalization = 'relaxed' | 'simple';

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;

/** Small pieces are gathered up to this many octets before they go to the sink; larger ones go there uncopied. */
const SCRATCH = 4096;
const SMALL = 1024;

/** Octets that are looked at one by one before the next white space is searched for: text is full of it, base64 has none. */
const STRIDE = 1024;

/** Empty lines that are held back are given out of this, as many at a time as fit. */
const EMPTY_LINES = new Uint8Array(1024).map((_, index) => (index % 2 === 0 ? CR : LF));
const CRLF = EMPTY_LINES.subarray(0, 2);
const LONE_CR = CRLF.subarray(0, 1);
const ONE_SPACE = new Uint8Array([SPACE]);

/**
 * The body of a message as DKIM hashes it, from chunks that may be cut anywhere. RFC 6376 §3.4.3, §3.4.4.
 *
 * Only CRLF ends a line: a CR or LF alone is content. What is given to `sink` is good for the duration of the call.
 */
export class BodyCanonicalizer {
  readonly #relaxed: boolean;
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #scratch = new Uint8Array(SCRATCH);
  #filled = 0;
  /** Line ends seen since the last content; those at the end of the body never come out. */
  #lineEnds = 0;
  /** White space seen since the last content of the line (relaxed only). */
  #space = false;
  /** The last octet was a CR, and what follows decides whether it is content. */
  #cr = false;
  #content = false;

  constructor(kind: Canonicalization, sink: (bytes: Uint8Array) => void) {
    this.#relaxed = kind === 'relaxed';
    this.#sink = sink;
  }

  write(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    const begin = this.#cr ? this.#settleCr(chunk) : 0;
    // A CR at the very end waits for the next chunk.
    const end = chunk[chunk.length - 1] === CR && chunk.length > begin ? chunk.length - 1 : chunk.length;
    if (this.#relaxed) this.#relax(chunk, begin, end);
    else this.#emit(chunk, begin, end);
    this.#cr = end < chunk.length;
  }

  /** No more will come. */
  end(): void {
    if (this.#cr) this.#emit(LONE_CR, 0, 1);
    this.#cr = false;
    // §3.4.3: the empty body is one CRLF. §3.4.4: the empty body is empty. Both: what does not end in CRLF gets one.
    if (this.#content || !this.#relaxed) this.#give(CRLF, 0, 2);
    this.#flush();
  }

  /** The withheld CR, now that the octet after it is known. Returns where the rest of the chunk begins. */
  #settleCr(chunk: Uint8Array): number {
    this.#cr = false;
    if (chunk[0] === LF) {
      this.#lineEnds++;
      this.#space = false;
      return 1;
    }
    this.#emit(LONE_CR, 0, 1);
    return 0;
  }

  /**
   * §3.4.4: white space before a line end goes, other runs of it become one space. Stretches that are in that form already,
   * which is most of all mail, are passed on as they are.
   */
  #relax(chunk: Uint8Array, begin: number, end: number): void {
    const blanks = new BlankFinder(chunk, end);
    let i = begin;
    // The run of white space that the chunk before ended with goes on.
    if (this.#space) while (i < end && (chunk[i] === SPACE || chunk[i] === TAB)) i++;
    let clean = i;
    while (i < end) {
      i = blanks.next(i);
      const stop = Math.min(i + STRIDE, end);
      while (i < stop) {
        while (i < stop && (chunk[i] ?? 0) > SPACE) i++;
        if (i >= stop) break;
        const octet = chunk[i];
        if (octet !== SPACE && octet !== TAB) {
          i++;
          continue;
        }
        const after = i + 1 < end ? (chunk[i + 1] ?? 0) : TAB;
        if (octet === SPACE && after > SPACE) {
          i += 2;
          continue;
        }
        this.#emit(chunk, clean, i);
        this.#space = true;
        do i++;
        while (i < end && (chunk[i] === SPACE || chunk[i] === TAB));
        if (i + 1 < end && chunk[i] === CR && chunk[i + 1] === LF) this.#space = false;
        clean = i;
      }
    }
    this.#emit(chunk, clean, end);
  }

  /** Octets in canonical form, but for the line ends at their end, which are held back. */
  #emit(bytes: Uint8Array, begin: number, end: number): void {
    let last = end;
    while (last - begin >= 2 && bytes[last - 1] === LF && bytes[last - 2] === CR) last -= 2;
    const lineEnds = (end - last) / 2;
    if (last > begin) {
      // A line that is only white space is an empty line; what was held back stands before any content.
      this.#giveLineEnds();
      if (this.#space && !(bytes[begin] === CR && bytes[begin + 1] === LF)) this.#give(ONE_SPACE, 0, 1);
      this.#space = false;
      this.#give(bytes, begin, last);
      this.#content = true;
    }
    if (lineEnds > 0) {
      this.#space = false;
      this.#lineEnds += lineEnds;
    }
  }

  #giveLineEnds(): void {
    while (this.#lineEnds > 0) {
      const count = Math.min(this.#lineEnds, EMPTY_LINES.length / 2);
      this.#give(EMPTY_LINES, 0, count * 2);
      this.#lineEnds -= count;
    }
  }

  #give(bytes: Uint8Array, begin: number, end: number): void {
    const length = end - begin;
    if (length > SMALL) {
      this.#flush();
      this.#sink(bytes.subarray(begin, end));
      return;
    }
    if (this.#filled + length > SCRATCH) this.#flush();
    const scratch = this.#scratch;
    let to = this.#filled;
    for (let from = begin; from < end; from++) scratch[to++] = bytes[from] ?? 0;
    this.#filled = to;
  }

  #flush(): void {
    if (this.#filled > 0) this.#sink(this.#scratch.subarray(0, this.#filled));
    this.#filled = 0;
  }
}

/** Finds spaces and tabs, from left to right. */
class BlankFinder {
  readonly #chunk: Uint8Array;
  readonly #end: number;
  /** Where the next ones are, at or after where the last far search began; -1: not searched for. */
  #space = -1;
  #tab = -1;

  constructor(chunk: Uint8Array, end: number) {
    this.#chunk = chunk;
    this.#end = end;
  }

  /** Position of the first space or tab at or after `from`; the end when there is none. */
  next(from: number): number {
    if (this.#space < from) this.#space = this.#find(SPACE, from);
    if (this.#tab < from) this.#tab = this.#find(TAB, from);
    return Math.min(this.#space, this.#tab);
  }

  #find(octet: number, from: number): number {
    const at = this.#chunk.indexOf(octet, from);
    return at === -1 || at > this.#end ? this.#end : at;
  }
}
