import { colonList, parseTagList, withoutBlanks } from './tag-list.ts';

/** Octets of a key record; one of 4,096 bits with notes has 1,000. */
export const KEY_RECORD_LIMIT = 8192;

/** A public key as the DNS has it. RFC 6376 §3.6.1, RFC 8463 §4. */
export interface KeyRecord {
  readonly type: 'rsa' | 'ed25519';
  /** p=, in base64. */
  readonly data: string;
  /** h=: the only hashes it may be used with; null: any. */
  readonly hashes: readonly string[] | null;
  /** t=y: the domain only tests. */
  readonly testing: boolean;
  /** t=s: i= may not be in a subdomain of d=. */
  readonly exact: boolean;
}

export type KeyFault =
  'invalid public key' | 'unknown key version' | 'unknown key type' | 'key not for email';

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Reads a record, or says why there is no key in it. RFC 6376 §6.1.2 steps 4 to 8. */
export function parseKeyRecord(text: string): KeyRecord | KeyFault {
  if (text.length > KEY_RECORD_LIMIT) return 'invalid public key';
  const { tags, valid } = parseTagList(text);
  if (!valid) return 'invalid public key';
  const version = tags.get('v');
  // §3.6.1: "DKIM1" to the letter, and the first tag.
  if (version !== undefined && (version !== 'DKIM1' || [...tags.keys()][0] !== 'v'))
    return 'unknown key version';
  const data = withoutBlanks(tags.get('p') ?? '');
  // §3.6.1: an empty p= is a key that was revoked.
  if (data === '' || !BASE64.test(data)) return 'invalid public key';
  const services = colonList(tags.get('s') ?? '*');
  if (!services.includes('email') && !services.includes('*')) return 'key not for email';
  const type = withoutBlanks(tags.get('k') ?? 'rsa').toLowerCase();
  if (type !== 'rsa' && type !== 'ed25519') return 'unknown key type';
  const hashes = tags.get('h');
  const flags = colonList(tags.get('t') ?? '');
  return {
    type,
    data,
    hashes: hashes === undefined ? null : colonList(hashes),
    testing: flags.includes('y'),
    exact: flags.includes('s'),
  };
}

/** RFC 6376 §3.6.2.2: which of several TXT records is meant is undefined; one that has a key is the better guess. */
export function chooseKeyRecord(texts: readonly string[]): string | undefined {
  return texts.find((text) => /(?:^|;)[ \t]*p[ \t]*=/.test(text)) ?? texts[0];
}
