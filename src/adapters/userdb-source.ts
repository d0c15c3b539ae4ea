import type { Clock } from '../ports/clock.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS } from './connection-pool.ts';
import {
  subjectOf,
  valuesFor,
  type DirectorySource,
  type Lookup,
  type Row,
  type SourceEvents,
  type Subject,
} from './directory-source.ts';
import type { Doveadm } from './doveadm.ts';
import { quotaOfFields } from './passwd-file.ts';

/** Dovecot's user database, as doveadm tells of it: mailboxes, and their quotas. */
export class UserdbSource implements DirectorySource {
  readonly where = 'user database of Dovecot';
  readonly #doveadm: Pick<Doveadm, 'user' | typeof Symbol.dispose>;
  readonly #localPartOnly: boolean;
  readonly #clock: Clock;
  readonly #events: SourceEvents;
  #state: 'unknown' | 'up' | 'down' = 'unknown';
  #failures = 0;
  #retryAt = -Infinity;
  #why = new NeighbourError('not asked yet');

  /** @param localPartOnly whether Dovecot knows its users by the local part alone (auth_username_format = %n) */
  constructor(
    doveadm: Pick<Doveadm, 'user' | typeof Symbol.dispose>,
    localPartOnly: boolean,
    clock: Clock,
    events: SourceEvents,
  ) {
    this.#doveadm = doveadm;
    this.#localPartOnly = localPartOnly;
    this.#clock = clock;
    this.#events = events;
  }

  has(lookup: Lookup): boolean {
    return lookup === 'mailbox' || lookup === 'account';
  }

  async ask(lookup: Lookup, subject: Subject): Promise<readonly Row[]> {
    const user = this.#localPartOnly ? subject.local : subject.address;
    // The same keys that no table holds are no names of users.
    if (!this.has(lookup) || valuesFor(LOGIN, subjectOf(user)) === null || user.startsWith('@')) return [];
    const fields = await this.#fields(user);
    if (fields === null) return [];
    if (lookup === 'mailbox') return [new Map([['user', [subject.address]]])];
    const quota = quotaOfFields(fields);
    return quota === undefined ? [] : [new Map([['quota', [String(quota ?? 0)]]])];
  }

  [Symbol.dispose](): void {
    this.#doveadm[Symbol.dispose]();
  }

  /** While doveadm is away, questions fail at once until the next attempt. */
  async #fields(user: string): Promise<ReadonlyMap<string, string> | null> {
    if (this.#failures > 0) {
      const now = this.#clock.elapsed();
      if (now < this.#retryAt) throw this.#why;
      this.#retryAt = now + LONGEST_BACKOFF_MS;
    }
    try {
      const fields = await this.#doveadm.user(user);
      this.#failures = 0;
      if (this.#state !== 'up') this.#events.up();
      this.#state = 'up';
      return fields;
    } catch (error) {
      this.#why = new NeighbourError(this.where, { cause: error });
      this.#failures += 1;
      this.#retryAt =
        this.#clock.elapsed() +
        Math.min(FIRST_BACKOFF_MS * 2 ** Math.min(this.#failures - 1, 10), LONGEST_BACKOFF_MS);
      if (this.#state !== 'down') this.#events.down(reasonOf(error));
      this.#state = 'down';
      throw this.#why;
    }
  }
}

const LOGIN = { parts: ['', ''], parameters: ['login'] } as const;

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'it failed';
  return error.cause instanceof Error ? error.cause.message : error.message;
}
