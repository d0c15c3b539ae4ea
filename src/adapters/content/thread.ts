import { isMainThread, parentPort, workerData, Worker } from 'node:worker_threads';

import type { ContentAnswer, ContentRule } from '../../ports/content-scanner.ts';
import type { Examiner } from './examiner.ts';

/** Marks the threads that this module starts from itself. */
const ROLE = 'postern-content';
/**
 * Of the heap, which holds text; octets are outside of it, and bounded by the size that is scanned. The largest text that is looked at takes a third
 * of it; more would only be garbage that nobody has collected yet.
 */
const HEAP_MB = 128;
const YOUNG_MB = 4;

export interface ScanTask {
  /** Holds the header section, the empty line and the body. Handed over: the sender has it back when the scan has ended, for the next message. */
  readonly message: ArrayBuffer;
  readonly octets: number;
  readonly headerOctets: number;
  readonly wanted: readonly number[];
}

type Request =
  { readonly kind: 'rules'; readonly rules: readonly ContentRule[] } | ({ readonly kind: 'scan' } & ScanTask);

type Reply = { readonly message: ArrayBuffer } & (
  | { readonly kind: 'answer'; readonly answer: ContentAnswer }
  | { readonly kind: 'failed'; readonly why: string }
);

/** A thread that looks into one message at a time. Whatever a message does to it, no other is there to suffer. */
export class ScanThread {
  readonly #worker: Worker;
  #rules: readonly ContentRule[] | null = null;
  #underWay: PromiseWithResolvers<ContentAnswer> | null = null;
  #room: ArrayBuffer | null = null;
  #ended = false;

  constructor() {
    this.#worker = new Worker(new URL(import.meta.url), {
      workerData: { role: ROLE },
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB, maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.#worker.unref();
    this.#worker.on('message', (reply: Reply) => {
      this.#worker.unref();
      const underWay = this.#underWay;
      this.#underWay = null;
      this.#room = reply.message;
      if (reply.kind === 'answer') underWay?.resolve(reply.answer);
      else underWay?.reject(new Error(reply.why));
    });
    let why = 'it was ended';
    this.#worker.on('error', (error) => {
      why = messageOf(error);
    });
    this.#worker.on('exit', () => {
      this.#ended = true;
      this.#underWay?.reject(new Error(`the thread ended: ${why}`));
      this.#underWay = null;
    });
  }

  /** Memory for a message: that of the one before, when it is large enough. Garbage of this size would pile up before it is collected. */
  room(octets: number): ArrayBuffer {
    const room = this.#room;
    this.#room = null;
    return room !== null && room.byteLength >= octets ? room : new ArrayBuffer(octets);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Not called again before it has settled. @throws when it could not be scanned */
  scan(rules: readonly ContentRule[], task: ScanTask): Promise<ContentAnswer> {
    const underWay = Promise.withResolvers<ContentAnswer>();
    if (this.#ended) throw new Error('the thread has ended');
    this.#underWay = underWay;
    this.#worker.ref();
    if (this.#rules !== rules) {
      this.#rules = rules;
      this.#send({ kind: 'rules', rules });
    }
    this.#send({ kind: 'scan', ...task }, [task.message]);
    return underWay.promise;
  }

  /** At once, whatever it does. What is under way fails. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.#worker.terminate();
  }

  #send(request: Request, handedOver: ArrayBuffer[] = []): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    this.#worker.postMessage(request, handedOver);
  }
}

function serve(makeExaminer: (rules: readonly ContentRule[]) => Examiner): void {
  let examiner: Examiner | null = null;
  const prepare = (rules: readonly ContentRule[]): void => {
    examiner = null;
    try {
      examiner = makeExaminer(rules);
    } catch {
      // Rules that can't be made ready are told of with the message that follows.
    }
  };
  const scan = ({ message, octets, headerOctets, wanted }: ScanTask): Reply => {
    if (examiner === null) return { kind: 'failed', why: 'the rules could not be made ready', message };
    try {
      const answer = examiner.examine(Buffer.from(message, 0, octets), headerOctets, wanted);
      return { kind: 'answer', answer, message };
    } catch (error) {
      return { kind: 'failed', why: messageOf(error), message };
    }
  };
  parentPort?.on('message', (request: Request) => {
    switch (request.kind) {
      case 'rules':
        prepare(request.rules);
        break;
      case 'scan':
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
        parentPort?.postMessage(scan(request), [request.message]);
        break;
    }
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const task: unknown = isMainThread ? null : workerData;
if (typeof task === 'object' && task !== null && 'role' in task && task.role === ROLE) {
  // Only here: what looks into messages is not for the thread that takes them.
  const { Examiner: Made } = await import('./examiner.ts');
  serve((rules) => new Made(rules));
}
