import { createClamd, type ClamdAddress, type ClamdEvents } from '../adapters/clamd.ts';
import type { ConfigFile } from '../config/schema.ts';
import { formatSocketAddress } from '../config/values.ts';
import type { VirusScanner } from '../ports/virus-scanner.ts';
import { gauge } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { causes } from './causes.ts';

type ClamdSettings = ConfigFile['clamd'];

const WATCH_MS = 30_000;
const PING_TIMEOUT_MS = 3000;
const CONNECT_TIMEOUT_MS = 3000;

export type ClamdState = 'not used' | 'unknown' | 'there' | 'not there';

/**
 * Knows which clamds are there. With `enabled = "auto"` the scanner is used once one has answered, and from then on, whatever becomes of it: that
 * it goes away must not let mail pass unscanned.
 */
export class ClamdWatch implements Disposable {
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  readonly #closed = new AbortController();
  readonly #up: ReturnType<typeof clamdUp>;
  #settings: ClamdSettings;
  #scanner: VirusScanner;
  /** By address: whether it answered when it was asked last. */
  #answers = new Map<string, boolean>();
  #adopted = false;
  #looking: Promise<void> | null = null;

  constructor(settings: ClamdSettings, log: Log, registry: Registry) {
    this.#log = log;
    this.#up = clamdUp(registry);
    this.#settings = settings;
    this.#scanner = this.#open(settings);
    this.#timer = setInterval(() => void this.look(), WATCH_MS).unref();
  }

  /** null: the check "virus" is left out. */
  get scanner(): VirusScanner | null {
    switch (this.#settings.enabled) {
      case true:
        return this.#scanner;
      case false:
        return null;
      case 'auto':
        return this.#adopted ? this.#scanner : null;
    }
  }

  get state(): ClamdState {
    if (this.#settings.enabled === false) return 'not used';
    if (this.#answers.size === 0) return 'unknown';
    return [...this.#answers.values()].includes(true) ? 'there' : 'not there';
  }

  /** Uses other settings from now on; scans under way end with the old ones. */
  reload(settings: ClamdSettings): void {
    if (JSON.stringify(settings) === JSON.stringify(this.#settings)) return;
    for (const address of this.#settings.addresses) this.#up.remove({ server: formatSocketAddress(address) });
    this.#settings = settings;
    this.#answers = new Map();
    // One that was in use stays so, though it may not answer at its new address.
    this.#adopted &&= settings.enabled === 'auto';
    this.#scanner = this.#open(settings);
    this.#looking = null;
    void this.look();
  }

  /** Asks whether one is there. Takes a few seconds at most and never rejects. */
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

  #open(settings: ClamdSettings): VirusScanner {
    if (settings.enabled !== false) {
      for (const address of settings.addresses) this.#up.set({ server: formatSocketAddress(address) }, 0);
    }
    const current = (): boolean => settings === this.#settings && !this.#closed.signal.aborted;
    const events: ClamdEvents = {
      answered: (address) => {
        if (current()) this.#note(address, true, null);
      },
      failed: (address, error) => {
        if (current()) this.#note(address, false, error);
      },
    };
    return createClamd(
      {
        addresses: settings.addresses,
        maxConcurrent: settings.max_connections,
        connectTimeoutMs: CONNECT_TIMEOUT_MS,
      },
      events,
    );
  }

  async #ping(scanner: VirusScanner): Promise<void> {
    try {
      await scanner.ping(AbortSignal.any([this.#closed.signal, AbortSignal.timeout(PING_TIMEOUT_MS)]));
    } catch {
      // Each of them was noted as it failed.
    }
  }

  /** Says so when it is news. */
  #note(address: ClamdAddress, answers: boolean, error: unknown): void {
    const server = formatSocketAddress(address);
    if (this.#answers.get(server) === answers) return;
    this.#answers.set(server, answers);
    this.#up.set({ server }, answers ? 1 : 0);
    this.#adopted ||= answers;
    const fields = { neighbour: 'clamd', address: server, state: answers ? 'there' : 'not there' };
    const effect = this.scanner === null ? { effect: 'no virus check' } : {};
    if (answers) this.#log.info(fields, 'neighbour');
    else this.#log.warn({ ...fields, ...effect, why: causes(error) }, 'neighbour');
  }
}

export function clamdUp(registry: Registry): ReturnType<typeof gauge<'server'>> {
  return gauge<'server'>(registry, {
    name: 'postern_clamd_up',
    help: 'Whether a clamd answered when it was asked last.',
    together: 'min',
    labels: { server: [] },
  });
}
