import { setTimeout as wait } from 'node:timers/promises';

const EVERY_MS = 50;

/** Waits for what only asking shows. */
export async function eventually(
  milliseconds: number,
  what: string,
  holds: () => Promise<boolean>,
): Promise<void> {
  const until = performance.now() + milliseconds;
  while (!(await holds())) {
    if (performance.now() > until) throw new Error(`after ${milliseconds} ms still waiting for ${what}`);
    await wait(EVERY_MS);
  }
}
