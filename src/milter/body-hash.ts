import { createHash } from 'node:crypto';

import { BodyCanonicalizer, type Canonicalization } from '../mail/dkim-body.ts';
import { LineBreaker } from '../mail/line-breaker.ts';

/** bh= of a body that comes piece by piece: hashed once, whatever signs it. RFC 6376 §3.7. */
export class BodyHash {
  readonly #hash = createHash('sha256');
  readonly #body: BodyCanonicalizer;
  /** null: lines stay as they are. */
  readonly #lines: LineBreaker | null;
  #digest: string | null = null;

  /** @param lineLimit where the MTA will break long lines; 0: nowhere */
  constructor(canonicalization: Canonicalization, lineLimit: number) {
    this.#body = new BodyCanonicalizer(canonicalization, (bytes) => {
      this.#hash.update(bytes);
    });
    this.#lines = lineLimit === 0 ? null : new LineBreaker(lineLimit, (bytes) => this.#body.write(bytes));
  }

  /** The next octets of the body. Keeps nothing of the chunk. */
  write(chunk: Uint8Array): void {
    if (this.#digest !== null) throw new Error('the body has ended');
    if (this.#lines === null) this.#body.write(chunk);
    else this.#lines.write(chunk);
  }

  /** Base64. Ends the body; may be asked again. */
  digest(): string {
    if (this.#digest !== null) return this.#digest;
    this.#lines?.end();
    this.#body.end();
    this.#digest = this.#hash.digest('base64');
    return this.#digest;
  }
}
