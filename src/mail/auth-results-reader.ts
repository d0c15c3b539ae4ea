import { trimBlanks } from './header.ts';

/** One `resinfo` as somebody else wrote it. RFC 8601 §2.2. */
export interface ReadResult {
  /** In lower case, as the result is. */
  readonly method: string;
  readonly result: string;
  /** `ptype.property`, in lower case, and its value with quotes taken off. */
  readonly properties: readonly (readonly [string, string])[];
}

export interface ReadResults {
  /** In lower case. */
  readonly authservId: string;
  readonly results: readonly ReadResult[];
}

/** Octets of a field that is read; one with 20 results has 4,000. */
export const RESULTS_LENGTH_LIMIT = 16 * 1024;

/** RFC 2045 §5.1 token and dot-atom, with the UTF-8 of RFC 6531: what stands without quotes. */
const TOKEN = /[!#$%&'*+\-./0-9?@A-Z^_`a-z{|}~\x80-\xff,]+/y;
/** Many write addresses of IPv6 and base64 without quotes; neither sign ends a value. */
const WORD = /[!#$%&'*+\-./0-9?@A-Z^_`a-z{|}~\x80-\xff,:=]+/y;
const KEYWORD = /[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?/y;
const DIGITS = /[0-9]+/y;

/**
 * Reads the payload of an Authentication-Results field, by the grammar and nothing else: null where it is by none, so that nobody reads into
 * it what was not written. RFC 8601 §2.2. Linear in the length of the text.
 */
export function readAuthResults(value: string): ReadResults | null {
  if (value.length > RESULTS_LENGTH_LIMIT) return null;
  const reader = new Reader(value);
  reader.space();
  const authservId = reader.value(TOKEN);
  if (authservId === null) return null;
  if (reader.space()) reader.take(DIGITS);
  reader.space();
  const results: ReadResult[] = [];
  if (reader.atEnd) return { authservId: authservId.toLowerCase(), results };
  while (reader.literal(';')) {
    reader.space();
    if (reader.atEnd) break;
    const read = resinfo(reader);
    if (read === null) return null;
    // `; none` stands for no results at all.
    if (read === 'none')
      return reader.atEnd && results.length === 0 ? { authservId: authservId.toLowerCase(), results } : null;
    results.push(read);
  }
  return reader.atEnd ? { authservId: authservId.toLowerCase(), results } : null;
}

/** RFC 8617 §4.1.1: the payload of an ARC-Authentication-Results field, which begins with its instance. */
export function readArcAuthResults(value: string): ReadResults | null {
  if (value.length > RESULTS_LENGTH_LIMIT) return null;
  const reader = new Reader(value);
  reader.space();
  if (reader.take(KEYWORD)?.toLowerCase() !== 'i') return null;
  reader.space();
  if (!reader.literal('=')) return null;
  reader.space();
  if (reader.take(DIGITS) === null) return null;
  reader.space();
  return reader.literal(';') ? readAuthResults(reader.rest) : null;
}

function resinfo(reader: Reader): ReadResult | 'none' | null {
  const method = reader.take(KEYWORD);
  if (method === null) return null;
  reader.space();
  if (method.toLowerCase() === 'none' && (reader.atEnd || reader.at(';'))) return 'none';
  if (reader.literal('/')) {
    reader.space();
    if (reader.take(DIGITS) === null) return null;
    reader.space();
  }
  if (!reader.literal('=')) return null;
  reader.space();
  const result = reader.take(KEYWORD);
  if (result === null) return null;
  const properties: (readonly [string, string])[] = [];
  while (reader.space() && !reader.atEnd && !reader.at(';')) {
    const property = propspec(reader);
    if (property === null) return null;
    properties.push(property);
  }
  return reader.atEnd || reader.at(';')
    ? { method: method.toLowerCase(), result: result.toLowerCase(), properties }
    : null;
}

/** `ptype.property=value`, or `reason=value`, which has no ptype. */
function propspec(reader: Reader): readonly [string, string] | null {
  const ptype = reader.take(KEYWORD);
  if (ptype === null) return null;
  let name = ptype.toLowerCase();
  reader.space();
  if (reader.literal('.')) {
    reader.space();
    const property = reader.take(KEYWORD);
    if (property === null) return null;
    name += `.${property.toLowerCase()}`;
    reader.space();
  }
  if (!reader.literal('=')) return null;
  reader.space();
  const value = reader.value(WORD);
  return value === null ? null : [name, value];
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get atEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  get rest(): string {
    return this.#text.slice(this.#at);
  }

  at(char: string): boolean {
    return this.#text[this.#at] === char;
  }

  literal(char: string): boolean {
    if (!this.at(char)) return false;
    this.#at++;
    return true;
  }

  take(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found === null) return null;
    this.#at += found[0].length;
    return found[0];
  }

  /** White space, folds and comments, which nest; whether there was any. What is not closed stays, and is no value either. */
  space(): boolean {
    const from = this.#at;
    for (;;) {
      const c = this.#text[this.#at];
      if (c === ' ' || c === '\t' || c === '\r' || c === '\n') this.#at++;
      else if (c !== '(') break;
      else {
        const end = afterComment(this.#text, this.#at);
        if (end === null) break;
        this.#at = end;
      }
    }
    return this.#at > from;
  }

  /** A quoted string, or words; `"local part"@domain` too. */
  value(bare: RegExp): string | null {
    if (!this.at('"')) return this.take(bare);
    const quoted = this.#quoted();
    if (quoted === null || !this.at('@')) return quoted;
    const domain = this.take(bare);
    return domain === null ? null : quoted + domain;
  }

  #quoted(): string | null {
    let text = '';
    for (let i = this.#at + 1; i < this.#text.length; i++) {
      const c = this.#text.charAt(i);
      if (c === '"') {
        this.#at = i + 1;
        return trimBlanks(text);
      }
      text += c === '\\' ? this.#text.charAt(++i) : c;
    }
    return null;
  }
}

/** RFC 5322 §3.2.2. */
function afterComment(text: string, at: number): number | null {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const c = text[i];
    if (c === '\\') i++;
    else if (c === '(') depth++;
    else if (c === ')' && --depth === 0) return i + 1;
  }
  return null;
}
