import { LRUCache } from 'lru-cache';

import type { Clock } from '../ports/clock.ts';
import { NO_KEYS, type DomainKeys, type SigningKeys } from '../ports/signing-keys.ts';
import { byDomain, type FoundKey } from './key-file.ts';
import type { FileKeys } from './key-files.ts';
import { KEY_NAME } from './key-folder.ts';
import { KeyReader, type KeySource, type ParseKey } from './key-source.ts';
import { LookupCache, type CacheOptions, type LookResult } from './lookup-cache.ts';

/** Domains whose keys are held, whatever the setting: an RSA key takes a few KB. */
const DOMAINS_HELD = 20_000;

/** The longest that a message waits for the keys of one domain; then what was known before has to do. Each source has a shorter limit of its own. */
const PATIENCE_MS = 3000;

export interface SourcedKeysEvents {
  /** A key was read for the first time, or is another one now. */
  loaded(found: FoundKey, where: string): void;
  /** A key can't be used; told once for each reason. */
  broken(found: FoundKey, where: string): void;
  /** A key is not in its source any more, or its domain has not been asked for in a long time. */
  gone(found: FoundKey): void;
  looked(result: LookResult): void;
}

interface Held {
  readonly found: readonly FoundKey[];
  readonly keys: DomainKeys;
}

/** Keys in files and in sources elsewhere. For each domain the files are asked first, then the sources in their order; the first that has any counts. */
export class SourcedKeys implements SigningKeys {
  readonly #files: Pick<FileKeys, 'keysOf'>;
  readonly #sources: readonly KeySource[];
  readonly #subdomains: boolean;
  readonly #events: SourcedKeysEvents;
  readonly #reader: KeyReader;
  readonly #cache: LookupCache<Held>;
  /** What was last told of each domain. */
  readonly #told: LRUCache<string, readonly FoundKey[]>;
  #forgotten = false;
  #usable = 0;
  #broken = 0;

  /** @param subdomains whether keys are for subdomains too, where their source does not say it */
  constructor(
    files: Pick<FileKeys, 'keysOf'>,
    sources: readonly KeySource[],
    subdomains: boolean,
    parse: ParseKey,
    options: CacheOptions,
    clock: Clock,
    events: SourcedKeysEvents,
  ) {
    this.#files = files;
    this.#sources = sources;
    this.#subdomains = subdomains;
    this.#events = events;
    const held = Math.min(options.entries, DOMAINS_HELD);
    this.#reader = new KeyReader(parse, 2 * held);
    this.#told = new LRUCache({
      max: held,
      dispose: (found, _, reason) => {
        this.#count(found, -1);
        if (reason === 'evict') for (const key of found) events.gone(key);
      },
    });
    const load = (domain: string): Promise<Held | null> => this.#load(domain);
    this.#cache = new LookupCache({ ...options, entries: held }, clock, load, (result) =>
      events.looked(result),
    );
  }

  /** Keys that are held of other places than files. */
  get found(): readonly FoundKey[] {
    return [...this.#told.values()].flat();
  }

  /** How many they are. */
  get counts(): { readonly usable: number; readonly broken: number } {
    return { usable: this.#usable, broken: this.#broken };
  }

  keysOf(domain: string): Promise<DomainKeys> | DomainKeys {
    const inFiles = this.#files.keysOf(domain);
    // What is no name in DNS has no key there, whoever is asked.
    if (inFiles.kind !== 'none' || this.#sources.length === 0 || !KEY_NAME.test(domain)) return inFiles;
    const known = this.#cache.known(domain);
    return known === undefined ? this.#asked(domain) : (known?.keys ?? NO_KEYS);
  }

  /** Nobody is to watch its keys any more. */
  forget(): void {
    this.#forgotten = true;
    for (const found of this.#told.values()) for (const key of found) this.#events.gone(key);
    this.#told.clear();
  }

  async #asked(domain: string): Promise<DomainKeys> {
    const held = await this.#cache.get(domain, AbortSignal.timeout(PATIENCE_MS));
    return held?.keys ?? NO_KEYS;
  }

  async #load(domain: string): Promise<Held | null> {
    for (const source of this.#sources) {
      const rows = await source.rowsOf(domain);
      if (rows.length === 0) continue;
      const found = this.#reader.read(rows, domain, source.where, this.#subdomains);
      this.#tell(domain, found, source.where);
      const keys = byDomain(found).get(domain);
      return keys === undefined ? null : { found, keys };
    }
    this.#tell(domain, [], '');
    return null;
  }

  #tell(domain: string, found: readonly FoundKey[], where: string): void {
    if (this.#forgotten) return;
    const before = this.#told.get(domain) ?? [];
    for (const key of found) {
      const old = before.find(({ place }) => place.selector === key.place.selector);
      switch (key.state.kind) {
        case 'usable':
          if (old?.state.kind !== 'usable' || old.state.key.key !== key.state.key.key)
            this.#events.loaded(key, where);
          break;
        case 'broken':
          if (old?.state.kind !== 'broken' || old.state.why !== key.state.why)
            this.#events.broken(key, where);
          break;
      }
    }
    for (const old of before) {
      if (!found.some(({ place }) => place.selector === old.place.selector)) this.#events.gone(old);
    }
    if (found.length > 0) {
      this.#count(found, 1);
      this.#told.set(domain, found);
    } else this.#told.delete(domain);
  }

  #count(found: readonly FoundKey[], by: 1 | -1): void {
    for (const { state } of found) {
      if (state.kind === 'usable') this.#usable += by;
      else this.#broken += by;
    }
  }
}
