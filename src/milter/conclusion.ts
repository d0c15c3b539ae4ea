import { pathText } from '../mail/address.ts';
import { sessionKey, type Envelope } from '../mail/envelope.ts';
import type { HeaderList } from '../mail/header.ts';
import type { TraceId } from '../ports/store.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { newTraceId } from '../runtime/trace-id.ts';
import { decide, mildest } from '../verdict/decide.ts';
import { applyEdits, insert, messageEdits, type Edit } from '../verdict/edits.ts';
import type { Outcome } from '../verdict/finding.ts';
import { rulesFor, type Policy, type Rules } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { INTERNAL, refusalVerdict } from './refusal.ts';
import { renderVerdict, type Rendered } from './render.ts';
import type { MessageContext, Transaction } from './transaction.ts';

/** How long the store may take for one answer: mail does not stop for the record. */
const STORE_DEADLINE_MS = 2000;

/** The end of one message: what was found, what was decided, what is answered. */
export interface Conclusion {
  readonly envelope: Envelope;
  readonly headers: HeaderList;
  readonly trace: TraceId;
  readonly outcomes: readonly Outcome[];
  readonly verdict: Verdict;
  readonly rendered: Rendered;
}

/** Judges a complete message. Null when the MTA gave it up meanwhile. */
export async function conclude(
  transaction: Transaction,
  envelope: Envelope,
  context: MessageContext,
): Promise<Conclusion | null> {
  const [trace, outcomes] = await Promise.all([
    joinTrace(envelope, context),
    settle(transaction, envelope, context),
  ]);
  if (transaction.gone) return null;
  const { headers } = transaction;
  const judged = transaction.refusal === null ? judge(outcomes, envelope, context.config.policy) : null;
  let edits: readonly Edit[] = [];
  if (judged !== null && goesOn(judged.verdict)) {
    const [ready] = await Promise.all([
      prepare(transaction, { ...judged, headers, outcomes, trace }, context),
      keepFacts(outcomes, trace, envelope, context),
    ]);
    edits = ready;
    if (transaction.gone) return null;
  }
  // Looked at again: signing may have failed.
  const { refusal } = transaction;
  const verdict = judged === null || refusal !== null ? refusalVerdict(refusal ?? INTERNAL) : judged.verdict;
  const rendered = renderVerdict(verdict, trace, headers, edits, context.terms.leadingSpace);
  return { envelope, headers, trace, outcomes, verdict, rendered };
}

/** Whether the message is delivered in some way, now or when somebody releases it. */
function goesOn(verdict: Verdict): boolean {
  switch (verdict.kind) {
    case 'accept':
    case 'junk':
    case 'quarantine':
      return true;
    case 'defer':
    case 'reject':
    case 'discard':
      return false;
  }
}

async function settle(
  transaction: Transaction,
  envelope: Envelope,
  { config }: MessageContext,
): Promise<readonly Outcome[]> {
  if (transaction.refusal !== null) return [];
  const { run, facts, headers, keptBody } = transaction;
  run.startMessage({ ...facts, message: { envelope, headers, body: keptBody, received: false } });
  const timer = setTimeout(() => run.expire(), config.file.milter.deadline);
  try {
    return await run.settle();
  } finally {
    clearTimeout(timer);
  }
}

/** One verdict serves all recipients: the mildest, with the rules that it rests on. */
function judge(
  outcomes: readonly Outcome[],
  { recipients }: Envelope,
  policy: Policy,
): { verdict: Verdict; rules: Rules } {
  if (recipients.length === 0 || (policy.overrides.size === 0 && !concernsSingles(outcomes))) {
    return { verdict: decide(outcomes, policy.site), rules: policy.site };
  }
  const rules = recipients.map(({ address }) => rulesFor(policy, address));
  const verdicts = rules.map((own, index) => decide(outcomes, own, index));
  const verdict = mildest(verdicts);
  return { verdict, rules: rules[verdicts.indexOf(verdict)] ?? policy.site };
}

function concernsSingles(outcomes: readonly Outcome[]): boolean {
  return outcomes.some(
    (outcome) =>
      outcome.kind === 'found' && outcome.findings.some((finding) => finding.recipient !== undefined),
  );
}

interface Judged {
  readonly headers: HeaderList;
  readonly outcomes: readonly Outcome[];
  readonly verdict: Verdict;
  readonly rules: Rules;
  readonly trace: TraceId;
}

/** All edits of a message that goes on. The signature is made last, of what will really leave: the header section with all edits. */
async function prepare(
  transaction: Transaction,
  judged: Judged,
  { config, checks, metrics }: MessageContext,
): Promise<readonly Edit[]> {
  const { authservId, file } = config;
  const edits = messageEdits({ ...judged, authservId, hostname: file.site.hostname, daemon: 'milter' });
  const { signer } = transaction;
  if (signer === null) return edits;
  try {
    const time = Math.floor(checks.clock.now() / 1000);
    const signatures = await signer.sign(applyEdits(judged.headers, edits), time);
    if (signatures.length === 0) throw new Error('the signer made no signature');
    metrics.signature('signed');
    return [...edits, ...signatures.map(insert)];
  } catch (error) {
    transaction.failSigning(error);
    return [];
  }
}

/** For lmtp-filter, which then need not check the message again. */
async function keepFacts(
  outcomes: readonly Outcome[],
  trace: TraceId,
  { queueId, direction }: Envelope,
  { store, log, metrics }: MessageContext,
): Promise<void> {
  if (queueId === null) return;
  try {
    await withinDeadline(
      store.keepFacts(trace, queueId, { direction, outcomes }),
      STORE_DEADLINE_MS,
      'the store',
    );
  } catch (error) {
    metrics.fault('store');
    log.warn({ daemon: 'milter', trace, err: error }, 'facts could not be kept');
  }
}

async function joinTrace(envelope: Envelope, { store, log, metrics }: MessageContext): Promise<TraceId> {
  const fresh = newTraceId();
  const keys = {
    session: sessionKey(envelope.client),
    sender: pathText(envelope.sender),
    instance: null,
    queueId: envelope.queueId,
  };
  try {
    return await withinDeadline(store.joinTrace(keys, fresh), STORE_DEADLINE_MS, 'the store');
  } catch (error) {
    metrics.fault('store');
    log.warn(
      { daemon: 'milter', trace: fresh, err: error },
      'trace could not be joined, a fresh one is used',
    );
    return fresh;
  }
}
