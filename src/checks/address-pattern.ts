import { z } from 'zod';

import { lowerAscii } from '../mail/address.ts';
import { matchesWildcard, parseWildcard, type Wildcard } from './wildcard.ts';

/**
 * Addresses or logins that an operator means: `user@domain`, `@domain` (everybody there), `*@*.domain`, `user` (a login without a domain), `*`
 * (all). `*` stands for any run of characters on its side of the `@`.
 */
export interface AddressPattern {
  /** null: it has no `@`. */
  readonly domain: Wildcard | null;
  readonly local: Wildcard;
  /** `*` alone, which an address with a domain matches too. */
  readonly all: boolean;
}

const ANY = parseWildcard('*');

export function parseAddressPattern(text: string): AddressPattern {
  // What comes over the wire is text of one character per byte; what operators write is Unicode.
  const pattern = lowerAscii(Buffer.from(text, 'utf8').toString('latin1'));
  const at = pattern.lastIndexOf('@');
  if (at === -1) return { domain: null, local: parseWildcard(pattern), all: pattern === '*' };
  const local = at === 0 ? ANY : parseWildcard(pattern.slice(0, at));
  return { domain: parseWildcard(pattern.slice(at + 1)), local, all: false };
}

/** @param text an address or a login, in lower case */
export function matchesAddress({ domain, local, all }: AddressPattern, text: string): boolean {
  if (all) return true;
  const at = text.lastIndexOf('@');
  if (domain === null) return at === -1 && matchesWildcard(local, text);
  return (
    at !== -1 && matchesWildcard(domain, text.slice(at + 1)) && matchesWildcard(local, text.slice(0, at))
  );
}

const FORM = 'expected "user@domain", "@domain", "*@*.domain", "user" or "*"';

// RFC 5321 §4.5.3.1: 64 octets of local part, 255 of domain.
const LONGEST = 320;

export function addressPattern(): z.ZodType<AddressPattern, string> {
  return z
    .string(FORM)
    .refine(
      (text) => text !== '' && text.length <= LONGEST && !/[\s!]/.test(text) && !text.endsWith('@'),
      FORM,
    )
    .transform(parseAddressPattern)
    .meta({ title: 'address pattern' });
}

/** Patterns of which the first that fits says yes or, with `!` before it, no. */
export interface Selection {
  readonly patterns: readonly { readonly pattern: AddressPattern; readonly wanted: boolean }[];
  /** What holds for texts that no pattern fits: those are meant when nothing else is asked for. */
  readonly otherwise: boolean;
}

/** A list of patterns, those with `!` in front taken out: `["!bob@example.org", "@example.org"]`. */
export function selection(): z.ZodType<Selection, string[]> {
  const form = `${FORM}, or one of these with "!" in front to take it out`;
  const entry = z.string(form).transform((text, context) => {
    const wanted = !text.startsWith('!');
    const parsed = addressPattern().safeParse(wanted ? text : text.slice(1));
    if (parsed.success) return { pattern: parsed.data, wanted };
    context.addIssue({ code: 'custom', message: form });
    return z.NEVER;
  });
  return z
    .array(entry, 'expected a list of address patterns')
    .max(1000)
    .transform((patterns): Selection => ({ patterns, otherwise: !patterns.some(({ wanted }) => wanted) }))
    .meta({ title: 'list of address patterns' });
}

/** @param text in lower case; null: there is none, which only a selection that asks for nothing takes */
export function selects({ patterns, otherwise }: Selection, text: string | null): boolean {
  if (text === null) return otherwise;
  const first = patterns.find(({ pattern }) => matchesAddress(pattern, text));
  return first === undefined ? otherwise : first.wanted;
}
