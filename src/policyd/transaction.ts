import { CheckRun, type OutcomeObserver } from '../checks/runner.ts';
import type { CheckTools, MailFacts } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { pathText, type Address } from '../mail/address.ts';
import { sessionKey } from '../mail/envelope.ts';
import type { Store, TraceId } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { newTraceId } from '../runtime/trace-id.ts';
import { decide, mildest } from '../verdict/decide.ts';
import type { Outcome } from '../verdict/finding.ts';
import { rulesFor, type Rules } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { detached, type MailState } from './request.ts';
import { spfHeader } from './spf-header.ts';

/** The most recipients whose rules are remembered for DATA; Postfix's smtpd_recipient_limit is 1000. */
export const RECIPIENT_LIMIT = 1000;
/** The longest a message waits for its trace id; then it goes by one that no other daemon knows. */
export const TRACE_DEADLINE_MS = 500;

export interface TransactionTools {
  readonly checks: CheckTools;
  readonly store: Store;
  readonly log: Log;
  readonly observe: OutcomeObserver;
}

/** What was found out about a message; the same for all its requests. */
export interface Evidence {
  readonly trace: TraceId;
  readonly outcomes: readonly Outcome[];
  /** `Name: value` for PREPEND. */
  readonly field: string | null;
}

/** Whom a request asks about. */
export interface Question {
  readonly state: MailState;
  /** null: all recipients of the message. */
  readonly recipient: Address | null;
  /** Accepted recipients, as DATA and END-OF-MESSAGE tell them. */
  readonly recipientCount: number;
}

/** A verdict, and whether it holds for every recipient the message has or may still get. */
export interface Judgement {
  readonly verdict: Verdict;
  readonly everyone: boolean;
}

/** One message, RFC 5321 §3.3: what joins the policy requests about it. Judged by the configuration it began with. */
export class Transaction {
  readonly config: Config;
  readonly facts: MailFacts;
  /** The field has been put in front of the message. */
  fieldSent = false;
  /** What was recorded last, so that the same is not recorded again for each restriction list that asks. */
  recorded: string | null = null;
  readonly #gathered: Promise<Evidence>;
  /** null once all is gathered: it would weigh more than all else that is remembered of a message. */
  #run: CheckRun | null;
  #evidence: Evidence | null = null;
  /** Most recipients share their rules. */
  #last: { readonly rules: Rules; readonly verdict: Verdict } | null = null;
  #forAll: Verdict | null = null;
  /** Recipients that were not refused, where they can have rules of their own. */
  #accepted: Map<string, Rules> | null = null;

  /** Starts the checks. */
  constructor(
    config: Config,
    facts: MailFacts,
    instance: string,
    queueId: string | null,
    tools: TransactionTools,
  ) {
    this.config = config;
    this.facts = facts;
    const run = new CheckRun(config.checks, tools.checks, facts.direction, tools.observe);
    this.#run = run;
    this.#gathered = this.#gather(run, tools, instance, queueId);
  }

  /** null as long as checks are under way. */
  get evidence(): Evidence | null {
    return this.#evidence;
  }

  /** All that can be found out. Takes no longer than `policyd.deadline`. */
  gathered(): Promise<Evidence> {
    return this.#gathered;
  }

  /** Ends the checks; those under way count as unavailable. */
  abort(): void {
    this.#run?.abort();
  }

