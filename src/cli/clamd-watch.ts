import { createClamd } from '../adapters/clamd.ts';
import type { ConfigFile } from '../config/schema.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Clock } from '../ports/clock.ts';
import type { VirusScanner } from '../ports/virus-scanner.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { NeighbourWatch } from './neighbour-watch.ts';

type ClamdSettings = ConfigFile['clamd'];

const CONNECT_TIMEOUT_MS = 3000;

export type ClamdWatch = NeighbourWatch<ClamdSettings, VirusScanner>;

/** With `enabled = "auto"` clamd is used once it was there, and from then on, whatever becomes of it: that it goes away must not let mail pass unscanned. */
export function watchClamd(settings: ClamdSettings, clock: Clock, log: Log, registry: Registry): ClamdWatch {
  const up = clamdUp(registry);
  return new NeighbourWatch(
    {
      nameOf: () => 'clamd',
      serversOf: ({ addresses }) => addresses.map(formatSocketAddress),
      open: ({ addresses, max_connections: maxConcurrent }, changed) =>
        createClamd({ addresses, maxConcurrent, connectTimeoutMs: CONNECT_TIMEOUT_MS, changed }, clock),
      up(_, server, works) {
        if (works === null) up.remove({ server });
        else up.set({ server }, works ? 1 : 0);
      },
      effect: 'no virus check',
      staysInUse: true,
    },
    settings,
    log,
  );
}

export function clamdUp(registry: Registry): ReturnType<typeof gauge<'server'>> {
  return gauge<'server'>(registry, {
    name: 'postern_clamd_up',
    help: 'Whether a clamd answered when it was asked last.',
    together: 'min',
    labels: { server: [] },
  });
}
