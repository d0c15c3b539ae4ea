import type { ChildProcess } from 'node:child_process';

import { Registry } from 'prom-client';

import { createResolver, systemServers } from '../adapters/dns.ts';
import { createMailAuth } from '../adapters/mail-auth.ts';
import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { formatSocketAddress, type SocketAddress } from '../config/values.ts';
import type { SigningKeys } from '../ports/signing-keys.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import { serveAdmin } from '../runtime/admin.ts';
import type { Daemon } from '../runtime/daemon.ts';
import { openListener, type Listener, type OpenListener } from '../runtime/listener.ts';
import { processMetrics, reloadMetrics } from '../runtime/metrics.ts';
import { sweepSpools } from '../runtime/spool.ts';
import type { Log, Telemetry } from '../runtime/telemetry.ts';
import { WorkerPool } from '../runtime/worker-pool.ts';
import type { DaemonName } from './arguments.ts';
import { openContentScanner } from './open-content.ts';
import { openBlockLists } from './dnsbl-watch.ts';
import { openSiteKeys } from './open-keys.ts';
import { SiteLookout } from './open-lookout.ts';
import { openSiteDirectory } from './open-directory.ts';
import { openSiteQuarantine } from './open-quarantine.ts';
import { openSiteNotifier } from './open-notifier.ts';
import { openSiteQuota } from './open-quota.ts';
import { openSiteState } from './open-state.ts';
import { openSiteStore } from './open-store.ts';
import { reportUpstream } from './upstream-probe.ts';
import { watchClamd } from './clamd-watch.ts';
import { systemClock as clock } from './clock.ts';
import { clamdFor, RunningSite, scannerFor, type Site } from './running-site.ts';
import { watchScanner } from './scanner-watch.ts';
import { expireRegularly, storeEvents } from './store-events.ts';
import { workersOf, type WorkerDaemon } from './workers.ts';

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

/** Opens everything, sockets before anything serves. @throws when something can't be opened; nothing stays open then */
export async function openSite(options: SiteOptions): Promise<Site> {
  await using opened = new AsyncDisposableStack();
  const { config, daemons: names, log, version, given } = options;
  const shared = given === undefined ? names.filter((name) => workersOf(config, name) > 1) : [];
  const own = names.filter((name) => !shared.includes(name));
  const registry = new Registry();
  processMetrics(registry, version);
  const inUse = { config };

  const store = opened.use(await openSiteStore(config, storeEvents(registry, log)));
  const servers = config.file.dns.servers.length > 0 ? config.file.dns.servers : await systemServers();
  const { timeout: timeoutMs, cache_entries: cacheEntries } = config.file.dns;
  const resolver = opened.use(createResolver({ servers, timeoutMs, cacheEntries }, clock));
  log.info(
    { servers: servers.map(({ host, port }) => formatSocketAddress({ kind: 'tcp', host, port })) },
    'name servers',
  );
  const scanner = opened.use(watchScanner(scannerFor(config, names), clock, log, registry));
  const clamd = opened.use(watchClamd(clamdFor(config, names), clock, log, registry));
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
    await openSiteKeys(config, own.includes('milter'), clock, { log, registry }, lookout, {
      directory,
      redis: state.redis,
    }),
  );
  const publishedKeys = lookout.over(keys);
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
    services: services.length,
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
    opened.use(expireRegularly(store, () => inUse.config.file.state, { log, registry }));
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

function acceptFailed(log: Log, daemon: string): (error: Error) => void {
  return (error) => log.error({ daemon, why: error.message }, 'a connection could not be accepted');
}
