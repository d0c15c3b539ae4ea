/** Octets of one line of a reply with its CRLF. RFC 5321 §4.5.3.1.5 has 512; Dovecot repeats the recipient, which may be as long as a command. */
export const REPLY_LINE_LIMIT = 8192;
/** Lines of one reply. */
export const REPLY_LINES_LIMIT = 100;

const LF = 0x0a;
const CR = 0x0d;
const NOTHING = Buffer.alloc(0);

/** One reply of an LMTP server. RFC 5321 §4.2. */
export interface UpstreamReply {
  /** 200 to 599. */
  readonly code: number;
  /** What stands behind the code in each line, one character per octet. At least one. */
  readonly lines: readonly string[];
}

/** What the server sends is not LMTP, or more of it than a reply may have. Nothing after it can be trusted. */
export class ReplyError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ReplyError';
  }
}

// RFC 5321 §4.2: Reply-line. A code alone is to be taken too (§4.2.1).
const LINE = /^([2-5][0-5][0-9])(?:([ -])(.*))?$/s;

/**
 * The client's side of LMTP: octets in, replies out. Strict, because a garbled line that is passed over shifts every reply behind it
 * to another recipient.
 */
export class ReplyDecoder {
  #held: Buffer = NOTHING;
  #code: number | null = null;
  #lines: string[] = [];

  /** Whether something came that is no whole reply yet. */
  get pending(): boolean {
    return this.#held.length > 0 || this.#code !== null;
  }

  /** @throws {ReplyError} */
  push(piece: Buffer): UpstreamReply[] {
    const replies: UpstreamReply[] = [];
    let held = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
    for (let end = held.indexOf(LF); end !== -1; end = held.indexOf(LF)) {
      if (end >= REPLY_LINE_LIMIT) throw new ReplyError('a line of a reply is too long');
      if (held[end - 1] !== CR) throw new ReplyError('a line of a reply does not end in CRLF');
      const reply = this.#line(held.toString('latin1', 0, end - 1));
      if (reply !== null) replies.push(reply);
      held = held.subarray(end + 1);
    }
    if (held.length >= REPLY_LINE_LIMIT) throw new ReplyError('a line of a reply is too long');
    this.#held = held;
    return replies;
  }

  #line(line: string): UpstreamReply | null {
    const match = LINE.exec(line);
    if (match === null) throw new ReplyError('a line that is no reply');
    const code = Number(match[1]);
    if (this.#code !== null && code !== this.#code)
      throw new ReplyError('a reply whose lines have several codes');
    this.#code = code;
    this.#lines.push(match[3] ?? '');
    if (match[2] !== '-') {
      const reply = { code, lines: this.#lines };
      this.#code = null;
      this.#lines = [];
      return reply;
    }
    if (this.#lines.length >= REPLY_LINES_LIMIT) throw new ReplyError('a reply of too many lines');
    return null;
  }
}
