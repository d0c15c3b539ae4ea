import type { CheckTools, EndFacts, MailFacts, RcptFacts } from '../checks/check.ts';
import { CheckRun, type OutcomeObserver } from '../checks/runner.ts';
import { after, type Soon } from '../checks/soon.ts';
import type { Config, PolicyView } from '../config/config.ts';
import { parseMailbox, type Address } from '../mail/address.ts';
import { decide, mildest } from '../verdict/decide.ts';
import type { Outcome } from '../verdict/finding.ts';
import { rulesFor, type Rules } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { companyOf, splitVerdict } from './company.ts';
import type { Identity } from './identity.ts';
import { NO_BANDS, rulesAtRcpt } from './recipient-rules.ts';
import { detached, type MailState } from './request.ts';
import { spfHeader } from './spf-header.ts';

/** The most recipients whose answers are remembered; Postfix's smtpd_recipient_limit is 1000. */
export const RECIPIENT_LIMIT = 1000;

export interface TransactionTools {
  readonly checks: CheckTools;
  readonly observe: OutcomeObserver;
}

/** Whom a request asks about. */
export interface Question {
  readonly state: MailState;
  /** null: all recipients of the message. */
  readonly recipient: Address | null;
  /** Accepted recipients, as DATA and END-OF-MESSAGE tell them. */
  readonly recipientCount: number;
  /** Octets; null when not declared. */
  readonly size: number | null;
}

export interface Judgement {
  readonly verdict: Verdict;
  /** Whether the verdict holds for every recipient the message has or may still get. */
  readonly everyone: boolean;
  /** What it rests on. */
  readonly outcomes: readonly Outcome[];
}

interface Accepted {
  readonly address: Address;
  readonly rules: Rules;
  /** With whom it may come; null: with everybody. */
  readonly company: string | null;
}

/**
 * One message under the rules of one policy_context, RFC 5321 §3.3: what joins the policy requests about it. Judged by the configuration it
 * began with. Each recipient is judged once: what is asked again, by another restriction list, has the same answer and counts nothing.
 */
export class Transaction {
  readonly config: Config;
  readonly view: PolicyView;
  readonly facts: MailFacts;
  readonly identity: Identity;
  /** What was recorded last, so that the same is not recorded again for each restriction list that asks. */
  recorded: string | null = null;
  readonly #run: CheckRun;
  /** Whether there are settings that nobody has seen yet. */
  readonly #mayDiffer: boolean;
  /** Of the checks that concern the whole message. */
  #outcomes: Soon<readonly Outcome[]>;
  /** Most recipients share their rules. */
  #last: { readonly rules: Rules; readonly verdict: Verdict } | null = null;
  readonly #accepted: Accepted[] = [];
  readonly #recipients = new Map<string, Soon<Judgement>>();
  #atData: Soon<readonly Outcome[]> | null = null;
  #atEnd: Soon<readonly Outcome[]> | null = null;

