import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { loginsMetrics } from './logins-metrics.ts';
import { LoginsResponder } from './logins-responder.ts';
import { LoginsServer } from './logins-server.ts';

export interface LoginsDaemonTools extends Telemetry {
  readonly checks: Pick<CheckTools, 'state' | 'notifier' | 'clock'>;
}

/** Answers Dovecot's authentication policy on the connections of `listener`. */
export function logins(listener: Listener, config: Config, tools: LoginsDaemonTools): Daemon<Config> {
  const { log, registry } = tools;
  const { state, notifier, clock } = tools.checks;
  const metrics = loginsMetrics(registry);
  const responder = new LoginsResponder(config, { state, notifier, clock, log, metrics });
  let { apiKey } = config.logins;
  let full = false;
  let locked = false;

  const server = new LoginsServer(listener, {
    apiKey: () => apiKey,
    async answer(request) {
      locked = false;
      return responder.answer(request);
    },
    onFault(fault, error) {
      metrics.fault(fault);
      if (fault === 'internal')
        log.error({ daemon: 'logins', err: error }, 'a question about a login failed');
      // Once until a right one comes: without the key every login asks in vain.
      if (fault === 'no-key' && !locked)
        log.warn({ daemon: 'logins' }, 'a request without the right X-API-Key');
      if (fault === 'no-key') locked = true;
    },
    onConnection(delta) {
      metrics.connected(delta);
      if (delta === -1) full = false;
    },
    onRefused() {
      metrics.refusedConnection();
      if (!full) log.warn({ daemon: 'logins' }, 'too many connections: raise logins.max_connections');
      full = true;
    },
  });

  return {
    name: 'logins',
    reload(next) {
      ({ apiKey } = next.logins);
      responder.reload(next);
    },
    stop: (signal) => server.stop(signal),
  };
}
