import { NeighbourError } from '../ports/neighbour-error.ts';
import type { RedisClient } from './redis-client.ts';

/** What quota_clone writes is a decimal number (quota-clone-plugin.c). */
const OCTETS = /^\d{1,15}$/;

/** Usage as Dovecot's quota_clone plugin keeps it in Redis. */
export class QuotaClone {
  readonly #redis: Pick<RedisClient, 'texts'>;
  readonly #prefix: string;

  /** @param prefix of quota_clone_dict (2.3: `prefix=`, 2.4: redis_key_prefix) */
  constructor(redis: Pick<RedisClient, 'texts'>, prefix: string) {
    this.#redis = redis;
    this.#prefix = prefix;
  }

  /**
   * Octets; null: unknown, because nothing has changed in the mailbox since the cloning began.
   *
   * @param user one character for each octet
   * @throws {NeighbourError}
   */
  async used(user: string): Promise<number | null> {
    const name = Buffer.from(user, 'latin1').toString('utf8');
    const [value = null] = await this.#redis.texts([`${this.#prefix}${escaped(name)}/quota/storage`]);
    if (value === null) return null;
    if (!OCTETS.test(value)) throw new NeighbourError('quota_clone: what Redis has is no number');
    return Number(value);
  }
}

/** dict-redis.c redis_escape_username: only a name with a slash is touched at all. */
function escaped(user: string): string {
  if (!user.includes('/')) return user;
  return user.replaceAll('\\', '\\\\').replaceAll('/', '\\-');
}
