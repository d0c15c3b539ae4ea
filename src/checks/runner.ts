import type { Direction } from '../mail/envelope.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';
import { Attempt, Context, Ended, type Ending } from './attempt.ts';
import type {
  AnyBoundCheck,
  BoundCheck,
  CheckTools,
  EndFacts,
  Facts,
  HeadFacts,
  MailFacts,
  MessageFacts,
  RcptFacts,
  Stage,
} from './check.ts';
import { planFor, type Plan } from './plan.ts';
import { Reading } from './reading.ts';
import { after, type Soon } from './soon.ts';

/** Told of each outcome as it is made; for metrics. */
export type OutcomeObserver = (outcome: Outcome) => void;

type Outcomes = ReadonlyMap<string, Outcome>;

const NONE: Outcomes = new Map();
const NO_READINGS: ReadonlyMap<string, Reading> = new Map();

const OVERRUN: Ending = { reason: 'deadline', detail: 'the time for the whole answer was used up' };

/** For giving back, which nothing cuts off. */
const NEVER = new AbortController();

/**
 * The checks of one message, each started as soon as its facts are there, each under its own deadline.
 *
 * This is the only place that makes outcomes: whatever a check does (throws, hangs, ignores its signal), one outcome comes of it.
 * A check that answers at once costs neither a promise nor a timer.
 */
export class CheckRun {
  readonly #plan: Plan;
  readonly #tools: CheckTools;
  readonly #observe: OutcomeObserver;
  /** Of the message, not of single recipients. */
  readonly #outcomes = new Map<string, Soon<Outcome>>();
  /** Made when the first check has to wait. */
  #underWay: Set<Attempt> | null = null;
  /** By the name of the check. */
  #readings: ReadonlyMap<string, Reading> = NO_READINGS;
  #ended: Ending | null = null;
  /** Outcomes made elsewhere, for checks that need them. */
  #assumed = NONE;

  /** `checks` in the order of the check list; a check comes after those it needs. */
  constructor(
    checks: readonly AnyBoundCheck[],
    tools: CheckTools,
    direction: Direction,
    observe: OutcomeObserver = () => {},
  ) {
    this.#plan = planFor(checks, direction, tools);
    this.#tools = tools;
    this.#observe = observe;
  }

  /** Outcomes of checks that are not made again, for those that need them. Before the first start. */
  assume(outcomes: readonly Outcome[]): void {
    this.#assumed = new Map(outcomes.map((outcome) => [outcome.check, outcome]));
  }

  /** Starts the checks that need no more than MAIL FROM. Called at most once. */
  startMail(facts: MailFacts): void {
    for (const check of this.#plan.mail) this.#start(check, facts);
  }

  /** Starts the checks that read the body while it comes. Called at most once, after `startMail`; without it they read it at the end. */
  startBody(facts: HeadFacts): void {
    if (this.#ended !== null) return;
    const readings = new Map<string, Reading>();
    for (const check of this.#plan.message) {
      if (check.read !== undefined) readings.set(check.name, new Reading(check, facts, this.#tools));
    }
    this.#readings = readings;
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
    for (const check of this.#plan.message) {
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
    for (const check of this.#plan.rcpt) {
      outcomes.push(this.#attempt(check, facts, this.#prior(check, NONE)));
    }
    return all(outcomes);
  }

  /** What the checks find at DATA or at the end of the message. After `settle`. */
  end(facts: EndFacts): Soon<readonly Outcome[]> {
    const outcomes: Soon<Outcome>[] = [];
    for (const check of this.#plan.end) {
      outcomes.push(this.#attempt(check, facts, this.#prior(check, NONE)));
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
    const checks = this.#plan.admission;
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
    return this.#plan.rcpt.length > 0 || this.#plan.admission.length > 0;
  }

  /** Outcomes in the order of the check list, whatever the order in which they were made. */
  inOrder(outcomes: readonly Outcome[]): readonly Outcome[] {
    const { places } = this.#plan;
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

  /**
   * The time for the whole answer is up: checks without an outcome are unavailable from now on, the others keep theirs. Gives the names of those
   * that were waited for.
   */
  expire(): readonly string[] {
    const names = new Set<string>();
    for (const [name, reading] of this.#readings) if (reading.busy) names.add(name);
    for (const { name } of this.#underWay ?? []) names.add(name);
    this.#end(OVERRUN);
    return [...names];
  }

  /** Another answer has its own time. */
  renew(): void {
    if (this.#ended === OVERRUN) this.#ended = null;
  }

  #end(ending: Ending): void {
    this.#ended = ending;
    for (const attempt of this.#underWay ?? []) attempt.end(ending);
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
      const needed = own.get(name) ?? this.#outcomes.get(name) ?? this.#assumed.get(name);
      if (needed instanceof Promise) pending.push(needed.then((outcome) => void prior.set(name, outcome)));
      else if (needed !== undefined) prior.set(name, needed);
    }
    return pending.length === 0 ? prior : Promise.all(pending).then(() => prior);
  }

  #attempt<S extends Stage>(check: BoundCheck<S>, facts: Facts[S], prior: Soon<Outcomes>): Soon<Outcome> {
    const attempt = new Attempt(check.name, check.deadlineMs, this.#tools);
    const begin = (known: Outcomes): Soon<Outcome> => {
      if (this.#ended !== null) attempt.end(this.#ended);
      try {
        const findings = check.run(new Context(facts, this.#tools, known, attempt));
        if (!(findings instanceof Promise)) return this.#observed(attempt.found(findings));
        return this.#wait(attempt, findings);
      } catch (error) {
        return this.#observed(attempt.failed(error));
      }
    };
    return after(prior, begin);
  }

  #wait(attempt: Attempt, findings: Promise<readonly Finding[]>): Promise<Outcome> {
    const underWay = (this.#underWay ??= new Set());
    underWay.add(attempt);
    return attempt.within(findings, (outcome) => {
      underWay.delete(attempt);
      this.#observe(outcome);
    });
  }

  #observed(outcome: Outcome): Outcome {
    this.#observe(outcome);
    return outcome;
  }
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
