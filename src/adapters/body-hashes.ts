import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { BodyCanonicalizer, type Canonicalization } from '../mail/dkim-body.ts';

/** Different body hashes (c=, l=) that are computed of one message. Each has to look at the whole body. */
export const BODY_HASHES_LIMIT = 4;

/** The body is hashed in pieces of this size, others get their turn between them. */
const PIECE = 64 * 1024;

/** SHA-256 of the canonical body, or of its first octets. RFC 6376 §3.7. */
export class BodySum {
  readonly #hash = createHash('sha256');
  readonly #limit: number;
  #octets = 0;
  #digest: string | null = null;

  constructor(limit: number | null) {
    this.#limit = limit ?? Number.POSITIVE_INFINITY;
  }

  /** In base64. After the end of the body. */
  get digest(): string {
    return (this.#digest ??= this.#hash.digest('base64'));
  }

  /** Octets of the canonical body after those that were hashed. */
  get unsigned(): number {
    return Math.max(0, this.#octets - this.#limit);
  }

  update(bytes: Uint8Array): void {
    const room = this.#limit - this.#octets;
    this.#octets += bytes.length;
    if (room > 0) this.#hash.update(bytes.length > room ? bytes.subarray(0, room) : bytes);
  }
}

interface Kind {
  readonly canonicalizer: BodyCanonicalizer;
  readonly sums: BodySum[];
}

/**
 * The hashes of one body, while it comes. It is made canonical once for each canonicalization.
 *
 * Several may read the same body at the same time, each through its own feeder; what one of them has given the others need not give again.
 */
export class BodyHashes {
  readonly #kinds = new Map<Canonicalization, Kind>();
  readonly #sums = new Map<string, BodySum>();
  /** Octets of the body that were hashed. */
  #taken = 0;
  #begun = false;
  #ended = false;

  /** Whether it is too late to want a hash. */
  get begun(): boolean {
    return this.#begun;
  }

  /** One that is to be computed; null when it would be one too many. Before the body begins. */
  want(canonicalization: Canonicalization, length: number | null): BodySum | null {
    const key = `${canonicalization} ${length ?? ''}`;
    const known = this.#sums.get(key);
    if (known !== undefined) return known;
    if (this.#sums.size >= BODY_HASHES_LIMIT) return null;
    const sum = new BodySum(length);
    this.#sums.set(key, sum);
    const kind = this.#kinds.get(canonicalization);
    if (kind === undefined) this.#kinds.set(canonicalization, newKind(canonicalization, sum));
    else kind.sums.push(sum);
    return sum;
  }

  feeder(signal: AbortSignal): BodyFeeder {
    let given = 0;
    return {
      write: (chunk) => {
        this.#begun = true;
        const from = given;
        given += chunk.length;
        if (this.#kinds.size === 0) return undefined;
        if (chunk.length > PIECE) return this.#takeSlowly(chunk, from, signal);
        signal.throwIfAborted();
        this.#take(chunk, from, chunk.length);
        return undefined;
      },
      end: () => {
        this.#begun = true;
        if (this.#ended) return;
        this.#ended = true;
        for (const { canonicalizer } of this.#kinds.values()) canonicalizer.end();
      },
    };
  }

  async #takeSlowly(chunk: Uint8Array, from: number, signal: AbortSignal): Promise<void> {
    while (this.#taken < from + chunk.length) {
      signal.throwIfAborted();
      this.#take(chunk, from, PIECE);
      await nextTurn();
    }
    signal.throwIfAborted();
  }

  /** Hashes the next octets, so many at most, of a chunk that begins at octet `from` of the body. */
  #take(chunk: Uint8Array, from: number, limit: number): void {
    const begin = this.#taken - from;
    const piece = begin === 0 && chunk.length <= limit ? chunk : chunk.subarray(begin, begin + limit);
    if (begin < 0 || piece.length === 0) return;
    this.#taken += piece.length;
    for (const { canonicalizer } of this.#kinds.values()) canonicalizer.write(piece);
  }
}

export interface BodyFeeder {
  /** The next octets. A promise: nothing more is to be given until it is kept. */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** No more will come. */
  end(): void;
}

function newKind(canonicalization: Canonicalization, sum: BodySum): Kind {
  const sums = [sum];
  const canonicalizer = new BodyCanonicalizer(canonicalization, (bytes) => {
    for (const each of sums) each.update(bytes);
  });
  return { canonicalizer, sums };
}
