import type { Clock } from '../ports/clock.ts';

/**
 * How long one message may keep its MTA waiting, in all: pieces of the body that are not taken at once, and the end. It runs only while
 * somebody waits, so that a slow sender costs nothing of it.
 */
export class Budget {
  readonly #clock: Pick<Clock, 'elapsed'>;
  readonly #onSpent: () => void;
  #left: number;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  constructor(ms: number, clock: Pick<Clock, 'elapsed'>, onSpent: () => void) {
    this.#left = ms;
    this.#clock = clock;
    this.#onSpent = onSpent;
  }

  /** The MTA waits from now on, until this is kept. Its rejection is passed on. One after another, never two at once. */
  async during<T>(work: Promise<T>): Promise<T> {
    this.#since = this.#clock.elapsed();
    if (!this.#over) this.#timer = setTimeout(() => this.#spent(), Math.max(0, this.#left));
    try {
      return await work;
    } finally {
      clearTimeout(this.#timer);
      this.#left -= this.#clock.elapsed() - this.#since;
    }
  }

  #spent(): void {
    if (this.#over) return;
    this.#over = true;
    this.#onSpent();
  }
}
