import type { KeyObject } from 'node:crypto';

export type SigningAlgorithm = 'rsa-sha256' | 'ed25519-sha256';

/** A private key that signs as one domain. */
export interface SigningKey {
  /** d=, lower case. */
  readonly domain: string;
  /** s= */
  readonly selector: string;
  /** Whether mail from subdomains is signed with it too. */
  readonly subdomains: boolean;
  readonly algorithm: SigningAlgorithm;
  readonly key: KeyObject;
}

/** What there is to sign with as one domain. */
export type DomainKeys =
  /** At least one, in the order in which the signatures are to stand. */
  | {
      readonly kind: 'usable';
      readonly keys: readonly SigningKey[];
      /** Selectors of keys that are not used, because they are not in DNS. */
      readonly leftOut?: readonly string[];
    }
  /** None of its keys is in DNS, and none is to be used before it is. */
  | { readonly kind: 'unpublished'; readonly subdomains: boolean }
  /** It should have keys, and none of them can be used. */
  | { readonly kind: 'broken'; readonly subdomains: boolean; readonly why: string }
  | { readonly kind: 'none' };

export const NO_KEYS: DomainKeys = Object.freeze({ kind: 'none' });

/** Where the keys are. Answers at once, without a promise, where it holds them in memory. */
export interface SigningKeys {
  /**
   * The keys of exactly this domain, which is in lower case.
   *
   * @throws {NeighbourError} when they can't be had just now
   */
  keysOf(domain: string): Promise<DomainKeys> | DomainKeys;
}
