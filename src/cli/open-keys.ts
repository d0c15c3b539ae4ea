import type { KeyFile } from '../adapters/key-file.ts';
import { openKeyFiles, type FileKeys, type KeyFilesOptions } from '../adapters/key-files.ts';
import type { Config } from '../config/config.ts';
import { readSigningKey } from '../config/keys.ts';
import type { Clock } from '../ports/clock.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry, Telemetry } from '../runtime/telemetry.ts';

const STATES = ['usable', 'broken'] as const;

/** How many keys there are, for the operator's alerts. */
export function keyMetrics(registry: Registry): (files: readonly KeyFile[]) => void {
  const count = gauge<'state'>(registry, {
    name: 'postern_signing_keys',
    help: 'Signing keys in files, by whether they can be used; what is wrong with a broken one is in the log.',
    together: 'max',
    labels: { state: STATES },
  });
  return (files) => {
    for (const state of STATES) {
      count.set({ state }, files.filter((file) => file.state.kind === state).length);
    }
  };
}

/** Who wants to know which keys there are. */
export interface KeyWatch {
  loaded(file: KeyFile): void;
  gone(file: KeyFile): void;
}

const NO_WATCH: KeyWatch = { loaded() {}, gone() {} };

/** The keys of the running process. */
export class SiteKeys implements Disposable {
  readonly source: FileKeys;
  readonly #log: Log;
  readonly #count: (files: readonly KeyFile[]) => void;

  constructor(source: FileKeys, log: Log, count: (files: readonly KeyFile[]) => void) {
    this.source = source;
    this.#log = log;
    this.#count = count;
    count(source.files);
  }

  /** Takes over the settings of a configuration that was read again; those in use stay when its folder can't be read. */
  async reload(config: Config): Promise<void> {
    try {
      await this.source.configure(optionsOf(config));
      this.#count(this.source.files);
    } catch (error) {
      this.#log.error({ err: error }, 'the new signing keys could not be read, those in use stay');
    }
  }

  [Symbol.dispose](): void {
    this.source[Symbol.dispose]();
  }
}

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
): Promise<SiteKeys> {
  const count = keyMetrics(registry);
  let site: SiteKeys | null = null;
  const changed = (): void => {
    // Told of file by file: counted when all have been.
    queueMicrotask(() => {
      if (site !== null) count(site.source.files);
    });
  };
  const source = await openKeyFiles(signs ? optionsOf(config) : NO_FILES, readSigningKey, clock, {
    loaded(file) {
      log.debug(named(file), 'signing key read');
      watch.loaded(file);
      changed();
    },
    broken(file) {
      const why = file.state.kind === 'broken' ? file.state.why : '';
      log.error({ ...named(file), why }, 'a signing key can not be used');
      watch.gone(file);
      changed();
    },
    gone(file) {
      log.info(named(file), 'a signing key is there no more');
      watch.gone(file);
      changed();
    },
    folderFailed(path, why) {
      log.error({ path, why }, 'the folder of signing keys could not be read, the keys in use stay');
    },
  });
  site = new SiteKeys(source, log, count);
  return site;
}

const NO_FILES: KeyFilesOptions = { listed: [], folder: null, subdomains: false };

export function optionsOf({ signing }: Config): KeyFilesOptions {
  return { listed: signing.keys, folder: signing.folder, subdomains: signing.subdomains };
}

function named({ place }: KeyFile): Record<'domain' | 'selector' | 'path', string> {
  const { domain, selector, path } = place;
  return { domain, selector, path };
}
