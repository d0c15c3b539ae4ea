import type { Unpublished } from '../config/key-life.ts';
import type { DomainKeys, SigningKey, SigningKeys } from '../ports/signing-keys.ts';
import type { KeyLookout } from './key-lookout.ts';

/** The longest the first message of a domain waits for what is known of its keys. */
export const FIRST_LOOK_MS = 3000;

/**
 * The keys of a source, less those that are not in DNS when the operator wants it so. Left out is what no server has; a key that some servers lack
 * signs: with it more mail is verified than without.
 */
export class PublishedKeys implements SigningKeys {
  readonly #source: SigningKeys;
  readonly #lookout: KeyLookout;
  #mode: Unpublished;

  constructor(source: SigningKeys, lookout: KeyLookout, mode: Unpublished) {
    this.#source = source;
    this.#lookout = lookout;
    this.#mode = mode;
  }

  configure(mode: Unpublished): void {
    this.#mode = mode;
  }

  keysOf(domain: string): Promise<DomainKeys> | DomainKeys {
    const found = this.#source.keysOf(domain);
    if (this.#mode !== 'skip') return found;
    return found instanceof Promise ? found.then((keys) => this.#published(keys)) : this.#published(found);
  }

  #published(found: DomainKeys): Promise<DomainKeys> | DomainKeys {
    if (found.kind !== 'usable') return found;
    let news = false;
    let missing = false;
    for (const key of found.keys) {
      const known = this.#lookout.known(key);
      news ||= known === null;
      missing ||= known === 'nowhere';
    }
    if (news) return this.#firstLook(found.keys);
    return missing ? this.#without(found.keys) : found;
  }

  async #firstLook(keys: readonly SigningKey[]): Promise<DomainKeys> {
    for (const key of keys) this.#lookout.add(key);
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, FIRST_LOOK_MS);
    // What is not known by then signs: DNS that does not answer must not stop outgoing mail.
    await Promise.race([late.promise, Promise.all(keys.map((key) => this.#lookout.looked(key)))]);
    clearTimeout(timer);
    return this.#without(keys);
  }

  #without(keys: readonly SigningKey[]): DomainKeys {
    const [published, missing] = [[] as SigningKey[], [] as SigningKey[]];
    for (const key of keys) (this.#lookout.known(key) === 'nowhere' ? missing : published).push(key);
    if (missing.length === 0) return { kind: 'usable', keys };
    return published.length > 0
      ? { kind: 'usable', keys: published, leftOut: missing.map(({ selector }) => selector) }
      : { kind: 'unpublished', subdomains: missing.some(({ subdomains }) => subdomains) };
  }
}
