import type { StandingKind, Tally } from '../ports/accounts.ts';

/** What is counted of one login in an hour. */
export const MEASURES = ['recipients', 'domains', 'new-recipients', 'refusals', 'networks'] as const;
export type Measure = (typeof MEASURES)[number];

export type Activity = Readonly<Record<Measure, number>>;

/** Below these an hour is never unusual, whatever the login's past. */
export type Floors = Activity;

/** What a login's busy hours are like. */
export interface Baseline {
  /** Hours with mail that it rests on. */
  readonly hours: number;
  /** The busiest ordinary hour: nineteen of twenty have no more. */
  readonly usual: Activity;
}

/** One measure far above what is usual for the login. */
export interface Signal {
  readonly measure: Measure;
  readonly now: number;
  readonly bound: number;
}

/** Fewer hours say nothing about a habit: until then the floors alone count. */
const FEWEST_HOURS = 5;
const QUANTILE = 0.95;

const NOTHING: Activity = { recipients: 0, domains: 0, 'new-recipients': 0, refusals: 0, networks: 0 };

/** From the hours of the past; the hour that is going on must not be among them. */
export function baselineOf(hours: readonly Tally[]): Baseline {
  const active = hours.filter(({ counts }) => (counts['recipients'] ?? 0) > 0);
  if (active.length < FEWEST_HOURS) return { hours: active.length, usual: NOTHING };
  const usual = { ...NOTHING };
  for (const measure of MEASURES) {
    const values = active.map(({ counts }) => counts[measure] ?? 0).toSorted((one, other) => one - other);
    usual[measure] = values[Math.ceil(values.length * QUANTILE) - 1] ?? 0;
  }
  return { hours: active.length, usual };
}

/** What of the hour is far above the baseline: more than the floor, and more than `factor` times what is usual. */
export function signalsOf(
  now: Activity,
  baseline: Baseline,
  floors: Floors,
  factor: number,
): readonly Signal[] {
  const signals: Signal[] = [];
  for (const measure of MEASURES) {
    const bound = Math.max(floors[measure], factor * baseline.usual[measure]);
    if (now[measure] > bound) signals.push({ measure, now: now[measure], bound });
  }
  return signals;
}

/** From how many signals at once each stage is reached; false: never by itself. */
export interface Stages {
  readonly observe: number | false;
  readonly slow: number | false;
  readonly hold: number | false;
  readonly block: number | false;
}

/** The severest stage that so many signals reach; null: none. */
export function stageFor(signals: number, stages: Stages): Exclude<StandingKind, 'free'> | null {
  for (const kind of ['block', 'hold', 'slow', 'observe'] as const) {
    const from = stages[kind];
    if (from !== false && signals >= from) return kind;
  }
  return null;
}
