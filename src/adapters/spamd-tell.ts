import type { Clock } from '../ports/clock.ts';
import type { Learned, Lesson, SpamTeacher } from '../ports/lessons.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { NeighbourPool } from './neighbour-pool.ts';
import { exchange, type SpamdAddress } from './spamd-exchange.ts';
import { readTold, tellHead } from './spamd-tell-wire.ts';

export interface SpamdTeacherOptions {
  /** At least one; they share what they learn, since any of them is told. */
  readonly addresses: readonly SpamdAddress[];
  readonly connectTimeoutMs: number;
  /** The longest one of them may take. */
  readonly timeoutMs: number;
  /** Whose Bayes database learns from what this user says; null: that of spamd itself. */
  readonly learner: (user: string) => string | null;
}

/** Status line and two fields. */
const MAX_RESPONSE = 8192;
/** Lessons that may wait for another one to end. */
const WAITING = 1;

/** SpamAssassin's daemon as a pupil (TELL). One lesson at a time: they all write to one database, and scans come first. */
export function createSpamTeacher(options: SpamdTeacherOptions, clock: Clock): SpamTeacher {
  const { addresses, connectTimeoutMs, timeoutMs, learner } = options;
  const pool = new NeighbourPool(
    addresses,
    { perMember: 1, waiting: WAITING, changed: () => undefined },
    clock,
  );
  return {
    teach({ label, user, content }: Lesson, signal: AbortSignal): Promise<Learned> {
      const head = tellHead({ label, contentLength: content.length, user: learner(user) });
      const body = { size: content.length, chunks: () => [content] };
      return pool.run(async (address) => {
        const request = { address, connectTimeoutMs, timeoutMs, maxResponse: MAX_RESPONSE };
        try {
          return readTold(await exchange({ ...request, head, body, bodyOctets: content.length }, signal));
        } catch (error) {
          const where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
          throw new NeighbourError(`spamd at ${where}`, { cause: error });
        }
      }, signal);
    },
  };
}
