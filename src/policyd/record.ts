import { pathText } from '../mail/address.ts';
import { logText } from '../mail/reply.ts';
import type { Decision } from '../ports/store.ts';
import { codesOf } from '../verdict/finding.ts';
import { detached, queueIdOf, sizeOf } from './request.ts';
import type { Judgement, Question, Transaction } from './transaction.ts';
import { actionText, type Attributes, type PolicyAction } from './wire.ts';

/** One answered request, as log and history tell of it. */
export interface Answered {
  readonly attributes: Attributes;
  readonly question: Question;
  readonly transaction: Transaction;
  readonly judgement: Judgement;
  readonly action: PolicyAction;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Milliseconds. */
  readonly elapsed: number;
}

/**
 * Whether the answer is news: the first of its message, or a refusal, or what a shadow rule would have done, that the last record does not
 * hold yet. A server that stands in several restriction lists is asked the same again for each of them.
 */
export function isNews({ transaction, question, judgement, action }: Answered): boolean {
  const { verdict } = judgement;
  const goesOn = (action.kind === 'DUNNO' || action.kind === 'PREPEND') && verdict.shadow.length === 0;
  if (goesOn && transaction.recorded !== null) return false;
  const mark = goesOn ? '' : detached(`${question.recipient?.raw ?? question.state}\n${verdict.rule}`);
  if (mark === transaction.recorded) return false;
  transaction.recorded = mark;
  return true;
}

export function decisionOf(answered: Answered): Decision {
  const { attributes, question, transaction, action } = answered;
  const { verdict, outcomes } = answered.judgement;
  const { client, direction, sender } = transaction.facts;
  return {
    trace: transaction.identity.trace,
    time: answered.time,
    daemon: 'policyd',
    stage: question.state.toLowerCase(),
    direction,
    queueId: queueIdOf(attributes),
    client: client.address,
    helo: client.helo,
    login: client.login,
    sender: pathText(sender),
    recipients: question.recipient === null ? [] : [question.recipient.raw],
    messageId: null,
    size: sizeOf(attributes),
    verdict: verdict.kind,
    rule: verdict.rule,
    why: verdict.why,
    score: verdict.score,
    tagged: verdict.tagged,
    reply: actionText(action),
    shadow: verdict.shadow,
    outcomes,
    elapsed: answered.elapsed,
  };
}

/** The fields of the log line. Remote text is made printable: JSON leaves the C1 controls, which terminals obey, as they are. */
export function logFields(answered: Answered): Record<string, unknown> {
  const { attributes, question, transaction, action } = answered;
  const { verdict, outcomes } = answered.judgement;
  const { client, sender } = transaction.facts;
  return {
    daemon: 'policyd',
    state: question.state,
    trace: transaction.identity.trace,
    qid: logText(queueIdOf(attributes)),
    client: logText(client.address),
    helo: logText(client.helo),
    login: logText(client.login),
    from: logText(pathText(sender)),
    to: logText(question.recipient?.raw ?? null),
    size: sizeOf(attributes),
    verdict: verdict.kind,
    rule: verdict.rule,
    why: logText(verdict.why),
    score: verdict.score,
    reply: actionText(action),
    elapsed_ms: Math.round(answered.elapsed),
    findings: codesOf(outcomes),
  };
}
