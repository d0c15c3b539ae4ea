import { expect } from 'vitest';

import type { Hit, HitResult } from '../../../src/ports/limits.ts';
import type { State } from '../../../src/ports/state.ts';
import { fresh, HOUR } from './given.ts';

export function hitOn(differs: Partial<Hit> = {}): Hit {
  return {
    limit: 'messages',
    key: fresh('key'),
    algorithm: 'window',
    most: 10,
    periodMs: HOUR,
    cost: 1,
    enforced: true,
    ...differs,
  };
}

export async function hitOnce(state: State, hit: Hit): Promise<HitResult> {
  const [result, ...more] = await state.hit([hit]);
  expect(more).toEqual([]);
  if (result === undefined) throw new Error('no result');
  return result;
}

export async function hitTimes(state: State, hit: Hit, times: number): Promise<boolean[]> {
  const results: boolean[] = [];
  for (let time = 0; time < times; time++) results.push((await hitOnce(state, hit)).within);
  return results;
}
