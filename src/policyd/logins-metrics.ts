import { counter, gauge, histogram } from '../runtime/metrics.ts';
import type { Registry } from '../runtime/telemetry.ts';
import { LOGIN_CODES, type LoginRuleName, type LoginVerdict } from '../verdict/login.ts';
import { LOGIN_COMMANDS, LOGIN_PROTOCOLS, type LoginProtocol, type LoginResult } from './logins-request.ts';

/** Why a request was not answered as a question of Dovecot's. */
export const LOGIN_FAULTS = [
  'no-key',
  'not-found',
  'method',
  'malformed',
  'too-large',
  'no-http',
  'cut-off',
  'slow',
  'internal',
] as const;
export type LoginFault = (typeof LOGIN_FAULTS)[number];

/** What successes may show. */
const NOTES = ['login.new-network', 'login.new-device', 'login.guessed', 'login.many-networks', 'repeated'];

export interface LoginsMetrics {
  /** Milliseconds from the complete request to the answer. */
  allowed(protocol: LoginProtocol, verdict: LoginVerdict, milliseconds: number): void;
  reported(
    protocol: LoginProtocol,
    result: LoginResult,
    rule: 'none' | 'unavailable',
    notes: readonly string[],
    milliseconds: number,
  ): void;
  fault(fault: LoginFault): void;
  refusedConnection(): void;
  connected(delta: 1 | -1): void;
}

const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1];
const RESULTS = {
  none: ['allow'],
  unavailable: ['allow', 'delay', 'refuse'],
  found: ['delay', 'refuse'],
} as const;
const RULES: readonly LoginRuleName[] = [...LOGIN_CODES, 'unavailable', 'none'];

export function loginsMetrics(registry: Registry): LoginsMetrics {
  const requests = counter<'command' | 'protocol' | 'result' | 'rule'>(registry, {
    name: 'postern_logins_requests_total',
    help: 'Requests answered, by command, protocol, result (allow, delay or refuse; of reports success, failure or refused) and the rule that decided.',
    labels: { command: [], protocol: [], result: [], rule: [] },
  });
  for (const protocol of LOGIN_PROTOCOLS) {
    for (const rule of RULES) {
      for (const result of RESULTS[rule === 'none' || rule === 'unavailable' ? rule : 'found'])
        requests.inc({ command: 'allow', protocol, result, rule }, 0);
    }
    for (const result of ['success', 'failure', 'refused']) {
      for (const rule of ['none', 'unavailable'])
        requests.inc({ command: 'report', protocol, result, rule }, 0);
    }
  }
  const shadow = counter<'rule' | 'result'>(registry, {
    name: 'postern_logins_shadow_total',
    help: 'What rules in shadow would have done, by rule and result (delay or refuse).',
    labels: { rule: LOGIN_CODES, result: ['delay', 'refuse'] },
  });
  const seen = counter<'note'>(registry, {
    name: 'postern_logins_observed_total',
    help: 'What reports showed: limits that were passed, the same wrong password again, and what successes are watched for.',
    labels: { note: [...LOGIN_CODES, ...NOTES] },
  });
  const duration = histogram<'command'>(registry, {
    name: 'postern_logins_request_duration_seconds',
    help: 'Time from a complete request to its answer.',
    labels: { command: LOGIN_COMMANDS },
    buckets: BUCKETS,
  });
  const connections = gauge(registry, {
    name: 'postern_logins_connections',
    help: 'Open connections.',
  });
  const refused = counter(registry, {
    name: 'postern_logins_refused_connections_total',
    help: 'Connections closed at once because there were too many.',
  });
  const faults = counter<'reason'>(registry, {
    name: 'postern_logins_protocol_errors_total',
    help: 'Requests that were not answered as a question about a login, by reason.',
    labels: { reason: LOGIN_FAULTS },
  });
  return {
    allowed(protocol, verdict, milliseconds) {
      requests.inc({ command: 'allow', protocol, result: verdict.kind, rule: verdict.rule });
      for (const { rule, kind } of verdict.shadow) shadow.inc({ rule, result: kind });
      duration.observe({ command: 'allow' }, milliseconds / 1000);
    },
    reported(protocol, result, rule, notes, milliseconds) {
      requests.inc({ command: 'report', protocol, result, rule });
      for (const note of notes) seen.inc({ note });
      duration.observe({ command: 'report' }, milliseconds / 1000);
    },
    fault(reason) {
      faults.inc({ reason });
    },
    refusedConnection() {
      refused.inc();
    },
    connected(delta) {
      connections.inc(delta);
    },
  };
}
