import { NeighbourError } from '../ports/neighbour-error.ts';

/**
 * So many at once with one neighbour, and so many more waiting, first come first served. What comes above that is told at once, because
 * by the time its turn came its message would have run out of time.
 */
export class Slots {
  readonly #most: number;
  readonly #mostWaiting: number;
  readonly #waiting = new Set<() => void>();
  #taken = 0;

  constructor(most: number, mostWaiting: number) {
    this.#most = most;
    this.#mostWaiting = mostWaiting;
  }

  /**
   * Runs `work` when there is room.
   *
   * @throws {NeighbourError} when too many wait already, or when `signal` aborts before its turn
   */
  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#enter(signal);
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  #enter(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(givenUp(signal));
    if (this.#taken < this.#most) {
      this.#taken++;
      return Promise.resolve();
    }
    if (this.#waiting.size >= this.#mostWaiting) {
      return Promise.reject(
        new NeighbourError(`${this.#taken} requests are under way and ${this.#waiting.size} wait already`),
      );
    }
    const turn = Promise.withResolvers<void>();
    const admit = (): void => {
      signal.removeEventListener('abort', abandon);
      turn.resolve();
    };
    const abandon = (): void => {
      this.#waiting.delete(admit);
      turn.reject(givenUp(signal));
    };
    this.#waiting.add(admit);
    signal.addEventListener('abort', abandon, { once: true });
    return turn.promise;
  }

  /** The place goes to the one who waited longest, without being free in between. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#taken--;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

function givenUp(signal: AbortSignal): NeighbourError {
  return new NeighbourError('given up while waiting for its turn', { cause: signal.reason });
}
