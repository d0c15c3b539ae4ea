import type { Address } from '../mail/address.ts';

/** Where mail for an address ends, after Postfix's alias expansion. */
export type Destination =
  /** `mailboxes`: Dovecot user names; `elsewhere`: whether some of it leaves for other hosts. At least one of the two. */
  | { readonly kind: 'delivered'; readonly mailboxes: readonly string[]; readonly elsewhere: boolean }
  /** Not an address of ours, or one that Postfix will refuse: nothing to say about it. */
  | { readonly kind: 'unknown' };

/** Score bands that differ from those of the site; null: the band is not used; undefined: nothing is set. */
export interface AccountThresholds {
  readonly tag?: number | null;
  readonly junk?: number | null;
  readonly reject?: number | null;
  readonly discard?: number | null;
}

/** Patterns of senders: those whose mail somebody wants, and those whose mail they do not want. */
export interface SenderLists {
  /** `user@domain`, `@domain` or `domain`, `*@*.domain`, `*`. */
  readonly allow?: readonly string[];
  readonly block?: readonly string[];
}

/** What is set for one login or mailbox: its own settings onto those of its domain. */
export interface Account extends SenderLists {
  /** Octets; null: no limit; undefined: nothing is set. */
  readonly quota?: number | null;
  /** Limits that differ, by name. */
  readonly limits: ReadonlyMap<string, number>;
  /** Patterns of sender addresses it may use besides its own: `user@domain`, `@domain`, `*@*.domain`. */
  readonly senders: readonly string[];
  readonly thresholds?: AccountThresholds;
  /** Lists of its domain, which count where its own say nothing. */
  readonly domainLists?: SenderLists;
  /** Subject tag, Unicode; true: the site's; false: none. */
  readonly subjectTag?: string | boolean;
  /** RFC 5646 language tag, in lower case: which of the site's subject tags. */
  readonly language?: string;
  /** Whether spam is to come as the scanner's report. */
  readonly rewriteBody?: boolean;
  /** With which keys its mail is signed: a domain, for all of its keys, or `SELECTOR._domainkey.DOMAIN`. */
  readonly signingKeys?: readonly string[];
}

/** Users and aliases, as Postfix and Dovecot have them. Answers at once where it holds them in memory. */
export interface Directory {
  /** Whether accounts can have settings at all, so that asking for them makes sense. */
  readonly keepsSettings: boolean;
  /** @throws {NeighbourError} when it can't be had */
  destination(recipient: Address, signal: AbortSignal): Promise<Destination> | Destination;
  /** @throws {NeighbourError} */
  account(name: string, signal: AbortSignal): Promise<Account> | Account;
  /** Whether mail to this address ends (also) in the mailbox of this login: such an address is the login's own. @throws {NeighbourError} */
  owns(login: string, address: Address, signal: AbortSignal): Promise<boolean> | boolean;
  /** Whether the domain is one of ours. @throws {NeighbourError} */
  isLocalDomain(domain: string, signal: AbortSignal): Promise<boolean> | boolean;
}
