import type { Standing, Tally } from '../ports/accounts.ts';
import type { State } from '../ports/state.ts';
import { MEASURES, type Activity, type Measure } from './account-baseline.ts';
import { SLOW_COUNTER } from './account-slow.ts';

export const HOUR_MS = 3_600_000;

/** Hours of activity are kept under this. */
export function tallySubject(login: string): string {
  return `account ${login}`;
}

/** Begin of the hour. */
export function hourOf(time: number): number {
  return time - (time % HOUR_MS);
}

/** What of an hour speaks for or against its login: all but what was done before an operator released it. */
export function activityOf(hour: Tally | undefined): Activity {
  const count = (measure: Measure): number =>
    Math.max(0, (hour?.counts[measure] ?? 0) - (hour?.counts[excused(measure)] ?? 0));
  return {
    recipients: count('recipients'),
    domains: count('domains'),
    'new-recipients': count('new-recipients'),
    refusals: count('refusals'),
    networks: count('networks'),
  };
}

/** Counts add up, so what is excused is a count of its own; the hour goes into the baseline whole. */
function excused(measure: Measure): string {
  return `excused-${measure}`;
}

/**
 * Takes away what stands against a login. What it did in this hour is not held against it any more, or its next recipient would bring the stage back.
 *
 * @returns what stood against it; null: nothing, and nothing was done
 */
export async function releaseAccount(state: State, login: string, now: number): Promise<Standing | null> {
  const standing = await state.standing(login);
  if (standing === null) return null;
  const subject = tallySubject(login);
  const hour = hourOf(now);
  const [current] = await state.tallies(subject, hour);
  const activity = activityOf(current);
  const counts = Object.fromEntries(MEASURES.map((measure) => [excused(measure), activity[measure]]));
  await state.tally([{ subject, hour, counts }]);
  await state.resetCounters({ limit: SLOW_COUNTER, key: login });
  // Last: a login that is judged in between must find its hour excused.
  await state.setStanding({ ...standing, kind: 'free', by: 'operator', since: now, until: null });
  return standing;
}
