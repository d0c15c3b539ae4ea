/**
 * The answer, or after `ms` milliseconds an error that names who did not give it. The work itself goes on; its late answer is dropped. An answer that
 * is there is given back at once, without a promise.
 */
export function withinDeadline<T>(answer: Promise<T>, ms: number, who: string): Promise<T>;
export function withinDeadline<T>(answer: T | Promise<T>, ms: number, who: string): T | Promise<T>;
export function withinDeadline<T>(answer: T | Promise<T>, ms: number, who: string): T | Promise<T> {
  return answer instanceof Promise ? inTime(answer, ms, who) : answer;
}

async function inTime<T>(answer: Promise<T>, ms: number, who: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${who} did not answer within ${ms} ms`)), ms);
  try {
    return await Promise.race([answer, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
