import { cpus } from 'node:os';

import type { Measured } from './policyd.ts';

/** All rows of policy servers, with the machine they were measured on. */
export function policyTable(measured: readonly Measured[]): string {
  const machine = cpus();
  const rows = measured.map(
    (r) =>
      `| ${r.name} | ${r.recipients} | ${r.connections} | ${r.requests} | ${r.unexpected} | ${r.perSecond}${r.saturated ? ' (load generator saturated)' : ''} ` +
      `| ${r.cpuMicroseconds} | ${r.p50Ms} | ${r.p99Ms} | ${r.rssMiB ?? ''} | ${r.peakRssMiB} | ${r.loadAverage} |`,
  );
  return [
    `\nNode ${process.version}, ${machine.length} × ${machine[0]?.model ?? 'unknown processor'}. CPU: user and system time of all threads and children, for each request.`,
    '',
    '| policy server | recipients | connections | requests | unexpected | per second | CPU µs | p50 ms | p99 ms | RSS MiB | peak RSS MiB | load average |',
    '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
    ...rows,
  ].join('\n');
}
