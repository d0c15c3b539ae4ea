import type { Hit, LimitAlgorithm } from '../ports/limits.ts';

/** What one counter holds. */
export interface Count {
  algorithm: LimitAlgorithm;
  most: number;
  periodMs: number;
  /** Window: begin of the period that `current` was counted in. Bucket: when `current` was in use. */
  start: number;
  current: number;
  /** Window: what was counted in the period before. */
  previous: number;
}

/** Fractions of a bucket come from divisions; this much is no excess. */
const ROUNDING = 1e-6;

/** A counter that nothing is counted on: the periods of a window begin with the first hit. */
export function emptyCount({ algorithm, most, periodMs }: Hit, now: number): Count {
  return { algorithm, most, periodMs, start: now, current: 0, previous: 0 };
}

/** Brings it to the present, and to what the limit is now: whose algorithm or period changes counts on with what is in use. */
export function bringUp(count: Count, hit: Hit, now: number): void {
  roll(count, now);
  if (count.algorithm !== hit.algorithm || count.periodMs !== hit.periodMs) {
    count.current = used(count, now);
    count.previous = 0;
    count.start = now;
    count.algorithm = hit.algorithm;
    count.periodMs = hit.periodMs;
  }
  count.most = hit.most;
}

/** Brings it to the present. */
export function roll(count: Count, now: number): void {
  const { periodMs } = count;
  const elapsed = now - count.start;
  if (count.algorithm === 'bucket') {
    // A clock that is set back adds nothing; one that was wrong by more than a period must not stop the bucket from filling.
    if (elapsed < 0 && elapsed > -periodMs) return;
    count.current = Math.max(0, count.current - (Math.max(0, elapsed) * count.most) / periodMs);
    count.start = now;
    return;
  }
  if (elapsed >= periodMs && elapsed < 2 * periodMs) {
    count.start += periodMs;
    count.previous = count.current;
    count.current = 0;
  } else if (elapsed >= 2 * periodMs || elapsed <= -periodMs) {
    count.previous = 0;
    count.current = 0;
  }
  if (count.current === 0 && count.previous === 0) count.start = now;
}

/** What is in use now, with fractions. The count was brought up before. */
export function used(count: Count, now: number): number {
  if (count.algorithm === 'bucket') return count.current;
  const left = count.periodMs - Math.max(0, now - count.start);
  return count.current + (count.previous * left) / count.periodMs;
}

/** In whole units, as people count. */
export function usedWhole(count: Count, now: number): number {
  return Math.max(0, Math.ceil(used(count, now) - ROUNDING));
}

export function hasRoom(count: Count, cost: number, now: number): boolean {
  return used(count, now) + cost <= count.most + ROUNDING;
}

/** Milliseconds until there is room for `cost`, if nothing else comes; a period when there never is. There is none now. */
export function untilRoom(count: Count, cost: number, now: number): number {
  const { most, periodMs, current, previous } = count;
  if (cost > most || most <= 0) return periodMs;
  if (count.algorithm === 'bucket') return wholeMs(((current + cost - most) * periodMs) / most);
  const left = periodMs - Math.max(0, now - count.start);
  const room = most - cost - current;
  // Room comes as the period before moves out; or, in the next period, as this one does.
  if (room >= 0) return wholeMs(left - (room * periodMs) / previous);
  return wholeMs(left + periodMs - ((most - cost) * periodMs) / current);
}

/** When nothing is left of it, at the latest. */
export function worthless(count: Count): number {
  if (count.algorithm === 'window') return count.start + 2 * count.periodMs;
  return count.start + (count.most > 0 ? (count.current * count.periodMs) / count.most : count.periodMs);
}

/** Takes back what was counted, from this period first. */
export function giveBack(count: Count, cost: number): void {
  const rest = Math.max(0, cost - count.current);
  count.current = Math.max(0, count.current - cost);
  count.previous = Math.max(0, count.previous - rest);
}

function wholeMs(ms: number): number {
  return Math.max(1, Math.ceil(ms));
}
