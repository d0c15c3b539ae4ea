import { lowerAscii } from '../mail/address.ts';
import type { Account } from '../ports/directory.ts';

/** One `[[account]]` of the configuration. */
export interface AccountEntry {
  /** `user@domain`, a login without a domain, or `@domain` for all of a domain. */
  readonly names: readonly string[];
  /** Octets; null: no limit; undefined: nothing is set. */
  readonly quota?: number | null | undefined;
  readonly limits: Readonly<Record<string, number>>;
  readonly senders: readonly string[];
}

interface Settings {
  readonly quota: number | null | undefined;
  readonly limits: ReadonlyMap<string, number>;
  readonly senders: readonly string[];
}

const NOTHING: Settings = { quota: undefined, limits: new Map(), senders: [] };

/** The most accounts whose merged settings are kept. */
const KEPT = 10_000;

/** What is set for accounts one by one: a user's own onto those of the domain. */
export class AccountSettings {
  readonly #entries = new Map<string, Settings>();
  /** Merged once: limits ask for every message. */
  readonly #merged = new Map<string, Account>();

  constructor(entries: readonly AccountEntry[]) {
    for (const { names, quota, limits, senders } of entries) {
      for (const written of names) {
        const name = lowerAscii(latin1(written));
        const before = this.#entries.get(name) ?? NOTHING;
        this.#entries.set(name, onto(before, { quota, limits: new Map(Object.entries(limits)), senders }));
      }
    }
  }

  /**
   * @param name in lower case
   * @param listed what the list of mailboxes says of its quota: less than the account's own entry, more than that of its domain
   */
  of(name: string, listed: number | null | undefined): Account {
    const known = this.#merged.get(name);
    if (known !== undefined && known.quota === this.#quota(name, listed)) return known;
    const at = name.lastIndexOf('@');
    const domain = (at === -1 ? undefined : this.#entries.get(name.slice(at))) ?? NOTHING;
    const { limits, senders } = onto(domain, this.#entries.get(name) ?? NOTHING);
    const quota = this.#quota(name, listed);
    const account: Account = quota === undefined ? { limits, senders } : { quota, limits, senders };
    if (this.#merged.size >= KEPT) this.#merged.clear();
    this.#merged.set(name, account);
    return account;
  }

  /**
   * @param others what a directory says of the account: less than its own entry, more than that of its domain
   * @param listed as in `of`; less than what `others` say
   */
  over(name: string, others: Account, listed: number | null | undefined): Account {
    const { limits, senders } = this.of(name, undefined);
    const own = this.#entries.get(name);
    const quota = this.#quota(name, others.quota === undefined ? listed : others.quota);
    return {
      ...others,
      ...(quota === undefined ? {} : { quota }),
      limits:
        others.limits.size === 0 ? limits : new Map([...limits, ...others.limits, ...(own?.limits ?? [])]),
      senders: others.senders.length === 0 ? senders : [...senders, ...others.senders],
    };
  }

  #quota(name: string, listed: number | null | undefined): number | null | undefined {
    const own = this.#entries.get(name)?.quota;
    if (own !== undefined) return own;
    if (listed !== undefined) return listed;
    const at = name.lastIndexOf('@');
    return at === -1 ? undefined : this.#entries.get(name.slice(at))?.quota;
  }
}

function onto(base: Settings, own: Settings): Settings {
  return {
    quota: own.quota === undefined ? base.quota : own.quota,
    limits: own.limits.size === 0 ? base.limits : new Map([...base.limits, ...own.limits]),
    senders: own.senders.length === 0 ? base.senders : [...base.senders, ...own.senders],
  };
}

/** As addresses of the envelope are: one character for each octet. */
function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}
