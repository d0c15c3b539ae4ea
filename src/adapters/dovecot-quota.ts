import { LRUCache } from 'lru-cache';

import type { Clock } from '../ports/clock.ts';
import type { Directory } from '../ports/directory.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { MailboxUsage, QuotaSource } from '../ports/quota.ts';
import type { QuotaRoot } from './doveadm.ts';
import { within } from './within.ts';

/** What can tell how full a mailbox is and may be. */
interface Roots {
  /** null: no such user. @throws {NeighbourError} */
  quota(user: string): Promise<readonly QuotaRoot[] | null>;
}

/** What can tell how full a mailbox is. */
interface Usage {
  /** Octets; null: unknown. @throws {NeighbourError} */
  used(user: string): Promise<number | null>;
}

/** quota_grace: octets, or a share of the limit. */
export type Grace = { readonly octets: number } | { readonly percent: number };

export interface QuotaSourceOptions {
  readonly grace: Grace;
  /** Whether Dovecot knows its users by the local part alone (auth_username_format = %n). */
  readonly localPartOnly: boolean;
  /** How long a limit that Dovecot told is used. */
  readonly limitsMs: number;
}

export interface QuotaNeighbours {
  /** Asked first for limits: what it says needs no question. */
  readonly directory: Pick<Directory, 'account'>;
  /** Dovecot's quota_clone; null: there is none. */
  readonly clone: Usage | null;
  readonly doveadm: Roots | null;
}

/** What is counted of each look: where the usage came from, or that nobody knew. */
export const LOOK_RESULTS = ['redis', 'doveadm', 'cache', 'unknown', 'failed'] as const;
export type LookResult = (typeof LOOK_RESULTS)[number];

export interface QuotaEvents {
  looked(result: LookResult): void;
}

/** How long usage that doveadm told is used. */
export const USAGE_MS = 5000;
/** Mailboxes remembered at once. */
const KEPT = 100_000;

interface Told {
  /** null: no such user. */
  readonly roots: readonly QuotaRoot[] | null;
  /** Of the clock's `elapsed`. */
  readonly at: number;
}

/** Usage from quota_clone where there is one, limits from the directory or doveadm; what the others don't know doveadm is asked. */
export class DovecotQuota implements QuotaSource {
  readonly #options: QuotaSourceOptions;
  readonly #neighbours: QuotaNeighbours;
  readonly #clock: Clock;
  readonly #events: QuotaEvents;
  readonly #told: LRUCache<string, Told>;
  /** By user: one question at a time. */
  readonly #asked = new Map<string, Promise<Told>>();

  constructor(options: QuotaSourceOptions, neighbours: QuotaNeighbours, clock: Clock, events: QuotaEvents) {
    this.#options = options;
    this.#neighbours = neighbours;
    this.#clock = clock;
    this.#events = events;
    this.#told = new LRUCache({ max: KEPT });
  }

  async usage(user: string, signal: AbortSignal): Promise<MailboxUsage | null> {
    try {
      const usage = await this.#look(user, signal);
      if (usage === null) this.#events.looked('unknown');
      return usage;
    } catch (error) {
      this.#events.looked('failed');
      throw error;
    }
  }

  async #look(mailbox: string, signal: AbortSignal): Promise<MailboxUsage | null> {
    const { directory, clone, doveadm } = this.#neighbours;
    const user = this.#options.localPartOnly ? localPart(mailbox) : mailbox;
    const { quota } = await directory.account(mailbox, signal);
    if (clone !== null) {
      const used = await this.#cloned(clone, user, signal);
      if (used !== null) {
        const limit = quota === undefined ? await this.#limit(user, used, signal) : { used, limit: quota };
        if (limit === null) return null;
        this.#events.looked('redis');
        return this.#usage(limit.used, limit.limit, 'redis');
      }
      // Nothing has changed since the cloning began, or Redis was emptied: that is unknown, not zero.
    }
    if (doveadm === null) return null;
    const before = this.#clock.elapsed();
    const told = await this.#ask(user, USAGE_MS, signal);
    const root = told.roots === null ? null : tightest(told.roots);
    if (root === null) return null;
    this.#events.looked(told.at < before ? 'cache' : 'doveadm');
    return this.#usage(root.used, quota === undefined ? root.limit : quota, 'doveadm');
  }

  /** While Redis is away doveadm stands in for it: dearer, and no more than so many at once. */
  async #cloned(clone: Usage, user: string, signal: AbortSignal): Promise<number | null> {
    try {
      return await within(clone.used(user), signal);
    } catch (error) {
      if (this.#neighbours.doveadm === null || signal.aborted || !(error instanceof NeighbourError))
        throw error;
      return null;
    }
  }

  /** The limit that Dovecot has, where the directory has none. quota_clone tells the usage of the first root alone. */
  async #limit(
    user: string,
    used: number,
    signal: AbortSignal,
  ): Promise<{ readonly used: number; readonly limit: number | null } | null> {
    if (this.#neighbours.doveadm === null) return { used, limit: null };
    const { roots } = await this.#ask(user, this.#options.limitsMs, signal);
    if (roots === null) return null;
    const [first, ...others] = roots;
    return tightest(first === undefined ? others : [{ ...first, used }, ...others]) ?? { used, limit: null };
  }

  /** What doveadm told no longer than `ageMs` ago, or tells now. */
  async #ask(user: string, ageMs: number, signal: AbortSignal): Promise<Told> {
    const known = this.#told.get(user);
    if (known !== undefined && this.#clock.elapsed() - known.at <= ageMs) return known;
    let asked = this.#asked.get(user);
    if (asked === undefined) {
      asked = this.#question(user);
      this.#asked.set(user, asked);
    }
    return await within(asked, signal);
  }

  async #question(user: string): Promise<Told> {
    try {
      const { doveadm } = this.#neighbours;
      const roots = doveadm === null ? null : await doveadm.quota(user);
      const told = { roots, at: this.#clock.elapsed() };
      this.#told.set(user, told);
      return told;
    } finally {
      this.#asked.delete(user);
    }
  }

  #usage(used: number, limit: number | null, source: string): MailboxUsage {
    return { used, limit, grace: limit === null ? 0 : this.#grace(limit), source };
  }

  #grace(limit: number): number {
    const { grace } = this.#options;
    return 'octets' in grace ? grace.octets : Math.floor((limit * grace.percent) / 100);
  }
}

/** Dovecot goes by the root that has the least room (quota.c quota_transaction_set_limits). null: there is no root. */
function tightest(roots: readonly QuotaRoot[]): QuotaRoot | null {
  let found: QuotaRoot | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const root of roots) {
    const room = root.limit === null ? Number.POSITIVE_INFINITY : root.limit - root.used;
    if (found !== null && room >= least) continue;
    found = root;
    least = room;
  }
  return found;
}

function localPart(mailbox: string): string {
  const at = mailbox.lastIndexOf('@');
  return at === -1 ? mailbox : mailbox.slice(0, at);
}
