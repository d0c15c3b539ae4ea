import { pino, type Logger } from 'pino';
import type { Registry } from 'prom-client';

export type Log = Logger;
export type { Registry } from 'prom-client';

/** How a daemon is seen from outside. */
export interface Telemetry {
  readonly log: Log;
  /** Metrics of this process; each daemon registers its own once. */
  readonly registry: Registry;
}

/** JSON lines on standard output, written at once: a line that was logged is not lost by a crash. */
export function openLog(level: 'debug' | 'info' | 'warn' | 'error' | 'silent'): Log {
  return pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
}
