import type { ChildProcess } from 'node:child_process';
import { performance } from 'node:perf_hooks';

import { Registry } from 'prom-client';

import { createResolver, systemServers } from '../adapters/dns.ts';
import { createMailAuth } from '../adapters/mail-auth.ts';
import { openSqliteStore } from '../adapters/store-sqlite.ts';
import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { formatProblem } from '../config/errors.ts';
import type { LoadResult } from '../config/load.ts';
import { formatSocketAddress, type SocketAddress } from '../config/values.ts';
import type { Clock } from '../ports/clock.ts';
import type { SigningKeys } from '../ports/signing-keys.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import { serveAdmin, type Exposition, type Readiness } from '../runtime/admin.ts';
import type { Daemon } from '../runtime/daemon.ts';
import { openListener, type Listener, type OpenListener } from '../runtime/listener.ts';
import { counter, processMetrics, reloadMetrics, type ReloadMetrics } from '../runtime/metrics.ts';
import { sweepSpools } from '../runtime/spool.ts';
import { seriesOf, summedText } from '../runtime/summed-metrics.ts';
import type { Log, Telemetry } from '../runtime/telemetry.ts';
import { WorkerPool } from '../runtime/worker-pool.ts';
import type { DaemonName } from './arguments.ts';
import { openContentScanner } from './open-content.ts';
import { openBlockLists, type BlockLists } from './dnsbl-watch.ts';
import { openSiteKeys, type SiteKeys } from './open-keys.ts';
import { SiteLookout } from './open-lookout.ts';
import { openSiteDirectory, type SiteDirectory } from './open-directory.ts';
import { openSiteQuarantine } from './open-quarantine.ts';
import { openSiteNotifier, type SiteNotifier } from './open-notifier.ts';
import { openSiteQuota } from './open-quota.ts';
import { openSiteState, type SiteState } from './open-state.ts';
import { reportUpstream } from './upstream-probe.ts';
import { settle } from './restart.ts';
import { ScannerWatch, scannerSettings, type ScannerSettings } from './scanner-watch.ts';
import { ClamdWatch } from './clamd-watch.ts';
import { workersOf, type WorkerDaemon } from './workers.ts';

/** One process with its daemons, from open sockets to closed ones. */
export interface Site extends AsyncDisposable {
  /** Metrics of this process. */
  readonly registry: Registry;
  /** Takes over a configuration that was read again; a bad one is reported, and the one in use stays. */
  reload(result: LoadResult): void;
  /** Lets all daemons end what they have under way; when `signal` aborts, they cut it off. */
  stop(signal: AbortSignal): Promise<void>;
}

export interface SiteOptions {
  readonly config: Config;
  readonly daemons: readonly DaemonName[];
  /** In place of the configuration's address; `none`: no admin listener. */
  readonly admin: SocketAddress | 'none' | null;
  readonly log: Log;
  readonly version: string;
  /** In a worker: whose connections its one daemon serves. What there is once for all workers is left to the process that started it. */
  readonly given?: Listener;
  /** Starts a worker of a daemon that is to have several. */
  readonly startWorker?: (daemon: WorkerDaemon, number: number) => ChildProcess;
}

interface DaemonTools extends Telemetry {
  readonly store: Store;
  readonly keys: SigningKeys;
  readonly quarantine: Quarantine;
  readonly checks: CheckTools;
}

/** What listens: a daemon, or a second listener of one. */
type ServiceName = DaemonName | 'logins' | 'feedback';

type StartDaemon = (
  listener: Listener,
  config: Config,
  tools: DaemonTools,
) => Daemon<Config> | Promise<Daemon<Config>>;

/** Loaded one by one: a process that runs only policyd does without the code of the others. */
const SERVICES: Readonly<Record<ServiceName, () => Promise<StartDaemon>>> = {
  policyd: async () => (await import('../policyd/daemon.ts')).policyd,
  logins: async () => (await import('../policyd/logins.ts')).logins,
  milter: async () => (await import('../milter/daemon.ts')).milter,
  'lmtp-filter': async () => (await import('../lmtp-filter/daemon.ts')).lmtpFilter,
  feedback: async () => (await import('./open-feedback.ts')).startFeedback,
};

const ADMIN_CONNECTIONS = 64;
const EXPIRE_EVERY_MS = 3_600_000;

const clock: Clock = { now: () => Date.now(), elapsed: () => performance.now() };

