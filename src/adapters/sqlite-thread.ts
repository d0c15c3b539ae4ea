import { DatabaseSync } from 'node:sqlite';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

import { BatchWriter, messageOf, type Batch, type Written } from './sqlite-batch.ts';
import { isBusy, tune } from './sqlite-schema.ts';

/** Marks the thread that this module starts from itself. */
const ROLE = 'postern-writer';
/** How long a write waits for another process's. The thread that serves mail does not wait with it. */
const BUSY_TIMEOUT_MS = 400;
const MEMORY_MB = 96;
/** The longest the thread may take to close the file. */
const CLOSE_MS = 2000;

/** A batch that was not written. `busy`: another process held the lock. `broken`: the thread ended over it. */
export class NotWritten extends Error {
  readonly because: 'busy' | 'failed' | 'broken';

  constructor(why: string, because: 'busy' | 'failed' | 'broken') {
    super(why);
    this.name = 'NotWritten';
    this.because = because;
  }
}

type Reply =
  | { readonly kind: 'written'; readonly written: Written }
  | { readonly kind: 'failed'; readonly why: string; readonly busy: boolean };

/**
 * Writes batches in a thread with a connection of its own: whatever the disk or another process's lock takes, the thread that serves mail
 * goes on. One batch at a time. A thread that ends is started again with the next batch.
 */
export class WriterThread implements AsyncDisposable {
  readonly #path: string;
  #worker: Worker | null = null;
  #underWay: PromiseWithResolvers<Written> | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws {NotWritten} when nothing of it was written */
  write(batch: Batch): Promise<Written> {
    const underWay = Promise.withResolvers<Written>();
    this.#underWay = underWay;
    this.#worker ??= this.#start();
    this.#worker.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    this.#worker.postMessage(batch);
    return underWay.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const worker = this.#worker;
    if (worker === null) return;
    const gone = new Promise((resolve) => worker.once('exit', resolve));
    const late = setTimeout(() => void worker.terminate(), CLOSE_MS);
    worker.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(null);
    await gone;
    clearTimeout(late);
  }

  #start(): Worker {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { role: ROLE, path: this.#path },
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    });
    worker.on('message', (reply: Reply) => {
      worker.unref();
      const underWay = this.#underWay;
      this.#underWay = null;
      if (reply.kind === 'written') underWay?.resolve(reply.written);
      else underWay?.reject(new NotWritten(reply.why, reply.busy ? 'busy' : 'failed'));
    });
    let why = 'it was ended';
    worker.on('error', (error) => {
      why = messageOf(error);
    });
    worker.on('exit', () => {
      this.#worker = null;
      this.#underWay?.reject(new NotWritten(`the thread that writes ended: ${why}`, 'broken'));
      this.#underWay = null;
    });
    return worker;
  }
}

function serve(path: string): void {
  const database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
  tune(database);
  const writer = new BatchWriter(database);
  const answer = (batch: Batch): Reply => {
    try {
      return { kind: 'written', written: writer.write(batch) };
    } catch (error) {
      return { kind: 'failed', why: messageOf(error), busy: isBusy(error) };
    }
  };
  parentPort?.on('message', (batch: Batch | null) => {
    if (batch !== null) {
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
      parentPort?.postMessage(answer(batch));
      return;
    }
    database.close();
    parentPort?.close();
  });
}

const task: unknown = isMainThread ? null : workerData;
if (typeof task === 'object' && task !== null && 'role' in task && task.role === ROLE && 'path' in task) {
  serve(String(task.path));
}
