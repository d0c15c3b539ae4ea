import { CHECKS } from '../checks/index.ts';
import { counter, gauge, histogram, outcomeObserver } from '../runtime/metrics.ts';
import type { Registry } from '../runtime/telemetry.ts';
import { SETTINGS, type Setting } from '../verdict/rules.ts';
import { VERDICT_KINDS, type VerdictKind } from '../verdict/verdict.ts';
import type { OutcomeObserver } from '../checks/runner.ts';
import { BACKSCATTER_KINDS, type BackscatterKind } from './backscatter.ts';
import { UPSTREAM_FAILURES } from './upstream-error.ts';
import type { UpstreamObserver } from './upstream.ts';

/** What became of a message for one recipient. */
export const RESULTS = [
  'delivered',
  'spam_filed',
  'discarded',
  'quarantined',
  'over_quota',
  'unknown',
  'tempfail',
  'rejected',
] as const;

export type RecipientResult = (typeof RESULTS)[number];

/** Up to 600 s: what Postfix waits (lmtp_data_done_timeout). */
const BUCKETS = [0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600];

/** What is counted in lmtp-filter. */
export interface LmtpMetrics {
  readonly upstream: UpstreamObserver;
  sessions(change: 1 | -1): void;
  refusedConnection(): void;
  /** One message, with the severest verdict of its recipients. */
  message(direction: 'in' | 'out', verdict: VerdictKind): void;
  recipient(result: RecipientResult): void;
  /** What was decided for one recipient, and where that was set. */
  verdict(kind: VerdictKind, setting: Setting | 'site'): void;
  possibleDuplicates(count: number): void;
  backscatter(kind: BackscatterKind): void;
  /** Whose scan of the message was used. */
  scan(source: 'milter' | 'here'): void;
  afterDot(ms: number): void;
  readonly outcome: OutcomeObserver;
}

export function lmtpMetrics(registry: Registry): LmtpMetrics {
  const sessions = gauge(registry, {
    name: 'postern_lmtp_sessions',
    help: 'Open connections from Postfix.',
  });
  const refused = counter(registry, {
    name: 'postern_lmtp_refused_connections_total',
    help: 'Connections answered with 421 because max_connections were open.',
  });
  const messages = counter<'direction' | 'verdict'>(registry, {
    name: 'postern_lmtp_messages_total',
    help: 'Messages, by direction and the severest verdict among their recipients.',
    labels: { direction: ['in', 'out'], verdict: VERDICT_KINDS },
  });
  const recipients = counter<'result'>(registry, {
    name: 'postern_lmtp_recipients_total',
    help: 'Recipients, by what became of the message for them.',
    labels: { result: RESULTS },
  });
  const verdicts = counter<'verdict' | 'setting'>(registry, {
    name: 'postern_lmtp_verdicts_total',
    help: 'Verdicts for single recipients, and where the rule or threshold that decided was set: for the site, in [[override]], or for the account in the directory.',
    labels: { verdict: VERDICT_KINDS, setting: ['site', ...SETTINGS] },
  });
  const duplicates = counter(registry, {
    name: 'postern_lmtp_possible_duplicates_total',
    help: 'Recipients that Postfix will try again although Dovecot may have the message: a connection was lost between dot and reply.',
  });
  const backscatter = counter<'kind'>(registry, {
    name: 'postern_lmtp_backscatter_total',
    help: 'Recipients of mail that this site had accepted and then refused or, for a full mailbox, put off; "postern history --backscatter" lists them.',
    labels: { kind: BACKSCATTER_KINDS },
  });
  const scans = counter<'source'>(registry, {
    name: 'postern_lmtp_scans_total',
    help: "Messages by whose facts decided: the milter's, or those gathered here.",
    labels: { source: ['milter', 'here'] },
  });
  const afterDot = histogram(registry, {
    name: 'postern_lmtp_after_dot_seconds',
    help: 'Time from the final dot to the last reply.',
    buckets: BUCKETS,
  });
  const connections = gauge(registry, {
    name: 'postern_lmtp_upstream_connections',
    help: 'Open connections to Dovecot.',
  });
  const health = gauge<'upstream'>(registry, {
    name: 'postern_lmtp_upstream_up',
    help: 'Whether the last attempt to connect to this Dovecot worked; 1 before the first.',
    labels: { upstream: [] },
  });
  const connects = counter(registry, {
    name: 'postern_lmtp_upstream_connects_total',
    help: 'Connections to Dovecot that were opened.',
  });
  const failures = counter<'kind'>(registry, {
    name: 'postern_lmtp_upstream_failures_total',
    help: 'Connections to Dovecot that could not be had or not be encrypted, were lost, timed out or answered nonsense.',
    labels: { kind: UPSTREAM_FAILURES },
  });
  const outcome = outcomeObserver(
    registry,
    CHECKS.map((check) => ({ name: check.name, codes: Object.keys(check.codes) })),
  );
  return {
    upstream: {
      connected: () => connects.inc(),
      failed: (error) => failures.inc({ kind: error.failure }),
      open: (change) => connections.inc(change),
      health: (upstream, up) => health.set({ upstream }, up ? 1 : 0),
      forget: (upstream) => health.remove({ upstream }),
    },
    sessions: (change) => sessions.inc(change),
    refusedConnection: () => refused.inc(),
    message: (direction, verdict) => messages.inc({ direction, verdict }),
    recipient: (result) => recipients.inc({ result }),
    verdict: (verdict, setting) => verdicts.inc({ verdict, setting }),
    possibleDuplicates: (count) => duplicates.inc(count),
    backscatter: (kind) => backscatter.inc({ kind }),
    scan: (source) => scans.inc({ source }),
    afterDot: (ms) => afterDot.observe(ms / 1000),
    outcome,
  };
}

/** What a reply after the dot means for the statistics. `filed`: it was marked as spam. */
export function resultOf(reply: string, filed: boolean): RecipientResult {
  if (reply.startsWith('2')) return filed ? 'spam_filed' : 'delivered';
  // RFC 3463 §3.3: X.2.2, mailbox full; X.1.1, bad destination mailbox.
  if (/^[45]\d\d[ -][45]\.2\.2\b/.test(reply)) return 'over_quota';
  if (/^5\d\d[ -]5\.1\.1\b/.test(reply)) return 'unknown';
  return reply.startsWith('4') ? 'tempfail' : 'rejected';
}
