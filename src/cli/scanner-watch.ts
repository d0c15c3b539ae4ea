import { createRspamd } from '../adapters/rspamd.ts';
import { createSpamd } from '../adapters/spamd.ts';
import type { ConfigFile } from '../config/schema.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Clock } from '../ports/clock.ts';
import type { SpamScanner } from '../ports/scanner.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { NeighbourWatch } from './neighbour-watch.ts';

/** Which scanner gives the score, and where it is. */
export type ScannerSettings =
  ({ readonly kind: 'spamd' } & ConfigFile['spamd']) | ({ readonly kind: 'rspamd' } & ConfigFile['rspamd']);

/** What the file says of both; `scans`: whether any daemon of this process sees messages. */
export function scannerSettings(
  { spamd, rspamd }: Pick<ConfigFile, 'spamd' | 'rspamd'>,
  scans: boolean,
): ScannerSettings {
  if (rspamd.enabled) return { kind: 'rspamd', ...rspamd, enabled: scans };
  return { kind: 'spamd', ...spamd, enabled: scans && spamd.enabled };
}

const CONNECT_TIMEOUT_MS = 3000;
/** Score, rules, report; a message that comes back with them is not counted. */
const MAX_RESPONSE = 1024 * 1024;

export type ScannerWatch = NeighbourWatch<ScannerSettings, SpamScanner>;

export function watchScanner(
  settings: ScannerSettings,
  clock: Clock,
  log: Log,
  registry: Registry,
): ScannerWatch {
  const up = scannerUp(registry);
  return new NeighbourWatch(
    {
      nameOf: ({ kind }) => kind,
      serversOf: ({ address }) => address.map(formatSocketAddress),
      open(used, changed): SpamScanner {
        const common = {
          addresses: used.address,
          maxConcurrent: used.max_connections,
          timeoutMs: used.timeout,
          maxResponse: MAX_RESPONSE,
          changed,
        };
        switch (used.kind) {
          case 'spamd':
            return createSpamd({ ...common, connectTimeoutMs: CONNECT_TIMEOUT_MS }, clock);
          case 'rspamd':
            return createRspamd(common, clock);
        }
      },
      up({ kind: scanner }, server, works) {
        if (works === null) up.remove({ scanner, server });
        else up.set({ scanner, server }, works ? 1 : 0);
      },
      effect: 'no spam check',
      staysInUse: false,
    },
    settings,
    log,
  );
}

export function scannerUp(registry: Registry): ReturnType<typeof gauge<'scanner' | 'server'>> {
  return gauge<'scanner' | 'server'>(registry, {
    name: 'postern_scanner_up',
    help: 'Whether a spamd or rspamd answered when it was asked last.',
    together: 'min',
    labels: { scanner: [], server: [] },
  });
}
