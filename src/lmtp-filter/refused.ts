import type { Decision } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { pathText } from '../mail/address.ts';
import { directionOf, joinTrace } from './origin.ts';
import { backscatterKind, type BackscatterKind } from './backscatter.ts';
import type { Refused, Transaction, TransactionTools } from './transaction.ts';

const RULES: Readonly<Record<BackscatterKind, string>> = {
  full_deferred: 'mailbox.full',
  full_refused: 'mailbox.full',
  unknown_user: 'mailbox.unknown',
  verdict: 'mailbox.refused',
  other: 'mailbox.refused',
};

/**
 * Records recipients that were refused at RCPT, once DATA came (Postfix's address probes ask the same and send no message), or whose
 * message could not be judged. Never rejects, and nobody waits for it.
 */
export async function recordRefused(
  refused: readonly Refused[],
  { forwarded, reversePath }: Transaction,
  { store, checks, config, log, metrics }: TransactionTools,
  stage: 'rcpt' | 'message',
): Promise<void> {
  if (refused.length === 0) return;
  const time = checks.clock.now();
  for (const { reply } of refused) metrics.backscatter(backscatterKind(reply, false));
  const trace = await joinTrace({ forwarded, sender: reversePath, store, log }, forwarded.queueId);
  const { client, queueId } = forwarded;
  for (const { recipient, reply } of refused) {
    const rule = RULES[backscatterKind(reply, false)];
    const decision: Decision = {
      trace,
      time,
      daemon: 'lmtp-filter',
      stage,
      direction: directionOf({ forwarded, config }, false),
      queueId,
      client: client.address,
      helo: client.helo,
      login: client.login,
      sender: pathText(reversePath),
      recipients: [recipient.raw],
      messageId: null,
      size: null,
      verdict: reply.startsWith('4') ? 'defer' : 'reject',
      rule,
      why: 'the recipient was refused after the message had been accepted',
      score: null,
      tagged: false,
      reply: reply.replaceAll('\r\n', ' '),
      shadow: [],
      outcomes: [],
      elapsed: 0,
    };
    store.record(decision);
  }
  told(refused.length, trace, queueId, log);
}

function told(recipients: number, trace: string, qid: string | null, log: Log): void {
  log.warn({ daemon: 'lmtp-filter', trace, qid, recipients }, 'recipients of accepted mail were refused');
}
