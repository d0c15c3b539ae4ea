import { createHash } from 'node:crypto';

import { lowerAscii } from '../mail/address.ts';
import { KEY_LIMIT } from '../ports/limits.ts';

/** Room for the network behind it. */
const NAME_LIMIT = KEY_LIMIT - 64;

/** Characters of a digest: 128 bits. */
const DIGEST = 32;

/**
 * A login, or a device, as a part of a key: the octets of its UTF-8 as latin1, which is how Postfix's attributes are read too, in lower case,
 * without control characters, and not too long. Different ones stay different.
 */
export function nameKey(name: string): string {
  const lower = lowerAscii(Buffer.from(name, 'utf8').toString('latin1'));
  if (lower.length <= NAME_LIMIT && lower.search(CONTROLS) === -1) return lower;
  const digest = createHash('sha256').update(lower, 'latin1').digest('hex').slice(0, DIGEST);
  return `${lower.slice(0, NAME_LIMIT - DIGEST - 1).replaceAll(CONTROLS, '?')}~${digest}`;
}

/** Those of US-ASCII; the ones above it are octets of UTF-8 here. */
// oxlint-disable-next-line no-control-regex
const CONTROLS = /[\x00-\x1f\x7f]/g;

/** The key of one login from one network. The network stands last and holds no `|`, so that no login can pass for another pair. */
export function pairKey(login: string, network: string): string {
  return `${login}|${network}`;
}

/** Both parts of a pairKey. */
export function pairOf(key: string): { readonly login: string; readonly network: string } {
  const at = key.lastIndexOf('|');
  return { login: key.slice(0, at), network: key.slice(at + 1) };
}

/** The address without the zone of a link-local one (`fe80::1%eth0`). */
export function withoutZone(address: string): string {
  const at = address.indexOf('%');
  return at === -1 ? address : address.slice(0, at);
}
