import type { KeyObject } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';

import type { Clock } from '../ports/clock.ts';
import { NO_KEYS, type DomainKeys, type SigningAlgorithm, type SigningKeys } from '../ports/signing-keys.ts';
import { byDomain, type KeyFile, type KeyPlace } from './key-file.ts';
import { listKeyFolder, stampOf, type FolderListing } from './key-folder.ts';

export interface KeyFilesOptions {
  /** Keys in files of their own. */
  readonly listed: readonly KeyPlace[];
  /** Folder of keys, DOMAIN/SELECTOR.private; null: there is none. */
  readonly folder: string | null;
  /** Whether the keys in the folder are for subdomains too. */
  readonly subdomains: boolean;
}

/** Reads and judges one file. Does not reject. */
export type ReadKey = (
  path: string,
) => Promise<
  | { readonly ok: true; readonly key: KeyObject; readonly algorithm: SigningAlgorithm }
  | { readonly ok: false; readonly wrong: string; readonly remedy: string }
>;

export interface KeyFilesEvents {
  /** A key was read for the first time, or again. */
  loaded(file: KeyFile): void;
  /** A key can't be used; told once for each reason. */
  broken(file: KeyFile): void;
  /** A file in the folder is there no more. */
  gone(file: KeyFile): void;
  /** The folder can't be read, what is known of it stays in use; told once, until it can be. */
  folderFailed(path: string, why: string): void;
}

export interface FileKeys extends SigningKeys, Disposable {
  keysOf(domain: string): DomainKeys;
  /** Every file, in the order of the domains. */
  readonly files: readonly KeyFile[];
  /** Looks at the files now; it does so by itself every few seconds. Never rejects. */
  refresh(): Promise<void>;
  /** Other settings in place of those it has. When that fails, they stay. @throws {Error} with what is wrong, for people */
  configure(options: KeyFilesOptions): Promise<void>;
}

/** How often the files are looked at, unless looking takes long: then a twentieth of the time is spent on it. */
const LOOK_EVERY_MS = 5000;
const LOOK_SHARE = 20;

/** A file younger than this may be half written. */
const SETTLED_MS = 1000;

/** @throws {Error} when the folder can't be read. A key that can't be used is no error: it is told of. */
export async function openKeyFiles(
  options: KeyFilesOptions,
  read: ReadKey,
  clock: Clock,
  events: KeyFilesEvents,
): Promise<FileKeys> {
  const keys = new WatchedKeys(read, clock, events);
  await keys.configure(options);
  return keys;
}

class WatchedKeys implements FileKeys {
  readonly #read: ReadKey;
  readonly #clock: Clock;
  readonly #events: KeyFilesEvents;
  #options: KeyFilesOptions = { listed: [], folder: null, subdomains: false };
  /** By key and path. */
  #files: ReadonlyMap<string, KeyFile> = new Map();
  #domains: ReadonlyMap<string, DomainKeys> = new Map();
  #folderFault = '';
  #work: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(read: ReadKey, clock: Clock, events: KeyFilesEvents) {
    this.#read = read;
    this.#clock = clock;
    this.#events = events;
  }

  get files(): readonly KeyFile[] {
    return [...this.#files.values()].toSorted((a, b) => (a.place.domain < b.place.domain ? -1 : 1));
  }

  keysOf(domain: string): DomainKeys {
    return this.#domains.get(domain) ?? NO_KEYS;
  }

  refresh(): Promise<void> {
    return this.#inTurn(async () => {
      const begun = this.#clock.elapsed();
      try {
        await this.#look(this.#options, await this.#list(this.#options));
        this.#folderFault = '';
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        if (why !== this.#folderFault) this.#events.folderFailed(this.#options.folder ?? '', why);
        this.#folderFault = why;
      }
      this.#again(this.#clock.elapsed() - begun);
    });
  }

  configure(options: KeyFilesOptions): Promise<void> {
    return this.#inTurn(async () => {
      if (isDeepStrictEqual(options, this.#options)) return;
      await this.#look(options, await this.#list(options));
      this.#options = options;
      this.#folderFault = '';
      this.#again(0);
    });
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  /** One at a time: two that look at once would tell of everything twice. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#work.then(work);
    // What fails is told to whoever asked for it, and stops nobody after it.
    this.#work = done.catch(() => undefined);
    return done;
  }

  #again(took: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.refresh(), Math.max(LOOK_EVERY_MS, took * LOOK_SHARE)).unref();
  }

  #list({ folder, subdomains }: KeyFilesOptions): Promise<FolderListing> {
    return folder === null ? Promise.resolve({ places: [], faults: [] }) : listKeyFolder(folder, subdomains);
  }

  /** Reads what is new or has changed. */
  async #look(options: KeyFilesOptions, { places, faults }: FolderListing): Promise<void> {
    const files = new Map<string, KeyFile>();
    for (const place of [...options.listed, ...places]) {
      const name = nameOf(place);
      files.set(name, await this.#file(place, this.#files.get(name)));
    }
    for (const { place, why } of faults) {
      files.set(nameOf(place), { place, stamp: '', state: { kind: 'broken', why } });
    }
    for (const [name, file] of files) this.#tell(this.#files.get(name), file);
    for (const [name, file] of this.#files) if (!files.has(name)) this.#events.gone(file);
    this.#files = files;
    this.#domains = byDomain(files.values());
  }

  async #file(place: KeyPlace, before: KeyFile | undefined): Promise<KeyFile> {
    const known = isDeepStrictEqual(before?.place, place) ? before : undefined;
    const { stamp, modified } = await stampOf(place.path);
    if (known !== undefined && known.stamp === stamp) return known;
    const reading = await this.#read(place.path);
    if (reading.ok) {
      const { domain, selector, subdomains } = place;
      const { key, algorithm } = reading;
      return {
        place,
        stamp,
        state: { kind: 'usable', key: { domain, selector, subdomains, algorithm, key } },
      };
    }
    const young = this.#clock.now() - modified < SETTLED_MS;
    if (young && known !== undefined) return known;
    return { place, stamp, state: { kind: 'broken', why: `${reading.wrong}; ${reading.remedy}` } };
  }

  #tell(before: KeyFile | undefined, now: KeyFile): void {
    if (before === now) return;
    switch (now.state.kind) {
      case 'usable':
        this.#events.loaded(now);
        break;
      case 'broken':
        if (before?.state.kind !== 'broken' || before.state.why !== now.state.why) this.#events.broken(now);
        break;
    }
  }
}

/** One file may hold the key of several domains. */
function nameOf({ path, domain, selector }: KeyPlace): string {
  return `${selector}._domainkey.${domain} ${path}`;
}
