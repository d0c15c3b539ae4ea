import { createHash } from 'node:crypto';

import { logText } from '../mail/reply.ts';
import type { Clock } from '../ports/clock.ts';
import { LessonsFull, type LessonQueue } from '../ports/lessons.ts';
import type { LabelKind, Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { readMail } from './lesson-content.ts';
import type { FeedbackMetrics } from './metrics.ts';

/** A message that a user has moved. */
export interface LabelledMail {
  readonly label: LabelKind;
  readonly user: string;
  readonly octets: Uint8Array;
  /** Whether `octets` is all of it. */
  readonly complete: boolean;
  /** When it was said, in milliseconds since 1970; without it, now. */
  readonly time?: number;
}

export interface CollectorOptions {
  readonly store: Pick<Store, 'label'>;
  readonly queue: LessonQueue;
  readonly clock: Pick<Clock, 'now'>;
  readonly metrics: FeedbackMetrics;
  readonly log: Log;
  /** Whether there is a scanner that learns. */
  readonly teaches: () => boolean;
  readonly authservId: () => string;
  /** There is a lesson more. */
  readonly onLesson: () => void;
}

/** The label is in the record, and the message is not to be learned: why. */
export class NotTaught extends Error {}

/** Keeps what users say: the label in the record, the message for the scanner. */
export class Collector {
  readonly #options: CollectorOptions;
  #full = false;

  constructor(options: CollectorOptions) {
    this.#options = options;
  }

  /** Resolves once it is kept. @throws {NotTaught} when only the label is, and that is not what is meant; {Error} when something failed */
  async take(mail: LabelledMail): Promise<void> {
    const { store, clock, metrics, log, teaches, authservId } = this.#options;
    const { label, user } = mail;
    const { key, content } = readMail(mail.octets, authservId());
    metrics.labelled(label);
    log.info({ label, user: logText(user), message: logText(key) }, 'a user labelled a message');
    const { time = clock.now() } = mail;
    const labelling = key === null ? Promise.resolve() : store.label({ message: key, user, label, time });
    let learning = Promise.resolve();
    if (teaches()) {
      if (mail.complete)
        learning = this.#add({ message: key ?? digest(content), user, label, time, content });
      else metrics.lesson('too-large');
    }
    // Either is of use without the other.
    const [labelled, learned] = await Promise.allSettled([labelling, learning]);
    if (labelled.status === 'rejected') throw labelled.reason;
    if (learned.status === 'rejected') throw learned.reason;
  }

  async #add(lesson: Parameters<LessonQueue['add']>[0]): Promise<void> {
    const { queue, metrics, log, onLesson } = this.#options;
    try {
      await queue.add(lesson);
    } catch (error) {
      if (!(error instanceof LessonsFull)) throw error;
      metrics.lesson('no-room');
      if (!this.#full)
        log.warn({ why: error.message }, 'no room for messages to learn: feedback.max_waiting');
      this.#full = true;
      throw new NotTaught(error.message, { cause: error });
    }
    this.#full = false;
    onLesson();
  }
}

/** Stands for the name of a message that has none. */
function digest(content: Uint8Array): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}
