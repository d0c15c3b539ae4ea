import type { EventEmitter } from 'node:events';

export interface LifecycleOptions {
  /** `process`: its signals and last errors. */
  readonly events: EventEmitter;
  /** Ends the process at once. */
  readonly exit: (code: number) => void;
  /** Writes the last words of a process that ends itself. Must be done when it returns. */
  readonly fatal: (message: string, error: unknown) => void;
  /** Milliseconds a stop may take before sessions are cut off. Default: 25 s; `systemctl restart` holds new mail up for that long. */
  readonly graceMs?: number;
}

export type StopSignal = 'SIGTERM' | 'SIGINT';

const GRACE_MS = 25_000;
/** What is left to those that were told to cut off, and to closing files. */
const CUT_OFF_MS = 3000;

const EXIT_FORCED = 1;
/** sysexits.h EX_SOFTWARE */
const EXIT_SOFTWARE = 70;

/**
 * Signals of one process. Made first thing: until then SIGHUP kills.
 *
 * The first SIGTERM or SIGINT asks for a stop, the second ends the process at once. SIGHUP asks for a reload. An error that nobody caught
 * ends the process, since nothing is known of its state any more.
 */
export class Lifecycle implements Disposable {
  readonly #options: LifecycleOptions;
  readonly #stop = Promise.withResolvers<StopSignal>();
  readonly #handlers: readonly (readonly [string, (error: unknown) => void])[];
  #stopping = false;
  #reload: (() => Promise<void>) | null = null;
  #reloadWanted = false;
  #reloading = false;

  constructor(options: LifecycleOptions) {
    this.#options = options;
    this.#handlers = [
      ['SIGTERM', () => this.#stopAsked('SIGTERM')],
      ['SIGINT', () => this.#stopAsked('SIGINT')],
      ['SIGHUP', () => this.#reloadAsked()],
      ['uncaughtException', (error: unknown) => this.#die('an error was not caught', error)],
      ['unhandledRejection', (error: unknown) => this.#die('a rejection was not handled', error)],
    ];
    for (const [event, handler] of this.#handlers) options.events.on(event, handler);
  }

  /** Resolves with the first signal that asks for a stop. */
  get stopAsked(): Promise<StopSignal> {
    return this.#stop.promise;
  }

  /** Whether a stop was asked for. */
  get stopping(): boolean {
    return this.#stopping;
  }

  /**
   * Sets what SIGHUP does. One reload runs at a time; signals that come meanwhile, or came before this was called, are answered by one
   * more. `reload` reports its own failures; a rejection ends the process.
   */
  onReload(reload: () => Promise<void>): void {
    this.#reload = reload;
    if (this.#reloadWanted) this.#reloadAsked();
  }

  /**
   * Runs the stop: `work` gets a signal that aborts when the time for a graceful end is over. When that hangs even then, or something is left open after it
   * that keeps the process alive, the process is ended.
   */
  async finish(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const grace = this.#options.graceMs ?? GRACE_MS;
    const controller = new AbortController();
    const cut = setTimeout(() => {
      controller.abort(new Error('the time for a graceful stop is over'));
    }, grace);
    // Not cleared, and in nobody's way: a process that has nothing left to do ends by itself.
    setTimeout(() => {
      this.#options.fatal('the stop did not come to an end', new Error(`not stopped after ${grace} ms`));
      this.#options.exit(EXIT_FORCED);
    }, grace + CUT_OFF_MS).unref();
    try {
      await work(controller.signal);
    } finally {
      clearTimeout(cut);
    }
  }

  [Symbol.dispose](): void {
    for (const [event, handler] of this.#handlers) this.#options.events.off(event, handler);
  }

  #stopAsked(signal: StopSignal): void {
    if (this.#stopping) this.#options.exit(EXIT_FORCED);
    this.#stopping = true;
    this.#stop.resolve(signal);
  }

  #reloadAsked(): void {
    this.#reloadWanted = true;
    if (this.#reload === null || this.#reloading || this.#stopping) return;
    void this.#reloadAll(this.#reload);
  }

  async #reloadAll(reload: () => Promise<void>): Promise<void> {
    this.#reloading = true;
    try {
      while (this.#reloadWanted && !this.#stopping) {
        this.#reloadWanted = false;
        await reload();
      }
    } catch (error) {
      this.#die('the reload broke down', error);
    } finally {
      this.#reloading = false;
    }
  }

  #die(message: string, error: unknown): void {
    this.#options.fatal(message, error);
    this.#options.exit(EXIT_SOFTWARE);
  }
}
