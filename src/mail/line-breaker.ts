import { HeaderList, type HeaderField } from './header.ts';

const LF = 0x0a;
const CR = 0x0d;
const BREAK = new Uint8Array([CR, LF, 0x20]);
const LONE_CR = new Uint8Array([CR]);

/**
 * A body as Postfix's smtp(8) and lmtp(8) send it, from chunks that may be cut anywhere: a line that is longer than smtp_line_length_limit is
 * broken there, and what follows begins with a space (smtp_proto.c: smtp_text_out). What is hashed without that would be another message.
 *
 * What is given to `sink` is good for the duration of the call.
 */
export class LineBreaker {
  readonly #limit: number;
  readonly #sink: (bytes: Uint8Array) => void;
  /** Octets of the line so far. */
  #column = 0;
  /** The last octet was a CR, and what follows decides whether it is content. */
  #cr = false;

  /** @param limit octets of a line without its CRLF; above 1 */
  constructor(limit: number, sink: (bytes: Uint8Array) => void) {
    this.#limit = limit;
    this.#sink = sink;
  }

  write(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    let at = 0;
    if (this.#cr) {
      this.#cr = false;
      if (chunk[0] !== LF && this.#column >= this.#limit) this.#break();
      this.#sink(LONE_CR);
      this.#column += 1;
      if (chunk[0] === LF) {
        this.#sink(chunk.subarray(0, 1));
        this.#column = 0;
        at = 1;
      }
    }
    const end = chunk.length > at && chunk[chunk.length - 1] === CR ? chunk.length - 1 : chunk.length;
    this.#cr = end < chunk.length;
    let begin = at;
    for (;;) {
      const room = this.#limit - this.#column;
      if (end - at <= room) break;
      // The last line end that is near enough: most lines are short, and so many of them are passed at once.
      const feed = chunk.lastIndexOf(LF, at + room + 1);
      if (feed >= at) {
        at = feed + 1;
        this.#column = 0;
        continue;
      }
      this.#sink(chunk.subarray(begin, at + room));
      at += room;
      begin = at;
      this.#break();
    }
    const feed = chunk.lastIndexOf(LF, end - 1);
    this.#column = feed >= at ? end - feed - 1 : this.#column + end - at;
    if (begin < end) this.#sink(chunk.subarray(begin, end));
  }

  /** No more will come. */
  end(): void {
    if (!this.#cr) return;
    if (this.#column >= this.#limit) this.#break();
    this.#sink(LONE_CR);
  }

  #break(): void {
    this.#sink(BREAK);
    this.#column = 1;
  }
}

/** The header section as Postfix sends it, with the same breaks. */
export function breakLines(headers: HeaderList, limit: number): HeaderList {
  const isLong = ({ name, gap = '', value }: HeaderField): boolean =>
    name.length + gap.length + 1 + value.length > limit;
  const fields = headers.toArray();
  return fields.some(isLong)
    ? new HeaderList(fields.map((field) => (isLong(field) ? brokenField(field, limit) : field)))
    : headers;
}

function brokenField(field: HeaderField, limit: number): HeaderField {
  let room = limit - field.name.length - (field.gap ?? '').length - 1;
  const lines: string[] = [];
  for (const line of field.value.split('\r\n')) {
    let rest = line;
    while (rest.length > room) {
      lines.push(rest.slice(0, Math.max(0, room)));
      rest = ` ${rest.slice(Math.max(0, room))}`;
      room = limit;
    }
    lines.push(rest);
    room = limit;
  }
  return { ...field, value: lines.join('\r\n') };
}
