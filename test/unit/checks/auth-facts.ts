import type { CheckDefinition, CheckTools, MessageFacts } from '../../../src/checks/check.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import type { BodyVerification, MailAuth } from '../../../src/ports/mail-auth.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { checkTools } from '../../support/checks.ts';
import { message, type MessageValues } from '../../support/mail.ts';

export const CLOCK = { now: () => Date.now(), elapsed: () => performance.now() };

function refuse(): never {
  throw new Error('not asked for in this test');
}

/** Tools of which only authentication works, as far as a test says. */
export function toolsWith(mailAuth: Partial<MailAuth>): CheckTools {
  return {
    ...checkTools(),
    clock: CLOCK,
    mailAuth: { spf: refuse, dkim: refuse, arc: refuse, dmarc: refuse, ...mailAuth },
    hostname: 'mx.example',
  };
}

/** A verification that needs no more than it knows. */
export function known<T>(result: T | Promise<T>): BodyVerification<T> {
  return { needsBody: false, write: () => undefined, end: () => result };
}

export function messageFacts(values: MessageValues = {}): MessageFacts {
  const mail = message(values);
  const { client, direction, sender } = mail.envelope;
  return { client, direction, sender, message: mail };
}

interface Made {
  readonly facts: MessageFacts;
  readonly tools: CheckTools;
  readonly options?: unknown;
  readonly deadlineMs?: number;
}

/** Outcomes of these checks as the runner makes them. */
export async function outcomes(checks: readonly CheckDefinition[], made: Made): Promise<readonly Outcome[]> {
  const bound = checks.map((check) => check.bind(made.options ?? {}, made.deadlineMs ?? 5000));
  const run = new CheckRun(bound, made.tools, made.facts.direction);
  run.startMail(made.facts);
  run.startMessage(made.facts);
  return run.settle();
}

export async function outcome(check: CheckDefinition, made: Made): Promise<Outcome> {
  const [only] = await outcomes([check], made);
  if (only === undefined) throw new Error('the check did not take part');
  return only;
}
