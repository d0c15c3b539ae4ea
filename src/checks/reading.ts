import type { BodyReader, BoundCheck, CheckTools, HeadFacts } from './check.ts';

type Run = BoundCheck<'message'>['run'];

/** A check has let others wait with the body for as long as it may take in all. */
export class Stalled extends Error {
  constructor(deadlineMs: number) {
    super(`took no more of the body for ${deadlineMs} ms`);
    this.name = 'Stalled';
  }
}

/**
 * One check that reads a body while it comes. Whatever becomes of the check, the body goes on: a failure is kept for the end, when the
 * outcome is made, and what comes meanwhile is not given to it.
 */
export class Reading {
  readonly #deadlineMs: number;
  readonly #controller = new AbortController();
  #reader: BodyReader | null = null;
  #failure: { readonly error: unknown } | null = null;
  readonly #elapsed: () => number;
  /** Milliseconds for which others have waited for it so far. */
  #waited = 0;
  #busy = false;

  constructor(check: BoundCheck<'message'>, facts: HeadFacts, tools: CheckTools) {
    this.#deadlineMs = check.deadlineMs;
    this.#elapsed = () => tools.clock.elapsed();
    try {
      this.#reader = check.read?.({ facts, tools, signal: this.#controller.signal }) ?? null;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Whether a piece of the body waits for it. */
  get busy(): boolean {
    return this.#busy;
  }

  /** A promise is to be awaited before more is given; it does not reject. */
  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#reader === null) return undefined;
    try {
      const taken = this.#reader.write(chunk);
      return taken === undefined ? undefined : this.#taken(taken);
    } catch (error) {
      this.#fail(error);
      return undefined;
    }
  }

  /** Nobody wants to know any more. */
  abort(reason: Error): void {
    this.#fail(reason);
  }

  /** As a check's: what it found, now that the body has ended. */
  readonly run: Run = (context): ReturnType<Run> => {
    if (this.#failure !== null) throw this.#failure.error;
    if (this.#reader === null) throw new Error('the body was read to its end before');
    const { facts, tools, prior, signal } = context;
    signal.addEventListener('abort', () => this.#fail(signal.reason), { once: true });
    return this.#reader.end({ facts, tools, prior, signal, deadlineMs: this.#deadlineMs });
  };

  async #taken(taken: Promise<void>): Promise<void> {
    const late = Promise.withResolvers<never>();
    // All writes together: one that takes each piece a little too slowly would hold a large message for hours.
    const left = Math.max(0, this.#deadlineMs - this.#waited);
    const timer = setTimeout(() => late.reject(new Stalled(this.#deadlineMs)), left);
    const begun = this.#elapsed();
    this.#busy = true;
    const aborted = (): void => late.reject(new Error('given up'));
    this.#controller.signal.addEventListener('abort', aborted, { once: true });
    try {
      await Promise.race([taken, late.promise]);
    } catch (error) {
      this.#fail(error);
    } finally {
      clearTimeout(timer);
      this.#busy = false;
      this.#waited += this.#elapsed() - begun;
      this.#controller.signal.removeEventListener('abort', aborted);
    }
  }

  #fail(error: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = { error };
    this.#reader = null;
    this.#controller.abort(error);
  }
}
