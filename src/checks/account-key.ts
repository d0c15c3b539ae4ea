import { createHash } from 'node:crypto';

import { lowerAscii } from '../mail/address.ts';
import { KEY_LIMIT } from '../ports/limits.ts';

/** Leaves room in a counter's key for a network behind it. */
const NAME_LIMIT = KEY_LIMIT - 64;

/** Characters of a digest: 128 bits. */
const DIGEST = 32;

/** Those of US-ASCII; the ones above it are octets of UTF-8 here. */
// oxlint-disable-next-line no-control-regex
const CONTROLS = /[\x00-\x1f\x7f]/g;

/**
 * Under which name a login is known, whoever names it: Postfix, Dovecot or an operator. In lower case, without control characters and not too long;
 * different logins stay different.
 *
 * @param login one character for each octet, as Postfix's attributes are read
 */
export function accountKey(login: string): string {
  const lower = lowerAscii(login);
  if (lower.length <= NAME_LIMIT && lower.search(CONTROLS) === -1) return lower;
  const digest = createHash('sha256').update(lower, 'latin1').digest('hex').slice(0, DIGEST);
  return `${lower.slice(0, NAME_LIMIT - DIGEST - 1).replaceAll(CONTROLS, '?')}~${digest}`;
}

/** The same of text that is Unicode: a command line, a file, JSON. */
export function accountKeyOfText(login: string): string {
  return accountKey(Buffer.from(login, 'utf8').toString('latin1'));
}
