import type { Socket } from 'node:net';

import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { lmtpMetrics, type LmtpMetrics } from './metrics.ts';
import { SAY } from './render.ts';
import { Session } from './session.ts';
import { UpstreamPool } from './upstream.ts';

export interface LmtpFilterTools extends Telemetry {
  readonly store: Store;
  readonly checks: CheckTools;
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
  readonly #pools = new Set<UpstreamPool>();
  #config: Config;
  #pool: UpstreamPool;
  #stopping = false;

  constructor(listener: Listener, config: Config, tools: LmtpFilterTools) {
    this.#listener = listener;
    this.#tools = tools;
    this.#metrics = lmtpMetrics(tools.registry);
    this.#config = config;
    this.#pool = this.#newPool(config);
    listener.serve(
      (socket) => this.#accept(socket),
      (socket) => {
        this.#metrics.refusedConnection();
        socket.write(`${SAY.full}\r\n`);
      },
    );
  }

  reload(config: Config): void {
    const before = poolKey(this.#config);
    this.#config = config;
    if (poolKey(config) === before) return;
    this.#pool.close();
    this.#pool = this.#newPool(config);
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping = true;
    await this.#listener.close();
    const cut = (): void => {
      for (const session of this.#sessions.keys()) session.cut();
      for (const pool of this.#pools) pool.abort();
    };
    for (const session of this.#sessions.keys()) session.stop();
    signal.addEventListener('abort', cut);
    if (signal.aborted) cut();
    await Promise.all(this.#sessions.values());
    signal.removeEventListener('abort', cut);
    for (const pool of this.#pools) pool.close();
  }

  #accept(socket: Socket): void {
    const { store, checks, log } = this.#tools;
    const pool = this.#pool;
    const session = new Session(socket, {
      config: this.#config,
      pool,
      store,
      checks,
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

  #newPool({ file }: Config): UpstreamPool {
    const { upstream, upstream_timeout } = file['lmtp-filter'];
    const options = { address: upstream, timeoutMs: upstream_timeout, hostname: file.site.hostname };
    const pool = new UpstreamPool(options, this.#metrics.upstream);
    this.#pools.add(pool);
    return pool;
  }
}

/** What a pool depends on: when it changes, new sessions need a new pool. */
function poolKey({ file }: Config): string {
  const { upstream, upstream_timeout } = file['lmtp-filter'];
  return `${formatSocketAddress(upstream)} ${upstream_timeout} ${file.site.hostname}`;
}
