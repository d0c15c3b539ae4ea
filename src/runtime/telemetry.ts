import { pino, type Logger } from 'pino';
import type { Registry } from 'prom-client';

import { TurnStream } from './turn-stream.ts';

export type Log = Logger;
export type { Registry } from 'prom-client';

/** How a daemon is seen from outside. */
export interface Telemetry {
  readonly log: Log;
  /** Metrics of this process; each daemon registers its own once. */
  readonly registry: Registry;
}

const STDOUT = 1;

/** JSON lines on standard output, written at the end of the turn of the event loop they come in, and at the exit of the process. */
export function openLog(level: 'debug' | 'info' | 'warn' | 'error' | 'silent'): Log {
  const stream = new TurnStream(STDOUT, (error) => {
    process.stderr.write(`postern: log lines are lost: ${error.message}\n`);
  });
  process.on('exit', () => stream.flushSync());
  return pino(
    {
      level,
      base: null,
      timestamp: isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    stream,
  );
}

let millisecond = 0;
let text = '';

/** `,"time":"…"` as pino wants it; many lines of one millisecond share it. */
function isoTime(): string {
  const now = Date.now();
  if (now !== millisecond) {
    millisecond = now;
    text = `,"time":"${new Date(now).toISOString()}"`;
  }
  return text;
}
