import type { Direction } from '../mail/envelope.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { Finding, Outcome, UnavailableReason } from '../verdict/finding.ts';
import {
  UnmetNeed,
  type AnyBoundCheck,
  type BoundCheck,
  type CheckTools,
  type EndFacts,
  type Facts,
  type HeadFacts,
  type MailFacts,
  type MessageFacts,
  type RcptFacts,
  type Stage,
} from './check.ts';
import { Reading, Stalled } from './reading.ts';
import { after, type Soon } from './soon.ts';

/** Told of each outcome as it is made; for metrics. */
export type OutcomeObserver = (outcome: Outcome) => void;

type Outcomes = ReadonlyMap<string, Outcome>;

const NONE: Outcomes = new Map();

/**
 * The checks of one message, each started as soon as its facts are there, each under its own deadline.
 *
 * This is the only place that makes outcomes: whatever a check does (throws, hangs, ignores its signal), one outcome comes of it.
 * A check that answers at once costs neither a promise nor a timer.
 */
export class CheckRun {
  readonly #checks: readonly AnyBoundCheck[];
  readonly #tools: CheckTools;
  readonly #observe: OutcomeObserver;
  /** Of the message, not of single recipients. */
  readonly #outcomes = new Map<string, Soon<Outcome>>();
  readonly #underWay = new Set<Attempt>();
  /** By the name of the check. */
  readonly #readings = new Map<string, Reading>();
  #ended: Ending | null = null;

  /** `checks` in the order of the check list; a check comes after those it needs. */
  constructor(
    checks: readonly AnyBoundCheck[],
    tools: CheckTools,
    direction: Direction,
    observe: OutcomeObserver = () => {},
  ) {
    this.#checks = selected(checks, direction, tools);
    this.#tools = tools;
    this.#observe = observe;
  }

  /** Starts the checks that need no more than MAIL FROM. Called at most once. */
  startMail(facts: MailFacts): void {
    for (const check of this.#checks) {
      if (check.stage === 'mail') this.#start(check, facts);
    }
  }

