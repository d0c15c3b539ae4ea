import { parseMailbox, type Address } from './address.ts';
import { unfold, type HeaderList } from './header.ts';

/** Longer than any From that Postfix hands to a filter (60,000 octets). */
const FROM_LIMIT = 64 * 1024;

/**
 * The one domain that a message is from: lower case, without closing dot. Null when there is no From, more than one, one that can't be
 * read, or addresses in more than one domain. RFC 5322 §3.6.2.
 */
export function authorDomain(headers: HeaderList): string | null {
  const addresses = authors(headers);
  const domain = addresses?.[0]?.domain;
  return domain !== undefined && addresses?.every((other) => other.domain === domain) === true
    ? domain
    : null;
}

/** All addresses of the one From field. Null when there is none, more than one, or one that can't be read. RFC 5322 §3.6.2. */
export function authors(headers: HeaderList): readonly Address[] | null {
  const fields = headers.all('From');
  const [from] = fields;
  return from === undefined || fields.length > 1 ? null : addressList(unfold(from.value));
}

/**
 * All addresses of an address list, groups included (RFC 5322 §3.4, RFC 6854). Null when the list is not well formed: whom a reader
 * would see then is anybody's guess. One pass over the text.
 */
export function addressList(value: string): readonly Address[] | null {
  if (value.length > FROM_LIMIT) return null;
  const reader = new AddressListReader();
  for (let at = 0; at < value.length;) {
    const next = reader.read(value, at);
    if (next === null) return null;
    at = next;
  }
  return reader.finish();
}

/** Stands for a quoted string while the list is read; no atom can hold it. */
const QUOTED = '\0';

class AddressListReader {
  readonly #addresses: Address[] = [];
  /** Quoted strings of the address or phrase that is being read, as they were written. */
  #quoted: string[] = [];
  /** Outside angle brackets: a phrase, or an address without brackets. White space inside is one space. */
  #bare = '';
  /** Inside angle brackets; null before them. */
  #angle: string | null = null;
  #state: 'bare' | 'angle' | 'after-angle' | 'after-group' = 'bare';
  #inGroup = false;
  /** Whether white space or a comment came since the last text. */
  #spaced = false;

  /** Reads one token at `at`; the place after it, or null when it can't stand there. */
  read(value: string, at: number): number | null {
    const c = value.charAt(at);
    switch (c) {
      case '(':
        return this.#space(afterComment(value, at));
      case ' ':
      case '\t':
        return this.#space(at + 1);
      case '"': {
        const end = afterQuoted(value, at);
        if (end === null) return null;
        this.#quoted.push(value.slice(at, end));
        return this.#text(QUOTED, end);
      }
      case '[': {
        const end = afterLiteral(value, at);
        return end === null ? null : this.#text(value.slice(at, end), end);
      }
      case '<':
        if (this.#state !== 'bare') return null;
        this.#state = 'angle';
        this.#angle = '';
        this.#quoted = [];
        return at + 1;
      case '>':
        if (this.#state !== 'angle') return null;
        this.#state = 'after-angle';
        return at + 1;
      case ',':
        if (this.#state === 'angle') return this.#text(c, at + 1); // an obsolete route
        return this.#close() ? at + 1 : null;
      case ':':
        if (this.#state === 'angle') return this.#text(c, at + 1);
        if (this.#state !== 'bare' || this.#inGroup || this.#bare === '') return null;
        this.#inGroup = true;
        this.#bare = '';
        this.#quoted = [];
        return at + 1;
      case ';':
        if (!this.#inGroup || this.#state === 'angle' || !this.#close()) return null;
        this.#inGroup = false;
        this.#state = 'after-group';
        return at + 1;
      default: {
        const end = afterAtom(value, at);
        return end === at ? null : this.#text(value.slice(at, end), end);
      }
    }
  }

  finish(): readonly Address[] | null {
    if (this.#inGroup || this.#state === 'angle') return null;
    return this.#close() ? this.#addresses : null;
  }

  #text(text: string, end: number | null): number | null {
    const spaced = this.#spaced ? ` ${text}` : text;
    this.#spaced = false;
    switch (this.#state) {
      case 'bare':
        this.#bare += this.#bare === '' ? text : spaced;
        return end;
      case 'angle':
        this.#angle = this.#angle === null || this.#angle === '' ? text : this.#angle + spaced;
        return end;
      case 'after-angle':
      case 'after-group':
        return null;
    }
  }

  #space(end: number | null): number | null {
    this.#spaced = true;
    return end;
  }

  /** Ends one address, or nothing (RFC 5322 §4.4 allows empty list elements). */
  #close(): boolean {
    const spec = this.#angle === null ? this.#bare : withoutRoute(this.#angle);
    const empty = this.#angle === null && spec === '';
    const quoted = this.#quoted;
    this.#quoted = [];
    this.#bare = '';
    this.#angle = null;
    this.#state = 'bare';
    this.#spaced = false;
    if (empty) return true;
    const address = specAddress(spec, quoted);
    if (address === null) return false;
    this.#addresses.push(address);
    return true;
  }
}

/** RFC 5322 §4.4 obs-route: `@a,@b:local@domain`. */
function withoutRoute(angle: string): string {
  return angle.startsWith('@') ? angle.slice(angle.lastIndexOf(':') + 1) : angle;
}

/**
 * `local@domain`; RFC 5322 §4.4 allows white space around the dots and the at sign.
 *
 * @param quoted the quoted strings, of which the last ones are those of the local part
 */
function specAddress(spec: string, quoted: readonly string[]): Address | null {
  const text = spec.replaceAll(/ ?([@.]) ?/g, '$1');
  const at = text.indexOf('@');
  if (at < 1 || at !== text.lastIndexOf('@') || / /.test(text) || /[,:[]/.test(text.slice(0, at)))
    return null;
  const domain = text.slice(at + 1);
  const bare = domain.endsWith('.') ? domain.slice(0, -1) : domain;
  const literal = /^\[[^[\]]*\]$/.test(domain);
  if (!literal && (bare === '' || bare.includes(QUOTED) || /[,:[]/.test(bare))) return null;
  const pieces = text.slice(0, at).split(QUOTED);
  const first = quoted.length - (pieces.length - 1);
  const local = pieces.map((piece, index) => piece + (quoted[first + index] ?? '')).join('');
  return parseMailbox(`${local}@${domain}`);
}

/** RFC 5322 §3.2.2: comments nest. */
function afterComment(value: string, at: number): number | null {
  let depth = 0;
  for (let i = at; i < value.length; i++) {
    const c = value.charAt(i);
    if (c === '\\') i++;
    else if (c === '(') depth++;
    else if (c === ')' && --depth === 0) return i + 1;
  }
  return null;
}

function afterQuoted(value: string, at: number): number | null {
  for (let i = at + 1; i < value.length; i++) {
    const c = value.charAt(i);
    if (c === '\\') i++;
    else if (c === '"') return i + 1;
  }
  return null;
}

function afterLiteral(value: string, at: number): number | null {
  const end = value.indexOf(']', at);
  return end === -1 ? null : end + 1;
}

/** Atoms, dots and at signs; bytes above 127 are text (RFC 6532), control characters are not. */
function afterAtom(value: string, at: number): number {
  let i = at;
  while (i < value.length && isAtomText(value, i)) i++;
  return i;
}

const SPECIALS = '()<>[]:;,"\\';

function isAtomText(value: string, at: number): boolean {
  const code = value.charCodeAt(at);
  return code > 0x20 && code !== 0x7f && !SPECIALS.includes(value.charAt(at));
}
