import { EventEmitter, once } from 'node:events';

import type { RedisEvents } from '../../src/adapters/redis-client.ts';
import { DEFAULT_DEADLINE_MS } from './neighbours/deadline.ts';

/** What a connection to Redis told, and a way to wait for it. */
export class LinkEvents implements RedisEvents {
  /** `up`, or `down: why`, one after another. */
  readonly told: string[] = [];
  readonly #emitter = new EventEmitter();

  up(): void {
    this.told.push('up');
    this.#emitter.emit('up');
  }

  down(why: string): void {
    this.told.push(`down: ${why}`);
    this.#emitter.emit('down');
  }

  /** The next one, or, when `times` is given, that it was told so often in all. */
  async next(kind: 'up' | 'down', times = 0): Promise<void> {
    const count = (): number => this.told.filter((word) => word.startsWith(kind)).length;
    const wanted = times === 0 ? count() + 1 : times;
    while (count() < wanted) {
      await once(this.#emitter, kind, { signal: AbortSignal.timeout(DEFAULT_DEADLINE_MS) });
    }
  }
}