  /** Starts the checks that read the body while it comes. Called at most once, after `startMail`; without it they read it at the end. */
  startBody(facts: HeadFacts): void {
    if (this.#ended !== null) return;
    for (const check of this.#checks) {
      if (check.stage !== 'message' || check.read === undefined) continue;
      this.#readings.set(check.name, new Reading(check, facts, this.#tools));
    }
  }

  /** The next octets of the body, after `startBody`. They must not change any more. A promise is to be awaited before more is given; it does not reject. */
  body(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#readings.size === 0) return undefined;
    let pending: Promise<void>[] | null = null;
    for (const reading of this.#readings.values()) {
      const taken = reading.write(chunk);
      if (taken !== undefined) (pending ??= []).push(taken);
    }
    return pending === null ? undefined : Promise.all(pending).then(() => undefined);
  }

  /** Starts the checks that need the whole message. Called at most once, after `startMail`. */
  startMessage(facts: MessageFacts): void {
    for (const check of this.#checks) {
      if (check.stage !== 'message') continue;
      const reading = this.#readings.get(check.name);
      this.#start(reading === undefined ? check : { ...check, run: reading.run }, facts);
    }
  }

  /** Every outcome of the started checks, in the order of the check list. Takes no longer than their deadlines. */
  settle(): Soon<readonly Outcome[]> {
    return after(all([...this.#outcomes.values()]), (outcomes) => this.inOrder(outcomes));
  }

  /** What the checks of one recipient find that take nothing. After `settle`. */
  rcpt(facts: RcptFacts): Soon<readonly Outcome[]> {
    const outcomes: Soon<Outcome>[] = [];
    for (const check of this.#checks) {
      if (check.stage === 'rcpt') outcomes.push(this.#attempt(check, facts, this.#prior(check, NONE)));
    }
    return all(outcomes);
  }

  /** What the checks find at DATA or at the end of the message. After `settle`. */
  end(facts: EndFacts): Soon<readonly Outcome[]> {
    const outcomes: Soon<Outcome>[] = [];
    for (const check of this.#checks) {
      if (check.stage === 'end') outcomes.push(this.#attempt(check, facts, this.#prior(check, NONE)));
    }
    return all(outcomes);
  }

  /**
   * Makes the checks that count and reserve for one recipient, one after another. When `refuses` says so of an outcome, the later ones are not made,
   * and the earlier ones give back what they took. After `settle`.
   *
   * @param rcpt outcomes of this recipient's other checks
   */
  admit(
    facts: RcptFacts,
    rcpt: readonly Outcome[],
    refuses: (outcome: Outcome) => boolean,
  ): Soon<readonly Outcome[]> {
    const checks = this.#checks.filter((check) => check.stage === 'admission');
    if (checks.length === 0) return [];
    const made = new Map(rcpt.map((outcome) => [outcome.check, outcome]));
    const outcomes: Outcome[] = [];
    const next = (index: number): Soon<readonly Outcome[]> => {
      const check = checks[index];
      if (check === undefined) return outcomes;
      return after(this.#attempt(check, facts, this.#prior(check, made)), (outcome) => {
        outcomes.push(outcome);
        made.set(outcome.check, outcome);
        if (!refuses(outcome)) return next(index + 1);
        for (const earlier of checks.slice(0, index)) {
          earlier.undo?.({ facts, tools: this.#tools, prior: NONE, signal: NEVER.signal });
        }
        return outcomes;
      });
    };
    return next(0);
  }

  /** Whether there is a check that looks at single recipients. */
  get concernsRecipients(): boolean {
    return this.#checks.some(({ stage }) => stage === 'rcpt' || stage === 'admission');
  }

  /** Outcomes in the order of the check list, whatever the order in which they were made. */
  inOrder(outcomes: readonly Outcome[]): readonly Outcome[] {
    const places = placesIn(this.#checks);
    let last = -1;
    for (const { check } of outcomes) {
      const place = places.get(check) ?? -1;
      if (place < last)
        return outcomes.toSorted(
          (one, other) => (places.get(one.check) ?? 0) - (places.get(other.check) ?? 0),
        );
      last = place;
    }
    return outcomes;
  }

  /** The message is gone: ends all that is under way. */
  abort(): void {
    this.#end({ reason: 'failed', detail: 'the message was given up' });
  }

  /** The time for the whole answer is up: checks without an outcome are unavailable from now on, the others keep theirs. */
  expire(): void {
    this.#end(OVERRUN);
  }

  /** Another answer has its own time. */
  renew(): void {
    if (this.#ended === OVERRUN) this.#ended = null;
  }

  #end(ending: Ending): void {
    this.#ended = ending;
    for (const attempt of this.#underWay) attempt.end(ending);
    for (const reading of this.#readings.values()) reading.abort(new Ended(ending));
  }

  #start<S extends Stage>(check: BoundCheck<S>, facts: Facts[S]): void {
    const outcome = this.#attempt(check, facts, this.#prior(check, NONE));
    this.#outcomes.set(check.name, outcome);
    if (outcome instanceof Promise) {
      void outcome.then((made) => this.#outcomes.set(check.name, made));
    }
  }

  /** Outcomes that a check needs, of the message or of its own recipient. */
  #prior(check: { readonly needs: readonly string[] }, own: Outcomes): Soon<Outcomes> {
    if (check.needs.length === 0) return NONE;
    const prior = new Map<string, Outcome>();
    const pending: Promise<void>[] = [];
    for (const name of check.needs) {
      const needed = own.get(name) ?? this.#outcomes.get(name);
      if (needed instanceof Promise) pending.push(needed.then((outcome) => void prior.set(name, outcome)));
      else if (needed !== undefined) prior.set(name, needed);
    }
    return pending.length === 0 ? prior : Promise.all(pending).then(() => prior);
  }

  #attempt<S extends Stage>(check: BoundCheck<S>, facts: Facts[S], prior: Soon<Outcomes>): Soon<Outcome> {
    const attempt = new Attempt(check.name, check.deadlineMs, this.#tools);
    const { signal } = attempt;
    const begin = (known: Outcomes): Soon<Outcome> => {
      if (this.#ended !== null) attempt.end(this.#ended);
      try {
        const context = {
          facts,
          tools: this.#tools,
          prior: known,
          get signal(): AbortSignal {
            return signal();
          },
        };
        const findings = check.run(context);
        if (!(findings instanceof Promise)) return this.#observed(attempt.found(findings));
        return this.#wait(attempt, findings);
      } catch (error) {
        return this.#observed(attempt.failed(error));
      }
    };
    return after(prior, begin);
  }

  async #wait(attempt: Attempt, findings: Promise<readonly Finding[]>): Promise<Outcome> {
    this.#underWay.add(attempt);
    try {
      return this.#observed(await attempt.within(findings));
    } finally {
      this.#underWay.delete(attempt);
    }
  }

  #observed(outcome: Outcome): Outcome {
    this.#observe(outcome);
    return outcome;
  }
}

type Checks = readonly AnyBoundCheck[];

/** Made once for each list of checks: a message must not pay for what all messages share. */
const byDirection = new WeakMap<Checks, Partial<Record<Direction, Checks>>>();
const placesOf = new WeakMap<Checks, ReadonlyMap<string, number>>();

function selected(checks: Checks, direction: Direction, tools: CheckTools): Checks {
  let known = byDirection.get(checks);
  if (known === undefined) byDirection.set(checks, (known = {}));
  const concerned = (known[direction] ??= checks.filter((check) => check.directions.includes(direction)));
  return concerned.every((check) => check.ready(tools))
    ? concerned
    : concerned.filter((check) => check.ready(tools));
}

function placesIn(checks: Checks): ReadonlyMap<string, number> {
  let places = placesOf.get(checks);
  if (places === undefined) {
    places = new Map(checks.map(({ name }, index) => [name, index]));
    placesOf.set(checks, places);
  }
  return places;
}

/** All of them; at once when all are there. */
function all(outcomes: readonly Soon<Outcome>[]): Soon<readonly Outcome[]> {
  const there: Outcome[] = [];
  for (const outcome of outcomes) {
    if (outcome instanceof Promise) return Promise.all(outcomes.map((each) => Promise.resolve(each)));
    there.push(outcome);
  }
  return there;
}

interface Ending {
  readonly reason: UnavailableReason;
  readonly detail: string;
}

/** Thrown by what was ended from outside. */
class Ended extends Error {
  readonly ending: Ending;

  constructor(ending: Ending) {
    super(ending.detail);
    this.name = 'Ended';
    this.ending = ending;
  }
}

const OVERRUN: Ending = { reason: 'deadline', detail: 'the time for the whole answer was used up' };

/** For giving back, which nothing cuts off. */
const NEVER = new AbortController();

/** One check at work on one question. */
class Attempt {
  readonly #check: string;
  readonly #deadlineMs: number;
  readonly #tools: CheckTools;
  readonly #begun: number;
  /** Made when somebody asks for it. */
  #controller: AbortController | null = null;
  #late: PromiseWithResolvers<Outcome> | null = null;
  #ending: Ending | null = null;

  constructor(check: string, deadlineMs: number, tools: CheckTools) {
    this.#check = check;
    this.#deadlineMs = deadlineMs;
    this.#tools = tools;
    this.#begun = tools.clock.elapsed();
  }

  readonly signal = (): AbortSignal => {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#ending !== null) this.#controller.abort(new Error(this.#ending.detail));
    }
    return this.#controller.signal;
  };

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

  /** The outcome, at the latest when the deadline is over or the attempt is ended. */
  async within(findings: Promise<readonly Finding[]>): Promise<Outcome> {
    const late = Promise.withResolvers<Outcome>();
    this.#late = late;
    const tooLate = { reason: 'deadline', detail: `no result within ${this.#deadlineMs} ms` } as const;
    const timer = setTimeout(() => this.end(tooLate), this.#deadlineMs);
    if (this.#ending !== null) this.end(this.#ending);
    try {
      return await Promise.race([findings.then((found) => this.found(found)), late.promise]);
    } catch (error) {
      return this.failed(error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Nothing more is waited for. */
  end(ending: Ending): void {
    this.#ending = ending;
    this.#late?.resolve(this.#unavailable(ending.reason, ending.detail));
    this.#controller?.abort(new Error(ending.detail));
  }

  #unavailable(reason: UnavailableReason, detail: string): Outcome {
    return { kind: 'unavailable', check: this.#check, reason, detail, elapsed: this.#elapsed() };
  }

  #elapsed(): number {
    return this.#tools.clock.elapsed() - this.#begun;
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
