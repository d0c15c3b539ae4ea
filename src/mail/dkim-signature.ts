import type { Canonicalization } from './dkim-body.ts';
import { colonList, parseTagList, withoutBlanks, type TagList } from './tag-list.ts';

export type SignatureAlgorithm = 'rsa-sha256' | 'ed25519-sha256' | 'rsa-sha1';

/** A DKIM-Signature or ARC-Message-Signature that can be verified. RFC 6376 §3.5, RFC 8617 §4.1.2. */
export interface Signature {
  readonly algorithm: SignatureAlgorithm;
  readonly headerCanonicalization: Canonicalization;
  readonly bodyCanonicalization: Canonicalization;
  /** l=: octets of the canonical body that are signed; null: all. */
  readonly bodyLength: number | null;
  /** d= and s=, U-labels as A-labels. */
  readonly domain: string;
  readonly selector: string;
  /** i=, or what it is when it is left out; empty for ARC, where i= is another thing. */
  readonly identity: string;
  /** h=, in lower case. */
  readonly names: readonly string[];
  /** bh= and b=, in base64. */
  readonly bodyHash: string;
  readonly value: string;
  /** x=: seconds. */
  readonly expires: number | null;
}

export type SignatureReading =
  | { readonly kind: 'signature'; readonly signature: Signature; readonly list: TagList }
  | { readonly kind: 'fault'; readonly detail: string; readonly list: TagList };

/** U-labels as A-labels. RFC 5890 §2.3.2.1, RFC 8616 §3. The domain as one character for each octet. */
export type ToALabels = (domain: string) => string;

/** Tags without which there is no signature. RFC 6376 §3.5; RFC 8617 §4.1.2 has no v=. */
const REQUIRED = ['a', 'b', 'bh', 'd', 'h', 's'];

// RFC 6376 §3.5: sub-domain is that of RFC 5321.
const LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
const DOMAIN = new RegExp(`^${LABEL}(?:\\.${LABEL})+$`);
const SELECTOR = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`);
const TIMESTAMP = /^[0-9]{1,12}$/;
const LENGTH = /^[0-9]{1,76}$/;
const CANONICALIZATION = /^(simple|relaxed)(?:\/(simple|relaxed))?$/i;

/** RFC 5321 §4.1.2 Local-part, with the UTF-8 of RFC 6531. */
const LOCAL_PART =
  /^(?:[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff]+)*|"(?:[^"\\\r\n]|\\.)*")$/;

/** Reads a signature field. What can't be acted on has a fault, in a few fixed words. RFC 6376 §6.1.1. */
export function parseSignature(value: string, kind: 'dkim' | 'arc', toALabels: ToALabels): SignatureReading {
  const list = parseTagList(value);
  const read = list.valid ? signatureOf(list.tags, kind, toALabels) : 'signature syntax error';
  return typeof read === 'string'
    ? { kind: 'fault', detail: read, list }
    : { kind: 'signature', signature: read, list };
}

function signatureOf(
  tags: ReadonlyMap<string, string>,
  kind: 'dkim' | 'arc',
  toALabels: ToALabels,
): Signature | string {
  const get = (tag: string): string => tags.get(tag) ?? '';
  if (REQUIRED.some((tag) => !tags.has(tag)) || (kind === 'dkim' && !tags.has('v')))
    return 'signature missing required tag';
  if (kind === 'dkim' && get('v') !== '1') return 'incompatible version';
  const algorithm = algorithmOf(get('a'), kind);
  if (algorithm === null) return 'unknown algorithm';
  const [, header, body] = CANONICALIZATION.exec(tags.get('c') ?? 'simple/simple') ?? [];
  if (header === undefined) return 'unknown canonicalization';
  // §3.5: "dns/txt" is the only way to get keys there is.
  if (tags.has('q') && !colonList(get('q')).includes('dns/txt')) return 'unsupported query method';
  const domain = toALabels(get('d'));
  const selector = toALabels(get('s'));
  if (!DOMAIN.test(domain) || !SELECTOR.test(selector)) return 'signature syntax error';
  const wrong = (tag: string, form: RegExp): boolean => tags.has(tag) && !form.test(get(tag));
  if (wrong('t', TIMESTAMP) || wrong('x', TIMESTAMP) || wrong('l', LENGTH)) return 'signature syntax error';
  const expires = tags.has('x') ? Number(get('x')) : null;
  // §3.5: x= is greater than t= when both are there.
  if (expires !== null && tags.has('t') && expires <= Number(get('t'))) return 'invalid expiration';
  const names = colonList(get('h'));
  if (names.length === 0) return 'signature syntax error';
  // §5.4: without From a signature says nothing about the author.
  if (!names.includes('from')) return 'From field not signed';
  const identity = kind === 'arc' ? '' : identityOf(tags.get('i'), domain, toALabels);
  if (identity === null) return 'signature syntax error';
  if (kind === 'dkim' && !isWithin(domainOfIdentity(identity), domain)) return 'domain mismatch';
  return {
    algorithm,
    headerCanonicalization: canonicalization(header),
    // §3.5: with one word it is that of the header section, and the body is simple.
    bodyCanonicalization: canonicalization(body ?? 'simple'),
    bodyLength: tags.has('l') ? Number(get('l')) : null,
    domain,
    selector,
    identity,
    names,
    bodyHash: withoutBlanks(get('bh')),
    value: withoutBlanks(get('b')),
    expires,
  };
}

/** RFC 8301 §3.1 has rsa-sha1 known and not accepted; RFC 8617 §4.1.3 never had it. */
export function algorithmOf(text: string, kind: 'dkim' | 'arc'): SignatureAlgorithm | null {
  const algorithm = text.toLowerCase();
  switch (algorithm) {
    case 'rsa-sha256':
    case 'ed25519-sha256':
      return algorithm;
    case 'rsa-sha1':
      return kind === 'dkim' ? algorithm : null;
    default:
      return null;
  }
}

/** Of an AUID; RFC 6376 §2.6. */
export function domainOfIdentity(identity: string): string {
  return identity.slice(identity.lastIndexOf('@') + 1);
}

/** d= and s= of a field that is by the grammar in these. */
export function isDomain(domain: string): boolean {
  return DOMAIN.test(domain);
}

export function isSelector(selector: string): boolean {
  return SELECTOR.test(selector);
}

/** i= as it is meant; null: it is by no grammar. */
function identityOf(text: string | undefined, domain: string, toALabels: ToALabels): string | null {
  if (text === undefined) return `@${domain}`;
  const decoded = fromQuotedPrintable(text);
  const at = decoded.lastIndexOf('@');
  const local = decoded.slice(0, Math.max(at, 0));
  const own = toALabels(decoded.slice(at + 1));
  return at === -1 || (local !== '' && !LOCAL_PART.test(local)) || !DOMAIN.test(own)
    ? null
    : `${local}@${own}`;
}

/** RFC 6376 §2.11. */
function fromQuotedPrintable(text: string): string {
  return withoutBlanks(text).replaceAll(/=([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** RFC 6376 §3.5: i= is in d= or in a subdomain of it. */
function isWithin(inner: string, outer: string): boolean {
  const [one, other] = [inner.toLowerCase(), outer.toLowerCase()];
  return one === other || one.endsWith(`.${other}`);
}

function canonicalization(word: string): Canonicalization {
  return word.toLowerCase() === 'relaxed' ? 'relaxed' : 'simple';
}
