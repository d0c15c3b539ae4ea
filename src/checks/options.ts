import { z } from 'zod';

/** Value types of the configuration that checks and daemons share. Each reads what an operator writes and gives the unit the code uses. */

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;
const DURATION_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const DURATION_FORM = 'expected a duration such as "250ms", "5s", "10m", "2h" or "30d"';

/** `"250ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"` → milliseconds. */
export function duration(): z.ZodType<number, string> {
  return z
    .string(DURATION_FORM)
    .regex(DURATION, DURATION_FORM)
    .transform((text) => {
      const [, amount = '0', unit = 's'] = DURATION.exec(text) ?? [];
      return Math.round(Number(amount) * (DURATION_MS[unit] ?? 0));
    })
    .meta({ title: 'duration' });
}

const SIZE = /^(\d+)(B|KiB|MiB|GiB)$/;
const SIZE_BYTES: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

const SIZE_FORM = 'expected a size such as "800B", "512KiB", "10MiB" or "1GiB"';

/** `"512KiB"`, `"10MiB"`, `"1GiB"`, `"800B"` → octets. */
export function byteSize(): z.ZodType<number, string> {
  return z
    .string(SIZE_FORM)
    .regex(SIZE, SIZE_FORM)
    .transform((text) => {
      const [, amount = '0', unit = 'B'] = SIZE.exec(text) ?? [];
      return Number(amount) * (SIZE_BYTES[unit] ?? 0);
    })
    .meta({ title: 'size' });
}
