import type { Direction } from '../mail/envelope.ts';
import { NeighbourError } from '../ports/scanner.ts';
import type { Finding, Outcome, UnavailableReason } from '../verdict/finding.ts';
import {
  UnmetNeed,
  type AnyBoundCheck,
  type BoundCheck,
  type CheckTools,
  type Facts,
  type MailFacts,
  type MessageFacts,
  type Stage,
} from './check.ts';

/** Told of each outcome as it is made; for metrics. */
export type OutcomeObserver = (outcome: Outcome) => void;

/**
 * The checks of one message, each started as soon as its facts are there, each under its own deadline.
 *
 * This is the only place that makes outcomes: whatever a check does (throws, hangs, ignores its signal), one outcome comes of it.
 */
export class CheckRun {
  readonly #checks: readonly AnyBoundCheck[];
  readonly #tools: CheckTools;
  readonly #observe: OutcomeObserver;
  readonly #outcomes = new Map<string, Promise<Outcome>>();
  readonly #abort = new AbortController();
  #overrun = false;

  /** `checks` in the order of the check list; a check comes after those it needs. */
  constructor(
    checks: readonly AnyBoundCheck[],
    tools: CheckTools,
    direction: Direction,
    observe: OutcomeObserver = () => {},
  ) {
    this.#checks = checks.filter((check) => check.directions.includes(direction) && check.ready(tools));
    this.#tools = tools;
    this.#observe = observe;
  }

  /** Starts the checks that need no more than MAIL FROM. Called at most once. */
  startMail(facts: MailFacts): void {
    for (const check of this.#checks) {
      if (check.stage === 'mail') this.#outcomes.set(check.name, this.#run(check, facts));
    }
  }

  /** Starts the checks that need the whole message. Called at most once, after `startMail`. */
  startMessage(facts: MessageFacts): void {
    for (const check of this.#checks) {
      if (check.stage === 'message') this.#outcomes.set(check.name, this.#run(check, facts));
    }
  }

  /** Every outcome of the started checks, in the order of the check list. Takes no longer than their deadlines. */
  async settle(): Promise<readonly Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const check of this.#checks) {
      const outcome = this.#outcomes.get(check.name);
      if (outcome !== undefined) outcomes.push(await outcome);
    }
    return outcomes;
  }

  /** The message is gone: ends all that is under way. */
  abort(): void {
    this.#abort.abort(new Error('the message was given up'));
  }

  /** The time for the whole answer is up: checks without an outcome are unavailable from now on, the others keep theirs. */
  expire(): void {
    this.#overrun = true;
    this.#abort.abort(new Error('the time for the whole answer was used up'));
  }

  async #run<S extends Stage>(check: BoundCheck<S>, facts: Facts[S]): Promise<Outcome> {
    const begun = this.#tools.clock.elapsed();
    const prior = new Map<string, Outcome>();
    for (const name of check.needs) {
      const needed = this.#outcomes.get(name);
      if (needed !== undefined) prior.set(name, await needed);
    }
    const outcome = await this.#within(check, facts, prior, begun);
    this.#observe(outcome);
    return outcome;
  }

  async #within<S extends Stage>(
    check: BoundCheck<S>,
    facts: Facts[S],
    prior: ReadonlyMap<string, Outcome>,
    begun: number,
  ): Promise<Outcome> {
    const controller = new AbortController();
    const elapsed = (): number => this.#tools.clock.elapsed() - begun;
    const unavailable = (reason: UnavailableReason, detail: string): Outcome => ({
      kind: 'unavailable',
      check: check.name,
      reason,
      detail,
      elapsed: elapsed(),
    });
    const found = (findings: readonly Finding[]): Outcome => ({
      kind: 'found',
      check: check.name,
      findings,
      elapsed: elapsed(),
    });
    const late = Promise.withResolvers<Outcome>();
    const timer = setTimeout(() => {
      late.resolve(unavailable('deadline', `no result within ${check.deadlineMs} ms`));
      controller.abort(new Error('deadline'));
    }, check.deadlineMs);
    const givenUp = (): void => {
      late.resolve(
        this.#overrun
          ? unavailable('deadline', 'the time for the whole answer was used up')
          : unavailable('failed', 'the message was given up'),
      );
      controller.abort(this.#abort.signal.reason);
    };
    this.#abort.signal.addEventListener('abort', givenUp, { once: true });
    if (this.#abort.signal.aborted) givenUp();
    try {
      const work = check.run({ facts, tools: this.#tools, prior, signal: controller.signal }).then(found);
      return await Promise.race([work, late.promise]);
    } catch (error) {
      if (error instanceof NeighbourError) return unavailable('neighbour', causes(error));
      if (error instanceof UnmetNeed) return unavailable('needs', error.message);
      return unavailable('failed', causes(error));
    } finally {
      clearTimeout(timer);
      this.#abort.signal.removeEventListener('abort', givenUp);
    }
  }
}

/** An error with what caused it, on one line: `a: b: c`. */
function causes(error: unknown): string {
  const texts: string[] = [];
  let link = error;
  while (link instanceof Error && texts.length < 5) {
    texts.push(link.message || aggregated(link) || link.name);
    link = link.cause;
  }
  return texts.length === 0 ? 'something that is no error was thrown' : texts.join(': ');
}

/** What Node says when it tried several addresses of one host: nothing itself, everything in its parts. */
function aggregated(error: Error): string {
  if (!(error instanceof AggregateError)) return '';
  const parts = error.errors.slice(0, 5).map((part) => (part instanceof Error ? part.message : ''));
  return parts.filter((text) => text !== '').join(', ');
}
