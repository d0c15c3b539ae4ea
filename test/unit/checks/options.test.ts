import { describe, expect, it } from 'vitest';

import { byteSize, duration } from '../../../src/checks/options.ts';

describe('duration', () => {
  it.each([
    ['250ms', 250],
    ['0s', 0],
    ['5s', 5000],
    ['1.5s', 1500],
    ['10m', 600_000],
    ['2h', 7_200_000],
    ['30d', 2_592_000_000],
  ])('%s is %d milliseconds', (text, milliseconds) => {
    expect(duration().parse(text)).toBe(milliseconds);
  });

  it.each(['', '5', '5 s', '-5s', '5S', '1e3s', 's', '5sx', '5s\n', '.5s', '5µs', 5])(
    '%j is none',
    (text) => {
      const result = duration().safeParse(text);
      expect(result.success).toBe(false);
      expect(result.error?.issues[0]?.message).toMatch(/^expected a duration such as/);
    },
  );
});

describe('byteSize', () => {
  it.each([
    ['0B', 0],
    ['800B', 800],
    ['512KiB', 524_288],
    ['10MiB', 10_485_760],
    ['1GiB', 1_073_741_824],
  ])('%s is %d octets', (text, octets) => {
    expect(byteSize().parse(text)).toBe(octets);
  });

  it.each(['', '512', '512KB', '1.5MiB', '-1B', '1 MiB', '1MiB\n', 'MiB', 512])('%j is none', (text) => {
    const result = byteSize().safeParse(text);
    expect(result.success).toBe(false);
    expect(result.error?.issues[0]?.message).toMatch(/^expected a size such as/);
  });
});
