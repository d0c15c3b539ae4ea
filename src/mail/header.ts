/**
 * One header field, byte for byte. Strings here hold one byte per character (latin1), so nothing is lost by decoding.
 *
 * `value` is everything after the colon, leading white space included, without the closing CRLF; a fold inside is CRLF followed
 * by white space. RFC 5322 §2.2.
 */
export interface HeaderField {
  readonly name: string;
  /** White space between name and colon, which RFC 5322 §4.5 lets old mail have; left out when there is none. */
  readonly gap?: string;
  readonly value: string;
}

/** Header fields in the order of the message, top first. Immutable. */
export class HeaderList implements Iterable<HeaderField> {
  readonly #fields: readonly HeaderField[];

  constructor(fields: readonly HeaderField[]) {
    this.#fields = fields;
  }

  get length(): number {
    return this.#fields.length;
  }

  [Symbol.iterator](): Iterator<HeaderField> {
    return this.#fields[Symbol.iterator]();
  }

  toArray(): readonly HeaderField[] {
    return this.#fields;
  }

  /** All fields of that name, top first; names are compared without case (RFC 5322 §1.2.2). */
  all(name: string): HeaderField[] {
    const wanted = name.toLowerCase();
    return this.#fields.filter(
      (field) => field.name.length === wanted.length && field.name.toLowerCase() === wanted,
    );
  }

  /** The topmost field of that name. */
  first(name: string): HeaderField | undefined {
    const wanted = name.toLowerCase();
    return this.#fields.find(
      (field) => field.name.length === wanted.length && field.name.toLowerCase() === wanted,
    );
  }

  /** The fields as they stand in a message: `Name:value CRLF` each, without the empty line that ends the header section. */
  serialize(): string {
    let text = '';
    for (const { name, gap = '', value } of this.#fields) {
      text += name === '' ? `${value}\r\n` : `${name}${gap}:${value}\r\n`;
    }
    return text;
  }
}

/** A field's value on one line: folds removed, white space trimmed. RFC 5322 §2.2.3. */
export function unfold(value: string): string {
  return trimBlanks(value.replaceAll(/\r?\n(?=[ \t])/g, ''));
}

/** Without spaces, tabs and line ends around it. String.trim() would take U+00A0 too, which here is a byte of some UTF-8 letter. */
export function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0d || code === 0x0a;
}

/**
 * Reads a header section (without its closing empty line) given as latin1. A line that is no field and no continuation is kept
 * as part of the field before it, as MTAs do; at the very top it becomes a field with an empty name, so that no byte is lost.
 */
export function parseHeaderSection(section: string): HeaderList {
  const fields: HeaderField[] = [];
  let open: { name: string; gap: string; value: string } | null = null;
  for (const line of section.split('\r\n')) {
    if (line === '' && open === null) continue;
    const first = line.charCodeAt(0);
    const colon = first === 0x20 || first === 0x09 ? -1 : line.indexOf(':');
    if (colon > 0 && isFieldName(line, colon)) {
      if (open !== null) fields.push(closed(open));
      const name = trimBlanks(line.slice(0, colon));
      open = { name, gap: line.slice(name.length, colon), value: line.slice(colon + 1) };
    } else if (open === null) {
      open = { name: '', gap: '', value: line };
    } else {
      open.value += `\r\n${line}`;
    }
  }
  if (open !== null)
    fields.push(
      closed({ ...open, value: open.value.endsWith('\r\n') ? open.value.slice(0, -2) : open.value }),
    );
  return new HeaderList(fields);
}

function closed({ name, gap, value }: { name: string; gap: string; value: string }): HeaderField {
  return gap === '' ? { name, value } : { name, gap, value };
}

/** RFC 5322 §3.6.8: ftext is printable US-ASCII without the colon; §4.5 allows white space before the colon. */
function isFieldName(line: string, colon: number): boolean {
  for (let i = 0; i < colon; i++) {
    const code = line.charCodeAt(i);
    if (code === 0x20 || code === 0x09) {
      if (trimBlanks(line.slice(i, colon)) !== '') return false;
      return i > 0;
    }
    if (code < 0x21 || code > 0x7e) return false;
  }
  return true;
}
