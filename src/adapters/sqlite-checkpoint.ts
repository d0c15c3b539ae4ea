import { DatabaseSync } from 'node:sqlite';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

/** Writes are gathered in the log for this long before they are moved into the file. */
const PAUSE_MS = 500;
const MEMORY_MB = 16;
/** While others write without a pause the log is never seen to be moved whole, and so never begun anew: from this size on they wait for a moment. */
const LONG_LOG_OCTETS = 2 ** 23;
/** How long to wait for the lock that this takes. */
const LOCK_MS = 200;
/** Nobody else can write while the rest of a long log is moved, so that it should be little: what came while all before it was moved in so short a time. */
const SHORT_MS = 20;
/** Where it never gets that short, on a disk that is busy, the log grows instead; up to this. */
const LONGEST_LOG_OCTETS = 2 ** 25;
const MOST_PASSES = 5;

/** Marks the thread that this module starts from itself. */
const ROLE = 'postern-checkpoint';

/**
 * Moves what was written from SQLite's log (-wal) into the file, in a thread of its own: that waits for the disk twice, which on a busy one
 * takes long, and in the thread that serves mail everything would wait with it.
 */
export class Checkpointer implements AsyncDisposable {
  readonly #path: string;
  readonly #onFailure: (error: Error) => void;
  #worker: Worker | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  /** `onFailure` is told once, when there will be no checkpoints any more. */
  constructor(path: string, onFailure: (error: Error) => void) {
    this.#path = path;
    this.#onFailure = onFailure;
  }

  /** Something was written. */
  wanted(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => this.#ask(), PAUSE_MS).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop();
    await this.#worker?.terminate();
  }

  #ask(): void {
    this.#timer = null;
    this.#worker ??= this.#start();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    this.#worker.postMessage(null);
  }

  #start(): Worker {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { role: ROLE, path: this.#path },
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    });
    worker.unref();
    worker.on('error', (error) => {
      if (this.#closed) return;
      this.#stop();
      this.#onFailure(error instanceof Error ? error : new Error('the checkpoint thread ended'));
    });
    return worker;
  }

  #stop(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }
}

/** An error here ends the thread, which its maker hears of. */
function serve(path: string): void {
  const database = new DatabaseSync(path, { timeout: LOCK_MS });
  const checkpoint = database.prepare('PRAGMA wal_checkpoint(PASSIVE)');
  const restart = database.prepare('PRAGMA wal_checkpoint(RESTART)');
  const pageSize = Number(database.prepare('PRAGMA page_size').get()?.['page_size']);
  parentPort?.on('message', () => {
    for (let pass = 1; pass <= MOST_PASSES; pass++) {
      const begin = performance.now();
      // PASSIVE waits for nobody: what others still read or write is moved the next time.
      const done = checkpoint.get();
      const octets = Number(done?.['log']) * pageSize;
      if (octets <= LONG_LOG_OCTETS) return;
      const short = performance.now() - begin < SHORT_MS;
      if (!short && (pass < MOST_PASSES || octets <= LONGEST_LOG_OCTETS)) continue;
      restart.get();
      return;
    }
  });
}

const task: unknown = isMainThread ? null : workerData;
if (typeof task === 'object' && task !== null && 'role' in task && task.role === ROLE && 'path' in task) {
  serve(String(task.path));
}
