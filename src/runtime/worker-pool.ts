import type { ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';

import type { OpenListener } from './listener.ts';
import { counter, gauge } from './metrics.ts';
import type { Log, Registry } from './telemetry.ts';
import { lasting } from './summed-metrics.ts';
import type { Series } from './worker-messages.ts';
import { WorkerProcess, type WorkerEnd } from './worker-process.ts';

/** A worker that lived this long had no trouble to start: its successor is started at once. */
const SETTLED_MS = 10_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 30_000;
/** From the last chance to a worker that does not end by itself. */
const CUT_MS = 2000;

export interface WorkerPoolOptions {
  /** Of the daemon. */
  readonly name: string;
  readonly count: number;
  /** Connections that wait for a worker when there is none. */
  readonly waitingLimit: number;
  /** Starts the process of the worker with this number, from 1 on. */
  readonly start: (number: number) => ChildProcess;
  readonly log: Log;
  readonly registry: Registry;
}

/**
 * Processes that serve the connections of one listener. This one accepts, and gives each connection to the worker with the fewest; it keeps
 * listening while a worker is replaced, so that nobody is turned away for that.
 */
export class WorkerPool implements AsyncDisposable {
  readonly name: string;
  readonly #options: WorkerPoolOptions;
  readonly #listener: OpenListener;
  /** By number, from 0 on. */
  readonly #workers: WorkerProcess[] = [];
  readonly #waiting = new Set<Socket>();
  readonly #pauses = new Set<NodeJS.Timeout>();
  readonly #metrics: WorkerMetrics;
  /** What workers that are gone have counted. */
  #retired: Promise<Series> = Promise.resolve([]);
  #stopping = false;

  private constructor(listener: OpenListener, options: WorkerPoolOptions) {
    this.name = options.name;
    this.#options = options;
    this.#listener = listener;
    this.#metrics = workerMetrics(options.registry);
    this.#metrics.deaths.inc({ daemon: this.name }, 0);
  }

  /** All of them at work. @throws when one ends before it is */
  static async open(listener: OpenListener, options: WorkerPoolOptions): Promise<WorkerPool> {
    const pool = new WorkerPool(listener, options);
    try {
      await Promise.all(Array.from({ length: options.count }, (_, index) => pool.#first(index)));
    } catch (error) {
      await pool[Symbol.asyncDispose]();
      throw error;
    }
    listener.handOver((socket) => pool.#take(socket));
    return pool;
  }

  /** How many are at work. */
  get running(): number {
    return this.#workers.filter(({ ready }) => ready).length;
  }

  reload(): void {
    for (const worker of this.#workers) worker.tell({ kind: 'reload' });
  }

  /** Each ends what it has under way; when `signal` aborts, the rest is cut off. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping = true;
    for (const pause of this.#pauses) clearTimeout(pause);
    await this.#listener.close();
    for (const socket of this.#waiting) socket.destroy();
    const cut = (): void => {
      for (const worker of this.#workers) worker.tell({ kind: 'cut' });
      setTimeout(() => {
        for (const worker of this.#workers) if (!worker.gone) worker.kill();
      }, CUT_MS).unref();
    };
    for (const worker of this.#workers) worker.tell({ kind: 'stop' });
    signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    await Promise.all(this.#workers.map((worker) => worker.ended));
    signal.removeEventListener('abort', cut);
  }

  /** What all workers have counted, those that are gone too. */
  async metrics(): Promise<readonly Series[]> {
    // Taken first: one that dies meanwhile must not be counted twice.
    const retired = this.#retired;
    const all = await Promise.all(this.#workers.map((worker) => worker.metrics()));
    return [await retired, ...all];
  }

  /** Ends at once what has not ended yet. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    for (const pause of this.#pauses) clearTimeout(pause);
    for (const worker of this.#workers) if (!worker.gone) worker.kill();
    await Promise.all(this.#workers.map((worker) => worker.ended));
  }

  #first(index: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#start(index, 0, resolve, (end) =>
      reject(new Error(`worker ${index + 1} of ${this.name} did not start (${wordsOf(end)})`)),
    );
    return promise;
  }

  /** @param early how often in a row it did not live for long */
  #start(
    index: number,
    early: number,
    onReady: () => void = () => {},
    onEarlyEnd: ((end: WorkerEnd) => void) | null = null,
  ): void {
    const { log, start } = this.#options;
    const begun = performance.now();
    const number = index + 1;
    let wasReady = false;
    const worker = new WorkerProcess(number, start(number), {
      ready: () => {
        wasReady = true;
        this.#count();
        log.info({ daemon: this.name, worker: number, pid: worker.pid }, 'worker is ready');
        onReady();
        for (const socket of this.#waiting) this.#take(socket);
      },
      ended: (end, orphans) => {
        this.#count();
        for (const socket of orphans) this.#take(socket);
        const before = this.#retired;
        this.#retired = before.then((retired) => lasting([retired, worker.lastMetrics]));
        if (this.#stopping) return;
        this.#metrics.deaths.inc({ daemon: this.name });
        const connections = worker.connections;
        log.error({ daemon: this.name, worker: number, ...end, connections }, 'worker died');
        if (!wasReady && onEarlyEnd !== null) {
          onEarlyEnd(end);
          return;
        }
        const quick = performance.now() - begun < SETTLED_MS ? early + 1 : 0;
        this.#later(quick, () => this.#start(index, quick));
      },
      failed: (error) =>
        log.error({ daemon: this.name, worker: number, err: error }, 'worker could not be reached'),
    });
    this.#workers[index] = worker;
  }

  /** At once the first time, then after a pause that doubles. */
  #later(early: number, then: () => void): void {
    const pause = early === 0 ? 0 : Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (early - 1));
    const timer = setTimeout(() => {
      this.#pauses.delete(timer);
      if (!this.#stopping) then();
    }, pause);
    this.#pauses.add(timer);
  }

  #count(): void {
    this.#metrics.running.set({ daemon: this.name }, this.running);
  }

  #take(socket: Socket): void {
    this.#waiting.delete(socket);
    let least: WorkerProcess | null = null;
    for (const worker of this.#workers) {
      if (worker.ready && (least === null || worker.connections < least.connections)) least = worker;
    }
    if (least !== null) least.give(socket);
    else this.#hold(socket);
  }

  #hold(socket: Socket): void {
    if (this.#stopping || this.#waiting.size >= this.#options.waitingLimit) {
      socket.destroy();
      return;
    }
    this.#waiting.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.#waiting.delete(socket));
  }
}

interface WorkerMetrics {
  readonly running: ReturnType<typeof gauge<'daemon'>>;
  readonly deaths: ReturnType<typeof counter<'daemon'>>;
}

export function workerMetrics(registry: Registry): WorkerMetrics {
  return {
    running: gauge<'daemon'>(registry, {
      name: 'postern_workers',
      help: 'Workers that serve connections, of daemons that have more than one process.',
      labels: { daemon: [] },
    }),
    deaths: counter<'daemon'>(registry, {
      name: 'postern_worker_deaths_total',
      help: 'Workers that ended although nobody had asked them to, and were replaced.',
      labels: { daemon: [] },
    }),
  };
}

function wordsOf({ code, signal }: WorkerEnd): string {
  return signal === null ? `exit code ${code}` : signal;
}
