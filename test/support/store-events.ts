import { EventEmitter, once } from 'node:events';

import type { WriterEvents } from '../../src/adapters/sqlite-writer.ts';
import { DEFAULT_DEADLINE_MS } from './neighbours/deadline.ts';

/** What a store told of its troubles, and a way to wait for it. */
export class StoreEvents implements WriterEvents {
  /** `failed`, `lost NUMBER` or `traces NUMBER`, one after another. */
  readonly told: string[] = [];
  readonly #emitter = new EventEmitter();

  writeFailed = (): void => this.#tell('failed', 'failed');
  lost = (decisions: number): void => this.#tell('lost', `lost ${decisions}`);
  tracesLost = (traces: number): void => this.#tell('traces', `traces ${traces}`);

  /** The next one. */
  async next(kind: 'failed' | 'lost' | 'traces'): Promise<void> {
    await once(this.#emitter, kind, { signal: AbortSignal.timeout(DEFAULT_DEADLINE_MS) });
  }

  #tell(kind: string, words: string): void {
    this.told.push(words);
    this.#emitter.emit(kind);
  }
}
