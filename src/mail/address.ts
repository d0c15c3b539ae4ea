import { trimBlanks } from './header.ts';

/**
 * A mailbox as the envelope carried it. RFC 5321 §4.1.2.
 *
 * `raw` is what was sent, without angle brackets and with its quoting; `local` is the local part unquoted; `domain` is in
 * lower case without a closing dot (an address literal keeps its brackets). A mailbox without a domain (`postmaster`,
 * RFC 5321 §4.5.1, or a local user of sendmail(1)) has an empty domain.
 */
export interface Address {
  readonly raw: string;
  readonly local: string;
  readonly domain: string;
}

/** The reverse-path; the null path of bounces is a value of its own, never an empty string. RFC 5321 §3.6.3, §4.5.5. */
export type ReversePath = { readonly kind: 'null' } | { readonly kind: 'address'; readonly address: Address };

export const NULL_PATH: ReversePath = Object.freeze({ kind: 'null' });

/**
 * Parses a mailbox without angle brackets. Never throws: what is not well formed keeps all of its text as the local part or
 * the domain, whichever side of the last `@` it stands on, because a decision about odd mail still has to be made and recorded.
 */
export function parseMailbox(raw: string): Address {
  const at = raw.lastIndexOf('@');
  const local = at === -1 ? raw : raw.slice(0, at);
  const domain = at === -1 ? '' : lowerAscii(raw.slice(at + 1));
  return { raw, local: unquote(local), domain: domain.endsWith('.') ? domain.slice(0, -1) : domain };
}

/** Parses `<local@domain>`, `<>`, or a bare mailbox (as Postfix gives them for mail that did not come by SMTP). */
export function parseReversePath(text: string): ReversePath {
  const mailbox = stripBrackets(text);
  return mailbox === '' ? NULL_PATH : { kind: 'address', address: parseMailbox(mailbox) };
}

/** Parses the path of RCPT TO. An empty path gives an address with an empty local part. */
export function parseForwardPath(text: string): Address {
  return parseMailbox(stripBrackets(text));
}

/** The envelope sender as the field writes it: without brackets, empty for the null path. */
export function pathText(path: ReversePath): string {
  switch (path.kind) {
    case 'null':
      return '';
    case 'address':
      return path.address.raw;
  }
}

/** The key under which settings of a mailbox are looked up: local part and domain in lower case, without `+detail`. */
export function settingsKey(address: Address, delimiter = '+'): string {
  const local = lowerAscii(address.local);
  const cut = delimiter === '' ? -1 : local.indexOf(delimiter, 1);
  return `${cut === -1 ? local : local.slice(0, cut)}@${address.domain}`;
}

/** String.toLowerCase() would change bytes of UTF-8 letters, which are characters of their own here. */
export function lowerAscii(text: string): string {
  // Most text has none, and keeps its string.
  return /[A-Z]/.test(text) ? text.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase()) : text;
}

function stripBrackets(text: string): string {
  const trimmed = trimBlanks(text);
  const inner = trimmed.startsWith('<') && trimmed.endsWith('>') ? trimmed.slice(1, -1) : trimmed;
  // RFC 5321 §4.1.1.3, appendix C: a source route is to be ignored.
  const routed = /^@[^:"]*:(.*)$/s.exec(inner);
  return routed?.[1] ?? inner;
}

function unquote(local: string): string {
  if (local.length < 2 || !local.startsWith('"') || !local.endsWith('"')) return local;
  return local.slice(1, -1).replaceAll(/\\(.)/gs, '$1');
}
