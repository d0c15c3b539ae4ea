import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { policydMetrics } from './metrics.ts';
import { Responder } from './responder.ts';
import { Session } from './session.ts';

export interface PolicydTools extends Telemetry {
  readonly store: Store;
  readonly checks: CheckTools;
}

/** Answers Postfix's check_policy_service on the connections of `listener`. */
export function policyd(listener: Listener, config: Config, tools: PolicydTools): Daemon<Config> {
  const { log, store, checks, registry } = tools;
  const metrics = policydMetrics(registry, config);
  const responder = new Responder(config, { checks, store, log, metrics });
  const sessions = new Set<Session>();
  let full = false;

  listener.serve(
    (socket) => {
      const session = new Session(socket, { responder, metrics, log });
      sessions.add(session);
      metrics.connected(1);
      socket.once('close', () => {
        sessions.delete(session);
        metrics.connected(-1);
        full = false;
      });
    },
    () => {
      metrics.refused();
      // Once per shortage: Postfix's processes come back every second.
      if (!full) log.warn({ daemon: 'policyd' }, 'too many connections: raise policyd.max_connections');
      full = true;
    },
  );

  return {
    name: 'policyd',
    reload(next) {
      responder.reload(next);
    },
    async stop(signal) {
      await listener.close();
      const cut = (): void => {
        responder.abort();
        for (const session of sessions) session.cut();
      };
      signal.addEventListener('abort', cut, { once: true });
      if (signal.aborted) cut();
      for (const session of sessions) session.stop();
      await Promise.all(Array.from(sessions, (session) => session.closed));
      signal.removeEventListener('abort', cut);
    },
  };
}
