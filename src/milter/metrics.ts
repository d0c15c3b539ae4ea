import { CHECKS } from '../checks/index.ts';
import type { OutcomeObserver } from '../checks/runner.ts';
import type { Direction } from '../mail/envelope.ts';
import { counter, gauge, histogram, outcomeObserver } from '../runtime/metrics.ts';
import type { Registry } from '../runtime/telemetry.ts';
import { VERDICT_KINDS, type VerdictKind } from '../verdict/verdict.ts';
import { PROTOCOL_ERRORS } from './command.ts';

/** What went wrong: the peer's errors, and failures of our own. */
const FAULTS = [
  ...PROTOCOL_ERRORS,
  'idle',
  'not-reading',
  'lost',
  'cut-off',
  'too-many-connections',
  'store',
  'spool',
  'quarantine',
  'signing',
  'internal',
] as const;
export type Fault = (typeof FAULTS)[number];

/** `aborted`: given up by the MTA or its client before the end. */
type MessageEnd = VerdictKind | 'aborted';

/** `none`: no key for the sender. `unpublished`: sent unsigned, because its keys are not in DNS. `failed`: deferred, not sent unsigned. `skipped`: sent unsigned, as signing.without_key says. */
const SIGN_RESULTS = ['signed', 'none', 'unpublished', 'failed', 'skipped'] as const;
type SignResult = (typeof SIGN_RESULTS)[number];

/**
 * `ended`: an earlier seal says that the chain has failed. `full`: it has 50 sets. `unverified`: it could not be verified. `failed` and `skipped` as
 * with signatures.
 */
const SEAL_RESULTS = ['sealed', 'ended', 'full', 'unverified', 'failed', 'skipped'] as const;
type SealResult = (typeof SEAL_RESULTS)[number];

export interface MilterMetrics {
  readonly outcome: OutcomeObserver;
  sessions(change: 1 | -1): void;
  fault(kind: Fault): void;
  message(direction: Direction, end: MessageEnd): void;
  signature(result: SignResult): void;
  seal(result: SealResult): void;
  /** `milter.deadline` was used up while this check was waited for. */
  overrun(check: string): void;
  /** From the end of a message to its answer, in milliseconds. */
  endOfMessage(elapsed: number): void;
}

/** Up to 300 s: Postfix's milter_content_timeout. */
const BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300];

export function milterMetrics(registry: Registry): MilterMetrics {
  const sessions = gauge(registry, {
    name: 'postern_milter_sessions',
    help: 'Open connections; Postfix opens one for each SMTP session.',
  });
  const messages = counter<'direction' | 'verdict'>(registry, {
    name: 'postern_milter_messages_total',
    help: 'Messages, by direction and verdict; "aborted" when the SMTP client or the MTA gave it up before its end.',
    labels: { direction: ['in', 'out'], verdict: [...VERDICT_KINDS, 'aborted'] },
  });
  const errors = counter<'kind'>(registry, {
    name: 'postern_milter_errors_total',
    help: 'Connections closed because of what the peer did, and failures of our own.',
    labels: { kind: FAULTS },
  });
  const signatures = counter<'result'>(registry, {
    name: 'postern_milter_signatures_total',
    help: 'Outgoing messages that were signed, had no key, had none in DNS ("unpublished", sent unsigned), or could not be signed and were deferred ("failed") or sent unsigned ("skipped").',
    labels: { result: SIGN_RESULTS },
  });
  const seals = counter<'result'>(registry, {
    name: 'postern_milter_seals_total',
    help: 'Forwarded messages that were sealed (ARC), or were not because their chain has failed before ("ended"), has 50 sets ("full"), could not be verified, or could not be sealed and were deferred ("failed") or sent without ("skipped").',
    labels: { result: SEAL_RESULTS },
  });
  const overruns = counter<'check'>(registry, {
    name: 'postern_milter_overruns_total',
    help: 'Messages whose whole time (milter.deadline) was used up, by the check that was waited for.',
    labels: {
      check: CHECKS.filter(
        ({ stage, policyOnly }) => (stage === 'mail' || stage === 'message') && policyOnly !== true,
      ).map(({ name }) => name),
    },
  });
  const stages = histogram<'stage'>(registry, {
    name: 'postern_milter_stage_duration_seconds',
    help: 'Time from an event of the milter protocol to its answer. Only the end of a message is waited for.',
    labels: { stage: ['end-of-message'] },
    buckets: BUCKETS,
  });
  return {
    outcome: outcomeObserver(
      registry,
      CHECKS.map(({ name, codes }) => ({ name, codes: Object.keys(codes) })),
    ),
    sessions: (change) => sessions.inc(change),
    fault: (kind) => errors.inc({ kind }),
    message: (direction, verdict) => messages.inc({ direction, verdict }),
    signature: (result) => signatures.inc({ result }),
    seal: (result) => seals.inc({ result }),
    overrun: (check) => overruns.inc({ check }),
    endOfMessage: (elapsed) => stages.observe({ stage: 'end-of-message' }, elapsed / 1000),
  };
}
