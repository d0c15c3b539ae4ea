import { NeighbourError } from '../ports/neighbour-error.ts';
import type { Finding, Outcome, UnavailableReason } from '../verdict/finding.ts';
import { UnmetNeed, type CheckTools, type Facts, type Stage } from './check.ts';
import { Stalled } from './reading.ts';

/** Why a check is not waited for any more. */
export interface Ending {
  readonly reason: UnavailableReason;
  readonly detail: string;
}

/** Thrown by what was ended from outside. */
export class Ended extends Error {
  readonly ending: Ending;

  constructor(ending: Ending) {
    super(ending.detail);
    this.name = 'Ended';
    this.ending = ending;
  }
}

/** One check at work on one question. */
export class Attempt {
  readonly #check: string;
  readonly #deadlineMs: number;
  readonly #tools: CheckTools;
  readonly #begun: number;
  /** Made when somebody asks for it. */
  #controller: AbortController | null = null;
  /** While somebody waits. */
  #settle: ((outcome: Outcome) => void) | null = null;
  #ending: Ending | null = null;

  constructor(check: string, deadlineMs: number, tools: CheckTools) {
    this.#check = check;
    this.#deadlineMs = deadlineMs;
    this.#tools = tools;
    this.#begun = tools.clock.elapsed();
  }

  /** Of its check. */
  get name(): string {
    return this.#check;
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#ending !== null) this.#controller.abort(new Error(this.#ending.detail));
    }
    return this.#controller.signal;
  }

  found(findings: readonly Finding[]): Outcome {
    return { kind: 'found', check: this.#check, findings, elapsed: this.#elapsed() };
  }

  failed(error: unknown): Outcome {
    if (error instanceof NeighbourError) return this.#unavailable('neighbour', causes(error));
    if (error instanceof UnmetNeed) return this.#unavailable('needs', error.message);
    if (error instanceof Stalled) return this.#unavailable('deadline', error.message);
    if (error instanceof Ended) return this.#unavailable(error.ending.reason, error.ending.detail);
    return this.#unavailable('failed', causes(error));
  }

  /** The outcome, at the latest when the deadline is over or the attempt is ended. `settled` is told first. */
  within(findings: Promise<readonly Finding[]>, settled: (outcome: Outcome) => void): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const detail = `no result within ${this.#deadlineMs} ms`;
      const timer = setTimeout(() => this.end({ reason: 'deadline', detail }), this.#deadlineMs);
      const settle = (outcome: Outcome): void => {
        if (this.#settle === null) return;
        this.#settle = null;
        clearTimeout(timer);
        try {
          settled(outcome);
          resolve(outcome);
        } catch (error) {
          reject(error);
        }
      };
      this.#settle = settle;
      if (this.#ending !== null) this.end(this.#ending);
      findings.then(
        (found) => settle(this.found(found)),
        (error: unknown) => settle(this.failed(error)),
      );
    });
  }

  /** Nothing more is waited for. */
  end(ending: Ending): void {
    this.#ending = ending;
    this.#settle?.(this.#unavailable(ending.reason, ending.detail));
    this.#controller?.abort(new Error(ending.detail));
  }

  #unavailable(reason: UnavailableReason, detail: string): Outcome {
    return { kind: 'unavailable', check: this.#check, reason, detail, elapsed: this.#elapsed() };
  }

  #elapsed(): number {
    return this.#tools.clock.elapsed() - this.#begun;
  }
}

/** What a check is given. A class: a literal with a getter costs as much as a small check. */
export class Context<S extends Stage> {
  readonly facts: Facts[S];
  readonly tools: CheckTools;
  /** Outcomes of the checks it needs. */
  readonly prior: ReadonlyMap<string, Outcome>;
  readonly #attempt: Attempt;

  constructor(facts: Facts[S], tools: CheckTools, prior: ReadonlyMap<string, Outcome>, attempt: Attempt) {
    this.facts = facts;
    this.tools = tools;
    this.prior = prior;
    this.#attempt = attempt;
  }

  /** Made when it is asked for. */
  get signal(): AbortSignal {
    return this.#attempt.signal;
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
