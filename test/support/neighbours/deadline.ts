export const DEFAULT_DEADLINE_MS = 20_000;

/** The promise's value, or an error that names what was waited for. `explain` is asked only when the time is up. */
export async function withDeadline<T>(
  promise: Promise<T>,
  milliseconds: number,
  what: string,
  explain?: () => string,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const more = explain === undefined ? '' : `\n${explain()}`;
    late.reject(new Error(`after ${milliseconds} ms still waiting for ${what}${more}`));
  }, milliseconds);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
