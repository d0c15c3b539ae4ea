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
}

/** What is set for one login or mailbox: its own settings onto those of its domain. */
export interface Account {
  /** Octets; null: no limit; undefined: nothing is set. */
  readonly quota?: number | null;
  /** Limits that differ, by name. */
  readonly limits: ReadonlyMap<string, number>;
  /** Patterns of sender addresses it may use besides its own: `user@domain`, `@domain`, `*@*.domain`. */
  readonly senders: readonly string[];
  readonly thresholds?: AccountThresholds;
  /** Patterns of sender addresses whose mail it wants, or does not want, in the form of `senders`. */
  readonly allow?: readonly string[];
  readonly block?: readonly string[];
  /** Names of the keys that its mail is signed with. */
  readonly signingKeys?: readonly string[];
}

/** Users and aliases, as Postfix and Dovecot have them. Answers at once where it holds them in memory. */
export interface Directory {
  /** @throws {NeighbourError} when it can't be had */
  destination(recipient: Address, signal: AbortSignal): Promise<Destination> | Destination;
  /** @throws {NeighbourError} */
  account(name: string, signal: AbortSignal): Promise<Account> | Account;
  /** Whether mail to this address ends (also) in the mailbox of this login: such an address is the login's own. @throws {NeighbourError} */
  owns(login: string, address: Address, signal: AbortSignal): Promise<boolean> | boolean;
  /** Whether the domain is one of ours. @throws {NeighbourError} */
  isLocalDomain(domain: string, signal: AbortSignal): Promise<boolean> | boolean;
}