/** Opens everything, sockets before anything serves. @throws when something can't be opened; nothing stays open then */
export async function openSite(options: SiteOptions): Promise<Site> {
  await using opened = new AsyncDisposableStack();
  const { config, daemons: names, log, version, given } = options;
  const shared = given === undefined ? names.filter((name) => workersOf(config, name) > 1) : [];
  const own = names.filter((name) => !shared.includes(name));
  const registry = new Registry();
  processMetrics(registry, version);
  const inUse = { config };

  const store = opened.use(
    await openSqliteStore(config.file.state.folder, clock, storeEvents(registry, log)),
  );
  const servers = config.file.dns.servers.length > 0 ? config.file.dns.servers : await systemServers();
  const { timeout: timeoutMs, cache_entries: cacheEntries } = config.file.dns;
  const resolver = opened.use(createResolver({ servers: servers, timeoutMs, cacheEntries }, clock));
  log.info(
    { servers: servers.map(({ host, port }) => formatSocketAddress({ kind: 'tcp', host, port })) },
    'name servers',
  );
  const scanner = opened.use(new ScannerWatch(scannerFor(config, names), clock, log, registry));
  const clamd = opened.use(new ClamdWatch(clamdFor(config, names), log, registry));
  const content = opened.use(openContentScanner({ log, registry }));
  if (given === undefined) await sweepSpools(config.file.state.folder);
  const quarantine = opened.use(openSiteQuarantine(() => inUse.config, { log, registry }));
  await quarantine.prepare();
  const notices = opened.use(openSiteNotifier(config, clock, registry, log));

  const state = opened.use(await openSiteState(config, { log, registry }));
  const directory = opened.use(await openSiteDirectory(config, clock, log, registry));
  const quota = opened.use(await openSiteQuota(config, directory.directory, clock, { log, registry }));
  const lookout = opened.use(
    new SiteLookout(config.file.signing.unpublished, { resolver, timeoutMs, clock, registry, log }),
  );
  const keys = opened.use(
    await openSiteKeys(config, own.includes('milter'), clock, { log, registry }, lookout),
  );
  const publishedKeys = lookout.over(keys.source);
  const blockLists = opened.use(openBlockLists({ servers, timeoutMs, clock, registry, log }));

  const checks: CheckTools = {
    clock,
    resolver,
    mailAuth: createMailAuth(resolver, {
      hostname: config.file.site.hostname,
      clock,
      spfEntries: cacheEntries,
    }),
    blockLists: blockLists.health,
    state: state.state,
    directory: directory.directory,
    quota: quota.source,
    // Both can change while the process runs.
    get scanner() {
      return scanner.scanner;
    },
    get virusScanner() {
      return clamd.scanner;
    },
    // It has no thread before there is a message to look into.
    contentScanner: content,
    notifier: notices.notifier,
    get hostname() {
      return inUse.config.file.site.hostname;
    },
    get delimiter() {
      return inUse.config.file.site.recipient_delimiter;
    },
  };
  const listeners = new Map<string, Listener>();
  const services = servicesOf(config, names, given !== undefined);
  const starts: [ServiceName, Listener, StartDaemon][] = [];
  const pools: WorkerPool[] = [];
  for (const name of services) {
    const { listen: address, mode, group, max_connections: maxConnections } = config.file[name];
    const onError = acceptFailed(log, name);
    const open = async (): Promise<OpenListener> =>
      opened.use(await openListener({ address, mode, group, maxConnections, onError }));
    if (isShared(name, shared)) {
      const listener = await open();
      listeners.set(name, listener);
      starts.push([
        name,
        listener,
        async () => {
          const pool = await openPool(name, listener, options, registry);
          pools.push(pool);
          opened.use(pool);
          return pool;
        },
      ]);
      continue;
    }
    const listener = given ?? (await open());
    listeners.set(name, listener);
    starts.push([name, listener, await SERVICES[name]()]);
  }
  const admin = await openAdmin(options);
  if (admin !== null) opened.use(admin);

  const site = new RunningSite({
    inUse,
    names,
    own,
    services,
    pools,
    listeners,
    registry,
    scanner,
    clamd,
    state,
    blockLists,
    directory,
    keys,
    lookout,
    notices,
    log,
    reloads: reloadMetrics(registry),
  });
  await Promise.all([
    scanner.look(),
    clamd.look(),
    ...(names.includes('policyd') ? [blockLists.watch(config.file)] : []),
    ...(names.includes('lmtp-filter')
      ? config.file['lmtp-filter'].upstream.map((address) => reportUpstream(address, log))
      : []),
  ]);
  // At the same time: workers take a while to start.
  const begun = await Promise.allSettled(
    starts.map(async ([name, listener, start]) => {
      const daemon = await start(listener, config, {
        log,
        registry,
        store,
        checks,
        keys: publishedKeys,
        quarantine: quarantine.folder,
      });
      if (given === undefined) log.info({ daemon: name, listen: listener.text }, 'listening');
      return daemon;
    }),
  );
  for (const each of begun) {
    if (each.status === 'rejected') throw each.reason;
    site.add(each.value);
  }
  if (admin !== null) {
    serveAdmin(admin, { registry: site.exposition, readiness: () => site.readiness() });
    log.info({ daemon: 'admin', listen: admin.text }, 'listening');
  }
  if (given === undefined) {
    opened.use(expireRegularly(store, () => inUse.config.file.state.history_age, log));
  }
  site.owns(opened.move());
  return site;
}

function isShared(name: ServiceName, shared: readonly DaemonName[]): name is WorkerDaemon {
  return shared.some((one) => one === name);
}

