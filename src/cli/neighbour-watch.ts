import type { PoolOptions } from '../adapters/neighbour-pool.ts';
import type { Log } from '../runtime/telemetry.ts';
import { causes } from './causes.ts';

const WATCH_MS = 30_000;
const PING_TIMEOUT_MS = 3000;

/** Connecting failed because nobody listens there. */
const ABSENT_CODES = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EACCES',
]);

type KnownState = 'unknown' | 'there' | 'not there' | 'does not answer';
type NeighbourState = 'not used' | KnownState;

interface Settings {
  readonly enabled: boolean | 'auto';
}

/** A kind of neighbour that may be there or not, on one or several servers. */
export interface Watched<S extends Settings, T> {
  nameOf(settings: S): string;
  /** Addresses, for people, in the order in which `open` counts them. */
  serversOf(settings: S): readonly string[];
  open(settings: S, changed: PoolOptions['changed']): T;
  /** Whether one of them works; null: it is not one of them any more. */
  up(settings: S, server: string, works: boolean | null): void;
  /** What is not done while it is not there. */
  readonly effect: string;
  /** With `enabled = "auto"`: whether one that was there stays in use when it is there no more. */
  readonly staysInUse: boolean;
}

/** Knows whether a neighbour is there, and with `enabled = "auto"` gives it only when it is. */
export class NeighbourWatch<
  S extends Settings,
  T extends { ping(signal: AbortSignal): Promise<void> },
> implements Disposable {
  readonly #kind: Watched<S, T>;
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  #settings: S;
  #client: T;
  #state: KnownState = 'unknown';
  /** It was there, under these settings or those before. */
  #wasThere = false;
  #looking: Promise<void> | null = null;
  readonly #closed = new AbortController();

  constructor(kind: Watched<S, T>, settings: S, log: Log) {
    this.#kind = kind;
    this.#log = log;
    this.#settings = settings;
    this.#client = this.#open(settings);
    this.#timer = setInterval(() => void this.look(), WATCH_MS).unref();
  }

  /** null: what it is for is left out. */
  get scanner(): T | null {
    switch (this.#settings.enabled) {
      case true:
        return this.#client;
      case false:
        return null;
      case 'auto':
        return this.#isInUse() ? this.#client : null;
    }
  }

  /** By name, for /readyz. */
  get states(): Readonly<Record<string, NeighbourState>> {
    return { [this.#kind.nameOf(this.#settings)]: this.state };
  }

  get state(): NeighbourState {
    return this.#settings.enabled === false ? 'not used' : this.#state;
  }

  /** Uses other settings from now on; what is under way ends with the old ones. */
  reload(settings: S): void {
    if (JSON.stringify(settings) === JSON.stringify(this.#settings)) return;
    for (const server of this.#kind.serversOf(this.#settings)) this.#kind.up(this.#settings, server, null);
    this.#settings = settings;
    this.#client = this.#open(settings);
    this.#state = 'unknown';
    this.#wasThere &&= settings.enabled === 'auto';
    this.#looking = null;
    void this.look();
  }

  /** Asks whether it is there. Takes a few seconds at most and never rejects. */
  look(): Promise<void> {
    if (this.#settings.enabled === false) return Promise.resolve();
    const looking = (this.#looking ??= this.#ping(this.#client).finally(() => {
      if (this.#looking === looking) this.#looking = null;
    }));
    return looking;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#closed.abort(new Error('stopped'));
  }

  #isInUse(): boolean {
    if (this.#kind.staysInUse) return this.#wasThere;
    // One that was there and is slow is overloaded; leaving it out then would let mail in just because there is much of it.
    return this.#state === 'there' || this.#state === 'does not answer';
  }

  async #ping(client: T): Promise<void> {
    let found: KnownState = 'there';
    let why: unknown;
    try {
      await client.ping(AbortSignal.any([this.#closed.signal, AbortSignal.timeout(PING_TIMEOUT_MS)]));
    } catch (error) {
      const wasThere = this.#state === 'there' || this.#state === 'does not answer';
      found = wasThere && !isAbsent(error) ? 'does not answer' : 'not there';
      why = error;
    }
    if (this.#closed.signal.aborted || client !== this.#client || found === this.#state) return;
    this.#state = found;
    this.#wasThere ||= found === 'there';
    const settings = this.#settings;
    const address = this.#kind.serversOf(settings).join(', ');
    const fields = { neighbour: this.#kind.nameOf(settings), address, state: found };
    const { effect } = this.#kind;
    const left = settings.enabled === 'auto' && this.scanner === null ? { effect } : {};
    if (found === 'there') this.#log.info(fields, 'neighbour');
    else this.#log.warn({ ...fields, ...left, why: causes(why) }, 'neighbour');
  }

  #open(settings: S): T {
    const servers = this.#kind.serversOf(settings);
    if (settings.enabled !== false) for (const server of servers) this.#kind.up(settings, server, true);
    return this.#kind.open(settings, (place, works, error) => {
      const server = servers[place];
      if (server === undefined || settings !== this.#settings || this.#closed.signal.aborted) return;
      this.#kind.up(settings, server, works);
      // Whether there is any left is not to be known half a minute later.
      void this.look();
      // Of a single one the state says it all.
      if (servers.length === 1) return;
      const fields = { neighbour: this.#kind.nameOf(settings), address: server };
      if (works) this.#log.info(fields, 'one of several scanners works again');
      else this.#log.warn({ ...fields, why: causes(error) }, 'one of several scanners failed');
    });
  }
}

function isAbsent(error: unknown): boolean {
  for (let link = error; link instanceof Error; link = link.cause) {
    if ('code' in link && typeof link.code === 'string' && ABSENT_CODES.has(link.code)) return true;
  }
  return false;
}
