import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { SourceEvents } from './directory-source.ts';
import { Slots } from './slots.ts';
import { within } from './within.ts';

/** One connection; disposing closes it at once. */
export interface PooledConnection extends Disposable {
  /** false: it broke. */
  readonly usable: boolean;
}

/** The neighbour understood and refused: nothing is wrong with the connection. */
export class QuestionRefused extends NeighbourError {}

export interface PoolOptions {
  /** Connections at once; each has one question at a time. */
  readonly most: number;
  /** The longest one question may take, with the waiting for its turn and for a connection. */
  readonly timeoutMs: number;
}

/** Questions that may wait for each connection. */
const WAITING_PER_CONNECTION = 50;
/** A connection that was idle for longer is not trusted: a firewall may have forgotten it. */
export const LONGEST_IDLE_MS = 60_000;
export const FIRST_BACKOFF_MS = 100;
export const LONGEST_BACKOFF_MS = 5000;

/**
 * Connections to one neighbour, opened when they are needed. After a failure the next attempt waits, longer from time to time, and
 * until then every question that needs a new connection fails at once: a neighbour that is away must not cost each message its time.
 */
export class ConnectionPool<C extends PooledConnection> implements Disposable {
  readonly #open: (signal: AbortSignal) => Promise<C>;
  readonly #options: PoolOptions;
  readonly #clock: Clock;
  readonly #events: SourceEvents;
  readonly #slots: Slots;
  readonly #connections = new Set<C>();
  /** The one used last comes first. */
  readonly #idle: { readonly connection: C; readonly since: number }[] = [];
  #state: 'unknown' | 'up' | 'down' = 'unknown';
  #failures = 0;
  #retryAt = -Infinity;
  #why = '';
  #disposed = false;

  /** @param open tells of a failure by rejecting; when `signal` aborts it closes what it had begun */
  constructor(
    open: (signal: AbortSignal) => Promise<C>,
    options: PoolOptions,
    clock: Clock,
    events: SourceEvents,
  ) {
    this.#open = open;
    this.#options = options;
    this.#clock = clock;
    this.#events = events;
    this.#slots = new Slots(options.most, options.most * WAITING_PER_CONNECTION);
  }

  /** Asks over a connection that nobody else uses meanwhile. The question must have no effect: it may be asked twice. @throws {NeighbourError} */
  async run<T>(question: (connection: C) => Promise<T>): Promise<T> {
    const deadline = AbortSignal.timeout(this.#options.timeoutMs);
    return await this.#slots.run(() => this.#ask(question, deadline), deadline);
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#idle.length = 0;
    for (const connection of this.#connections) connection[Symbol.dispose]();
    this.#connections.clear();
  }

  async #ask<T>(question: (connection: C) => Promise<T>, deadline: AbortSignal): Promise<T> {
    for (let idle = this.#takeIdle(); idle !== null; idle = this.#takeIdle()) {
      try {
        return await this.#use(idle, question, deadline);
      } catch (error) {
        // Closed while it was idle, as by a restart of the server: the others will be so, too.
        if (error instanceof QuestionRefused || deadline.aborted) throw error;
      }
    }
    return await this.#use(await this.#fresh(deadline), question, deadline);
  }

  #takeIdle(): C | null {
    for (let entry = this.#idle.pop(); entry !== undefined; entry = this.#idle.pop()) {
      const { connection, since } = entry;
      if (connection.usable && this.#clock.elapsed() - since <= LONGEST_IDLE_MS) return connection;
      this.#drop(connection);
    }
    return null;
  }

  async #fresh(deadline: AbortSignal): Promise<C> {
    const now = this.#clock.elapsed();
    if (now < this.#retryAt) throw new NeighbourError(this.#why);
    // While it is not known to be well again, one at a time tries.
    if (this.#failures > 0) this.#retryAt = now + this.#backoff();
    const opening = this.#open(deadline);
    try {
      const connection = await within(opening, deadline);
      if (this.#disposed) {
        connection[Symbol.dispose]();
        throw new NeighbourError('it is not used any more');
      }
      this.#connections.add(connection);
      return connection;
    } catch (error) {
      opening.then((late) => late[Symbol.dispose]()).catch(() => {}); // told below
      throw this.#failed(error, deadline);
    }
  }

  async #use<T>(connection: C, question: (connection: C) => Promise<T>, deadline: AbortSignal): Promise<T> {
    try {
      const answer = await within(question(connection), deadline);
      this.#release(connection);
      return answer;
    } catch (error) {
      if (error instanceof QuestionRefused) {
        this.#release(connection);
        throw error;
      }
      this.#drop(connection);
      throw this.#failed(error, deadline);
    }
  }

  /** It answered. */
  #release(connection: C): void {
    this.#failures = 0;
    this.#retryAt = -Infinity;
    if (this.#state !== 'up') {
      this.#state = 'up';
      this.#events.up();
    }
    if (connection.usable && !this.#disposed) this.#idle.push({ connection, since: this.#clock.elapsed() });
    else this.#drop(connection);
  }

  #drop(connection: C): void {
    this.#connections.delete(connection);
    connection[Symbol.dispose]();
  }

  #failed(error: unknown, deadline: AbortSignal): NeighbourError {
    this.#why = deadline.aborted ? `no answer within ${this.#options.timeoutMs} ms` : reasonOf(error);
    if (this.#disposed) return new NeighbourError(this.#why);
    this.#failures += 1;
    this.#retryAt = this.#clock.elapsed() + this.#backoff();
    if (this.#state !== 'down') {
      this.#state = 'down';
      this.#events.down(this.#why);
    }
    return new NeighbourError(this.#why);
  }

  #backoff(): number {
    return Math.min(FIRST_BACKOFF_MS * 2 ** Math.min(this.#failures - 1, 10), LONGEST_BACKOFF_MS);
  }
}

/** One line; of the error itself nothing goes on, because client libraries hang the question and more on it. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'it failed';
  const nested = error instanceof AggregateError ? (error.errors as readonly unknown[]) : [];
  const [first] = nested;
  const text = first instanceof Error ? first.message : error.message;
  return text.replaceAll(/\p{Cc}+/gu, ' ').slice(0, 300) || error.name;
}
