import { settingsKey, type Address } from '../mail/address.ts';
import type { Account, SenderLists } from '../ports/directory.ts';
import { matchesAddress, parseAddressPattern, type AddressPattern } from './address-pattern.ts';

/** A list of senders: what is written out is found at once, what has a `*` is tried one by one. */
interface SenderList {
  /** `user@domain` and `@domain`. */
  readonly exact: ReadonlySet<string>;
  readonly patterns: readonly AddressPattern[];
}

/** Lists stay the same as long as the directory remembers the account. */
const known = new WeakMap<readonly string[], SenderList>();

export type Listing = 'allow' | 'allow-unproven' | 'block';

/**
 * What an account says of a sender. Its own lists come before those of its domain, and in each `allow` before `block`; an entry of `allow`
 * counts for addresses that are proven alone.
 *
 * @param named addresses that the message names as its sender
 */
export function listing(
  { allow, block, domainLists }: Account,
  named: readonly Address[],
  isProven: (address: Address) => boolean,
): Listing | null {
  let unproven = false;
  const lists: SenderLists[] = [
    { ...(allow === undefined ? {} : { allow }), ...(block === undefined ? {} : { block }) },
    domainLists ?? {},
  ];
  for (const one of lists) {
    const wanted = named.filter((address) => isListed(one.allow, address));
    if (wanted.some(isProven)) return 'allow';
    if (named.some((address) => isListed(one.block, address))) return 'block';
    unproven ||= wanted.length > 0;
  }
  return unproven ? 'allow-unproven' : null;
}

/** For all mailboxes of an alias the mildest: each has its own once aliases are followed. */
export function together(listings: readonly (Listing | null)[]): Listing | null {
  if (listings.includes('allow')) return 'allow';
  if (listings.length > 0 && listings.every((one) => one === 'block')) return 'block';
  return listings.includes('allow-unproven') ? 'allow-unproven' : null;
}

function isListed(texts: readonly string[] | undefined, address: Address): boolean {
  if (texts === undefined || texts.length === 0) return false;
  let list = known.get(texts);
  if (list === undefined) known.set(texts, (list = compile(texts)));
  const { exact, patterns } = list;
  const key = settingsKey(address, '');
  if (exact.has(key) || exact.has(`@${address.domain}`)) return true;
  return patterns.some((pattern) => matchesAddress(pattern, key));
}

/** @param texts one character for each octet */
function compile(texts: readonly string[]): SenderList {
  const exact = new Set<string>();
  const patterns: AddressPattern[] = [];
  for (const text of texts) {
    // A domain alone is what people write.
    const whole = text.includes('@') || text === '*' ? text : `@${text.replace(/^\./, '*.')}`;
    if (whole.includes('*')) {
      patterns.push(parseAddressPattern(Buffer.from(whole, 'latin1').toString('utf8')));
    } else {
      exact.add(whole.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase()));
    }
  }
  return { exact, patterns };
}
