import { NeighbourError } from '../ports/neighbour-error.ts';

/** The answer, unless who asked gives up first; the question goes on for the others. @throws {NeighbourError} */
export async function within<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  const givenUp = (): NeighbourError => new NeighbourError('given up', { cause: signal.reason });
  if (signal.aborted) {
    answer.catch(() => {}); // told to whoever still waits
    throw givenUp();
  }
  const abort = Promise.withResolvers<never>();
  const onAbort = (): void => abort.reject(givenUp());
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([answer, abort.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
