import type { Registry } from 'prom-client';

import type { Config } from '../config/config.ts';
import { formatProblem } from '../config/errors.ts';
import type { LoadResult } from '../config/load.ts';
import type { Exposition, Readiness } from '../runtime/admin.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { ReloadMetrics } from '../runtime/metrics.ts';
import { seriesOf, summedText } from '../runtime/summed-metrics.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { WorkerPool } from '../runtime/worker-pool.ts';
import type { DaemonName } from './arguments.ts';
import type { ClamdWatch } from './clamd-watch.ts';
import { systemClock } from './clock.ts';
import type { BlockLists } from './dnsbl-watch.ts';
import type { SiteDirectory } from './open-directory.ts';
import type { SiteKeys } from './open-keys.ts';
import type { SiteLookout } from './open-lookout.ts';
import type { SiteNotifier } from './open-notifier.ts';
import type { SiteState } from './open-state.ts';
import { settle } from './restart.ts';
import { scannerSettings, type ScannerSettings, type ScannerWatch } from './scanner-watch.ts';

/** One process with its daemons, from open sockets to closed ones. */
export interface Site extends AsyncDisposable {
  /** Metrics of this process. */
  readonly registry: Registry;
  /** Takes over a configuration that was read again; a bad one is reported, and the one in use stays. */
  reload(result: LoadResult): void;
  /** Lets all daemons end what they have under way; when `signal` aborts, they cut it off. */
  stop(signal: AbortSignal): Promise<void>;
}

export interface SiteParts {
  /** The configuration of new sessions. */
  readonly inUse: { config: Config };
  readonly names: readonly DaemonName[];
  /** Those that run in this process, not in workers. */
  readonly own: readonly DaemonName[];
  /** How many listeners there are to be. */
  readonly services: number;
  readonly pools: readonly WorkerPool[];
  readonly registry: Registry;
  readonly listeners: ReadonlyMap<string, Listener>;
  readonly scanner: ScannerWatch;
  readonly clamd: ClamdWatch;
  readonly state: SiteState;
  readonly directory: SiteDirectory;
  readonly keys: SiteKeys;
  readonly lookout: SiteLookout;
  readonly blockLists: BlockLists;
  readonly notices: SiteNotifier;
  readonly log: Log;
  readonly reloads: ReloadMetrics;
}

export class RunningSite implements Site {
  readonly #parts: SiteParts;
  readonly #daemons: Daemon<Config>[] = [];
  #stopping = false;
  #owned: AsyncDisposableStack | null = null;

  constructor(parts: SiteParts) {
    this.#parts = parts;
    parts.reloads.loaded(systemClock.now() / 1000);
  }

  add(daemon: Daemon<Config>): void {
    this.#daemons.push(daemon);
  }

  owns(stack: AsyncDisposableStack): void {
    this.#owned = stack;
  }

  get registry(): Registry {
    return this.#parts.registry;
  }

  /** Of this process and of its workers. */
  get exposition(): Exposition {
    const { registry, pools } = this.#parts;
    if (pools.length === 0) return registry;
    return {
      contentType: registry.contentType,
      async metrics() {
        const workers = await Promise.all(pools.map((pool) => pool.metrics()));
        return await summedText([await seriesOf(registry), ...workers.flat()]);
      },
    };
  }

  readiness(): Readiness {
    const { services, pools, listeners, scanner, clamd, state, directory, blockLists } = this.#parts;
    const served = this.#daemons.length === services && pools.every(({ running }) => running > 0);
    return {
      ready: !this.#stopping && served,
      listeners: Object.fromEntries(Array.from(listeners, ([name, listener]) => [name, listener.text])),
      neighbours: {
        ...scanner.states,
        ...clamd.states,
        ...state.neighbours,
        ...directory.states,
        ...blockLists.states,
      },
    };
  }

  reload(result: LoadResult): void {
    const { inUse, log, reloads, scanner, clamd, blockLists, notices, names } = this.#parts;
    if (!result.ok) {
      for (const problem of result.problems) {
        log.error({ problem: formatProblem(problem) }, 'mistake in the configuration');
      }
      reloads.failed();
      log.error({ mistakes: result.problems.length }, 'reload failed, the configuration in use stays');
      return;
    }
    const { config, waiting } = settle(inUse.config, result.config, names);
    for (const note of result.notes) log.warn({ note }, 'note on the configuration');
    if (waiting.length > 0) log.warn({ keys: waiting }, 'these settings change with the next start only');
    inUse.config = config;
    scanner.reload(scannerFor(config, names));
    clamd.reload(clamdFor(config, names));
    void this.#reloadKeys(config);
    notices.reload(config);
    if (names.includes('policyd')) void blockLists.watch(config.file);
    for (const daemon of this.#daemons) daemon.reload(config);
    reloads.loaded(systemClock.now() / 1000);
    log.info({ config: config.path }, 'reloaded');
    log.level = config.file.log.level;
  }

  /** The directory, and the keys, which may come over its connections. */
  async #reloadKeys(config: Config): Promise<void> {
    const { directory, keys, lookout, own } = this.#parts;
    await directory.reload(config);
    if (!own.includes('milter')) return;
    await keys.reload(config);
    lookout.configure(config.file.signing.unpublished, keys.found);
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping = true;
    const ends = await Promise.allSettled(this.#daemons.map((daemon) => daemon.stop(signal)));
    for (const [index, end] of ends.entries()) {
      if (end.status === 'fulfilled') continue;
      this.#parts.log.error({ daemon: this.#daemons[index]?.name, err: end.reason }, 'the stop failed');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned?.disposeAsync();
  }
}

/** policyd sees no messages, so it has no use for a scanner. */
export function scannerFor({ file }: Config, names: readonly DaemonName[]): ScannerSettings {
  return scannerSettings(file, names.includes('milter') || names.includes('lmtp-filter'));
}

/** As with the scanner. */
export function clamdFor({ file }: Config, names: readonly DaemonName[]): Config['file']['clamd'] {
  const scans = names.includes('milter') || names.includes('lmtp-filter');
  return scans ? file.clamd : { ...file.clamd, enabled: false };
}
