import { z } from 'zod';

import { lowerAscii, parseMailbox, settingsKey, type Address } from '../mail/address.ts';
import type { Account } from '../ports/directory.ts';
import {
  addressPattern,
  matchesAddress,
  parseAddressPattern,
  selection,
  selects,
  type AddressPattern,
} from './address-pattern.ts';
import type { CheckTools } from './check.ts';
import { after, type Soon } from './soon.ts';

const DOMAIN_FORM = 'expected a domain name such as "example.org"';

/** Keys of `[checks.sender]`, for the envelope sender and for From. */
export const SENDER_OPTIONS = {
  default_domain: z
    .string(DOMAIN_FORM)
    .regex(/^(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$/i, DOMAIN_FORM)
    .optional()
    .describe("Domain of logins that are user names without one, as Dovecot's auth_default_realm.")
    .meta({
      examples: ['example.org'],
      defaultText: 'none: such a login has no address of its own',
      title: 'domain name',
    }),
  allow: z
    .array(
      z.strictObject({
        logins: selection()
          .describe(
            'Who: "user@domain", "@domain" for all of a domain, "user", "*"; "!pattern" takes one out.',
          )
          .meta({ examples: [['newsletter@example.org']] }),
        senders: z
          .array(addressPattern(), 'expected a list of address patterns')
          .min(1)
          .max(1000)
          .describe('May send as these addresses: "user@domain", "@domain", "*@*.domain".')
          .meta({
            examples: [['*@news.example.org', 'info@example.org']],
            title: 'list of address patterns',
          }),
      }),
    )
    .max(10_000)
    .default([])
    .describe(
      'Addresses that logins may send as, besides their own, the aliases that lead to them, and the senders of their [[account]].',
    ),
};

export type SenderOptions = z.output<z.ZodObject<typeof SENDER_OPTIONS>>;

/**
 * Whether a login may send as an address: its own, with an extension too, one whose mail ends in its mailbox, one that its account or the
 * operator's table names.
 *
 * @throws {NeighbourError} when the directory can't be asked, now or by rejecting
 */
export function mayUse(
  login: string,
  address: Address,
  options: SenderOptions,
  { directory, delimiter }: Pick<CheckTools, 'directory' | 'delimiter'>,
  signal: AbortSignal,
): Soon<boolean> {
  const user = userOf(login, options);
  const own = settingsKey(parseMailbox(user), '');
  const names = new Set([settingsKey(address, ''), settingsKey(address, delimiter)]);
  if (names.has(own)) return true;
  // An address without a domain has none to be matched.
  const texts = [...names].map((name) => (name.endsWith('@') ? name.slice(0, -1) : name));
  const fits = (pattern: AddressPattern): boolean => texts.some((text) => matchesAddress(pattern, text));
  const allowed = options.allow.some(({ logins, senders }) => selects(logins, user) && senders.some(fits));
  if (allowed) return true;
  return after(directory.account(user, signal), (account) =>
    patternsOf(account).some(fits) ? true : directory.owns(user, address, signal),
  );
}

/** The login as Dovecot knows the user: in lower case, with the domain that it has when none is given. */
function userOf(login: string, { default_domain: domain }: SenderOptions): string {
  const user = lowerAscii(login);
  return domain === undefined || user.includes('@') ? user : `${user}@${lowerAscii(domain)}`;
}

/** Accounts held in memory are the same objects each time. */
const parsed = new WeakMap<Account, readonly AddressPattern[]>();

function patternsOf(account: Account): readonly AddressPattern[] {
  let patterns = parsed.get(account);
  if (patterns === undefined) parsed.set(account, (patterns = account.senders.map(parseAddressPattern)));
  return patterns;
}
