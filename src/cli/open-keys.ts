import { isDeepStrictEqual } from 'node:util';

import type { FoundKey, KeyFile } from '../adapters/key-file.ts';
import { openKeyFiles, type FileKeys, type KeyFilesOptions } from '../adapters/key-files.ts';
import { SourcedKeys, type SourcedKeysEvents } from '../adapters/keys-sourced.ts';
import { LOOK_RESULTS, type LookResult } from '../adapters/lookup-cache.ts';
import type { Config } from '../config/config.ts';
import { parseSigningKey, readSigningKey } from '../config/keys.ts';
import type { Clock } from '../ports/clock.ts';
import type { DomainKeys, SigningKeys } from '../ports/signing-keys.ts';
import { counter, gauge } from '../runtime/metrics.ts';
import type { Log, Registry, Telemetry } from '../runtime/telemetry.ts';
import { openKeySources, type KeyConnections, type OpenKeySources } from './open-key-sources.ts';

const STATES = ['usable', 'broken'] as const;
type Counts = Readonly<Record<(typeof STATES)[number], number>>;

interface KeyMetrics {
  count(counts: Counts): void;
  looked(result: LookResult): void;
}

/** How many keys there are, for the operator's alerts. */
export function keyMetrics(registry: Registry): KeyMetrics {
  const keys = gauge<'state'>(registry, {
    name: 'postern_signing_keys',
    help: 'Signing keys in files, and those of databases, LDAP and Redis that are held, by whether they can be used; what is wrong with a broken one is in the log.',
    together: 'max',
    labels: { state: STATES },
  });
  const looks = counter<'result'>(registry, {
    name: 'postern_signing_key_lookups_total',
    help: 'Domains whose signing keys were looked up in databases, LDAP and Redis, by where the answer came from.',
    labels: { result: LOOK_RESULTS },
  });
  return {
    count(counts) {
      for (const state of STATES) keys.set({ state }, counts[state]);
    },
    looked: (result) => looks.inc({ result }),
  };
}

/** Who wants to know which keys there are. */
export interface KeyWatch {
  loaded(found: FoundKey): void;
  gone(found: FoundKey): void;
}

const NO_WATCH: KeyWatch = { loaded() {}, gone() {} };

interface KeyParts {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: KeyMetrics;
  readonly watch: KeyWatch;
  readonly connections: KeyConnections;
}

/** The keys of the running process: stays the same while what it stands on changes. */
export class SiteKeys implements SigningKeys, AsyncDisposable {
  readonly #files: FileKeys;
  readonly #parts: KeyParts;
  #opened: OpenKeySources = { sources: [], close: null };
  #sourced: SourcedKeys | null = null;
  #settings: unknown = null;
  #directory: KeyConnections['directory']['sources'] = [];

  constructor(files: FileKeys, parts: KeyParts) {
    this.#files = files;
    this.#parts = parts;
    this.count();
  }

