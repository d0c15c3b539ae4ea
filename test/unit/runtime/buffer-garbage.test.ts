import { PerformanceObserver, constants } from 'node:perf_hooks';

import { expect, test } from 'vitest';

import { GARBAGE_OCTETS, noteBuffer } from '../../../src/runtime/buffer-garbage.ts';

test('after so many octets, and not before, the young generation is gone through', async () => {
  const forced: number[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const detail: unknown = 'detail' in entry ? entry.detail : null;
      if (
        typeof detail === 'object' &&
        detail !== null &&
        'kind' in detail &&
        'flags' in detail &&
        detail.kind === constants.NODE_PERFORMANCE_GC_MINOR &&
        detail.flags === constants.NODE_PERFORMANCE_GC_FLAGS_FORCED
      )
        forced.push(1);
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  try {
    noteBuffer(GARBAGE_OCTETS - 1);
    await new Promise(setImmediate);
    expect(forced).toEqual([]);
    noteBuffer(1);
    await expect.poll(() => forced.length).toBe(1);
    noteBuffer(GARBAGE_OCTETS);
    await expect.poll(() => forced.length).toBe(2);
  } finally {
    observer.disconnect();
  }
});
