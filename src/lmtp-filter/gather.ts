import type { AnyBoundCheck, CheckTools, MessageFacts } from '../checks/check.ts';
import { CheckRun, type OutcomeObserver } from '../checks/runner.ts';
import type { Config } from '../config/config.ts';
import type { Message } from '../mail/message.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { KeptFacts } from '../ports/store.ts';
import { concerning, type Outcome } from '../verdict/finding.ts';
import { recipientRules, settingsIn } from '../verdict/settings.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { isReportWanted, judged, policyFor } from './judge.ts';
import type { Origin } from './origin.ts';

/** Checks of what the SMTP client was allowed to send. They need its address, and are the milter's where that judged the message. */
const AUTHENTICATION: ReadonlySet<string> = new Set(['spf', 'dkim', 'arc', 'dmarc']);

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
  const { client, sender } = message.envelope;
  const facts = { client, direction: origin.direction, sender, message };
  const known = origin.milter === null ? [] : milterOutcomes(origin.milter, facts, config, tools);
  const missing = config.checks.filter((check) => isMissing(check, known, origin, message));
  const { clock } = tools.checks;
  const until = clock.elapsed() + config.file['lmtp-filter'].deadline;
  const gather = async (
    checks: readonly AnyBoundCheck[],
    assumed: readonly Outcome[],
  ): Promise<readonly Outcome[]> => {
    if (checks.length === 0) return [];
    const run = new CheckRun(checks, tools.checks, origin.direction, tools.observe);
    run.assume(assumed);
    return await settled(run, facts, Math.max(0, until - clock.elapsed()), signals);
  };
  const outcomes = inOrder([...known, ...(await gather(missing, known))], config.checks);
  if (signals.some((signal) => signal.aborted)) return outcomes;
  const report = reportCheck(message, origin, outcomes, config);
  if (report === null) return outcomes;
  return withRewriting(outcomes, await gather([report], outcomes));
}

async function settled(
  run: CheckRun,
  facts: MessageFacts,
  deadline: number,
  signals: readonly AbortSignal[],
): Promise<readonly Outcome[]> {
  const giveUp = (): void => run.abort();
  for (const signal of signals) signal.addEventListener('abort', giveUp);
  // The rule for an unavailable check says what becomes of a message whose checks took too long.
  const overrun = setTimeout(() => run.expire(), deadline);
  try {
    run.startMail(facts);
    run.startMessage(facts);
    if (signals.some((signal) => signal.aborted)) run.abort();
    return await run.settle();
  } finally {
    clearTimeout(overrun);
    for (const signal of signals) signal.removeEventListener('abort', giveUp);
  }
}

/** What the milter found out stands in for our own checks; what it could not find out about the content is tried again. */
function milterOutcomes(
  { outcomes }: KeptFacts,
  facts: MessageFacts,
  { checks }: Config,
  tools: JudgeTools,
): readonly Outcome[] {
  const byName = new Map(checks.map((check) => [check.name, check]));
  return outcomes.filter((outcome) => {
    if (AUTHENTICATION.has(outcome.check)) return true;
    if (outcome.kind === 'unavailable') return false;
    return byName.get(outcome.check)?.serves?.(outcome, facts, tools.checks) ?? true;
  });
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

/**
 * The scan that is made once more: the milter, which has one body for all, left it as it was, and a recipient for whom it is spam wants the
 * report. null: none is.
 */
function reportCheck(
  message: Message,
  origin: Origin,
  outcomes: readonly Outcome[],
  config: Config,
): AnyBoundCheck | null {
  if (origin.milter === null || origin.direction !== 'in') return null;
  const scan = outcomes.find((outcome) => scansOf(outcome).length > 0);
  if (
    scan === undefined ||
    scansOf(scan).some(({ rewriting, rewritten }) => rewritten === true || rewriting !== undefined)
  )
    return null;
  const settings = settingsIn(outcomes);
  const policy = policyFor(origin, config);
  const wanted = message.envelope.recipients.some(({ address }, index) => {
    const { verdict, rules } = judged(
      concerning(outcomes, index),
      recipientRules(policy, address, settings.get(index)),
      index,
    );
    return (
      (verdict.tagged || verdict.kind === 'junk') && !isRefusal(verdict) && isReportWanted(rules, config)
    );
  });
  return wanted ? (config.checks.find(({ name }) => name === scan.check) ?? null) : null;
}

function scansOf(outcome: Outcome): readonly SpamScan[] {
  return outcome.kind === 'found'
    ? outcome.findings.flatMap(({ scan }) => (scan === undefined ? [] : [scan]))
    : [];
}

function isRefusal({ kind }: Verdict): boolean {
  return kind === 'defer' || kind === 'reject' || kind === 'discard';
}

/** The report of a second scan; what was decided by the first stays. Without it the message is delivered as it is, with all its marks. */
function withRewriting(outcomes: readonly Outcome[], again: readonly Outcome[]): readonly Outcome[] {
  const rewriting = again.flatMap(scansOf).find((scan) => scan.rewriting !== undefined)?.rewriting;
  if (rewriting === undefined) return outcomes;
  return outcomes.map((outcome) =>
    scansOf(outcome).length === 0 || outcome.kind !== 'found'
      ? outcome
      : {
          ...outcome,
          findings: outcome.findings.map((finding) =>
            finding.scan === undefined ? finding : { ...finding, scan: { ...finding.scan, rewriting } },
          ),
        },
  );
}

/** As the runner orders them: verdicts of equal severity are decided by the order of the check list. */
function inOrder(outcomes: readonly Outcome[], checks: readonly AnyBoundCheck[]): readonly Outcome[] {
  const place = new Map(checks.map((check, index) => [check.name, index]));
  const of = ({ check }: Outcome): number => place.get(check) ?? checks.length;
  return outcomes.toSorted((a, b) => of(a) - of(b));
}
