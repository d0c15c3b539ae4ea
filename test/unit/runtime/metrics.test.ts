import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';

import {
  counter,
  gauge,
  histogram,
  outcomeObserver,
  processMetrics,
  reloadMetrics,
} from '../../../src/runtime/metrics.ts';

/** The samples of one metric, as they are scraped. */
async function samples(registry: Registry, name: string): Promise<string[]> {
  const all = await registry.metrics();
  return all.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
}

describe('makers', () => {
  test('every combination of known label values is there before the first event', async () => {
    const registry = new Registry();
    const made = counter<'a' | 'b'>(registry, {
      name: 'x_total',
      help: 'X.',
      labels: { a: ['1', '2'], b: ['u', 'v'] },
    });
    made.inc({ a: '2', b: 'u' });
    expect(await samples(registry, 'x_total')).toEqual([
      'x_total{a="1",b="u"} 0',
      'x_total{a="1",b="v"} 0',
      'x_total{a="2",b="u"} 1',
      'x_total{a="2",b="v"} 0',
    ]);
  });

  test('a label without known values waits for its first use', async () => {
    const registry = new Registry();
    const made = gauge<'a'>(registry, { name: 'x', help: 'X.', labels: { a: [] } });
    expect(await samples(registry, 'x')).toEqual([]);
    made.set({ a: 'n' }, 4);
    expect(await samples(registry, 'x')).toEqual(['x{a="n"} 4']);
  });

  test('without labels, 0 from the start', async () => {
    const registry = new Registry();
    gauge(registry, { name: 'x', help: 'X.' });
    histogram(registry, { name: 'y', help: 'Y.', buckets: [1] });
    expect(await samples(registry, 'x')).toEqual(['x 0']);
    expect(await samples(registry, 'y_count')).toEqual(['y_count 0']);
  });

  test('histograms have their label values too', async () => {
    const registry = new Registry();
    histogram<'stage'>(registry, { name: 'y', help: 'Y.', labels: { stage: ['s'] }, buckets: [1] });
    expect(await samples(registry, 'y_count')).toEqual(['y_count{stage="s"} 0']);
  });

  test('the second daemon gets the metric the first one made', () => {
    const registry = new Registry();
    const options = { name: 'x_total', help: 'X.' };
    expect(counter(registry, options)).toBe(counter(registry, options));
    const timing = { name: 'y', help: 'Y.', buckets: [1] };
    expect(histogram(registry, timing)).toBe(histogram(registry, timing));
    expect(() => gauge(registry, options)).toThrow('already been registered');
  });
});

test('the process says what it is, once', async () => {
  const registry = new Registry();
  processMetrics(registry, '1.2.3');
  processMetrics(registry, '1.2.3');
  expect(await samples(registry, 'postern_build_info')).toEqual([
    `postern_build_info{version="1.2.3",node="${process.versions.node}"} 1`,
  ]);
  expect(await samples(registry, 'nodejs_eventloop_lag_p99_seconds')).toHaveLength(1);
  registry.clear();
});

test('a failed reload shows, and the time of the last good one stays', async () => {
  const registry = new Registry();
  const reloads = reloadMetrics(registry);
  reloads.loaded(1000.5);
  reloads.failed();
  expect(await samples(registry, 'postern_config_last_reload_successful')).toEqual([
    'postern_config_last_reload_successful 0',
  ]);
  expect(await samples(registry, 'postern_config_last_reload_success_timestamp_seconds')).toEqual([
    'postern_config_last_reload_success_timestamp_seconds 1000.5',
  ]);
});

describe('outcomes of checks', () => {
  const CHECKS = [
    { name: 'spf', codes: ['spf.pass', 'spf.fail'] },
    { name: 'dkim', codes: ['dkim.pass'] },
  ];

  test('all codes are there before the first message', async () => {
    const registry = new Registry();
    outcomeObserver(registry, CHECKS);
    expect(await samples(registry, 'postern_check_outcomes_total')).toEqual([
      'postern_check_outcomes_total{check="spf",code="spf.pass"} 0',
      'postern_check_outcomes_total{check="spf",code="spf.fail"} 0',
      'postern_check_outcomes_total{check="spf",code="none"} 0',
      'postern_check_outcomes_total{check="dkim",code="dkim.pass"} 0',
      'postern_check_outcomes_total{check="dkim",code="none"} 0',
    ]);
    expect(await samples(registry, 'postern_check_unavailable_total')).toHaveLength(8);
  });

  test('each outcome is counted and timed, by all daemons together', async () => {
    const registry = new Registry();
    const one = outcomeObserver(registry, CHECKS);
    const other = outcomeObserver(registry, CHECKS.slice(0, 1));
    one({ kind: 'found', check: 'spf', findings: [{ code: 'spf.fail' }], elapsed: 20 });
    other({ kind: 'found', check: 'spf', findings: [{ code: 'spf.fail' }], elapsed: 20 });
    one({
      kind: 'found',
      check: 'dkim',
      findings: [{ code: 'dkim.pass' }, { code: 'dkim.pass' }],
      elapsed: 1,
    });
    one({ kind: 'found', check: 'dkim', findings: [], elapsed: 1 });
    one({ kind: 'unavailable', check: 'dkim', reason: 'deadline', elapsed: 5000 });
    const counted = await samples(registry, 'postern_check_outcomes_total');
    expect(counted.filter((line) => !line.endsWith(' 0'))).toEqual([
      'postern_check_outcomes_total{check="spf",code="spf.fail"} 2',
      'postern_check_outcomes_total{check="dkim",code="dkim.pass"} 2',
      'postern_check_outcomes_total{check="dkim",code="none"} 1',
    ]);
    expect(await samples(registry, 'postern_check_unavailable_total')).toContain(
      'postern_check_unavailable_total{check="dkim",reason="deadline"} 1',
    );
    expect(await samples(registry, 'postern_check_duration_seconds_sum')).toEqual([
      'postern_check_duration_seconds_sum{check="spf"} 0.04',
      'postern_check_duration_seconds_sum{check="dkim"} 5.002',
    ]);
  });
});
