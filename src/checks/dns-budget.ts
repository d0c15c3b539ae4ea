/** What is left of a deadline for evaluating, and for a loop that is busy, after the DNS has had its time. */
const RESERVE_SHARE = 0.2;
const RESERVE_LIMIT_MS = 1000;

/**
 * How long the DNS questions of a check may take in all, in milliseconds. Less than its deadline, so that a name server that is silent makes
 * a temperror of the check and not an outcome that is unavailable.
 */
export function dnsBudget(deadlineMs: number): number {
  return deadlineMs - Math.min(deadlineMs * RESERVE_SHARE, RESERVE_LIMIT_MS);
}

/** Asks with a signal that aborts when the budget is used up, or when `signal` does. */
export async function withinDnsBudget<T>(
  signal: AbortSignal,
  deadlineMs: number,
  ask: (limit: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(new Error('the time for the DNS is used up')),
    dnsBudget(deadlineMs),
  );
  const abort = (): void => limit.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await ask(limit.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
