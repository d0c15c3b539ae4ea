import { Histogram, Registry } from 'prom-client';
import { expect, test } from 'vitest';

import { SpreadHistogram, TallyCounter } from '../../../src/runtime/tally.ts';

test('what is counted is there when the metric is read, once, with what was counted the usual way', async () => {
  const registry = new Registry();
  const metric = new TallyCounter({ name: 'a', help: 'A.', labelNames: ['x'], registers: [registry] });
  const one = metric.tally({ x: '1' });
  const same = metric.tally({ x: '1' });
  expect(await registry.metrics()).toContain('a{x="1"} 0');
  one.count += 2;
  same.count++;
  metric.inc({ x: '1' }, 4);
  expect(await registry.metrics()).toContain('a{x="1"} 7');
  expect((await metric.get()).values).toEqual([{ labels: { x: '1' }, value: 7 }]);
});

test('a histogram reads as that of prom-client does, value for value', async () => {
  const options = { name: 'h', help: 'H.', labelNames: ['x'], buckets: [0.1, 1, 5] };
  const [ours, theirs] = [new Registry(), new Registry()];
  const spread = new SpreadHistogram({ ...options, registers: [ours] });
  const plain = new Histogram({ ...options, registers: [theirs] });
  for (const value of [0, 0.1, 0.100_01, 1, 4, 5, 5.1, 100]) {
    spread.spread({ x: 'a' }).observe(value);
    plain.observe({ x: 'a' }, value);
  }
  expect(await ours.metrics()).toBe(await theirs.metrics());
  expect(await plain.get()).toMatchObject(await spread.get());
});