  /** All that are known now. */
  get found(): readonly FoundKey[] {
    return [...this.#files.files, ...(this.#sourced?.found ?? [])];
  }

  keysOf(domain: string): Promise<DomainKeys> | DomainKeys {
    return (this.#sourced ?? this.#files).keysOf(domain);
  }

  /** Takes over the settings of a configuration that was read again; those in use stay when its folder can't be read. */
  async reload(config: Config): Promise<void> {
    try {
      await this.#files.configure(optionsOf(config));
      await this.connect(config);
    } catch (error) {
      this.#parts.log.error({ err: error }, 'the new signing keys could not be read, those in use stay');
    }
    this.count();
  }

  /** Asks the sources of a configuration from now on, with what was remembered of the others forgotten. */
  async connect(config: Config): Promise<void> {
    const { connections, clock } = this.#parts;
    const { directory, signing } = config.file;
    const settings = {
      redis: signing.redis,
      files: config.keysRedis,
      cache: directory.cache,
      subdomains: signing.subdomains,
    };
    // Others are other connections, whatever they are called.
    const { sources } = connections.directory;
    if (isDeepStrictEqual(settings, this.#settings) && sources === this.#directory) return;
    const opened = await openKeySources(config, connections, this.#parts.log);
    const before = this.#opened;
    this.#sourced?.forget();
    this.#settings = settings;
    this.#directory = sources;
    this.#opened = opened;
    const { ttl: ttlMs, negative_ttl: negativeMs, stale: staleMs, entries } = directory.cache;
    const options = { ttlMs, negativeMs, staleMs, entries };
    this.#sourced =
      opened.sources.length === 0
        ? null
        : new SourcedKeys(
            this.#files,
            opened.sources,
            signing.subdomains,
            parseSigningKey,
            options,
            clock,
            this.#events(),
          );
    await before.close?.();
  }

  count(): void {
    const files = this.#files.files;
    const { usable = 0, broken = 0 } = this.#sourced?.counts ?? {};
    const inFiles = (kind: KeyFile['state']['kind']): number =>
      files.filter((file) => file.state.kind === kind).length;
    this.#parts.metrics.count({ usable: inFiles('usable') + usable, broken: inFiles('broken') + broken });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sourced?.forget();
    this.#files[Symbol.dispose]();
    await this.#opened.close?.();
  }

  #events(): SourcedKeysEvents {
    const { log, watch, metrics } = this.#parts;
    return {
      loaded: (found, where) => {
        log.debug({ ...named(found), where }, 'signing key read');
        watch.loaded(found);
        queueMicrotask(() => this.count());
      },
      broken: (found, where) => {
        const why = found.state.kind === 'broken' ? found.state.why : '';
        log.error({ ...named(found), where, why }, 'a signing key can not be used');
        watch.gone(found);
        queueMicrotask(() => this.count());
      },
      gone: (found) => {
        log.debug(named(found), 'a signing key is not held any more');
        watch.gone(found);
        queueMicrotask(() => this.count());
      },
      looked: (result) => metrics.looked(result),
    };
  }
}

/** Keys in files alone. */
const NO_CONNECTIONS: KeyConnections = { directory: { sources: [] }, redis: null };

/**
 * @param signs whether this process signs: another one may not even be allowed to read the keys
 * @throws {Error} when the folder of the keys can't be read
 */
export async function openSiteKeys(
  config: Config,
  signs: boolean,
  clock: Clock,
  { log, registry }: Telemetry,
  watch: KeyWatch = NO_WATCH,
  connections: KeyConnections = NO_CONNECTIONS,
): Promise<SiteKeys> {
  let site: SiteKeys | null = null;
  // Told of file by file: counted when all have been.
  const changed = (): void => queueMicrotask(() => site?.count());
  const files = await openKeyFiles(signs ? optionsOf(config) : NO_FILES, readSigningKey, clock, {
    loaded(file) {
      log.debug({ ...named(file), path: file.place.path }, 'signing key read');
      watch.loaded(file);
      changed();
    },
    broken(file) {
      const why = file.state.kind === 'broken' ? file.state.why : '';
      log.error({ ...named(file), path: file.place.path, why }, 'a signing key can not be used');
      watch.gone(file);
      changed();
    },
    gone(file) {
      log.info({ ...named(file), path: file.place.path }, 'a signing key is there no more');
      watch.gone(file);
      changed();
    },
    folderFailed(path, why) {
      log.error({ path, why }, 'the folder of signing keys could not be read, the keys in use stay');
    },
  });
  site = new SiteKeys(files, { config, clock, log, metrics: keyMetrics(registry), watch, connections });
  if (signs) await site.connect(config);
  return site;
}

const NO_FILES: KeyFilesOptions = { listed: [], folder: null, subdomains: false };

export function optionsOf({ signing }: Config): KeyFilesOptions {
  return { listed: signing.keys, folder: signing.folder, subdomains: signing.subdomains };
}

function named({ place: { domain, selector } }: FoundKey): Record<'domain' | 'selector', string> {
  return { domain, selector };
}
