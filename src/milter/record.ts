import { pathText } from '../mail/address.ts';
import { unfold } from '../mail/header.ts';
import { logText } from '../mail/reply.ts';
import type { Decision } from '../ports/store.ts';
import { codesOf, type Outcome } from '../verdict/finding.ts';
import type { Conclusion } from './conclusion.ts';

/** Octets of a Message-ID that are kept; it is the sender's to choose. */
const MESSAGE_ID_LIMIT = 200;
/** Recipients named in a log line. The record has all of them. */
const LOG_RECIPIENTS = 20;

/** Size and times of a message; `time` is milliseconds since 1970, `elapsed` from its end to the answer. */
export interface Measures {
  readonly size: number;
  readonly time: number;
  readonly elapsed: number;
}

export function decisionOf(conclusion: Conclusion, { size, time, elapsed }: Measures): Decision {
  const { envelope, verdict, outcomes, trace, rendered, headers } = conclusion;
  const { client, direction, sender, recipients, queueId } = envelope;
  const messageId = headers.first('Message-ID');
  return {
    trace,
    time,
    daemon: 'milter',
    stage: 'message',
    direction,
    queueId,
    client: client.address,
    helo: client.helo,
    login: client.login,
    sender: pathText(sender),
    recipients: recipients.map(({ address }) => address.raw),
    messageId: messageId === undefined ? null : unfold(messageId.value).slice(0, MESSAGE_ID_LIMIT),
    size,
    verdict: verdict.kind,
    rule: verdict.rule,
    why: verdict.why,
    score: verdict.score,
    tagged: verdict.tagged,
    reply: rendered.text,
    shadow: verdict.shadow,
    outcomes,
    elapsed,
  };
}

/** Remote text is made printable: JSON leaves the C1 controls, which terminals obey, as they are. */
export function logFields(decision: Decision): Record<string, unknown> {
  const { recipients } = decision;
  return {
    daemon: 'milter',
    trace: decision.trace,
    qid: logText(decision.queueId),
    client: decision.client,
    helo: logText(decision.helo),
    login: logText(decision.login),
    from: logText(decision.sender),
    to: recipients.slice(0, LOG_RECIPIENTS).map(logText),
    ...(recipients.length > LOG_RECIPIENTS ? { recipients: recipients.length } : {}),
    size: decision.size,
    verdict: decision.verdict,
    rule: decision.rule,
    why: logText(decision.why),
    score: decision.score,
    reply: decision.reply,
    elapsed_ms: Math.round(decision.elapsed),
    findings: codesOf(decision.outcomes),
    ...unavailable(decision.outcomes),
  };
}

/** Why checks could not be made; nothing when all could. */
function unavailable(outcomes: readonly Outcome[]): {
  readonly unavailable?: Readonly<Record<string, string | null>>;
} {
  const reasons: Record<string, string | null> = {};
  let some = false;
  for (const outcome of outcomes) {
    if (outcome.kind !== 'unavailable') continue;
    some = true;
    reasons[outcome.check] = logText(`${outcome.reason}: ${outcome.detail}`);
  }
  return some ? { unavailable: reasons } : {};
}
