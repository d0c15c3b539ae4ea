import { printable, replyLine, type Reply } from '../mail/reply.ts';

/**
 * Postfix's policy delegation protocol, SMTPD_POLICY_README: requests are lines `name=value`, ended by an empty line; the reply is one
 * line `action=…` and an empty line. Bytes are kept as latin1: one character per byte.
 */

/** The longest line of a request, without its LF. Postfix takes SMTP lines of 2048 bytes; xtext (certificate names) triples a byte. */
export const LINE_LIMIT = 8192;
/** The most lines of one request. Postfix 3.10 sends 31. */
export const ATTRIBUTE_LIMIT = 100;
/** The most bytes of one request, line ends included. */
export const REQUEST_LIMIT = 65_536;
/** The longest header field in a PREPEND: Postfix breaks lines at 998, RFC 5322 §2.1.1. */
export const HEADER_LIMIT = 990;
/** The longest text of HOLD and DISCARD, which only Postfix's log shows. */
const NOTE_LIMIT = 200;

export type Attributes = ReadonlyMap<string, string>;

/** What makes bytes no request. The connection can't go on after it. */
export const PROTOCOL_ERRORS = [
  'line-too-long',
  'too-many-attributes',
  'request-too-long',
  'no-equals-sign',
  'not-a-policy-request',
] as const;
export type ProtocolError = (typeof PROTOCOL_ERRORS)[number];

export interface Decoded {
  /** Complete requests, in order; those in front of an error are good. */
  readonly requests: readonly Attributes[];
  readonly error: ProtocolError | null;
}

/** Turns bytes, cut into chunks anywhere, into requests. Holds no more than REQUEST_LIMIT bytes of an unfinished one. */
export class RequestDecoder {
  /** The beginning of a line whose end has not come. */
  #held = '';
  #attributes = new Map<string, string>();
  #lines = 0;
  #bytes = 0;
  #error: ProtocolError | null = null;

  /** Whether a request has begun and not ended. */
  get midRequest(): boolean {
    return this.#bytes > 0;
  }

  /** After an error nothing more is read. */
  push(chunk: Buffer): Decoded {
    const requests: Attributes[] = [];
    const text = this.#error === null ? chunk.toString('latin1') : '';
    let from = 0;
    while (this.#error === null && from < text.length) {
      const end = text.indexOf('\n', from);
      const stop = end === -1 ? text.length : end;
      this.#bytes += stop - from + (end === -1 ? 0 : 1);
      if (this.#held.length + stop - from > LINE_LIMIT) this.#error = 'line-too-long';
      else if (this.#bytes > REQUEST_LIMIT) this.#error = 'request-too-long';
      else if (end === -1) this.#held += text.slice(from);
      else this.#line(this.#take(text, from, end), requests);
      from = stop + 1;
    }
    return { requests, error: this.#error };
  }

  /** The whole line, with the CR of a peer that ends its lines with CRLF taken off. */
  #take(text: string, from: number, end: number): string {
    let line = text.slice(from, end);
    if (this.#held !== '') {
      line = this.#held + line;
      this.#held = '';
    }
    return line.endsWith('\r') ? line.slice(0, -1) : line;
  }

  #line(line: string, requests: Attributes[]): void {
    if (line === '') {
      this.#end(requests);
      return;
    }
    const equals = line.indexOf('=');
    if (equals === -1) {
      this.#error = 'no-equals-sign';
    } else if (++this.#lines > ATTRIBUTE_LIMIT) {
      this.#error = 'too-many-attributes';
    } else {
      // A repeated attribute: the first one counts, as in Postfix's own reading of replies (attr_scan_plain.c). It never sends one twice.
      const name = line.slice(0, equals);
      if (!this.#attributes.has(name)) this.#attributes.set(name, line.slice(equals + 1));
    }
  }

  #end(requests: Attributes[]): void {
    if (this.#attributes.get('request') !== 'smtpd_access_policy') {
      this.#error = 'not-a-policy-request';
      return;
    }
    requests.push(this.#attributes);
    this.#attributes = new Map();
    this.#lines = 0;
    this.#bytes = 0;
  }
}

/**
 * What can be answered. access(5).
 *
 * There is no `OK`: it would end the restriction list and skip what stands below. Neither can a bare number be said (`action=550`
 * permits), an empty action (it permits too), or remote text in the place of the verb.
 */
export type PolicyAction =
  | { readonly kind: 'DUNNO' }
  /** `Name: value` on one line. */
  | { readonly kind: 'PREPEND'; readonly field: string }
  /** `note` is for Postfix's log. */
  | { readonly kind: 'HOLD' | 'DISCARD'; readonly note: string }
  /** Refused for now, unless a restriction below refuses for good. Postfix answers 450 with our enhanced code. */
  | { readonly kind: 'DEFER_IF_PERMIT'; readonly reply: Reply; readonly trace: string }
  | { readonly kind: 'REPLY'; readonly reply: Reply; readonly trace: string };

export const DUNNO: PolicyAction = Object.freeze({ kind: 'DUNNO' });

/** The action as access(5) writes it: one line of printable US-ASCII, never empty, never digits alone. */
export function actionText(action: PolicyAction): string {
  switch (action.kind) {
    case 'DUNNO':
      return 'DUNNO';
    case 'PREPEND':
      return `PREPEND ${printable(action.field, HEADER_LIMIT)}`;
    case 'HOLD':
    case 'DISCARD':
      return `${action.kind} ${printable(action.note, NOTE_LIMIT)}`;
    case 'DEFER_IF_PERMIT': {
      // Postfix puts the code itself; the enhanced code at the start of the text is ours (smtpd_check.c, dsn_split).
      const line = replyLine(action.reply, action.trace);
      return `DEFER_IF_PERMIT ${line.slice(line.indexOf(' ') + 1)}`;
    }
    case 'REPLY':
      return replyLine(action.reply, action.trace);
  }
}

const DUNNO_REPLY = 'action=DUNNO\n\n';

/** The reply's bytes. LF only: Postfix waits for ever on a CRLF. */
export function encodeReply(action: PolicyAction): string {
  return action.kind === 'DUNNO' ? DUNNO_REPLY : `action=${actionText(action)}\n\n`;
}