  /** Starts the checks that need no more than MAIL FROM. */
  constructor(
    config: Config,
    view: PolicyView,
    facts: MailFacts,
    identity: Identity,
    tools: TransactionTools,
  ) {
    this.config = config;
    this.view = view;
    this.facts = facts;
    this.identity = identity;
    this.#mayDiffer = tools.checks.directory.keepsSettings && facts.direction === 'in';
    this.#run = new CheckRun(view.checks, tools.checks, facts.direction, tools.observe);
    this.#run.startMail(facts);
    this.#outcomes = after(identity.known, () => this.#run.settle());
    if (this.#outcomes instanceof Promise) void this.#keep(this.#outcomes);
  }

  /** `Name: value` for PREPEND; null when it shall have none. Once there is a judgement. */
  get field(): string | null {
    if (this.#outcomes instanceof Promise) return null;
    const { file, authservId } = this.config;
    const names = { style: file.policyd.spf_header, authservId, hostname: file.site.hostname };
    return spfHeader(names, this.facts, this.#outcomes);
  }

  /** Recipients whose answers are remembered. */
  get recipients(): number {
    return this.#recipients.size;
  }

  /** Whether checks are under way. */
  get busy(): boolean {
    return this.#outcomes instanceof Promise;
  }

  /** Ends the checks; those under way count as unavailable. */
  abort(): void {
    this.#run.abort();
  }

  /** The answer; a promise only while checks are under way. Takes no longer than `policyd.deadline`. */
  judge(question: Question): Soon<Judgement> {
    this.#run.renew();
    const judgement = after(this.#outcomes, (outcomes) => this.#judge(question, outcomes));
    return judgement instanceof Promise ? this.#inTime(judgement) : judgement;
  }

  /** The rule for an unavailable check says what becomes of a message whose checks took too long. */
  async #inTime(judgement: Promise<Judgement>): Promise<Judgement> {
    const overrun = setTimeout(() => this.#run.expire(), this.config.file.policyd.deadline);
    try {
      return await judgement;
    } finally {
      clearTimeout(overrun);
    }
  }

  async #keep(outcomes: Promise<readonly Outcome[]>): Promise<void> {
    this.#outcomes = await outcomes;
  }

  #judge(question: Question, outcomes: readonly Outcome[]): Soon<Judgement> {
    switch (question.state) {
      case 'MAIL':
        return { verdict: this.#verdictForAll(outcomes), everyone: true, outcomes };
      case 'RCPT':
        return this.#recipient(question, outcomes);
      case 'DATA':
        this.#atData ??= this.#ended('data', question);
        return after(this.#atData, (ended) => this.#judgeWhole(question, joined(outcomes, ended)));
      case 'END-OF-MESSAGE':
        this.#atEnd ??= this.#ended('end', question);
        return after(this.#atEnd, (ended) => this.#judgeWhole(question, joined(outcomes, ended)));
    }
  }

  #recipient(question: Question, outcomes: readonly Outcome[]): Soon<Judgement> {
    const { recipient } = question;
    if (recipient === null) return this.#verdictFor(null, this.view.policy.site, outcomes, null);
    const known = this.#recipients.get(recipient.raw);
    if (known !== undefined) return known;
    const address = parseMailbox(detached(recipient.raw));
    const judgement = this.#judgeRecipient(address, question.size, outcomes);
    if (this.#recipients.size < RECIPIENT_LIMIT) {
      this.#recipients.set(address.raw, judgement);
      // A promise would hold on to all that made it.
      if (judgement instanceof Promise) {
        void judgement.then((made) => this.#recipients.set(address.raw, made));
      }
    }
    return judgement;
  }

  #judgeRecipient(address: Address, size: number | null, outcomes: readonly Outcome[]): Soon<Judgement> {
    if (!this.#run.concernsRecipients) {
      const rules = rulesFor(this.view.policy, address);
      const company = this.#companyOf(address, [rules], outcomes);
      return this.#apart(address, company, outcomes) ?? this.#verdictFor(address, rules, outcomes, company);
    }
    const facts: RcptFacts = {
      ...this.facts,
      recipient: address,
      size,
      identity: this.identity,
      accepted: this.#accepted.map((accepted) => accepted.address),
    };
    return after(this.#run.rcpt(facts), (own) => {
      const before = joined(outcomes, own);
      const { rules, all } = rulesAtRcpt(this.view.policy, address, own);
      const company = this.#companyOf(address, all, own);
      if (refuses(this.#verdict(rules, before))) return this.#verdictFor(address, rules, before, company);
      const apart = this.#apart(address, company, before);
      if (apart !== null) return apart;
      const seen = [...before];
      const stops = (outcome: Outcome): boolean => {
        seen.push(outcome);
        return speaks(outcome, rules) && refuses(decide(this.#run.inOrder(seen), rules));
      };
      return after(this.#run.admit(facts, own, stops), (admission) =>
        this.#verdictFor(address, rules, joined(before, admission), company),
      );
    });
  }

  /** null: it may come with everybody. */
  #companyOf(recipient: Address, rules: readonly Rules[], own: readonly Outcome[]): string | null {
    const { file, checks } = this.config;
    if (!file.policyd.split || this.facts.direction !== 'in') return null;
    return companyOf(recipient, rules, own, checks);
  }

  /** The answer to a recipient who has to come in a message of its own; null: it may come with those who are there. */
  #apart(recipient: Address, company: string | null, outcomes: readonly Outcome[]): Judgement | null {
    if (company === null) return null;
    const first = this.#accepted.find((accepted) => accepted.company !== null);
    if (first === undefined || first.company === company) return null;
    return { verdict: splitVerdict(recipient, first.address), everyone: false, outcomes };
  }

  #verdictFor(
    recipient: Address | null,
    rules: Rules,
    all: readonly Outcome[],
    company: string | null,
  ): Judgement {
    const outcomes = this.#run.inOrder(all);
    const verdict = this.#verdict(rules, outcomes);
    if (refuses(verdict) && verdict.kind !== 'discard') return { verdict, everyone: false, outcomes };
    if (recipient !== null && this.#accepted.length < RECIPIENT_LIMIT)
      this.#accepted.push({ address: recipient, rules, company });
    if (verdict.kind !== 'quarantine' && verdict.kind !== 'discard')
      return { verdict, everyone: false, outcomes };
    // Both take the whole message. So at this point the most is done that the rules of all recipients agree on.
    const common = this.#verdictForAll(outcomes);
    const takes = common.kind === 'quarantine' || common.kind === 'discard';
    return takes ? { verdict: common, everyone: true, outcomes } : { verdict, everyone: false, outcomes };
  }

  #ended(moment: EndFacts['moment'], { recipientCount, size }: Question): Soon<readonly Outcome[]> {
    const outcomes = this.#run.end({
      ...this.facts,
      moment,
      size,
      identity: this.identity,
      accepted: this.#accepted.map((accepted) => accepted.address),
      recipientCount,
    });
    return outcomes;
  }

  /** DATA and END-OF-MESSAGE name a recipient only when there is one. */
  #judgeWhole({ recipient, recipientCount }: Question, all: readonly Outcome[]): Judgement {
    const outcomes = this.#run.inOrder(all);
    const { policy } = this.view;
    const one = recipient !== null || (policy.overrides.size === 0 && !this.#mayDiffer);
    if (one) {
      const [only, ...others] = this.#accepted;
      const rules = only === undefined || others.length > 0 ? rulesFor(policy, recipient) : only.rules;
      return { verdict: this.#verdict(rules, outcomes), everyone: true, outcomes };
    }
    // Recipients we were not asked about (a bare <postmaster> skips all restrictions) may have any rules.
    if (this.#accepted.length < recipientCount)
      return { verdict: this.#verdictForAll(outcomes), everyone: true, outcomes };
    const rules = new Set(this.#accepted.map((accepted) => accepted.rules));
    const verdict = mildest(Array.from(rules, (each) => this.#verdict(each, outcomes)));
    return { verdict, everyone: true, outcomes };
  }

  /** For recipients not known yet: the mildest of all rules there are, so that nobody loses mail through another's settings. */
  #verdictForAll(outcomes: readonly Outcome[]): Verdict {
    const { site, overrides } = this.view.policy;
    let mild = this.#verdict(site, outcomes);
    // Recipients who are not known yet may have other thresholds in the directory.
    if (this.#mayDiffer) mild = mildest([mild, decide(outcomes, { ...site, thresholds: NO_BANDS })]);
    for (const rules of overrides.values()) {
      if (mild.kind === 'accept') break;
      mild = mildest([mild, decide(outcomes, rules)]);
    }
    return mild;
  }

  #verdict(rules: Rules, outcomes: readonly Outcome[]): Verdict {
    if (outcomes !== this.#outcomes) return decide(outcomes, rules);
    if (this.#last?.rules === rules) return this.#last.verdict;
    const verdict = decide(outcomes, rules);
    this.#last = { rules, verdict };
    return verdict;
  }
}

function joined(one: readonly Outcome[], other: readonly Outcome[]): readonly Outcome[] {
  return other.length === 0 ? one : [...one, ...other];
}

function refuses({ kind }: Verdict): boolean {
  return kind === 'defer' || kind === 'reject' || kind === 'discard';
}

/** Whether a rule has something to say about this outcome. */
function speaks(outcome: Outcome, rules: Rules): boolean {
  return outcome.kind === 'unavailable' || outcome.findings.some(({ code }) => rules.findings.has(code));
}
