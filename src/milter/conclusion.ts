import { lowerAscii, pathText } from '../mail/address.ts';
import { sessionKey, type Envelope } from '../mail/envelope.ts';
import type { Config } from '../config/config.ts';
import type { HeaderList } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';
import { logText } from '../mail/reply.ts';
import type { Rewriting } from '../mail/spam-scan.ts';
import type { TraceId } from '../ports/store.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { newTraceId } from '../runtime/trace-id.ts';
import { copiesFor } from '../verdict/copies.ts';
import { decide, mildest } from '../verdict/decide.ts';
import { applyEdits, insert, messageEdits, type Edit } from '../verdict/edits.ts';
import type { Outcome } from '../verdict/finding.ts';
import type { Rules } from '../verdict/rules.ts';
import { recipientRules, settingsIn } from '../verdict/settings.ts';
import { withoutRewriting, wrapperFor } from '../verdict/spam-wrapper.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { INTERNAL, refusalVerdict } from './refusal.ts';
import { keep, keepsOwn } from './quarantine.ts';
import { renderKept, renderVerdict, type Copies, type Rendered } from './render.ts';
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
  /** The MTA has no message after this: it is refused, discarded, or in our own quarantine. */
  readonly ends: boolean;
}

/** Judges a complete message. Null when the MTA gave it up meanwhile. */
export async function conclude(
  transaction: Transaction,
  envelope: Envelope,
  context: MessageContext,
): Promise<Conclusion | null> {
  const [trace, outcomes] = await Promise.all([joinTrace(envelope, context), settle(transaction, envelope)]);
  if (transaction.gone) return null;
  const { headers, overrunBy } = transaction;
  if (overrunBy.length > 0) tellOverrun(overrunBy, trace, envelope, context);
  const judged = transaction.refusal === null ? judge(outcomes, envelope, context.config) : null;
  let edits: readonly Edit[] = [];
  const wrapper =
    judged === null || judged.rules.rewriteBody === false ? null : wrapperFor(outcomes, judged.verdict);
  const lasting = withoutRewriting(outcomes, wrapper !== null);
  if (judged !== null && goesOn(judged.verdict)) {
    keepFacts(lasting, trace, envelope, context);
    edits = await prepare(transaction, { ...judged, headers, outcomes, trace, wrapper }, context);
    if (transaction.gone) return null;
  }
  const kept =
    judged?.verdict.kind === 'quarantine' && keepsOwn(context.config) && transaction.refusal === null
      ? await keep(
          transaction,
          { envelope, verdict: judged.verdict, trace, edits, body: bodyOf(transaction, wrapper) },
          context,
        )
      : null;
  if (transaction.gone) return null;
  // Looked at again: signing may have failed, or the quarantine.
  const { refusal } = transaction;
  const verdict = judged === null || refusal !== null ? refusalVerdict(refusal ?? INTERNAL) : judged.verdict;
  const copies = copiesOf(judged, outcomes, envelope, context);
  const rendered =
    kept === null
      ? renderVerdict(
          verdict,
          trace,
          headers,
          edits,
          context.terms.leadingSpace,
          wrapper?.body ?? null,
          copies,
        )
      : renderKept(kept);
  return {
    envelope,
    headers,
    trace,
    outcomes: lasting,
    verdict,
    rendered,
    ends: kept !== null || !goesOn(verdict),
  };
}

function tellOverrun(
  checks: readonly string[],
  trace: TraceId,
  { queueId }: Envelope,
  { log, metrics }: MessageContext,
): void {
  for (const check of checks) metrics.overrun(check);
  log.warn(
    { daemon: 'milter', trace, qid: logText(queueId), checks },
    'the time for the message was used up',
  );
}

/** Who gets a copy, of those that do not get the message anyway. */
function copiesOf(
  judged: { readonly verdict: Verdict; readonly rules: Rules } | null,
  outcomes: readonly Outcome[],
  { recipients }: Envelope,
  { terms }: MessageContext,
): Copies {
  const wanted = judged === null ? [] : copiesFor(outcomes, judged.rules);
  const there = new Set(wanted.length === 0 ? [] : recipients.map(({ address }) => lowerAscii(address.raw)));
  return {
    addresses: wanted.filter((address) => !there.has(lowerAscii(address))),
    parameters: terms.recipientParameters,
  };
}

/** The body as it is to leave. */
function bodyOf({ keptBody }: Transaction, wrapper: Rewriting | null): Body {
  if (wrapper === null) return keptBody;
  const octets = Buffer.from(wrapper.body, 'latin1');
  return { size: octets.length, chunks: () => [octets] };
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

async function settle(transaction: Transaction, envelope: Envelope): Promise<readonly Outcome[]> {
  if (transaction.refusal !== null) return [];
  const { run, budget, facts, headers, keptBody } = transaction;
  run.startMessage({ ...facts, message: { envelope, headers, body: keptBody, received: false } });
  const settled = run.settle();
  return settled instanceof Promise ? await budget.during(settled) : settled;
}

/** One verdict serves all recipients: the mildest, with the rules that it rests on. */
function judge(
  outcomes: readonly Outcome[],
  { recipients, direction }: Envelope,
  config: Config,
): { verdict: Verdict; rules: Rules } {
  const policy = direction === 'in' ? config.policy : config.outgoingPolicy;
  if (recipients.length === 0 || (policy.overrides.size === 0 && !concernsSingles(outcomes))) {
    return { verdict: decide(outcomes, policy.site), rules: policy.site };
  }
  const settings = settingsIn(outcomes);
  const rules: Rules[] = [];
  const verdicts: Verdict[] = [];
  for (const [index, { address }] of recipients.entries()) {
    for (const own of recipientRules(policy, address, settings.get(index))) {
      rules.push(own);
      verdicts.push(decide(outcomes, own, index));
    }
  }
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
  readonly wrapper: Rewriting | null;
}

/** All edits of a message that goes on. The signature is made last, of what will really leave: the header section with all edits. */
async function prepare(
  transaction: Transaction,
  judged: Judged,
  { config, checks }: MessageContext,
): Promise<readonly Edit[]> {
  const { authservId, file } = config;
  const edits = messageEdits({
    ...judged,
    authservId,
    otherAuthservIds: file.site.authserv_ids,
    hostname: file.site.hostname,
    daemon: 'milter',
  });
  const { finisher } = transaction;
  if (finisher === null) return edits;
  try {
    const fields = await finisher.finish({
      headers: applyEdits(judged.headers, edits),
      newBody: judged.wrapper?.body ?? null,
      outcomes: judged.outcomes,
      timeSeconds: Math.floor(checks.clock.now() / 1000),
    });
    return [...edits, ...fields.map(insert)];
  } catch (error) {
    transaction.failFinish(error);
    return edits;
  }
}

/** For lmtp-filter, which then need not check the message again. */
function keepFacts(
  outcomes: readonly Outcome[],
  trace: TraceId,
  { queueId, direction }: Envelope,
  { store }: MessageContext,
): void {
  if (queueId !== null) store.keepFacts(trace, queueId, { direction, outcomes });
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
