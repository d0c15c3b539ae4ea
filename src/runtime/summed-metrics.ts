import { AggregatorRegistry } from 'prom-client';

import type { Registry } from './telemetry.ts';
import { asSeries, type Series } from './worker-messages.ts';

/** What a registry holds, to be sent to another process. */
export async function seriesOf(registry: Registry): Promise<Series> {
  return asSeries(await registry.getMetricsAsJSON());
}

/** As text: metrics of several processes as if they were those of one, added up, or as each metric's `aggregator` says. */
export function summedText(processes: readonly Series[]): Promise<string> {
  return AggregatorRegistry.aggregate([...processes]).metrics();
}

/** What outlives the process that counted it: a counter must not go back because a worker ended. */
export async function lasting(processes: readonly Series[]): Promise<Series> {
  const counted = processes.map((series) =>
    series.filter(({ type, aggregator }) => type !== 'gauge' && aggregator === 'sum'),
  );
  return asSeries(await AggregatorRegistry.aggregate(counted).getMetricsAsJSON());
}
