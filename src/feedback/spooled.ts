import type { SpooledFeedback } from '../ports/spooled-feedback.ts';
import type { Log } from '../runtime/telemetry.ts';
import { NotTaught, type LabelledMail } from './collector.ts';
import type { FeedbackMetrics } from './metrics.ts';
import { HEAD_END, parseScriptHead, SCRIPT_HEAD_LIMIT, ScriptFault } from './script-request.ts';

export interface SpooledOptions {
  readonly spool: SpooledFeedback;
  /** Octets of a message that are kept. */
  readonly maxSize: () => number;
  /** Resolves once it is kept. */
  readonly take: (mail: LabelledMail) => Promise<void>;
  readonly metrics: FeedbackMetrics;
  readonly log: Log;
}

/** What came while this process did not answer, although it was there, waits for no longer than this. */
export const SPOOL_LOOK_MS = 30_000;

/** Takes what users said while nobody answered. */
export class Spooled {
  readonly #options: SpooledOptions;
  #last: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | null = null;
  #stopping = false;
  #failing = false;

  constructor(options: SpooledOptions) {
    this.#options = options;
  }

  /** Takes what is there now, and looks again all the time. */
  start(): void {
    void this.takeAll();
    this.#timer = setInterval(() => void this.takeAll(), SPOOL_LOOK_MS).unref();
  }

  /** Ends after the message that is being taken. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#last;
  }

  /** Resolves when what is there now was taken, or could not be. Never rejects. */
  takeAll(): Promise<void> {
    // Not what is under way: it may have looked before the last of it came.
    this.#last = this.#last.then(() => this.#takeEach());
    return this.#last;
  }

  async #takeEach(): Promise<void> {
    const { spool, log } = this.#options;
    let fault: unknown = null;
    try {
      for (const name of await spool.waiting()) {
        if (this.#stopping) return;
        // One that can't be read keeps no other waiting.
        fault = (await this.#takeOne(name)) ?? fault;
      }
    } catch (error) {
      // What is left waits for the next look.
      fault = error;
    }
    if (fault !== null && !this.#failing)
      log.error({ err: fault }, 'feedback that waits in feedback.spool could not be taken');
    this.#failing = fault !== null;
  }

  /** Why it could not be read; null: it is done with. @throws {Error} when it could not be kept */
  async #takeOne(name: string): Promise<unknown> {
    const { spool, maxSize, metrics, log } = this.#options;
    let request;
    try {
      request = await spool.read(name, SCRIPT_HEAD_LIMIT + HEAD_END.length + maxSize() + 1);
    } catch (error) {
      return error;
    }
    try {
      if (request === null) throw new ScriptFault('it is gone, or has a second name');
      await this.#take(parsed(request.octets, request.time, maxSize()));
    } catch (error) {
      if (!(error instanceof ScriptFault)) throw error;
      metrics.fault('protocol');
      log.warn({ name, why: error.message }, 'a file in feedback.spool can not be used and is removed');
    }
    await spool.remove(name);
    return null;
  }

  async #take(mail: LabelledMail): Promise<void> {
    const { take, metrics } = this.#options;
    try {
      await take(mail);
    } catch (error) {
      // It is counted and told of already.
      if (!(error instanceof NotTaught)) throw error;
    }
    metrics.spooled();
  }
}

/** @throws {ScriptFault} */
function parsed(octets: Uint8Array, time: number, maxSize: number): LabelledMail {
  const request = Buffer.from(octets.buffer, octets.byteOffset, octets.length);
  const end = request.indexOf(HEAD_END);
  if (end === -1 || end > SCRIPT_HEAD_LIMIT) throw new ScriptFault('it has no head');
  const message = request.subarray(end + HEAD_END.length);
  return {
    ...parseScriptHead(request.toString('utf8', 0, end)),
    octets: message.subarray(0, maxSize),
    complete: message.length <= maxSize,
    time,
  };
}
