import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';

import {
  DkimVerifier,
  type BodyHash,
  type HeaderLine,
  type PreparedSignature,
  type SignatureResult,
} from 'mailauth/lib/dkim/dkim-verifier.js';
import parseDkimHeaders from 'mailauth/lib/parse-dkim-headers.js';

import { BodyCanonicalizer, type Canonicalization } from '../mail/dkim-body.ts';
import type { HeaderField } from '../mail/header.ts';
import type { Body, Message } from '../mail/message.ts';
import type { DkimResult, DkimResultWord } from '../ports/mail-auth.ts';
import { questionName } from './dns-message.ts';
import { LookupError, type Lookup, type LookupResult } from './mail-auth-dns.ts';

/** Signatures that are looked at, from the top: the newest. RFC 6376 §6.1 lets a verifier set a limit; each costs a DNS question. */
export const SIGNATURES_LIMIT = 8;

/** Octets of one signature field. One with a 4096-bit key and a long h= has 2 KiB. */
export const SIGNATURE_LENGTH_LIMIT = 4096;

/** Different body hashes (c=, a=, l=) that are computed: each distinct l= would mean another pass over the body. */
export const BODY_HASHES_LIMIT = 4;

/**
 * Size of a header section that signatures are verified over: octets, and fields. Each signature looks through all fields for each name in
 * its h=; with these limits the worst message there can be takes a tenth of a second.
 */
export const HEADER_OCTETS_LIMIT = 512 * 1024;
export const HEADER_FIELDS_LIMIT = 1024;

/** The body is hashed in pieces of this size, others get their turn between them. */
const PIECE = 64 * 1024;

const SIGNATURE = 'dkim-signature';

/** What mailauth calls neutral though the key, not the signature's form, is to blame: RFC 6376 §6.1.2 makes these PERMFAIL. */
const KEY_FAULTS: ReadonlySet<string> = new Set([
  'no key',
  'unknown key version',
  'unknown key type',
  'invalid public key',
  'inappropriate hash algorithm',
  'inappropriate key algorithm',
  'key not for email',
]);

/** Verifies the signatures of one message. RFC 6376 §6, RFC 8301, RFC 8463. */
export async function verifySignatures(
  message: Message,
  lookup: Lookup,
  now: Date,
  signal: AbortSignal,
): Promise<readonly DkimResult[]> {
  const found = message.headers.all(SIGNATURE).slice(0, SIGNATURES_LIMIT);
  if (found.length === 0) return [];
  const oversized = headerFault(message);
  if (oversized !== null) return [unread('permerror', oversized)];
  const verifier = new BoundedVerifier(message, found, lookup, now);
  await verifier.readBody(message.body, signal);
  const results = await verifier.verify();
  return results.map(resultOf);
}

function headerFault(message: Message): string | null {
  if (message.headers.length > HEADER_FIELDS_LIMIT)
    return `the header section has more than ${HEADER_FIELDS_LIMIT} fields`;
  let octets = 0;
  for (const { name, value } of message.headers) octets += name.length + value.length + 3;
  return octets > HEADER_OCTETS_LIMIT
    ? `the header section has more than ${HEADER_OCTETS_LIMIT} octets`
    : null;
}

/**
 * mailauth's verifier, given the header fields and the canonical body instead of a stream of bytes: its own parser takes quadratic time
 * for many folded lines, and its canonicalization as long as everything else together.
 */
class BoundedVerifier extends DkimVerifier {
  readonly #writers: BodyCanonicalizer[] = [];

