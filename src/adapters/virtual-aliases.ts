import { lowerAscii } from '../mail/address.ts';

/** Expansion as Postfix's cleanup(8) does it with virtual_alias_maps, virtual(5). Addresses are in internal form: local parts without quotes. */

// postconf(5) virtual_alias_recursion_limit, virtual_alias_expansion_limit, virtual_alias_address_length_limit
export const RECURSION_LIMIT = 1000;
export const EXPANSION_LIMIT = 1000;
export const ADDRESS_LIMIT = 1000;

/** The value of a key in lower case: of the first table that has it. */
export type AliasLookup = (key: string) => readonly string[] | undefined;

/** Keys that are looked for, one after another; each is answered with its targets, undefined: no table has it. */
type Lookups<T> = Generator<string, T, readonly string[] | undefined>;

/** `expandSteps` over tables in memory. */
export function expandAliases(
  address: string,
  lookup: AliasLookup,
  delimiter: string,
): readonly string[] | null {
  const steps = expandSteps(address, delimiter);
  let step = steps.next();
  while (step.done !== true) step = steps.next(lookup(step.value));
  return step.value;
}

/**
 * Where mail for an address goes, the address itself when there is no alias for it; null: Postfix would defer the message, because the
 * tables lead nowhere within its limits. Whoever runs it answers each key, which is in lower case.
 *
 * As cleanup_map1n_internal(): each address is replaced by the first of its targets until nothing replaces it, the other targets are put at the
 * end of the list. An address that is among its own targets is not expanded again.
 */
export function* expandSteps(address: string, delimiter: string): Lookups<readonly string[] | null> {
  const addresses = [address];
  const selves = new Set<string>();
  for (let index = 0; index < addresses.length; index += 1) {
    if (addresses.length > EXPANSION_LIMIT) return null;
    for (let depth = 0; ; depth += 1) {
      const from = addresses[index] ?? '';
      const folded = lowerAscii(from);
      if (selves.has(folded)) break;
      if (depth >= RECURSION_LIMIT) return null;
      const targets = yield* aliasTargets(from, delimiter);
      if (targets === null) break;
      for (const [place, target] of targets.entries()) {
        if (target.length > ADDRESS_LIMIT) return null;
        if (place === 0) addresses[index] = target;
        else addresses.push(target);
        if (lowerAscii(target) === folded) selves.add(folded);
      }
      // A table whose value holds no address: Postfix defers.
      if (targets.length === 0) return null;
    }
  }
  return addresses;
}

/**
 * One look into the tables, virtual(5) TABLE SEARCH ORDER: user+extension@domain, user@domain, @domain. An extension that was not part of the key goes
 * over to the targets (propagate_unmatched_extensions), except those of @domain. null: no key fits.
 */
function* aliasTargets(address: string, delimiter: string): Lookups<readonly string[] | null> {
  const at = address.lastIndexOf('@');
  const local = at === -1 ? address : address.slice(0, at);
  const domain = at === -1 ? '' : address.slice(at);
  const exact = yield* find(local, domain);
  if (exact !== undefined) return rewritten(exact, local, '');
  const cut = extensionAt(local, delimiter);
  if (cut !== null) {
    const bare = local.slice(0, cut);
    const found = yield* find(bare, domain);
    if (found !== undefined) return rewritten(found, bare, local.slice(cut));
  }
  const all = at === -1 ? undefined : yield lowerAscii(domain);
  return all === undefined ? null : rewritten(all, local, '');
}

/** Postfix looks for the quoted form first (mail_addr_find.c: MA_FORM_EXTERNAL_FIRST). */
function* find(local: string, domain: string): Lookups<readonly string[] | undefined> {
  const plain = lowerAscii(`${local}${domain}`);
  if (isDotString(local)) return yield plain;
  return (yield lowerAscii(`${quoted(local)}${domain}`)) ?? (yield plain);
}

function rewritten(targets: readonly string[], user: string, extension: string): readonly string[] {
  return targets.map((target, place) => {
    // virtual(5) RESULT ADDRESS REWRITING: the first "@otherdomain" becomes the same user there.
    const full = place === 0 && target.startsWith('@') ? `${user}${target}` : target;
    if (extension === '') return full;
    const at = full.lastIndexOf('@');
    return at === -1 ? `${full}${extension}` : `${full.slice(0, at)}${extension}${full.slice(at)}`;
  });
}

// split_addr.c
const NEVER_SPLIT = new Set(['postmaster', 'mailer-daemon', 'double-bounce']);

/** Where the extension of a local part begins, with its delimiter; null: there is none. */
export function extensionAt(local: string, delimiter: string): number | null {
  if (delimiter === '') return null;
  const folded = lowerAscii(local);
  if (NEVER_SPLIT.has(folded)) return null;
  // postconf(5) owner_request_special
  if (delimiter === '-' && (folded.startsWith('owner-') || /.-request$/.test(folded))) return null;
  const at = local.indexOf(delimiter);
  return at > 0 ? at : null;
}

// RFC 5321 §4.1.2: what needs no quotes.
function isDotString(local: string): boolean {
  return /^[!#-'*+\-/-9=?A-Z^-~\u0080-\u00ff]+(?:\.[!#-'*+\-/-9=?A-Z^-~\u0080-\u00ff]+)*$/.test(local);
}

function quoted(local: string): string {
  return `"${local.replaceAll(/["\\\r\n]/g, (character) => `\\${character}`)}"`;
}