  async #gather(
    run: CheckRun,
    tools: TransactionTools,
    instance: string,
    queueId: string | null,
  ): Promise<Evidence> {
    const { file, authservId } = this.config;
    // The rule for an unavailable check says what becomes of a message whose checks took too long.
    const overrun = setTimeout(() => run.expire(), file.policyd.deadline);
    try {
      run.startMail(this.facts);
      const trace = this.#openTrace(tools, instance, queueId);
      const outcomes = await run.settle();
      const names = { style: file.policyd.spf_header, authservId, hostname: file.site.hostname };
      const field = spfHeader(names, this.facts, outcomes);
      this.#evidence = { trace: await trace, outcomes, field };
      return this.#evidence;
    } finally {
      clearTimeout(overrun);
      this.#run = null;
    }
  }

  /** Mail does not stop for the record: without the store's answer the message goes by the fresh id. */
  async #openTrace(
    { store, log }: TransactionTools,
    instance: string,
    queueId: string | null,
  ): Promise<TraceId> {
    const fresh = newTraceId();
    const keys = {
      session: sessionKey(this.facts.client),
      sender: pathText(this.facts.sender),
      instance: instance === '' ? null : instance,
      queueId,
    };
    const patience = Math.min(TRACE_DEADLINE_MS, this.config.file.policyd.deadline);
    try {
      return await withinDeadline(store.openTrace(keys, fresh), patience, 'the store');
    } catch (error) {
      log.warn({ trace: fresh, err: error }, 'trace could not be opened in the store');
      return fresh;
    }
  }

  judge(question: Question, evidence: Evidence): Judgement {
    switch (question.state) {
      case 'MAIL':
        return { verdict: this.#verdictForAll(evidence), everyone: true };
      case 'RCPT':
        return this.#judgeRecipient(question.recipient, evidence);
      case 'DATA':
      case 'END-OF-MESSAGE':
        return { verdict: this.#verdictAtData(question, evidence), everyone: true };
    }
  }

  #judgeRecipient(recipient: Address | null, evidence: Evidence): Judgement {
    const { policy } = this.config;
    const rules = rulesFor(policy, recipient);
    const verdict = this.#verdict(rules, evidence);
    switch (verdict.kind) {
      case 'defer':
      case 'reject':
        return { verdict, everyone: false };
      case 'accept':
      case 'junk':
        this.#remember(recipient, rules);
        return { verdict, everyone: false };
      case 'quarantine':
      case 'discard': {
        this.#remember(recipient, rules);
        // Both take the whole message. So at this point the most is done that the rules of all recipients agree on.
        const common = this.#verdictForAll(evidence);
        const takes = common.kind === 'quarantine' || common.kind === 'discard';
        return takes ? { verdict: common, everyone: true } : { verdict, everyone: false };
      }
    }
  }

  /** DATA and END-OF-MESSAGE name a recipient only when there is one. */
  #verdictAtData({ recipient, recipientCount }: Question, evidence: Evidence): Verdict {
    const { policy } = this.config;
    if (recipient !== null || policy.overrides.size === 0)
      return this.#verdict(rulesFor(policy, recipient), evidence);
    // Recipients we were not asked about (a bare <postmaster> skips all restrictions) may have any rules.
    const accepted = this.#accepted;
    if (accepted === null || accepted.size < recipientCount) return this.#verdictForAll(evidence);
    return mildest(Array.from(new Set(accepted.values()), (rules) => this.#verdict(rules, evidence)));
  }

  /** For recipients not known yet: the mildest of all rules there are, so that nobody loses mail through another's settings. */
  #verdictForAll(evidence: Evidence): Verdict {
    if (this.#forAll !== null) return this.#forAll;
    const { site, overrides } = this.config.policy;
    let mild = this.#verdict(site, evidence);
    for (const rules of overrides.values()) {
      if (mild.kind === 'accept') break;
      mild = mildest([mild, decide(evidence.outcomes, rules)]);
    }
    this.#forAll = mild;
    return mild;
  }

  #verdict(rules: Rules, evidence: Evidence): Verdict {
    if (this.#last?.rules === rules) return this.#last.verdict;
    const verdict = decide(evidence.outcomes, rules);
    this.#last = { rules, verdict };
    return verdict;
  }

  #remember(recipient: Address | null, rules: Rules): void {
    if (recipient === null || this.config.policy.overrides.size === 0) return;
    this.#accepted ??= new Map();
    if (this.#accepted.size < RECIPIENT_LIMIT) this.#accepted.set(detached(recipient.raw), rules);
  }
}
