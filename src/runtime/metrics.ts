import { collectDefaultMetrics, Counter, Gauge, Histogram, type Registry } from 'prom-client';

import { SpreadHistogram, TallyCounter, type Spread, type Tally } from './tally.ts';

/**
 * Makers of metrics. Each gives the metric of that name when the registry has it already, so that several daemons in one process share it.
 *
 * `labels` holds the known values of each label. Every combination is there as 0 from the start: a series that appears with its first
 * event has no rate() for that event. A label with no known values is left to the first use.
 */
export interface MetricOptions<L extends string> {
  readonly name: string;
  readonly help: string;
  readonly labels?: Readonly<Record<L, readonly string[]>>;
}

export interface GaugeOptions<L extends string> extends MetricOptions<L> {
  /** What the gauges of several workers come to. Default: their sum. */
  readonly together?: 'sum' | 'min' | 'max';
}

export function counter<L extends string = never>(registry: Registry, options: MetricOptions<L>): Counter<L> {
  const known = registry.getSingleMetric(options.name);
  if (known instanceof Counter) return known;
  const made = new Counter<L>({ ...naming(options), registers: [registry] });
  for (const labels of combinations(options)) made.inc(labels, 0);
  return made;
}

export function gauge<L extends string = never>(registry: Registry, options: GaugeOptions<L>): Gauge<L> {
  const known = registry.getSingleMetric(options.name);
  if (known instanceof Gauge) return known;
  const made = new Gauge<L>({
    ...naming(options),
    aggregator: options.together ?? 'sum',
    registers: [registry],
  });
  for (const labels of combinations(options)) made.set(labels, 0);
  return made;
}

export function histogram<L extends string = never>(
  registry: Registry,
  options: MetricOptions<L> & { readonly buckets: readonly number[] },
): Histogram<L> {
  const known = registry.getSingleMetric(options.name);
  if (known instanceof Histogram) return known;
  const made = new Histogram<L>({
    ...naming(options),
    buckets: [...options.buckets],
    registers: [registry],
  });
  for (const labels of combinations(options)) made.zero(labels);
  return made;
}

/** A counter for what is counted many times for each request. */
export function tallyCounter<L extends string>(registry: Registry, options: MetricOptions<L>): TallyCounter {
  const known = registry.getSingleMetric(options.name);
  if (known instanceof TallyCounter) return known;
  const made = new TallyCounter({ ...naming(options), registers: [registry] });
  for (const labels of combinations(options)) made.inc(labels, 0);
  return made;
}

/** A histogram for what is measured many times for each request. */
export function spreadHistogram<L extends string = never>(
  registry: Registry,
  options: MetricOptions<L> & { readonly buckets: readonly number[] },
): SpreadHistogram {
  const known = registry.getSingleMetric(options.name);
  if (known instanceof SpreadHistogram) return known;
  const made = new SpreadHistogram({
    ...naming(options),
    buckets: [...options.buckets],
    registers: [registry],
  });
  for (const labels of combinations(options)) made.spread(labels);
  return made;
}

/** What every process of ours says of itself: memory, descriptors, lag of the event loop, version. Once per registry. */
export function processMetrics(registry: Registry, version: string): void {
  if (registry.getSingleMetric('postern_build_info') !== undefined) return;
  collectDefaultMetrics({ register: registry });
  gauge(registry, {
    name: 'postern_build_info',
    help: 'Version of Postern and of Node; always 1.',
    labels: { version: [version], node: [process.versions.node] },
    together: 'max',
  }).set({ version, node: process.versions.node }, 1);
}

/** Whether the configuration in use is the one in the file. */
export interface ReloadMetrics {
  loaded(seconds: number): void;
  failed(): void;
}

export function reloadMetrics(registry: Registry): ReloadMetrics {
  const successful = gauge(registry, {
    name: 'postern_config_last_reload_successful',
    help: 'Whether the last load of the configuration was successful.',
    together: 'min',
  });
  const timestamp = gauge(registry, {
    name: 'postern_config_last_reload_success_timestamp_seconds',
    help: 'When the configuration was last loaded with success, seconds since 1970.',
    together: 'min',
  });
  return {
    loaded(seconds) {
      successful.set(1);
      timestamp.set(seconds);
    },
    failed() {
      successful.set(0);
    },
  };
}

