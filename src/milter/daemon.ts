import type { Config } from '../config/config.ts';
import type { CheckTools } from '../checks/check.ts';
import type { SigningKeys } from '../ports/signing-keys.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import type { Daemon } from '../runtime/daemon.ts';
import type { Listener } from '../runtime/listener.ts';
import type { Telemetry } from '../runtime/telemetry.ts';
import { Connection } from './connection.ts';
import { milterMetrics } from './metrics.ts';
import { Session } from './session.ts';

export interface MilterTools extends Telemetry {
  readonly store: Store;
  readonly checks: CheckTools;
  readonly quarantine: Quarantine;
  readonly keys: SigningKeys;
}

/** Filters and signs mail for Postfix (or any MTA that speaks the milter protocol) on the connections of `listener`. */
export function milter(listener: Listener, config: Config, tools: MilterTools): Daemon<Config> {
  const { log, store, checks, keys, quarantine } = tools;
  const metrics = milterMetrics(tools.registry);
  const connections = new Set<Connection>();
  let current = config;
  let full = false;

  listener.serve(
    (socket) => {
      const session = new Session(current, { checks, keys, quarantine, store, log, metrics });
      const connection = new Connection(socket, session, { log, metrics });
      connections.add(connection);
      metrics.sessions(1);
      socket.once('close', () => {
        connections.delete(connection);
        metrics.sessions(-1);
        full = false;
      });
    },
    () => {
      metrics.fault('too-many-connections');
      // Once per shortage: under load every SMTP session would write a line.
      if (!full) log.warn({ daemon: 'milter' }, 'too many connections: raise milter.max_connections');
      full = true;
    },
  );

  return {
    name: 'milter',
    reload(next) {
      current = next;
    },
    async stop(signal) {
      await listener.close();
      // Postfix fails every later message of an SMTP session whose milter connection was closed, so even idle ones are left to their QUIT.
      const cut = (): void => {
        for (const connection of connections) connection.cut();
      };
      signal.addEventListener('abort', cut, { once: true });
      if (signal.aborted) cut();
      await Promise.all(Array.from(connections, (connection) => connection.closed));
      signal.removeEventListener('abort', cut);
    },
  };
}
