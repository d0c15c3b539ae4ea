import { createRspamd } from '../adapters/rspamd.ts';
import { createSpamd } from '../adapters/spamd.ts';
import type { ConfigFile } from '../config/schema.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { Clock } from '../ports/clock.ts';
import type { SpamScanner } from '../ports/scanner.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { causes } from './causes.ts';

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

const WATCH_MS = 30_000;
const PING_TIMEOUT_MS = 3000;
const CONNECT_TIMEOUT_MS = 3000;
/** Score, rules, report; a message that comes back with them is not counted. */
const MAX_RESPONSE = 1024 * 1024;

/** Connecting failed because nobody listens there. */
const ABSENT_CODES = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EACCES',
]);

export type ScannerState = 'not used' | 'unknown' | 'there' | 'not there' | 'does not answer';

/** Knows whether the scanner is there, and with `enabled = "auto"` gives it only when it is. */
export class ScannerWatch implements Disposable {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #up: ReturnType<typeof scannerUp>;
  readonly #timer: NodeJS.Timeout;
  #settings: ScannerSettings;
  #scanner: SpamScanner;
  #state: ScannerState = 'unknown';
  #looking: Promise<void> | null = null;
  readonly #closed = new AbortController();

  constructor(settings: ScannerSettings, clock: Clock, log: Log, registry: Registry) {
    this.#clock = clock;
    this.#log = log;
    this.#up = scannerUp(registry);
    this.#settings = settings;
    this.#scanner = this.#open(settings);
    this.#timer = setInterval(() => void this.look(), WATCH_MS).unref();
  }

  /** null: the check "spam" is left out. */
  get scanner(): SpamScanner | null {
    switch (this.#settings.enabled) {
      case true:
        return this.#scanner;
      case false:
        return null;
      case 'auto':
        // One that was there and is slow is overloaded; leaving the check out then would let spam in just because there is much of it.
        return this.#state === 'there' || this.#state === 'does not answer' ? this.#scanner : null;
    }
  }

  /** By name, for /readyz. */
  get states(): Readonly<Record<string, ScannerState>> {
    return { [this.#settings.kind]: this.state };
  }

  get state(): ScannerState {
    return this.#settings.enabled === false ? 'not used' : this.#state;
  }

  /** Uses other settings from now on; scans under way end with the old ones. */
  reload(settings: ScannerSettings): void {
    if (JSON.stringify(settings) === JSON.stringify(this.#settings)) return;
    for (const server of serversOf(this.#settings)) this.#up.remove(server);
    this.#settings = settings;
    this.#scanner = this.#open(settings);
    this.#state = 'unknown';
    this.#looking = null;
    void this.look();
  }

  /** Asks whether it is there. Takes a few seconds at most and never rejects. */
  look(): Promise<void> {
    if (this.#settings.enabled === false) return Promise.resolve();
    const looking = (this.#looking ??= this.#ping(this.#scanner).finally(() => {
      if (this.#looking === looking) this.#looking = null;
    }));
    return looking;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#closed.abort(new Error('stopped'));
  }

  async #ping(scanner: SpamScanner): Promise<void> {
    let found: ScannerState = 'there';
    let why: unknown;
    try {
      await scanner.ping(AbortSignal.any([this.#closed.signal, AbortSignal.timeout(PING_TIMEOUT_MS)]));
    } catch (error) {
      const wasThere = this.#state === 'there' || this.#state === 'does not answer';
      found = wasThere && !isAbsent(error) ? 'does not answer' : 'not there';
      why = error;
    }
    if (this.#closed.signal.aborted || scanner !== this.#scanner || found === this.#state) return;
    this.#state = found;
    const { kind, address } = this.#settings;
    const fields = { neighbour: kind, address: address.map(formatSocketAddress).join(', '), state: found };
    const effect =
      this.#settings.enabled === 'auto' && this.scanner === null ? { effect: 'no spam check' } : {};
    if (found === 'there') this.#log.info(fields, 'neighbour');
    else this.#log.warn({ ...fields, ...effect, why: causes(why) }, 'neighbour');
  }

  #open(settings: ScannerSettings): SpamScanner {
    const servers = serversOf(settings);
    if (settings.enabled !== false) for (const server of servers) this.#up.set(server, 1);
    const changed = (place: number, works: boolean, error: unknown): void => {
      const server = servers[place];
      if (server === undefined || settings !== this.#settings || this.#closed.signal.aborted) return;
      this.#up.set(server, works ? 1 : 0);
      // Of a single one the state says it all.
      if (servers.length === 1) return;
      const fields = { neighbour: settings.kind, address: server.server };
      if (works) this.#log.info(fields, 'one of several scanners works again');
      else this.#log.warn({ ...fields, why: causes(error) }, 'one of several scanners failed');
    };
    const common = {
      addresses: settings.address,
      maxConcurrent: settings.max_connections,
      timeoutMs: settings.timeout,
      maxResponse: MAX_RESPONSE,
      changed,
    };
    switch (settings.kind) {
      case 'spamd':
        return createSpamd({ ...common, connectTimeoutMs: CONNECT_TIMEOUT_MS }, this.#clock);
      case 'rspamd':
        return createRspamd(common, this.#clock);
    }
  }
}

function serversOf({ kind, address }: ScannerSettings): { scanner: string; server: string }[] {
  return address.map((each) => ({ scanner: kind, server: formatSocketAddress(each) }));
}

export function scannerUp(registry: Registry): ReturnType<typeof gauge<'scanner' | 'server'>> {
  return gauge<'scanner' | 'server'>(registry, {
    name: 'postern_scanner_up',
    help: 'Whether a spamd or rspamd answered when it was asked last.',
    together: 'min',
    labels: { scanner: [], server: [] },
  });
}

function isAbsent(error: unknown): boolean {
  for (let link = error; link instanceof Error; link = link.cause) {
    if ('code' in link && typeof link.code === 'string' && ABSENT_CODES.has(link.code)) return true;
  }
  return false;
}
