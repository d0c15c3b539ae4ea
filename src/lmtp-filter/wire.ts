import { DotDecoder } from './dot-decoder.ts';

/** Octets of a command line with its line end. RFC 5321 §4.5.3.1.4 has 512 and lets extensions add; addresses of 2,000 do occur. */
export const COMMAND_LIMIT = 4096;

const LF = 0x0a;
const CR = 0x0d;
const NOTHING = Buffer.alloc(0);

/** What the client's octets are, one after the other. */
export type Input =
  /** A command line without its line end, one character per octet. */
  | { readonly kind: 'line'; readonly text: string }
  /** A line beyond COMMAND_LIMIT; it was thrown away up to its end. */
  | { readonly kind: 'overlong' }
  /** A piece of the message, dots unstuffed. Never empty. */
  | { readonly kind: 'content'; readonly chunk: Buffer }
  /** The dot. Command lines follow. */
  | { readonly kind: 'end' };

const OVERLONG: Input = { kind: 'overlong' };
const END: Input = { kind: 'end' };

/**
 * The server's side of LMTP: octets in, lines and message content out.
 *
 * `push` is for when `next` has nothing left; so never more is held than one piece and an unfinished command line.
 */
export class LmtpDecoder {
  #held: Buffer = NOTHING;
  /** Octets of `#held` in which no line end was found. */
  #searched = 0;
  #skipping = false;
  #content: DotDecoder | null = null;
  /** The dot was seen, and the content before it handed out. */
  #ended = false;

  /** The piece is changed in place: the caller must not use it any more. */
  push(piece: Buffer): void {
    this.#held = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
  }

  /** null: more octets are wanted. */
  next(): Input | null {
    return this.#content === null ? this.#line() : this.#piece(this.#content);
  }

  /** DATA was answered with 354: what follows is a message. */
  startContent(): void {
    this.#content = new DotDecoder();
  }

  #line(): Input | null {
    const end = this.#held.indexOf(LF, this.#searched);
    if (end === -1) {
      this.#skipping ||= this.#held.length >= COMMAND_LIMIT;
      if (this.#skipping) this.#held = NOTHING;
      this.#searched = this.#held.length;
      return null;
    }
    const line = this.#held.subarray(0, end);
    this.#held = this.#held.subarray(end + 1);
    this.#searched = 0;
    if (this.#skipping || end >= COMMAND_LIMIT) {
      this.#skipping = false;
      return OVERLONG;
    }
    // RFC 5321 §2.3.8 has CRLF only; a bare LF at the end of a command is harmless, and hand-typed sessions have it.
    const length = line[end - 1] === CR ? end - 1 : end;
    return { kind: 'line', text: line.toString('latin1', 0, length) };
  }

  #piece(decoder: DotDecoder): Input | null {
    if (this.#ended) return this.#end();
    const { content, rest } = decoder.decode(this.#held);
    this.#held = rest ?? NOTHING;
    this.#ended = rest !== null;
    if (content.length > 0) return { kind: 'content', chunk: content };
    return this.#ended ? this.#end() : null;
  }

  #end(): Input {
    this.#ended = false;
    this.#content = null;
    return END;
  }
}