function openPool(
  name: WorkerDaemon,
  listener: OpenListener,
  { config, log, startWorker }: SiteOptions,
  registry: Registry,
): Promise<WorkerPool> {
  if (startWorker === undefined) throw new Error('this process can start no workers');
  return WorkerPool.open(listener, {
    name,
    count: workersOf(config, name),
    waitingLimit: config.file[name].max_connections,
    start: (number) => startWorker(name, number),
    log,
    registry,
  });
}

interface SiteParts {
  /** The configuration of new sessions. */
  readonly inUse: { config: Config };
  readonly names: readonly DaemonName[];
  /** Those that run in this process, not in workers. */
  readonly own: readonly DaemonName[];
  readonly services: readonly ServiceName[];
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

class RunningSite implements Site {
  readonly #parts: SiteParts;
  readonly #daemons: Daemon<Config>[] = [];
  #stopping = false;
  #owned: AsyncDisposableStack | null = null;

  constructor(parts: SiteParts) {
    this.#parts = parts;
    parts.reloads.loaded(clock.now() / 1000);
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
    const served = this.#daemons.length === services.length && pools.every(({ running }) => running > 0);
    return {
      ready: !this.#stopping && served,
      listeners: Object.fromEntries(Array.from(listeners, ([name, listener]) => [name, listener.text])),
      neighbours: {
        ...scanner.states,
        clamd: clamd.state,
        ...state.neighbours,
        ...directory.states,
        ...blockLists.states,
      },
    };
  }

  reload(result: LoadResult): void {
    const { inUse, log, reloads, scanner, clamd, blockLists, directory, keys, lookout, notices, names, own } =
      this.#parts;
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
    void directory.reload(config);
    if (own.includes('milter')) {
      void keys
        .reload(config)
        .then(() => lookout.configure(config.file.signing.unpublished, keys.source.files));
    }
    notices.reload(config);
    if (names.includes('policyd')) void blockLists.watch(config.file);
    for (const daemon of this.#daemons) daemon.reload(config);
    reloads.loaded(clock.now() / 1000);
    log.info({ config: config.path }, 'reloaded');
    log.level = config.file.log.level;
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

/** Logins are asked about in the process of policyd; feedback comes to that of lmtp-filter, to none of its workers. */
function servicesOf(
  { file }: Config,
  names: readonly DaemonName[],
  isWorker: boolean,
): readonly ServiceName[] {
  return names.flatMap((name): readonly ServiceName[] => {
    if (name === 'policyd' && file.logins.enabled) return [name, 'logins'];
    if (name === 'lmtp-filter' && file.feedback.enabled && !isWorker) return [name, 'feedback'];
    return [name];
  });
}

async function openAdmin({ config, admin, log }: SiteOptions): Promise<Listener | null> {
  if (admin === 'none') return null;
  const { listen, mode, group } = config.file.admin;
  return openListener({
    address: admin ?? listen,
    mode,
    group,
    maxConnections: ADMIN_CONNECTIONS,
    onError: acceptFailed(log, 'admin'),
  });
}

/** policyd sees no messages, so it has no use for a scanner. */
function scannerFor({ file }: Config, names: readonly DaemonName[]): ScannerSettings {
  return scannerSettings(file, names.includes('milter') || names.includes('lmtp-filter'));
}

/** As with the scanner. */
function clamdFor({ file }: Config, names: readonly DaemonName[]): Config['file']['clamd'] {
  const scans = names.includes('milter') || names.includes('lmtp-filter');
  return scans ? file.clamd : { ...file.clamd, enabled: false };
}

function acceptFailed(log: Log, daemon: string): (error: Error) => void {
  return (error) => log.error({ daemon, why: error.message }, 'a connection could not be accepted');
}

/** What the store tells of its troubles, counted and logged. */
export function storeEvents(registry: Registry, log: Log): Parameters<typeof openSqliteStore>[2] {
  const failures = counter(registry, {
    name: 'postern_store_write_failures_total',
    help: 'Attempts to write decisions that failed; they are tried again.',
  });
  const losses = counter(registry, {
    name: 'postern_store_lost_decisions_total',
    help: 'Decisions that could not be recorded.',
  });
  const lostTraces = counter(registry, {
    name: 'postern_store_lost_traces_total',
    help: 'Traces of messages that could not be written, so that other daemons give those messages a trace of their own.',
  });
  return {
    writeFailed(error, waiting) {
      failures.inc();
      log.error({ why: error.message, waiting }, 'decisions could not be written, they are tried again');
    },
    lost(decisions, why) {
      losses.inc(decisions);
      log.error({ decisions, why }, 'decisions are lost');
    },
    tracesLost(traces, why) {
      lostTraces.inc(traces);
      log.warn({ traces, why }, 'traces could not be written: other daemons will not find them');
    },
  };
}

/** Removes old history now and every hour. */
function expireRegularly(store: Store, age: () => number, log: Log): Disposable {
  const expire = async (): Promise<void> => {
    try {
      const removed = await store.expire(clock.now() - age());
      if (removed > 0) log.info({ decisions: removed }, 'old history removed');
    } catch (error) {
      log.error({ err: error }, 'old history could not be removed');
    }
  };
  void expire();
  const timer = setInterval(() => void expire(), EXPIRE_EVERY_MS).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
