import type { Registry } from 'prom-client';

/** Value of one series; undefined when there is none. */
export async function metric(
  registry: Registry,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<number | undefined> {
  const found = await registry.getSingleMetric(name)?.get();
  const wanted = Object.entries(labels);
  return found?.values.find((series) =>
    wanted.every(([label, value]) => Reflect.get(series.labels, label) === value),
  )?.value;
}
