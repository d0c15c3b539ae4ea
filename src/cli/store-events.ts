import type { openSqliteStore } from '../adapters/store-sqlite.ts';
import type { Store } from '../ports/store.ts';
import { counter } from '../runtime/metrics.ts';
import type { Log, Registry } from '../runtime/telemetry.ts';
import { systemClock } from './clock.ts';

const EXPIRE_EVERY_MS = 3_600_000;

/** What the store tells of its troubles, counted and logged. */
export function storeEvents(registry: Registry, log: Log): Parameters<typeof openSqliteStore>[2] {
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
    help: 'Traces of messages that could not be written, so that other daemons give those messages a trace of their own.',
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
      log.warn({ traces, why }, 'traces could not be written: other daemons will not find them');
    },
  };
}

/** Removes old history now and every hour. */
export function expireRegularly(store: Store, age: () => number, log: Log): Disposable {
  const expire = async (): Promise<void> => {
    try {
      const removed = await store.expire(systemClock.now() - age());
      if (removed > 0) log.info({ decisions: removed }, 'old history removed');
    } catch (error) {
      log.error({ err: error }, 'old history could not be removed');
    }
  };
  void expire();
  const timer = setInterval(() => void expire(), EXPIRE_EVERY_MS).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
