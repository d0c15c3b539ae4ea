import { Slots } from './slots.ts';

/** How long a server that failed is asked only when no other one is left. Looked at again by a ping meanwhile. */
const REST_MS = 10_000;
/** Requests that may wait with a server for each one that is under way. */
const WAITING_PER_PLACE = 20;

/** One of several servers that do the same. */
export class Server<A> {
  readonly address: A;
  readonly #slots: Slots;
  readonly #most: number;
  #load = 0;
  #restsUntil: number | null = null;

  constructor(address: A, most: number) {
    this.address = address;
    this.#most = most;
    this.#slots = new Slots(most, most * WAITING_PER_PLACE);
  }

  /** Requests that are under way or wait, by the places there are. */
  get load(): number {
    return this.#load / this.#most;
  }

  /** Whether it failed a moment ago. */
  rests(now: number): boolean {
    return this.#restsUntil !== null && now < this.#restsUntil;
  }

  /** It could not be reached, broke off, or answered nonsense. */
  failed(now: number): void {
    this.#restsUntil = now + REST_MS;
  }

  worked(): void {
    this.#restsUntil = null;
  }

  /** Runs `work` when it has a place. @throws {NeighbourError} when too many wait already, or `signal` aborts before its turn */
  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    this.#load++;
    try {
      return await this.#slots.run(work, signal);
    } finally {
      this.#load--;
    }
  }
}

/**
 * Whom to ask of several servers: those that did not fail lately before those that did, then the one with the least to do, then the first
 * of the list. null: all are in `tried`.
 */
export function nextServer<A>(
  servers: readonly Server<A>[],
  tried: ReadonlySet<Server<A>>,
  now: number,
): Server<A> | null {
  let best: Server<A> | null = null;
  for (const server of servers) {
    if (tried.has(server)) continue;
    if (best === null || isBetter(server, best, now)) best = server;
  }
  return best;
}

function isBetter<A>(one: Server<A>, other: Server<A>, now: number): boolean {
  const rests = one.rests(now);
  if (rests !== other.rests(now)) return !rests;
  return one.load < other.load;
}
