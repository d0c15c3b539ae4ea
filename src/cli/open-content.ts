import { ThreadedContentScanner } from '../adapters/content/scanner.ts';
import { counter, histogram } from '../runtime/metrics.ts';
import type { Telemetry } from '../runtime/telemetry.ts';

const BUCKETS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10];

/** For the check "content": counts what is looked at, and threads that were lost over it. */
export function openContentScanner({ log, registry }: Telemetry): ThreadedContentScanner {
  const seconds = histogram(registry, {
    name: 'postern_content_scan_seconds',
    help: 'Time that a thread took to look into the content of one message.',
    buckets: BUCKETS,
  });
  const lost = counter(registry, {
    name: 'postern_content_threads_lost_total',
    help: 'Threads that were ended because a message took too long, or that a message brought down.',
  });
  return new ThreadedContentScanner({
    scanned: (elapsedMs) => seconds.observe(elapsedMs / 1000),
    threadLost(why) {
      lost.inc();
      log.error({ why }, 'a thread that looks into content was lost, the next message gets a new one');
    },
  });
}
