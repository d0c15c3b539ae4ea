import type { DomainKeys, SigningKey } from '../ports/signing-keys.ts';

/** Whose key it is. */
export interface KeyIdentity {
  /** d=, lower case. */
  readonly domain: string;
  readonly selector: string;
  readonly subdomains: boolean;
}

/** Where a key is, and whose it is. */
export interface KeyPlace extends KeyIdentity {
  /** Absolute. */
  readonly path: string;
}

/** What there is under the name of a key. */
export interface FoundKey {
  readonly place: KeyIdentity;
  readonly state:
    | { readonly kind: 'usable'; readonly key: SigningKey }
    /** What is wrong with it and how to mend it. */
    | { readonly kind: 'broken'; readonly why: string };
}

/** One file, as it was when it was last read. */
export interface KeyFile extends FoundKey {
  readonly place: KeyPlace;
  /** Changes when the file does. */
  readonly stamp: string;
}

/** What there is for each domain. A broken key stops its domain only when no other one is left. */
export function byDomain(files: Iterable<FoundKey>): ReadonlyMap<string, DomainKeys> {
  const domains = new Map<string, DomainKeys>();
  for (const { place, state } of files) {
    const { domain, selector, subdomains } = place;
    const known = domains.get(domain);
    switch (state.kind) {
      case 'usable': {
        const keys = known?.kind === 'usable' ? known.keys : [];
        // Of two files for one key the first counts: those with a file of their own come before those in the folder.
        if (keys.some((key) => key.selector === selector)) break;
        domains.set(domain, { kind: 'usable', keys: [...keys, state.key] });
        break;
      }
      case 'broken':
        if (known?.kind === 'usable') break;
        domains.set(domain, {
          kind: 'broken',
          subdomains: subdomains || (known?.kind === 'broken' && known.subdomains),
          why: known?.kind === 'broken' ? known.why : state.why,
        });
        break;
    }
  }
  return domains;
}
