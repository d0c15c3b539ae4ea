import type { Canonicalization } from './dkim-body.ts';
import type { HeaderField, HeaderList } from './header.ts';
import { withoutTagValue } from './tag-list.ts';

/** RFC 6376 §5.4.1: what makes up the message as its reader sees it. Those a message has are signed, each occurrence. */
const SIGNED = [
  'From',
  'Sender',
  'Reply-To',
  'Subject',
  'Date',
  'Message-ID',
  'To',
  'Cc',
  'MIME-Version',
  'Content-Type',
  'Content-Transfer-Encoding',
  'Content-ID',
  'Content-Description',
  'Resent-Date',
  'Resent-From',
  'Resent-Sender',
  'Resent-To',
  'Resent-Cc',
  'Resent-Message-ID',
  'In-Reply-To',
  'References',
  'List-Id',
  'List-Help',
  'List-Unsubscribe',
  'List-Unsubscribe-Post',
  'List-Subscribe',
  'List-Post',
  'List-Owner',
  'List-Archive',
];

/** By their names in lower case. */
const SIGNED_BY_NAME = new Map(SIGNED.map((name) => [name.toLowerCase(), name]));

/** RFC 6376 §5.4.1, RFC 8601 §5: what relays and receivers write, change or remove. Never signed, whatever the configuration says. */
const NEVER = new Set([
  'received',
  'return-path',
  'dkim-signature',
  'authentication-results',
  'arc-authentication-results',
  'arc-message-signature',
  'arc-seal',
  'bcc',
  'resent-bcc',
]);
const NEVER_PREFIX = 'x-spam-';

/** Occurrences of one name that are listed in h=, from the bottom up; keeps the signature short whatever the message is. */
export const OCCURRENCES_LIMIT = 32;

/** RFC 5322 §2.1.1: lines should be no longer than 78 characters. */
const LINE_LIMIT = 76;
const TAB_WIDTH = 8;

/**
 * The names of h=, one entry for each occurrence that is signed. A name in `oversign` is listed once more than it occurs, so that one
 * added later breaks the signature instead of being believed. RFC 6376 §5.4.2, §8.15.
 */
export function signedNames(headers: HeaderList, oversign: readonly string[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const field of headers) {
    const name = field.name.toLowerCase();
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const names: string[] = [];
  const list = (name: string, lower: string, more: number): void => {
    if (NEVER.has(lower) || lower.startsWith(NEVER_PREFIX)) return;
    const times = Math.min((counts.get(lower) ?? 0) + more, OCCURRENCES_LIMIT);
    for (let i = 0; i < times; i++) names.push(name);
  };
  const over = new Map(oversign.map((name) => [name.toLowerCase(), name]));
  // §5.4: From must be in h=, even of a message that has none.
  if (!counts.has('from') && !over.has('from')) names.push('From');
  for (const [lower, name] of over) list(name, lower, 1);
  for (const [lower, name] of SIGNED_BY_NAME) if (!over.has(lower)) list(name, lower, 0);
  return names;
}

/** The fields that `names` stand for, in canonical form, each with its CRLF. RFC 6376 §3.7, §5.4.2: the lowest occurrence first. */
export function signedHeaderData(
  headers: HeaderList,
  names: readonly string[],
  canonicalization: Canonicalization,
): string {
  return new SignedFields(headers).data(names, canonicalization);
}

/** The fields of one message as its signatures name them. Each is put in order and made canonical once, however many signatures there are. */
export class SignedFields {
  readonly #byName = new Map<string, SignedField[]>();

  constructor(headers: HeaderList) {
    for (const field of headers) {
      const name = field.name.toLowerCase();
      const fields = this.#byName.get(name);
      const own = { field, simple: null, relaxed: null };
      if (fields === undefined) this.#byName.set(name, [own]);
      else fields.push(own);
    }
  }

  /** As `signedHeaderData`. */
  data(names: readonly string[], canonicalization: Canonicalization): string {
    const taken = new Map<string, number>();
    let data = '';
    for (const name of names) {
      const lower = name.toLowerCase();
      const fields = this.#byName.get(lower);
      if (fields === undefined) continue;
      const above = taken.get(lower) ?? fields.length;
      // §5.4: a name that is not there is the empty string, without a CRLF.
      const field = fields[above - 1];
      if (field === undefined) continue;
      taken.set(lower, above - 1);
      data += field[canonicalization] ??= `${canonicalField(field.field, canonicalization)}\r\n`;
    }
    return data;
  }
}

interface SignedField {
  readonly field: HeaderField;
  simple: string | null;
  relaxed: string | null;
}

/** A signature's own field as it is hashed: with an empty b=, without the closing CRLF. RFC 6376 §3.7. */
export function signatureFieldData(field: HeaderField, canonicalization: Canonicalization): string {
  return canonicalField({ ...field, value: withoutTagValue(field.value, 'b') }, canonicalization);
}

/** RFC 6376 §3.4.1, §3.4.2, without the closing CRLF. Only space and tab are white space: U+00A0 is half of a UTF-8 character here. */
export function canonicalField(field: HeaderField, canonicalization: Canonicalization): string {
  switch (canonicalization) {
    case 'simple':
      return `${field.name}${field.gap ?? ''}:${field.value}`;
    case 'relaxed': {
      const value = field.value.replaceAll(/\r?\n/g, '').replaceAll(/[ \t]+/g, ' ');
      const begin = value.startsWith(' ') ? 1 : 0;
      const end = value.endsWith(' ') ? value.length - 1 : value.length;
      return `${field.name.toLowerCase()}:${value.slice(begin, Math.max(begin, end))}`;
    }
  }
}

/** Text on lines that are not too long, as far as its pieces allow. */
export class Folder {
  #text = '';
  #column: number;

  /** `column`: what stands before it on the first line. */
  constructor(column: number) {
    this.#column = column;
  }

  get text(): string {
    return this.#text;
  }

  /** Adds a piece; a fold may stand where `glue` is. */
  add(piece: string, glue: '' | ' '): void {
    if (this.#column + glue.length + piece.length > LINE_LIMIT) {
      this.#text += '\r\n\t';
      this.#column = TAB_WIDTH;
    } else {
      this.#text += glue;
      this.#column += glue.length;
    }
    this.#text += piece;
    this.#column += piece.length;
  }

  /** Adds text that may be folded anywhere. */
  addAnywhere(text: string): void {
    let rest = text;
    while (rest !== '') {
      const room = LINE_LIMIT - this.#column;
      const piece = rest.slice(0, room > 0 ? room : LINE_LIMIT - TAB_WIDTH);
      this.add(piece, '');
      rest = rest.slice(piece.length);
    }
  }
}
