import { hash } from 'node:crypto';

import type { UpstreamPool } from './upstream.ts';

/** The longest LHLO waits for one of several Dovecots. */
const ASKING_MS = 1000;

/**
 * The Dovecots that mail is delivered to, which share their mailboxes. Each mailbox has one of them that delivers to it, so that no two
 * write its indexes at once: the one of highest weight, a hash of both names (rendezvous hashing). All hosts that name the same Dovecots,
 * in whatever order, choose the same; and when one is added or taken away, only the mailboxes that it gets or had move.
 *
 * One that is away is not stood in for: its mail waits, since another could write to a mailbox that it still has open.
 */
export class Upstreams {
  readonly #pools: readonly UpstreamPool[];
  /** The only one there is; null: there are several. */
  readonly single: UpstreamPool | null;

  /** @param pools at least one */
  constructor(pools: readonly UpstreamPool[]) {
    const [first, ...others] = pools;
    if (first === undefined) throw new Error('no Dovecot is configured');
    this.#pools = pools;
    this.single = others.length === 0 ? first : null;
  }

  get pools(): readonly UpstreamPool[] {
    return this.#pools;
  }

  /** @param mailbox as `settingsKey` writes it */
  poolFor(mailbox: string): UpstreamPool {
    let chosen = this.#pools[0];
    let highest = '';
    for (const pool of this.#pools) {
      const weight = hash('sha256', `${pool.name}\0${mailbox}`);
      if (weight <= highest) continue;
      highest = weight;
      chosen = pool;
    }
    if (chosen === undefined) throw new Error('no Dovecot is configured');
    return chosen;
  }

  /** What all of them announce that answer; null: none does. One that is silent keeps nobody's mail from the others. */
  async capabilities(): Promise<ReadonlySet<string> | null> {
    if (this.single !== null) return this.single.capabilities();
    const asked = this.#pools.map((pool) => soon(pool.capabilities()));
    const known = (await Promise.all(asked)).filter((capabilities) => capabilities !== null);
    const [first = null, ...others] = known;
    return others.reduce((common, capabilities) => common?.intersection(capabilities) ?? null, first);
  }

  close(): void {
    for (const pool of this.#pools) pool.close();
  }

  abort(): void {
    for (const pool of this.#pools) pool.abort();
  }
}

/** null: not known so soon. */
async function soon(asked: Promise<ReadonlySet<string> | null>): Promise<ReadonlySet<string> | null> {
  const { promise: late, resolve } = Promise.withResolvers<null>();
  const timer = setTimeout(() => resolve(null), ASKING_MS);
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
  }
}
