import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';

export interface PoolOptions {
  /** Requests at once with each member. */
  readonly perMember: number;
  /** Requests that may wait for a member; one more is told at once, because by its turn its message would have run out of time. */
  readonly waiting: number;
  /** A member began to fail, or does its work again. */
  readonly changed: (member: number, works: boolean, error: unknown) => void;
}

/** A member failed when it had been given what can't be given to another one. */
export class BrokeOff extends NeighbourError {}

/** A member that failed is left alone for so long, twice as long each time, as long as another one works. */
const FIRST_REST_MS = 1000;
const LONGEST_REST_MS = 30_000;

/**
 * Several neighbours that do the same work: the one with the least to do is asked, the next one when it fails. A member that failed is asked again
 * when its rest is over, or when all others have failed too.
 */
export class NeighbourPool<M> {
  readonly #members: readonly Member<M>[];
  readonly #options: PoolOptions;
  readonly #clock: Clock;
  readonly #waiting = new Set<Waiter<M>>();
  /** Where the search begins: equals are asked in turn. */
  #next = 0;

  /** At least one member. */
  constructor(members: readonly M[], options: PoolOptions, clock: Clock) {
    this.#members = members.map((value, index) => ({ value, index, taken: 0, failures: 0, restsUntil: 0 }));
    this.#options = options;
    this.#clock = clock;
  }

  /**
   * Runs `work` with one member after another until one does not fail. What it throws is the member's fault when it is a NeighbourError, and then the
   * next one is asked, unless it is a BrokeOff.
   *
   * @throws {NeighbourError} when all have failed, too many requests wait already, or `signal` aborts
   */
  async run<T>(work: (member: M) => Promise<T>, signal: AbortSignal): Promise<T> {
    const tried = new Set<Member<M>>();
    for (;;) {
      const member = await this.#enter(tried, signal);
      try {
        const result = await work(member.value);
        this.#worked(member);
        return result;
      } catch (error) {
        // Given up: whether the member would have answered is not known.
        if (signal.aborted || !(error instanceof NeighbourError)) throw error;
        this.#failed(member, error);
        if (error instanceof BrokeOff) throw error;
        tried.add(member);
        if (tried.size < this.#members.length) continue;
        if (tried.size === 1) throw error;
        throw new NeighbourError(`all ${tried.size} failed, the last one`, { cause: error });
      } finally {
        this.#leave(member);
      }
    }
  }

  /** Asks every member, however much it has to do. @throws {NeighbourError} when none answers */
  async probe(ask: (member: M) => Promise<void>): Promise<void> {
    const ends = await Promise.allSettled(this.#members.map(({ value }) => ask(value)));
    let failure: NeighbourError | null = null;
    for (const [index, end] of ends.entries()) {
      const member = this.#members[index];
      if (member === undefined) continue;
      if (end.status === 'fulfilled') this.#worked(member);
      else {
        const reason: unknown = end.reason;
        this.#failed(member, reason);
        failure =
          reason instanceof NeighbourError ? reason : new NeighbourError('asking failed', { cause: reason });
      }
    }
    if (failure !== null && ends.every(({ status }) => status === 'rejected')) throw failure;
  }

  #enter(tried: ReadonlySet<Member<M>>, signal: AbortSignal): Promise<Member<M>> {
    if (signal.aborted) return Promise.reject(givenUp(signal));
    const member = this.#choose(tried);
    if (member !== null) {
      member.taken++;
      return Promise.resolve(member);
    }
    if (this.#waiting.size >= this.#options.waiting) {
      const taken = this.#members.reduce((sum, each) => sum + each.taken, 0);
      return Promise.reject(
        new NeighbourError(`${taken} requests are under way and ${this.#waiting.size} wait already`),
      );
    }
    const turn = Promise.withResolvers<Member<M>>();
    const waiter: Waiter<M> = {
      tried,
      admit: (admitted) => {
        signal.removeEventListener('abort', abandon);
        turn.resolve(admitted);
      },
    };
    const abandon = (): void => {
      this.#waiting.delete(waiter);
      turn.reject(givenUp(signal));
    };
    this.#waiting.add(waiter);
    signal.addEventListener('abort', abandon, { once: true });
    return turn.promise;
  }

  /** Room goes to whoever waited longest and can use it; a failure may have made more of it than one place. */
  #leave(member: Member<M>): void {
    member.taken--;
    for (const waiter of this.#waiting) {
      const free = this.#choose(waiter.tried);
      if (free === null) continue;
      free.taken++;
      this.#waiting.delete(waiter);
      waiter.admit(free);
    }
  }

  /** null: those that may be asked have all they can do. */
  #choose(tried: ReadonlySet<Member<M>>): Member<M> | null {
    const now = this.#clock.elapsed();
    let chosen: Member<M> | null = null;
    let working = false;
    const { length } = this.#members;
    for (let step = 0; step < length; step++) {
      const member = this.#members[(this.#next + step) % length];
      if (member === undefined || tried.has(member)) continue;
      const works = member.restsUntil <= now;
      // Waiting for one that works is better than asking one that does not.
      if (works && !working) {
        working = true;
        chosen = null;
      }
      if (works !== working || member.taken >= this.#options.perMember) continue;
      if (chosen === null || member.taken < chosen.taken) chosen = member;
    }
    if (chosen !== null) this.#next = (chosen.index + 1) % length;
    return chosen;
  }

  #worked(member: Member<M>): void {
    member.restsUntil = 0;
    if (member.failures === 0) return;
    member.failures = 0;
    this.#options.changed(member.index, true, null);
  }

  #failed(member: Member<M>, error: unknown): void {
    member.restsUntil =
      this.#clock.elapsed() + Math.min(LONGEST_REST_MS, FIRST_REST_MS * 2 ** Math.min(member.failures, 10));
    member.failures++;
    if (member.failures === 1) this.#options.changed(member.index, false, error);
  }
}

interface Member<M> {
  readonly value: M;
  readonly index: number;
  /** Requests under way. */
  taken: number;
  /** In a row. */
  failures: number;
  /** By the clock's elapsed(). */
  restsUntil: number;
}

interface Waiter<M> {
  readonly tried: ReadonlySet<Member<M>>;
  readonly admit: (member: Member<M>) => void;
}

function givenUp(signal: AbortSignal): NeighbourError {
  return new NeighbourError('given up while waiting for its turn', { cause: signal.reason });
}
