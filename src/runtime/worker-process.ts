import type { ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';

import { fromWorker, type Series, type ToWorker } from './worker-messages.ts';

/** How long a worker may take to tell its metrics; whoever asks for /metrics waits for it. */
const METRICS_MS = 2000;

/** How a worker ended. */
export interface WorkerEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface WorkerEvents {
  ready(): void;
  /** `orphans`: connections that it never got. */
  ended(end: WorkerEnd, orphans: readonly Socket[]): void;
  /** It said what no worker says, or could not be told something. */
  failed(error: Error): void;
}

/** One worker, as the process that listens sees it. */
export class WorkerProcess {
  readonly number: number;
  readonly #child: ChildProcess;
  readonly #events: WorkerEvents;
  readonly #ended = Promise.withResolvers<void>();
  readonly #asked = new Map<number, (series: Series) => void>();
  #questions = 0;
  #ready = false;
  #gone = false;
  #connections = 0;
  #last: Series = [];
  /**
   * On their way, by number. Node hands over one at a time; when the worker dies it forgets those that wait for that, and leaves open the one
   * that was being handed over. So our own end is closed only when the worker says that it has its own.
   */
  readonly #underWay = new Map<number, Socket>();
  #given = 0;

  constructor(number: number, child: ChildProcess, events: WorkerEvents) {
    this.number = number;
    this.#child = child;
    this.#events = events;
    child.on('message', (message) => this.#heard(message));
    child.on('error', (error) => events.failed(error));
    child.once('exit', (code, signal) => {
      this.#gone = true;
      this.#ready = false;
      this.#ended.resolve();
      const orphans = [...this.#underWay.values()];
      this.#underWay.clear();
      events.ended({ code, signal }, orphans);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get ready(): boolean {
    return this.#ready;
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Connections that it was given and has not closed yet. */
  get connections(): number {
    return this.#connections;
  }

  /** Resolves when the process is gone. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** As it told of them last. */
  get lastMetrics(): Series {
    return this.#last;
  }

  give(socket: Socket): void {
    this.#connections += 1;
    const id = (this.#given += 1);
    this.#underWay.set(id, socket);
    this.#child.send({ kind: 'connection', id } satisfies ToWorker, socket, { keepOpen: true }, (error) => {
      // It is about to end then, and this will be one of its orphans.
      if (error !== null) this.#ready = false;
    });
  }

  tell(message: ToWorker): void {
    if (this.#gone || !this.#child.connected) return;
    this.#child.send(message, (error) => {
      if (error !== null && !this.#gone) this.#events.failed(error);
    });
  }

  /** What it counts; as it told of it last when it does not answer. Nothing when it is gone: that is kept elsewhere. */
  async metrics(): Promise<Series> {
    if (this.#gone) return [];
    if (!this.#ready) return this.#last;
    const question = (this.#questions += 1);
    const answer = Promise.withResolvers<Series>();
    const give = (): void => answer.resolve(this.#last);
    const timer = setTimeout(give, METRICS_MS);
    this.#asked.set(question, answer.resolve);
    void this.#ended.promise.then(give);
    this.tell({ kind: 'metrics', question });
    try {
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      this.#asked.delete(question);
    }
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #heard(message: unknown): void {
    let told;
    try {
      told = fromWorker(message);
    } catch (error) {
      this.#events.failed(new Error('a worker said what could not be understood', { cause: error }));
      return;
    }
    switch (told.kind) {
      case 'ready':
        this.#ready = true;
        this.#events.ready();
        break;
      case 'taken':
        this.#underWay.get(told.id)?.destroy();
        this.#underWay.delete(told.id);
        break;
      case 'closed':
        this.#connections -= 1;
        break;
      case 'metrics':
        this.#last = told.series;
        if (told.question !== null) this.#asked.get(told.question)?.(told.series);
        break;
    }
  }
}
