import { z } from 'zod';

/** What the process that listens and its workers say to each other. */

const SERIES = z.array(z.looseObject({ name: z.string(), type: z.string(), aggregator: z.string() }));

/** Metrics as prom-client hands them from process to process. */
export type Series = z.infer<typeof SERIES>;

/** @throws {z.ZodError} when they are none */
export function asSeries(metrics: unknown): Series {
  return SERIES.parse(metrics);
}

const TO_WORKER = z.discriminatedUnion('kind', [
  /** With the socket. */
  z.object({ kind: z.literal('connection'), id: z.int() }),
  z.object({ kind: z.literal('metrics'), question: z.int() }),
  z.object({ kind: z.literal('reload') }),
  z.object({ kind: z.literal('stop') }),
  /** The time for a graceful stop is over. */
  z.object({ kind: z.literal('cut') }),
]);

const FROM_WORKER = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('ready') }),
  /** It has the connection with this number. */
  z.object({ kind: z.literal('taken'), id: z.int() }),
  /** A connection that it was given is gone. */
  z.object({ kind: z.literal('closed') }),
  /** `question` is null for its last ones. */
  z.object({ kind: z.literal('metrics'), question: z.int().nullable(), series: SERIES }),
]);

export type ToWorker = z.infer<typeof TO_WORKER>;
export type FromWorker = z.infer<typeof FROM_WORKER>;

/** @throws {z.ZodError} when it is none of ours */
export function toWorker(message: unknown): ToWorker {
  return TO_WORKER.parse(message);
}

/** @throws {z.ZodError} when it is none of ours */
export function fromWorker(message: unknown): FromWorker {
  return FROM_WORKER.parse(message);
}
