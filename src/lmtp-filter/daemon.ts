import type { Socket } from 'node:net';

import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { usesTls } from '../config/upstream.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { lmtpMetrics, type LmtpMetrics } from './metrics.ts';
import { SAY } from './render.ts';
import { Session } from './session.ts';
import { UpstreamPool } from './upstream.ts';
import { Upstreams } from './upstreams.ts';

export interface LmtpFilterTools extends Telemetry {
  readonly store: Store;
  readonly checks: CheckTools;
  readonly quarantine: Quarantine;
}

/** The LMTP filter: stands between Postfix's lmtp(8) and Dovecot, and decides for each recipient. */
export function lmtpFilter(listener: Listener, config: Config, tools: LmtpFilterTools): Daemon<Config> {
  return new LmtpFilter(listener, config, tools);
}

class LmtpFilter implements Daemon<Config> {
  readonly name = 'lmtp-filter';
  readonly #listener: Listener;
  readonly #tools: LmtpFilterTools;
  readonly #metrics: LmtpMetrics;
  readonly #sessions = new Map<Session, Promise<void>>();
  /** The present one, and those that sessions from before a reload still use. */
  readonly #all = new Set<Upstreams>();
  #config: Config;
  #upstreams: Upstreams;
  #stopping = false;

  constructor(listener: Listener, config: Config, tools: LmtpFilterTools) {
    this.#listener = listener;
    this.#tools = tools;
    this.#metrics = lmtpMetrics(tools.registry);
    this.#config = config;
    this.#upstreams = this.#connectTo(config);
    listener.serve(
      (socket) => this.#accept(socket),
      (socket) => {
        this.#metrics.refusedConnection();
        socket.write(`${SAY.full}\r\n`);
      },
    );
  }

  reload(config: Config): void {
    const before = this.#config;
    this.#config = config;
    if (upstreamKey(config) === upstreamKey(before)) return;
    this.#upstreams.close();
    for (const pool of this.#upstreams.pools) this.#metrics.upstream.forget(pool.name);
    this.#upstreams = this.#connectTo(config);
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping = true;
    await this.#listener.close();
    const cut = (): void => {
      for (const session of this.#sessions.keys()) session.cut();
      for (const upstreams of this.#all) upstreams.abort();
    };
    for (const session of this.#sessions.keys()) session.stop();
    signal.addEventListener('abort', cut);
    if (signal.aborted) cut();
    await Promise.all(this.#sessions.values());
    signal.removeEventListener('abort', cut);
    for (const upstreams of this.#all) upstreams.close();
  }

  #accept(socket: Socket): void {
    const { store, checks, quarantine, log } = this.#tools;
    const upstreams = this.#upstreams;
    const session = new Session(socket, {
      config: this.#config,
      upstreams,
      store,
      checks,
      quarantine,
      metrics: this.#metrics,
      log,
    });
    this.#metrics.sessions(1);
    if (this.#stopping) session.stop();
    const ended = session.run().finally(() => {
      this.#sessions.delete(session);
      this.#metrics.sessions(-1);
    });
    this.#sessions.set(session, ended);
  }

  #connectTo({ file, upstreamTls }: Config): Upstreams {
    const { upstream, upstream_timeout, upstream_tls, upstream_tls_name } = file['lmtp-filter'];
    const pools = upstream.map((address) => {
      const tls = usesTls(address, upstream_tls) ? { name: upstream_tls_name, ca: upstreamTls.ca } : null;
      const options = { address, timeoutMs: upstream_timeout, hostname: file.site.hostname, tls };
      return new UpstreamPool(options, this.#metrics.upstream);
    });
    const upstreams = new Upstreams(pools);
    this.#all.add(upstreams);
    return upstreams;
  }
}

/** What connections to Dovecot depend on: when it changes, new sessions need new ones. */
function upstreamKey({ file, upstreamTls }: Config): string {
  const { upstream, upstream_timeout, upstream_tls, upstream_tls_name } = file['lmtp-filter'];
  return JSON.stringify([
    upstream.map(formatSocketAddress),
    upstream_timeout,
    upstream_tls,
    upstream_tls_name,
    upstreamTls.ca,
    file.site.hostname,
  ]);
}
