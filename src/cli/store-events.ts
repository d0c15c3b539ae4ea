import type { WriterEvents } from '../adapters/sqlite-writer.ts';
import type { Store } from '../ports/store.ts';
import { counter, gauge } from '../runtime/metrics.ts';
import type { Log, Registry, Telemetry } from '../runtime/telemetry.ts';
import { systemClock } from './clock.ts';

const EXPIRE_EVERY_MS = 3_600_000;
const TRIM_EVERY_MS = 60_000;

/** What the store tells of its troubles, counted and logged. */
export function storeEvents(registry: Registry, log: Log): WriterEvents {
  const failures = counter(registry, {
    name: 'postern_store_write_failures_total',
    help: 'Attempts to write decisions that failed; they are tried again.',
  });
  const losses = counter(registry, {
    name: 'postern_store_lost_decisions_total',
    help: 'Decisions that could not be recorded.',
  });
  const lostTraces = counter(registry, {
    name: 'postern_store_lost_traces_total',
    help: 'Traces and facts of messages that could not be written, so that other daemons check those messages again, under a trace of their own.',
  });
  return {
    writeFailed(error, waiting) {
      failures.inc();
      log.error({ why: error.message, waiting }, 'decisions could not be written, they are tried again');
    },
    lost(decisions, why) {
      losses.inc(decisions);
      log.error({ decisions, why }, 'decisions are lost');
    },
    tracesLost(traces, why) {
      lostTraces.inc(traces);
      log.warn({ traces, why }, 'traces and facts could not be written: other daemons will not find them');
    },
  };
}

/** What of the history is kept. */
export interface Retention {
  /** Milliseconds. */
  readonly history_age: number;
  /** Octets. */
  readonly history_max_size: number;
}

/** Removes old history now and every hour, and what is too much now and every minute. */
export function expireRegularly(
  store: Pick<Store, 'expire' | 'trim'>,
  settings: () => Retention,
  telemetry: Telemetry,
): Disposable {
  const { log } = telemetry;
  const metrics = historyMetrics(telemetry.registry);
  const expire = async (): Promise<void> => {
    try {
      const removed = await store.expire(systemClock.now() - settings().history_age);
      metrics.removed.inc({ why: 'age' }, removed);
      if (removed > 0) log.info({ decisions: removed }, 'old history removed');
    } catch (error) {
      log.error({ err: error }, 'old history could not be removed');
    }
  };
  // Of those that went by size, a line each hour is enough.
  let untold = 0;
  let quiet = 0;
  const trim = async (): Promise<void> => {
    try {
      const octets = settings().history_max_size;
      const trimmed = await store.trim(octets);
      if (trimmed.octets !== null) metrics.octets.set(trimmed.octets);
      metrics.removed.inc({ why: 'size' }, trimmed.decisions);
      untold += trimmed.decisions;
      quiet = Math.max(0, quiet - 1);
      if (untold === 0 || quiet > 0) return;
      log.warn({ decisions: untold, octets }, 'history_max_size reached, the oldest history removed');
      untold = 0;
      quiet = EXPIRE_EVERY_MS / TRIM_EVERY_MS;
    } catch (error) {
      log.error({ err: error }, 'too much history could not be removed');
    }
  };
  let trimming: Promise<void> | null = null;
  const trimOnce = (): void => {
    trimming ??= trim().finally(() => (trimming = null));
  };
  void expire();
  trimOnce();
  const timers = [
    setInterval(() => void expire(), EXPIRE_EVERY_MS).unref(),
    setInterval(trimOnce, TRIM_EVERY_MS).unref(),
  ];
  return {
    [Symbol.dispose]: () => {
      for (const timer of timers) clearInterval(timer);
    },
  };
}

function historyMetrics(registry: Registry) {
  return {
    removed: counter(registry, {
      name: 'postern_history_removed_total',
      help: 'Decisions that were removed from the history, for their age or because it had become too large.',
      labels: { why: ['age', 'size'] },
    }),
    octets: gauge(registry, {
      name: 'postern_history_octets',
      help: 'What the history file holds, as of the last minute; free pages in it are not counted. 0 where the history is in Redis.',
    }),
  };
}
