import { setTimeout as delay } from 'node:timers/promises';

import { isBusy } from './sqlite-schema.ts';

/** How long a message waits for another process's write before it goes on without the file. */
const BUSY_ATTEMPTS = 20;
const BUSY_PAUSE_MS = 25;

/** Another process's write takes milliseconds; waiting for it must not stop the event loop. */
export async function whenFree<T>(work: () => T | Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isBusy(error) || attempt >= BUSY_ATTEMPTS) throw error;
    }
    await delay(BUSY_PAUSE_MS);
  }
}
