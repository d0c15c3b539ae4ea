import { createSpamd } from '../adapters/spamd.ts';
import type { ConfigFile } from '../config/schema.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { SpamScanner } from '../ports/scanner.ts';
import type { Log } from '../runtime/telemetry.ts';
import { causes } from './causes.ts';

type SpamdSettings = ConfigFile['spamd'];

const WATCH_MS = 30_000;
const PING_TIMEOUT_MS = 3000;
const CONNECT_TIMEOUT_MS = 3000;
/** The header section of a message comes back with the answer. */
const MAX_RESPONSE = 8 * 1024 * 1024;

/** Connecting failed because nobody listens there. */
const ABSENT_CODES = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EACCES',
]);

export type SpamdState = 'not used' | 'unknown' | 'there' | 'not there' | 'does not answer';

/** Knows whether spamd is there, and with `enabled = "auto"` gives the scanner only when it is. */
export class SpamdWatch implements Disposable {
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  #settings: SpamdSettings;
  #scanner: SpamScanner;
  #state: SpamdState = 'unknown';
  #looking: Promise<void> | null = null;
  #closed = new AbortController();

  constructor(settings: SpamdSettings, log: Log) {
    this.#log = log;
    this.#settings = settings;
    this.#scanner = scannerFor(settings);
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

  get state(): SpamdState {
    return this.#settings.enabled === false ? 'not used' : this.#state;
  }

  /** Uses other settings from now on; scans under way end with the old ones. */
  reload(settings: SpamdSettings): void {
    if (JSON.stringify(settings) === JSON.stringify(this.#settings)) return;
    this.#settings = settings;
    this.#scanner = scannerFor(settings);
    this.#state = 'unknown';
    this.#looking = null;
    void this.look();
  }

  /** Asks whether it is there. Takes a few seconds at most and never rejects. */
  look(): Promise<void> {
    if (this.#settings.enabled === false) return Promise.resolve();
    this.#looking ??= this.#ping(this.#scanner).finally(() => {
      this.#looking = null;
    });
    return this.#looking;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#closed.abort(new Error('stopped'));
  }

  async #ping(scanner: SpamScanner): Promise<void> {
    let found: SpamdState = 'there';
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
    const fields = { neighbour: 'spamd', address: formatSocketAddress(this.#settings.address), state: found };
    const effect =
      this.#settings.enabled === 'auto' && this.scanner === null ? { effect: 'no spam check' } : {};
    if (found === 'there') this.#log.info(fields, 'neighbour');
    else this.#log.warn({ ...fields, ...effect, why: causes(why) }, 'neighbour');
  }
}

function scannerFor(settings: SpamdSettings): SpamScanner {
  return createSpamd({
    address: settings.address,
    maxConcurrent: settings.max_connections,
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    maxResponse: MAX_RESPONSE,
  });
}

function isAbsent(error: unknown): boolean {
  for (let link = error; link instanceof Error; link = link.cause) {
    if ('code' in link && typeof link.code === 'string' && ABSENT_CODES.has(link.code)) return true;
  }
  return false;
}
