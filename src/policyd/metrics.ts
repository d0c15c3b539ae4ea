import type { AnyBoundCheck } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import {
  counter,
  gauge,
  outcomeObserver,
  shadowCounter,
  spreadHistogram,
  tallyCounter,
} from '../runtime/metrics.ts';
import type { Tally } from '../runtime/tally.ts';
import type { Registry } from '../runtime/telemetry.ts';
import type { OutcomeObserver } from '../checks/runner.ts';
import type { Action } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';
import { SPLIT_RULE } from './company.ts';
import { MAIL_STATES, STATES, type State } from './request.ts';
import { PROTOCOL_ERRORS, type PolicyAction } from './wire.ts';

/** Why a connection was closed by us while the peer may have wanted more. */
const FAULTS = [...PROTOCOL_ERRORS, 'cut-off', 'slow-request', 'not-reading', 'internal'] as const;
/** `cut-off`: the peer closed in the middle of a request. `slow-request`, `not-reading`: it took too long over its part. */
export type Fault = (typeof FAULTS)[number];

export interface PolicydMetrics {
  /** `rule`: of the verdict; null where nothing was judged. `milliseconds`: from the complete request to the answer. */
  answered(state: State, action: PolicyAction, verdict: Verdict | null, milliseconds: number): void;
  fault(fault: Fault): void;
  /** A connection above the limit. */
  refused(): void;
  connected(delta: 1 | -1): void;
  readonly outcome: OutcomeObserver;
}

const BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 100];
const NO_RULE = 'default';

export function policydMetrics(registry: Registry, config: Config): PolicydMetrics {
  const requests = tallyCounter<'state' | 'action' | 'rule'>(registry, {
    name: 'postern_policyd_requests_total',
    help: 'Requests answered, by state of the SMTP session, action and the rule that decided.',
    labels: { state: [...STATES, 'unknown'], action: ['DUNNO'], rule: [NO_RULE] },
  });
  for (const [action, rule] of knownAnswers(config)) {
    for (const state of MAIL_STATES) requests.inc({ state, action, rule }, 0);
  }
  const duration = spreadHistogram(registry, {
    name: 'postern_policyd_request_duration_seconds',
    help: 'Time from a complete request to its answer.',
    buckets: BUCKETS,
  });
  const connections = gauge(registry, {
    name: 'postern_policyd_connections',
    help: 'Open connections.',
  });
  const refused = counter(registry, {
    name: 'postern_policyd_refused_connections_total',
    help: 'Connections closed at once because there were too many.',
  });
  const faults = counter<'reason'>(registry, {
    name: 'postern_policyd_protocol_errors_total',
    help: 'Connections that were closed without an answer, by reason.',
    labels: { reason: FAULTS },
  });
  const shadow = shadowCounter(registry);
  const tallies = new Map<string, Tally>();
  const spread = duration.spread({});
  return {
    answered(state, action, verdict, milliseconds) {
      if (verdict !== null) shadow('policyd', verdict.shadow);
      const word = actionWord(action);
      const rule = verdict === null ? NO_RULE : ruleWord(verdict.rule);
      // Their number is bounded by the configuration.
      const key = `${state} ${word} ${rule}`;
      let tally = tallies.get(key);
      if (tally === undefined) tallies.set(key, (tally = requests.tally({ state, action: word, rule })));
      tally.count++;
      spread.observe(milliseconds / 1000);
    },
    fault(reason) {
      faults.inc({ reason });
    },
    refused() {
      refused.inc();
    },
    connected(delta) {
      connections.inc(delta);
    },
    outcome: outcomeObserver(
      registry,
      checksOf(config).map(({ name, codes }) => ({ name, codes: Object.keys(codes) })),
    ),
  };
}

/** The action as a label: its verb, or the class of the reply. */
function actionWord(action: PolicyAction): string {
  switch (action.kind) {
    case 'DUNNO':
    case 'PREPEND':
    case 'HOLD':
    case 'DISCARD':
    case 'DEFER_IF_PERMIT':
      return action.kind;
    case 'REPLY':
      return action.reply.code < 500 ? '4xx' : '5xx';
  }
}

/** Rules as a label: thresholds are the operator's numbers, and overrides can have many. */
function ruleWord(rule: string): string {
  return rule.startsWith('score>=') ? 'score' : rule;
}

/** Those that policyd makes. */
function checksOf({ views }: Config): readonly AnyBoundCheck[] {
  return (views.get('')?.checks ?? []).filter(({ stage }) => stage !== 'message');
}

/** The answers that the site's rules can lead to. */
function knownAnswers(config: Config): [action: string, rule: string][] {
  const { policy, file } = config;
  const known: [string, string][] = [];
  if (file.policyd.spf_header !== 'none') known.push(['PREPEND', NO_RULE]);
  if (file.policyd.split) known.push(['4xx', SPLIT_RULE]);
  for (const check of checksOf(config)) {
    known.push(
      ...answersOf(
        `unavailable:${check.name}`,
        policy.site.unavailable.get(check.name)?.action.kind ?? 'defer',
      ),
    );
    for (const code of Object.keys(check.codes)) {
      known.push(...answersOf(code, policy.site.findings.get(code)?.action.kind ?? 'ignore'));
    }
  }
  return known;
}

function answersOf(rule: string, action: Action['kind']): [action: string, rule: string][] {
  switch (action) {
    case 'ignore':
    case 'score':
    case 'tag':
    case 'junk':
    case 'allow':
      return [];
    case 'quarantine':
      return [['HOLD', rule]];
    case 'discard':
      return [['DISCARD', rule]];
    case 'defer':
      return [
        ['DEFER_IF_PERMIT', rule],
        ['4xx', rule],
      ];
    case 'reject':
      return [['5xx', rule]];
  }
}