/** Counts what shadow rules would have done, had they been enforced. */
export function shadowCounter(
  registry: Registry,
): (daemon: string, verdicts: readonly { readonly rule: string; readonly kind: string }[]) => void {
  const verdicts = counter<'daemon' | 'rule' | 'verdict'>(registry, {
    name: 'postern_shadow_verdicts_total',
    help: 'What shadow rules would have done, by daemon, rule and verdict.',
    labels: { daemon: [], rule: [], verdict: [] },
  });
  return (daemon, list) => {
    for (const { rule, kind } of list) verdicts.inc({ daemon, rule, verdict: kind });
  };
}

/** What became of one check, as far as metrics care. */
export type ObservedOutcome =
  | {
      readonly kind: 'found';
      readonly check: string;
      readonly findings: readonly { readonly code: string }[];
      /** Milliseconds. */
      readonly elapsed: number;
    }
  | {
      readonly kind: 'unavailable';
      readonly check: string;
      readonly reason: string;
      /** Milliseconds. */
      readonly elapsed: number;
    };

export interface ObservedCheck {
  readonly name: string;
  readonly codes: readonly string[];
}

/** Code under which a check that found nothing is counted. */
const NOTHING = 'none';
const CHECK_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 100];
const REASONS = ['deadline', 'neighbour', 'failed', 'needs'];

/** Counts outcomes of checks. `checks` are those that exist, with all codes they can find. */
export function outcomeObserver(
  registry: Registry,
  checks: readonly ObservedCheck[],
): (outcome: ObservedOutcome) => void {
  const names = checks.map((check) => check.name);
  const outcomes = tallyCounter<'check' | 'code'>(registry, {
    name: 'postern_check_outcomes_total',
    help: 'Findings by check and code; code "none" when a check found nothing.',
    labels: { check: [], code: [] },
  });
  const unavailable = counter<'check' | 'reason'>(registry, {
    name: 'postern_check_unavailable_total',
    help: 'Checks that could not be made, by reason.',
    labels: { check: names, reason: REASONS },
  });
  const duration = spreadHistogram<'check'>(registry, {
    name: 'postern_check_duration_seconds',
    help: 'Time from the start of a check to its outcome.',
    labels: { check: names },
    buckets: CHECK_BUCKETS,
  });
  const known = new Map(
    checks.map(({ name, codes }): [string, CheckSeries] => [
      name,
      {
        duration: duration.spread({ check: name }),
        codes: new Map(
          [...codes, NOTHING].map((code) => [code, outcomes.tally({ check: name, code })] as const),
        ),
      },
    ]),
  );
  return (outcome) => {
    const { check } = outcome;
    const series = known.get(check);
    const tell = (code: string): void => {
      const tally = series?.codes.get(code);
      if (tally === undefined) outcomes.inc({ check, code });
      else tally.count++;
    };
    (series?.duration ?? duration.spread({ check })).observe(outcome.elapsed / 1000);
    switch (outcome.kind) {
      case 'found':
        if (outcome.findings.length === 0) tell(NOTHING);
        for (const { code } of outcome.findings) tell(code);
        break;
      case 'unavailable':
        unavailable.inc({ check, reason: outcome.reason });
        break;
    }
  };
}

interface CheckSeries {
  readonly duration: Spread;
  readonly codes: ReadonlyMap<string, Tally>;
}

function naming<L extends string>(
  options: MetricOptions<L>,
): { name: string; help: string; labelNames: L[] } {
  return { name: options.name, help: options.help, labelNames: labelNames(options) };
}

function labelNames<L extends string>(options: MetricOptions<L>): L[] {
  const names: L[] = [];
  for (const name in options.labels) names.push(name);
  return names;
}

function combinations<L extends string>(options: MetricOptions<L>): Partial<Record<L, string>>[] {
  const { labels } = options;
  if (labels === undefined) return [];
  let all: Partial<Record<L, string>>[] = [{}];
  for (const name of labelNames(options)) {
    all = all.flatMap((chosen) => labels[name].map((value) => ({ ...chosen, [name]: value })));
  }
  return all;
}
