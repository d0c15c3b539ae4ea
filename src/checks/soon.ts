/** A value that is there, or will be. What is there costs no turn of the event loop. */
export type Soon<T> = T | Promise<T>;

/** Goes on with a value: at once when it is there. */
export function after<T, R>(value: Soon<T>, next: (value: T) => Soon<R>): Soon<R> {
  return value instanceof Promise ? (async () => next(await value))() : next(value);
}
