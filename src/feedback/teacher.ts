import type { Clock } from '../ports/clock.ts';
import type { Lesson, LessonQueue, SpamTeacher } from '../ports/lessons.ts';
import { logText } from '../mail/reply.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { FeedbackMetrics } from './metrics.ts';

export interface TeacherOptions {
  readonly queue: LessonQueue & { readonly count: number; readonly octets: number };
  /** null: nobody learns, and what waits goes on waiting. */
  readonly pupil: () => SpamTeacher | null;
  readonly clock: Pick<Clock, 'now'>;
  readonly metrics: FeedbackMetrics;
  readonly log: Log;
}

/** After so many failures in a row it is the scanner that fails, not the messages. */
const FAILURES_IN_A_ROW = 3;
/** After failures the next attempt comes this much later, twice as much each time. */
const FIRST_REST_MS = 1000;
const LONGEST_REST_MS = 60_000;
/** Another process may have left something to teach. */
const LOOK_MS = 30_000;
/** What nobody could be taught in that time will not be. */
const LESSON_AGE_MS = 7 * 86_400_000;

/** Teaches what waits, one message after another, and again what failed, until the scanner has it. */
export class Teacher {
  readonly #options: TeacherOptions;
  readonly #stopping = new AbortController();
  /** Names of lessons that failed: others go first, so that one that can't be learned keeps nobody waiting. */
  readonly #failed = new Set<string>();
  #timer: NodeJS.Timeout | null = null;
  #round: Promise<void> | null = null;
  #again = false;
  #restMs = 0;

  constructor(options: TeacherOptions) {
    this.#options = options;
  }

  /** There may be something to teach. While it rests after a failure, that has to wait. */
  wake(): void {
    this.#show();
    if (this.#stopping.signal.aborted) return;
    if (this.#round !== null) this.#again = true;
    else if (this.#restMs === 0) this.#begin();
  }

  /** Ends after the message that is being taught, at once when `signal` aborts: then that one waits again. */
  async stop(signal: AbortSignal): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#stopping.abort();
    const round = this.#round;
    if (round === null) return;
    const cut = (): void => this.#cutOff.abort(signal.reason);
    signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    await round;
    signal.removeEventListener('abort', cut);
  }

  readonly #cutOff = new AbortController();

  #begin(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#again = false;
    this.#round = this.#teachAll().then((works) => this.#ended(works));
  }

  #ended(works: boolean): void {
    this.#round = null;
    this.#show();
    if (this.#stopping.signal.aborted) return;
    this.#restMs = works ? 0 : Math.min(LONGEST_REST_MS, Math.max(FIRST_REST_MS, this.#restMs * 2));
    if (works && this.#again) this.#begin();
    else this.#timer = setTimeout(() => this.#begin(), works ? LOOK_MS : this.#restMs).unref();
  }

  /** Goes once through all that waits; false: something failed. Never rejects. */
  async #teachAll(): Promise<boolean> {
    const pupil = this.#options.pupil();
    if (pupil === null) return true;
    let failures = 0;
    let works = true;
    try {
      for (const name of this.#inOrder(await this.#options.queue.waiting())) {
        if (this.#stopping.signal.aborted) break;
        if (await this.#teachOne(name, pupil)) {
          failures = 0;
          continue;
        }
        works = false;
        if (++failures === FAILURES_IN_A_ROW) break;
      }
    } catch (error) {
      this.#options.log.error({ err: error }, 'the messages to learn could not be read');
      works = false;
    }
    return works;
  }

  #inOrder(names: readonly string[]): readonly string[] {
    if (this.#failed.size === 0) return names;
    const there = new Set(names);
    for (const name of this.#failed) if (!there.has(name)) this.#failed.delete(name);
    const first = names.filter((name) => !this.#failed.has(name));
    return [...first, ...this.#failed];
  }

  async #teachOne(name: string, pupil: SpamTeacher): Promise<boolean> {
    const { queue, metrics } = this.#options;
    const lesson = await queue.take(name);
    if (lesson === null) return true;
    let end;
    try {
      end = await pupil.teach(lesson, this.#cutOff.signal);
    } catch (error) {
      await this.#missed(name, lesson, error);
      return false;
    }
    this.#failed.delete(name);
    await queue.done(name);
    metrics.lesson(end);
    this.#show();
    return true;
  }

  async #missed(name: string, { time, label, user, message }: Lesson, error: unknown): Promise<void> {
    const { queue, clock, metrics, log } = this.#options;
    if (this.#cutOff.signal.aborted) {
      await queue.putBack(name);
      return;
    }
    const fields = { label, user: logText(user), message: logText(message), why: reasons(error) };
    if (clock.now() - time > LESSON_AGE_MS) {
      await queue.done(name);
      this.#failed.delete(name);
      metrics.lesson('given-up');
      log.error(fields, 'a message was not learned for a week and is given up');
      return;
    }
    // Once for each message: a scanner that is down is told of by its own watch.
    if (!this.#failed.has(name)) log.warn(fields, 'a message could not be taught, it is tried again');
    // The last to be tried next time.
    this.#failed.delete(name);
    this.#failed.add(name);
    await queue.putBack(name);
    metrics.lesson('failed');
  }

  #show(): void {
    const { queue, metrics } = this.#options;
    metrics.waiting(queue.count, queue.octets);
  }
}

/** The error and what caused it, for a line of the log. */
function reasons(error: unknown): string {
  const messages: string[] = [];
  for (let link = error; link instanceof Error; link = link.cause) messages.push(link.message);
  return logText(messages.join(': '));
}
