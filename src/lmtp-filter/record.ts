import { pathText } from '../mail/address.ts';
import { unfold } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import { logText, printable } from '../mail/reply.ts';
import type { Decision } from '../ports/store.ts';
import { codesOf, concerning, type Outcome } from '../verdict/finding.ts';
import { severity, type Verdict } from '../verdict/verdict.ts';
import type { Sentence } from './judge.ts';
import type { Origin } from './origin.ts';

const MESSAGE_ID_LIMIT = 200;
/** Recipients that a log line names; the history has them all. */
const LOGGED_RECIPIENTS = 100;

/** A message that was judged and answered. */
export interface Answered {
  readonly message: Message;
  /** Octets. */
  readonly size: number;
  readonly origin: Origin;
  readonly outcomes: readonly Outcome[];
  /** One for each recipient, as the replies. */
  readonly sentences: readonly Sentence[];
  readonly replies: readonly string[];
  /** Milliseconds since 1970, at the dot. */
  readonly time: number;
  /** Milliseconds. */
  readonly elapsed: number;
}

/** One decision for each recipient: the rules may have decided differently, and Dovecot answers for each. */
export function decisionsOf(answered: Answered): Decision[] {
  const { message, origin, outcomes, sentences, replies } = answered;
  const { client, sender, recipients } = message.envelope;
  const id = message.headers.first('Message-ID');
  const common = {
    trace: origin.trace,
    time: answered.time,
    daemon: 'lmtp-filter',
    stage: 'message',
    direction: origin.direction,
    queueId: origin.queueId,
    client: client.address,
    helo: client.helo,
    login: client.login,
    sender: pathText(sender),
    messageId: id === undefined ? null : printable(unfold(id.value), MESSAGE_ID_LIMIT),
    size: answered.size,
    elapsed: answered.elapsed,
  } as const;
  return sentences.map(({ verdict }, index): Decision => ({
    ...common,
    recipients: [recipients[index]?.address.raw ?? ''],
    outcomes: concerning(outcomes, index),
    verdict: verdict.kind,
    rule: verdict.rule,
    why: verdict.why,
    score: verdict.score,
    tagged: verdict.tagged,
    reply: oneLine(replies[index] ?? ''),
    shadow: verdict.shadow,
  }));
}

/** The severest verdict among the recipients: what the log line and the metrics are headed by. */
export function severest(sentences: readonly Sentence[]): Verdict | null {
  let worst: Verdict | null = null;
  for (const { verdict } of sentences) {
    if (worst === null || severity(verdict.kind) > severity(worst.kind)) worst = verdict;
  }
  return worst;
}

/** The fields of the log line. Remote text is made printable: JSON leaves the C1 controls, which terminals obey, as they are. */
export function logFields(answered: Answered): Record<string, unknown> {
  const { message, origin, outcomes, sentences, replies } = answered;
  const { client, sender, recipients } = message.envelope;
  const worst = severest(sentences);
  return {
    daemon: 'lmtp-filter',
    trace: origin.trace,
    qid: origin.queueId,
    client: logText(client.address),
    helo: logText(client.helo),
    login: logText(client.login),
    from: logText(pathText(sender)),
    to: recipients.length,
    size: answered.size,
    verdict: worst?.kind ?? null,
    rule: worst?.rule ?? null,
    why: logText(worst?.why ?? null),
    score: worst?.score ?? null,
    elapsed_ms: Math.round(answered.elapsed),
    // Each once: what concerns single recipients is found for each.
    findings: [...new Set(codesOf(outcomes))],
    recipients: sentences.slice(0, LOGGED_RECIPIENTS).map(({ verdict, folder }, index) => ({
      to: logText(recipients[index]?.address.raw ?? null),
      verdict: verdict.kind,
      rule: verdict.rule,
      ...(verdict.setting === undefined ? {} : { setting: verdict.setting, why: logText(verdict.why) }),
      score: verdict.score,
      tagged: verdict.tagged,
      ...(folder === null ? {} : { folder }),
      reply: logText(oneLine(replies[index] ?? '')),
    })),
  };
}

function oneLine(reply: string): string {
  return reply.replaceAll('\r\n', ' ');
}
