import { CheckRun, type OutcomeObserver } from '../checks/runner.ts';
import type { AnyBoundCheck, CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import type { Message } from '../mail/message.ts';
import type { KeptFacts } from '../ports/store.ts';
import { decide } from '../verdict/decide.ts';
import { messageEdits, type Edit } from '../verdict/edits.ts';
import type { Outcome } from '../verdict/finding.ts';
import { rulesFor, type Rules } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';
import type { Origin } from './origin.ts';

/** Checks of what the SMTP client was allowed to send. They need its address, and are the milter's where that judged the message. */
const AUTHENTICATION: ReadonlySet<string> = new Set(['spf', 'dkim', 'arc', 'dmarc']);

/** What is to be done for one recipient. */
export interface Sentence {
  readonly verdict: Verdict;
  /** Changes to the header section of what is forwarded; the same array for recipients who get the same. null: nothing is forwarded. */
  readonly edits: readonly Edit[] | null;
  /** It goes to our own quarantine in place of Dovecot, with these edits. */
  readonly kept: boolean;
}

export interface JudgeTools {
  readonly checks: CheckTools;
  readonly observe: OutcomeObserver;
}

/** The facts about a message: those the milter has gathered, and what is missing gathered here. `signals`: the message is given up. */
export async function gatherOutcomes(
  message: Message,
  origin: Origin,
  config: Config,
  tools: JudgeTools,
  signals: readonly AbortSignal[],
): Promise<readonly Outcome[]> {
  const known = origin.milter === null ? [] : milterOutcomes(origin.milter);
  const missing = config.checks.filter((check) => isMissing(check, known, origin, message));
  const run = new CheckRun(missing, tools.checks, origin.direction, tools.observe);
  const giveUp = (): void => run.abort();
  for (const signal of signals) signal.addEventListener('abort', giveUp);
  // The rule for an unavailable check says what becomes of a message whose checks took too long.
  const overrun = setTimeout(() => run.expire(), config.file['lmtp-filter'].deadline);
  try {
    const { client, sender } = message.envelope;
    const facts = { client, direction: origin.direction, sender };
    run.startMail(facts);
    run.startMessage({ ...facts, message });
    if (signals.some((signal) => signal.aborted)) run.abort();
    return inOrder([...known, ...(await run.settle())], config.checks);
  } finally {
    clearTimeout(overrun);
    for (const signal of signals) signal.removeEventListener('abort', giveUp);
  }
}

/** What the milter found out stands in for our own checks; what it could not find out about the content is tried again. */
function milterOutcomes({ outcomes }: KeptFacts): readonly Outcome[] {
  return outcomes.filter(({ kind, check }) => kind === 'found' || AUTHENTICATION.has(check));
}

function isMissing(
  check: AnyBoundCheck,
  known: readonly Outcome[],
  origin: Origin,
  message: Message,
): boolean {
  if (known.some((outcome) => outcome.check === check.name)) return false;
  return (
    !AUTHENTICATION.has(check.name) || (origin.milter === null && message.envelope.client.address !== '')
  );
}

/** As the runner orders them: verdicts of equal severity are decided by the order of the check list. */
function inOrder(outcomes: readonly Outcome[], checks: readonly AnyBoundCheck[]): readonly Outcome[] {
  const place = new Map(checks.map((check, index) => [check.name, index]));
  const of = ({ check }: Outcome): number => place.get(check) ?? checks.length;
  return outcomes.toSorted((a, b) => of(a) - of(b));
}

/** One sentence for each recipient of the envelope. */
export function sentences(
  message: Message,
  origin: Origin,
  outcomes: readonly Outcome[],
  config: Config,
): readonly Sentence[] {
  // Facts about single recipients make their verdicts their own; otherwise recipients with the same rules share one.
  const personal = outcomes.some(
    (outcome) =>
      outcome.kind === 'found' && outcome.findings.some(({ recipient }) => recipient !== undefined),
  );
  const policy = origin.direction === 'in' ? config.policy : config.outgoingPolicy;
  const shared = new Map<Rules, Sentence>();
  const edits = new Map<string, readonly Edit[]>();
  return message.envelope.recipients.map(({ address }, index) => {
    const rules = rulesFor(policy, address);
    const known = personal ? undefined : shared.get(rules);
    if (known !== undefined) return known;
    const verdict = decide(outcomes, rules, index);
    const made = editsFor(message, origin, outcomes, config, rules, verdict);
    const text = JSON.stringify(made);
    const same = edits.get(text);
    if (same === undefined && made !== null) edits.set(text, made);
    const kept = verdict.kind === 'quarantine' && config.file.quarantine.where === 'folder';
    const sentence = { verdict, edits: same ?? made, kept };
    shared.set(rules, sentence);
    return sentence;
  });
}

function editsFor(
  { headers }: Message,
  { trace }: Origin,
  outcomes: readonly Outcome[],
  { authservId, file }: Config,
  rules: Rules,
  verdict: Verdict,
): readonly Edit[] | null {
  switch (verdict.kind) {
    case 'defer':
    case 'reject':
    case 'discard':
      return null;
    case 'accept':
    case 'junk':
    case 'quarantine': {
      const marked = markedFor(verdict, file.quarantine.where);
      const { hostname } = file.site;
      return messageEdits({
        headers,
        outcomes,
        verdict: marked,
        rules,
        authservId,
        otherAuthservIds: file.site.authserv_ids,
        hostname,
        trace,
        daemon: 'lmtp-filter',
      });
    }
  }
}

/**
 * With a folder of our own, a quarantined message is kept as it is to be delivered once somebody releases it. Without one there is nowhere to put it: mail
 * must not be lost for that, and must not look like any other either, so it is delivered with every mark spam has, and
 * `X-Postern-Verdict: quarantine` for Sieve to file it by.
 */
function markedFor(verdict: Verdict, where: Config['file']['quarantine']['where']): Verdict {
  if (verdict.kind !== 'quarantine') return verdict;
  return where === 'folder' ? { ...verdict, kind: 'accept' } : { ...verdict, tagged: true };
}