  constructor(message: Message, found: readonly HeaderField[], lookup: Lookup, now: Date) {
    super({ resolver: keyLookup(lookup), strict: true, curTime: now });
    this.headers = { parsed: message.headers.toArray().map(headerLine), original: Buffer.alloc(0) };
    for (const field of found) this.signatureHeaders.push(this.#prepare(field));
  }

  /** Hashes the body, if any signature needs it, while the keys are being asked for. */
  async readBody(body: Body, signal: AbortSignal): Promise<void> {
    if (this.#writers.length === 0) return;
    for await (const chunk of body.chunks()) {
      for (let at = 0; at < chunk.length; at += PIECE) {
        const piece = chunk.subarray(at, at + PIECE);
        for (const writer of this.#writers) writer.write(piece);
        if (chunk.length > PIECE) await nextTurn();
        signal.throwIfAborted();
      }
    }
    for (const writer of this.#writers) writer.end();
  }

  async verify(): Promise<readonly SignatureResult[]> {
    await this.finalChunk();
    return this.results;
  }

  #prepare(field: HeaderField): PreparedSignature {
    const line = headerLine(field).line;
    // White space has no meaning to the parser, but long stretches of it take quadratic time.
    const short = Buffer.from(line.toString('latin1').replaceAll(/[ \t\r\n]+/g, ' '), 'latin1');
    const readable = line.length <= SIGNATURE_LENGTH_LIMIT;
    const parsed = parseDkimHeaders(readable ? short : Buffer.from(`${SIGNATURE}:`), { strict: true });
    const signature = Object.assign(parsed, { type: 'DKIM' as const, original: line });
    this.prepareSignature(signature);
    if (!readable) signature.skip = `longer than ${SIGNATURE_LENGTH_LIMIT} octets`;
    if (signature.skip === undefined && signature.invalid === undefined) this.#addBodyHash(signature);
    return signature;
  }

  #addBodyHash(signature: PreparedSignature): void {
    const { bodyCanon, hashAlgo, maxBodyLength, selector, signingDomain } = signature;
    const key = `${bodyCanon}:${hashAlgo}:${maxBodyLength}`;
    if (!this.bodyHashes.has(key)) {
      if (this.bodyHashes.size >= BODY_HASHES_LIMIT) {
        signature.skip = `needs one more than ${BODY_HASHES_LIMIT} different hashes of the body`;
        return;
      }
      const hash = new LengthLimitedHash(hashAlgo, maxBodyLength === '' ? Infinity : maxBodyLength);
      this.bodyHashes.set(key, hash);
      this.#writers.push(canonicalizer(bodyCanon, hash));
    }
    signature.bodyHashKey = key;
    // Asked for now, so that it is there when the body has been read, and that several keys are waited for at once. The verifier
    // asks the same cache again; an error comes up there.
    this.keyCache
      .get('DKIM', `${selector}._domainkey.${signingDomain}`, undefined, { strict: true, hashAlgo })
      .catch(() => {});
  }
}

function canonicalizer(kind: Canonicalization, hash: LengthLimitedHash): BodyCanonicalizer {
  return new BodyCanonicalizer(kind, (bytes) => hash.update(bytes));
}

/** RFC 6376 §3.7: with l=, only so many octets of the canonical body are hashed. */
class LengthLimitedHash implements BodyHash {
  hash?: string;
  mimeStructureStart?: number;
  canonicalizedLength = 0;
  bodyHashedBytes = 0;
  readonly #hash: Hash;
  readonly #limit: number;

  constructor(algorithm: 'sha1' | 'sha256', limit: number) {
    this.#hash = createHash(algorithm);
    this.#limit = limit;
  }

  update(bytes: Uint8Array): void {
    this.canonicalizedLength += bytes.length;
    const room = this.#limit - this.bodyHashedBytes;
    if (room <= 0) return;
    const part = bytes.length > room ? bytes.subarray(0, room) : bytes;
    this.bodyHashedBytes += part.length;
    this.#hash.update(part);
  }

  digest(encoding: 'base64'): string {
    return this.#hash.digest(encoding);
  }

  /** Not looked for. */
  getMimeStructureStart(): number {
    return 0;
  }
}

function headerLine(field: HeaderField): HeaderLine {
  const { name, gap = '', value } = field;
  return {
    key: name.toLowerCase(),
    casedKey: name,
    line: Buffer.from(`${name}${gap}:${value}`, 'latin1'),
  };
}

/**
 * RFC 6376 §3.6.2.2: with several TXT records the result is undefined; the verifier takes the first, so a key goes first. A name that is
 * too long for the DNS has no key; it is no failure of the DNS.
 */
function keyLookup(lookup: Lookup): Lookup {
  return async (name, type): Promise<LookupResult> => {
    if (questionName(name) === null) throw new LookupError('ENOTFOUND', 'there can be no such name');
    const records = (await lookup(name, type)).map(String);
    return records.toSorted((a, b) => Number(hasKey(b)) - Number(hasKey(a))).map((record) => [record]);
  };
}

function hasKey(record: string): boolean {
  return /(?:^|;)\s*p\s*=/.test(record);
}

function resultOf(result: SignatureResult): DkimResult {
  const { status } = result;
  const { word, detail } = judge(status);
  const domain = text(status.header?.['d'] ?? result.signingDomain);
  const selector = text(status.header?.['s'] ?? result.selector);
  // RFC 8601 §2.7.1, RFC 6008 §4.
  const properties = ['d', 'i', 's', 'a', 'b'].flatMap((tag) => {
    const value = text(status.header?.[tag]);
    return value === '' ? [] : [[`header.${tag}`, value] as const];
  });
  const comment = detail === '' ? {} : { comment: detail };
  return {
    result: word,
    domain: domain.toLowerCase(),
    selector,
    detail: `d=${domain} s=${selector}${detail === '' ? '' : `: ${detail}`}`,
    auth: { method: 'dkim', result: word, ...comment, properties },
  };
}

function judge(status: SignatureResult['status']): { word: DkimResultWord; detail: string } {
  const comment = status.comment ?? '';
  switch (status.result) {
    case 'pass':
      // RFC 6376 §8.2: text added after l= would be shown as if it were signed.
      if ((status.underSized ?? 0) > 0)
        return { word: 'policy', detail: `${status.underSized} octets of the body are not signed (l=)` };
      return { word: 'pass', detail: '' };
    case 'fail':
      // RFC 6376 §3.6.1: with t=y a failed signature counts for no more than none.
      return status.testing === true
        ? { word: 'neutral', detail: `${comment}, but the key is a test (t=y)` }
        : { word: 'fail', detail: comment };
    case 'policy':
      return { word: 'policy', detail: comment || (status.policy?.['dkim-rules'] ?? '') };
    case 'temperror':
      return { word: 'temperror', detail: comment };
    default:
      return { word: KEY_FAULTS.has(comment) ? 'permerror' : 'neutral', detail: comment };
  }
}

/** A signature of which nothing was read. */
function unread(word: DkimResultWord, detail: string): DkimResult {
  return {
    result: word,
    domain: '',
    selector: '',
    detail,
    auth: { method: 'dkim', result: word, comment: detail, properties: [] },
  };
}

function text(value: string | false | undefined): string {
  return typeof value === 'string' ? value : '';
}
