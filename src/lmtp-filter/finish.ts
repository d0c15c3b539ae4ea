import { logText, replyLine } from '../mail/reply.ts';
import type { Message } from '../mail/message.ts';
import type { Rewriting } from '../mail/spam-scan.ts';
import { applyEdits, type Edit } from '../verdict/edits.ts';
import { withoutRewriting } from '../verdict/spam-wrapper.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { backscatterKind, isBackscatter } from './backscatter.ts';
import { deliver, DELIVERY_BUDGET_MS, type Content, type DeliveryReport, type Group } from './delivery.ts';
import type { IntakeResult, Received } from './intake.ts';
import { fullMailboxReply } from './full-mailbox.ts';
import { gatherOutcomes } from './gather.ts';
import { sentences, type Sentence } from './judge.ts';
import { withoutLoops } from './loops.ts';
import { resultOf } from './metrics.ts';
import { originOf } from './origin.ts';
import { isLooping } from './received.ts';
import { keep, releaseOf } from './quarantine.ts';
import { decisionsOf, logFields, severest, type Answered } from './record.ts';
import { recordRefused } from './refused.ts';
import { SAY, traced } from './render.ts';
import { settleQuota } from './settle.ts';
import { Statuses } from './statuses.ts';
import type { Transaction, TransactionTools } from './transaction.ts';
import { UpstreamError } from './upstream-error.ts';

export interface FinishInput {
  readonly transaction: Transaction;
  readonly intake: IntakeResult;
  readonly tools: TransactionTools;
  /** Sends replies; false when the client is gone. */
  readonly send: (text: string) => boolean;
  /** The client left: Postfix will send the message again, so what is not with Dovecot yet must not get there. */
  readonly gone: AbortSignal;
  /** This process is to end now. */
  readonly cut: AbortSignal;
}

/** All that comes after the dot: judges, delivers, and gives exactly one reply for each accepted recipient, whatever happens. */
export async function finish(input: FinishInput): Promise<void> {
  const { transaction, tools, cut } = input;
  const { clock } = tools.checks;
  const begun = clock.elapsed();
  const statuses = new Statuses(transaction.accepted.length, input.send);
  const endNow = (): void => statuses.settleAll(SAY.stoppingHere);
  cut.addEventListener('abort', endNow);
  try {
    if (input.intake.kind === 'received' && !isLooping(input.intake.message.headers)) {
      await conclude(input, input.intake.message, statuses, begun);
    } else {
      refuse(input, statuses);
    }
  } catch (error) {
    tools.log.error({ ...subject(transaction), err: error }, 'message failed');
  } finally {
    cut.removeEventListener('abort', endNow);
    statuses.settleAll(SAY.internal);
    tools.metrics.afterDot(clock.elapsed() - begun);
    await transaction.abandon();
  }
}

/** A message that can't be judged gets the same reply for all recipients. */
function refuse({ transaction, intake, tools }: FinishInput, statuses: Statuses): void {
  const reply = refusalOf(intake);
  statuses.settleAll(reply);
  for (let i = 0; i < transaction.accepted.length; i++) tools.metrics.recipient(resultOf(reply, false));
  const recipients = transaction.recipients.map(({ address }) => ({ recipient: address, reply }));
  if (isBackscatter(reply)) void recordRefused(recipients, transaction, tools, 'message');
  const fields = { ...subject(transaction), to: transaction.accepted.length, reply };
  if (intake.kind === 'failed')
    tools.log.error({ ...fields, err: intake.error }, 'message could not be stored');
  else tools.log.info(fields, 'message refused');
}

function refusalOf(intake: IntakeResult): string {
  switch (intake.kind) {
    case 'received':
      return SAY.looping;
    case 'too-large':
      return SAY.tooLarge;
    case 'header-too-large':
      return SAY.headerTooLarge;
    case 'failed':
      return SAY.noSpool;
  }
}

