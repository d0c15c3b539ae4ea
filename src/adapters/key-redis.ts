import { NeighbourError } from '../ports/neighbour-error.ts';
import type { Row } from './directory-source.ts';
import { KEYS_LIMIT } from './key-folder.ts';
import type { KeySource } from './key-source.ts';
import type { RedisCalls } from './redis-calls.ts';

/** Names of the two hashes. */
export interface KeyHashes {
  /** Private key by `SELECTOR.DOMAIN`. */
  readonly keys: string;
  /** Selectors by domain. */
  readonly selectors: string;
}

/** Signing keys in Redis, in the hashes that rspamd reads. */
export class RedisKeys implements KeySource {
  readonly where: string;
  readonly #calls: Pick<RedisCalls, 'fields'>;
  readonly #hashes: KeyHashes;

  constructor(where: string, calls: Pick<RedisCalls, 'fields'>, hashes: KeyHashes) {
    this.where = where;
    this.#calls = calls;
    this.#hashes = hashes;
  }

  async rowsOf(domain: string): Promise<readonly Row[]> {
    const { keys, selectors } = this.#hashes;
    const [text] = await this.#calls.fields(selectors, [domain]);
    const names = (text ?? '').split(/[\s,]+/).filter((name) => name !== '');
    if (names.length === 0) return [];
    if (names.length > KEYS_LIMIT) {
      throw new NeighbourError(`${this.where}: more than ${KEYS_LIMIT} selectors for ${domain}`);
    }
    const found = await this.#calls.fields(
      keys,
      names.map((name) => `${name}.${domain}`),
    );
    return names.map(
      (selector, index) =>
        new Map([
          ['selector', [selector]],
          ['private_key', found.slice(index, index + 1).filter((key) => key !== null)],
        ]),
    );
  }
}
