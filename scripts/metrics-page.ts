import { Registry } from 'prom-client';
import { z } from 'zod';

import { keyMetrics } from '../src/cli/open-keys.ts';
import { publicationMetrics } from '../src/cli/open-lookout.ts';
import { clamdUp } from '../src/cli/clamd-watch.ts';
import { scannerUp } from '../src/cli/scanner-watch.ts';
import { quarantineMetrics } from '../src/cli/open-quarantine.ts';
import { redisUp } from '../src/cli/open-state.ts';
import { storeEvents } from '../src/cli/store-events.ts';
import { loadConfig } from '../src/config/load.ts';
import { feedbackMetrics } from '../src/feedback/metrics.ts';
import { lmtpMetrics } from '../src/lmtp-filter/metrics.ts';
import { milterMetrics } from '../src/milter/metrics.ts';
import { loginsMetrics } from '../src/policyd/logins-metrics.ts';
import { policydMetrics } from '../src/policyd/metrics.ts';
import { outcomeObserver, processMetrics, reloadMetrics } from '../src/runtime/metrics.ts';
import { openLog } from '../src/runtime/telemetry.ts';
import { workerMetrics } from '../src/runtime/worker-pool.ts';

/** What prom-client's metrics know of themselves. */
const METRIC = z.object({
  name: z.string(),
  help: z.string(),
  type: z.string(),
  labelNames: z.array(z.string()),
});

/** `docs/metrics.md`: every metric of ours, read off a registry in which all daemons have put theirs. */
export async function metricsPage(): Promise<string> {
  const registry = new Registry();
  const loaded = await loadConfig(null);
  if (!loaded.ok) throw new Error('the embedded defaults are not valid');
  policydMetrics(registry, loaded.config);
  loginsMetrics(registry);
  milterMetrics(registry);
  lmtpMetrics(registry);
  feedbackMetrics(registry);
  outcomeObserver(registry, []);
  storeEvents(registry, openLog('silent'));
  redisUp(registry);
  clamdUp(registry);
  scannerUp(registry);
  quarantineMetrics(registry);
  keyMetrics(registry);
  publicationMetrics(registry);
  workerMetrics(registry);
  reloadMetrics(registry);
  processMetrics(registry, '0');
  const rows = registry
    .getMetricsAsArray()
    .map((metric) => METRIC.parse({ ...metric }))
    .filter(({ name }) => name.startsWith('postern_'))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(
      ({ name, type, labelNames, help }) =>
        `| \`${name}\` | ${type} | ${labelNames.map((label) => `\`${label}\``).join(' ')} | ${help} |`,
    );
  return `# Metrics

Made from the program; do not edit. \`GET /metrics\` on the admin listener (default \`http://127.0.0.1:8899\`) shows these, and besides them what prom-client says of the
process (\`process_*\`, \`nodejs_*\`; \`nodejs_eventloop_lag_p99_seconds\` tells of a loop that is held up). \`GET /healthz\` answers while the event loop runs, \`GET /readyz\` when all listeners serve; it lists the
neighbours' state too.

| metric | type | labels | meaning |
|---|---|---|---|
${rows.join('\n')}
`;
}