async function conclude(
  input: FinishInput,
  received: Received,
  statuses: Statuses,
  begun: number,
): Promise<void> {
  const { transaction, tools, gone, cut } = input;
  const { config, checks, store, log, metrics } = tools;
  const { headers, body, size } = received;
  const time = checks.clock.now();
  const { forwarded, reversePath } = transaction;
  const origin = await originOf({ headers, forwarded, sender: reversePath, config, store, log });
  const envelope = transaction.envelope(origin.direction, origin.queueId);
  const message: Message = { envelope, headers, body, received: true };
  const released = await releaseOf(message, origin.trace, tools);
  const outcomes =
    released === null
      ? await gatherOutcomes(message, origin, config, { checks, observe: metrics.outcome }, [gone, cut])
      : [];
  const givenUp = (): string | null =>
    cut.aborted ? SAY.stoppingHere : gone.aborted ? SAY.clientLeft : null;
  if (givenUp() !== null) {
    log.warn({ ...subject(transaction), trace: origin.trace }, 'message given up before it was judged');
    return;
  }

  const { recipient_delimiter: delimiter } = config.file.site;
  const judged = await withoutLoops(
    released === null
      ? sentences(message, origin, outcomes, config)
      : envelope.recipients.map(() => released),
    message,
    origin,
    { store, delimiter, log },
  );
  judged.forEach(({ verdict }, position) => {
    const reply = ownReply(verdict, origin.trace);
    if (reply !== null) statuses.settle(position, reply);
  });
  await keep({ message, origin, judged, statuses, time }, tools);
  const report = await deliver(groupsOf(judged, received), {
    sender: transaction.sender,
    recipients: transaction.accepted,
    statuses,
    poolOf: (position) => transaction.poolOf(position),
    connections: transaction.takeConnections(),
    delimiter,
    fullReply: (position, reply) =>
      fullMailboxReply(
        reply,
        {
          queueId: origin.queueId,
          recipient: envelope.recipients[position]?.address.raw ?? '',
          wait: config.file['lmtp-filter'].full_mailbox_wait,
        },
        { store, clock: checks.clock, log },
      ),
    trace: origin.trace,
    remaining: () => DELIVERY_BUDGET_MS - (checks.clock.elapsed() - begun),
    givenUp,
  });
  const replies = judged.map((_, position) => statuses.replyAt(position) ?? SAY.internal);
  const elapsed = checks.clock.elapsed() - begun;
  const lasting = withoutRewriting(outcomes, false);
  const answered = { message, size, origin, outcomes: lasting, sentences: judged, replies, time, elapsed };
  for (const decision of decisionsOf(answered)) store.record(decision);
  account(answered, report, statuses, tools);
  // All replies are out.
  void settleQuota(answered, checks, delimiter, log);
}

/** What we say ourselves; null where Dovecot is asked. */
function ownReply(verdict: Verdict, trace: string): string | null {
  switch (verdict.kind) {
    case 'defer':
    case 'reject':
      return replyLine(verdict.reply, trace);
    case 'discard':
      return traced(SAY.discarded, trace);
    case 'accept':
    case 'junk':
    case 'quarantine':
      return null;
  }
}

/** Recipients with equal edits share a transaction; the groups in the order of their first recipient, whose reply is due first. */
function groupsOf(judged: readonly Sentence[], received: Received): Group[] {
  const groups = new Map<readonly Edit[], { positions: number[]; content: Content; folder: string | null }>();
  judged.forEach(({ edits, kept, wrapper, folder }, position) => {
    if (edits === null || kept) return;
    const known = groups.get(edits);
    if (known === undefined)
      groups.set(edits, { positions: [position], content: contentOf(received, edits, wrapper), folder });
    else known.positions.push(position);
  });
  return [...groups.values()];
}

function contentOf(
  { headers, body, separated }: Received,
  edits: readonly Edit[],
  wrapper: Rewriting | null,
): Content {
  const section = applyEdits(headers, edits).serialize();
  if (wrapper === null) return { head: separated ? `${section}\r\n` : section, body };
  const octets = Buffer.from(wrapper.body, 'latin1');
  return { head: `${section}\r\n`, body: { size: octets.length, chunks: () => [octets] } };
}

function account(
  answered: Answered,
  report: DeliveryReport,
  statuses: Statuses,
  tools: TransactionTools,
): void {
  const { metrics, log } = tools;
  const { origin, replies } = answered;
  metrics.message(origin.direction, severest(answered.sentences)?.kind ?? 'accept');
  metrics.scan(origin.milter === null ? 'here' : 'milter');
  let duplicates = report.untold.length;
  answered.sentences.forEach(({ verdict, edits, kept }, position) => {
    const reply = replies[position] ?? '';
    const filed = verdict.kind === 'junk' || verdict.kind === 'quarantine' || verdict.tagged;
    const end = verdict.kind === 'discard' ? 'discarded' : kept ? 'quarantined' : resultOf(reply, filed);
    metrics.verdict(verdict.kind, verdict.setting ?? 'site');
    metrics.recipient(kept && !reply.startsWith('2') ? resultOf(reply, false) : end);
    if (isBackscatter(reply)) metrics.backscatter(backscatterKind(reply, edits === null || kept));
    // Delivered, and the client has left before it could be told.
    if (edits !== null && !kept && reply.startsWith('2') && position >= statuses.reached) duplicates += 1;
  });
  const fields = logFields(answered);
  log.info(fields, 'message');
  for (const error of report.errors) {
    if (error instanceof UpstreamError) metrics.upstream.failed(error);
    log.warn({ ...short(answered), err: error }, 'delivery to upstream failed');
  }
  if (duplicates > 0) {
    metrics.possibleDuplicates(duplicates);
    log.warn({ ...short(answered), recipients: duplicates }, 'recipients may get this message twice');
  }
}

function short({ origin, message }: Answered): Record<string, unknown> {
  const id = message.headers.first('Message-ID');
  return {
    daemon: 'lmtp-filter',
    trace: origin.trace,
    qid: origin.queueId,
    msgid: logText(id?.value.trim() ?? null),
  };
}

function subject({ forwarded, sender }: Transaction): Record<string, unknown> {
  const { client, queueId } = forwarded;
  return { daemon: 'lmtp-filter', qid: queueId, client: logText(client.address), from: logText(sender.path) };
}
