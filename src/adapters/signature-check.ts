import { createHash, verify, type KeyObject } from 'node:crypto';

import { signatureFieldData, type SignedFields } from '../mail/dkim-header.ts';
import { domainOfIdentity, type Signature, type SignatureAlgorithm } from '../mail/dkim-signature.ts';
import type { KeyRecord } from '../mail/dkim-key.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import type { DkimResultWord } from '../ports/mail-auth.ts';
import type { BodySum } from './body-hashes.ts';
import type { KeyAnswer } from './dkim-keys.ts';

/** Octets of one signature field. One with a 4096-bit key and a long h= has 2 KiB. */
export const SIGNATURE_LENGTH_LIMIT = 4096;

/** Size of a header section that signatures are verified over: octets, and fields. Each signature may hash all of it. */
export const HEADER_OCTETS_LIMIT = 512 * 1024;
export const HEADER_FIELDS_LIMIT = 1024;

/** Octets of a header section from which on others get their turn between two signatures. */
export const LARGE_HEADER = 64 * 1024;

/** Signatures of a clock that goes ahead are taken, and those that have just expired. RFC 6376 §3.5 (x=). */
const CLOCK_SKEW_S = 300;

export interface Judgement {
  readonly word: DkimResultWord;
  /** Empty for a pass. */
  readonly detail: string;
}

/** A signature, and what it is to be compared with. */
export interface SignatureParts {
  readonly signature: Signature;
  readonly field: HeaderField;
  readonly body: BodySum;
  readonly key: KeyAnswer;
  readonly fields: SignedFields;
  /** Seconds. */
  readonly now: number;
}

/** Octets of the whole header section; what it has too much of, or null. */
export function measureHeaders(headers: HeaderList): {
  readonly octets: number;
  readonly fault: string | null;
} {
  let octets = 0;
  for (const { name, value } of headers) octets += name.length + value.length + 3;
  const fault =
    headers.length > HEADER_FIELDS_LIMIT
      ? `the header section has more than ${HEADER_FIELDS_LIMIT} fields`
      : octets > HEADER_OCTETS_LIMIT
        ? `the header section has more than ${HEADER_OCTETS_LIMIT} octets`
        : null;
  return { octets, fault };
}

/** Verifies a signature whose body has ended and whose key is known as far as it can be. RFC 6376 §6.1, RFC 8301, RFC 8463. */
export function judgeSignature(parts: SignatureParts): Judgement {
  const { signature, field, body, key, fields, now } = parts;
  // RFC 8301 §3.1: whatever it was made over.
  if (signature.algorithm === 'rsa-sha1') return { word: 'policy', detail: 'weak algorithm' };
  // RFC 6376 §6.1.3 step 3.
  if (signature.bodyHash !== body.digest) return failed('body hash did not verify', key);
  switch (key.kind) {
    case 'unknown':
      return { word: 'temperror', detail: key.detail };
    case 'unusable':
      return { word: key.word, detail: key.detail };
    case 'key':
      break;
  }
  const { record, object } = key.key;
  const fault = keyFault(signature.algorithm, record);
  if (fault !== null) return { word: 'permerror', detail: fault };
  // RFC 6376 §3.6.1 (t=s).
  if (record.exact && domainOfIdentity(signature.identity).toLowerCase() !== signature.domain.toLowerCase())
    return { word: 'neutral', detail: 'domain mismatch' };
  const { headerCanonicalization: kind } = signature;
  const data = fields.data(signature.names, kind) + signatureFieldData(field, kind);
  if (!isSigned(signature.algorithm, data, object, signature.value)) return failed('bad signature', key);
  if (signature.expires !== null && signature.expires < now - CLOCK_SKEW_S)
    return { word: 'neutral', detail: 'expired' };
  // RFC 6376 §8.2: text added after l= would be shown as if it were signed.
  if (body.unsigned > 0)
    return { word: 'policy', detail: `${body.unsigned} octets of the body are not signed (l=)` };
  return { word: 'pass', detail: '' };
}

/** Why a key is not for signatures of this kind; null when it is. RFC 6376 §6.1.2 steps 6 and 8. */
export function keyFault(algorithm: SignatureAlgorithm, { type, hashes }: KeyRecord): string | null {
  if (hashes !== null && !hashes.includes('sha256')) return 'inappropriate hash algorithm';
  return algorithm.startsWith(`${type}-`) ? null : 'inappropriate key algorithm';
}

/** Whether `value`, in base64, is the signature of these octets. */
export function isSigned(
  algorithm: Exclude<SignatureAlgorithm, 'rsa-sha1'>,
  data: string,
  key: KeyObject,
  value: string,
): boolean {
  const octets = Buffer.from(data, 'latin1');
  const signature = Buffer.from(value, 'base64');
  // In place: within the limits on keys it takes 0.03 to 0.2 ms, and another thread costs as much.
  switch (algorithm) {
    case 'rsa-sha256':
      return verify('sha256', octets, key, signature);
    case 'ed25519-sha256':
      // RFC 8463 §3: what Ed25519 signs is the SHA-256 of the data.
      return verify(null, createHash('sha256').update(octets).digest(), key, signature);
  }
}

/** RFC 6376 §3.6.1: with t=y a failed signature counts for no more than none. */
function failed(detail: string, key: KeyAnswer): Judgement {
  return key.kind === 'key' && key.key.record.testing
    ? { word: 'neutral', detail: `${detail}, but the key is a test (t=y)` }
    : { word: 'fail', detail };
}
