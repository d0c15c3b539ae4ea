import { lowerAscii } from '../mail/address.ts';
import type { Account, SenderLists } from '../ports/directory.ts';

/** One `[[account]]` of the configuration. */
export interface AccountEntry {
  /** `user@domain`, a login without a domain, or `@domain` for all of a domain. */
  readonly names: readonly string[];
  /** Octets; null: no limit; undefined: nothing is set. */
  readonly quota?: number | null | undefined;
  readonly limits: Readonly<Record<string, number>>;
  readonly senders: readonly string[];
  /** Senders whose mail is wanted, or is not. */
  readonly allow: readonly string[];
  readonly block: readonly string[];
}

interface Settings {
  readonly quota: number | null | undefined;
  readonly limits: ReadonlyMap<string, number>;
  readonly senders: readonly string[];
  /** One character for each octet, as the columns of a directory are. */
  readonly allow: readonly string[];
  readonly block: readonly string[];
}

const NOTHING: Settings = { quota: undefined, limits: new Map(), senders: [], allow: [], block: [] };

/** The most accounts whose merged settings are kept. */
const KEPT = 10_000;

/** What is set for accounts one by one: a user's own onto those of the domain. */
export class AccountSettings {
  readonly #entries = new Map<string, Settings>();
  /** Merged once: limits ask for every message. */
  readonly #merged = new Map<string, Account>();

  constructor(entries: readonly AccountEntry[]) {
    for (const { names, quota, limits, senders, allow, block } of entries) {
      for (const written of names) {
        const name = lowerAscii(latin1(written));
        const before = this.#entries.get(name) ?? NOTHING;
        const given = {
          quota,
          limits: new Map(Object.entries(limits)),
          senders,
          allow: allow.map(latin1),
          block: block.map(latin1),
        };
        this.#entries.set(name, onto(before, given));
      }
    }
  }

  /** Whether it says anything besides quotas, limits and senders. */
  get keepSettings(): boolean {
    return [...this.#entries.values()].some(({ allow, block }) => allow.length + block.length > 0);
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
    const own = this.#entries.get(name) ?? NOTHING;
    const { limits, senders } = onto(domain, own);
    const quota = this.#quota(name, listed);
    const domainLists = listsOf(domain);
    const account: Account = {
      limits,
      senders,
      ...(quota === undefined ? {} : { quota }),
      ...listsOf(own),
      ...(Object.keys(domainLists).length === 0 ? {} : { domainLists }),
    };
    if (this.#merged.size >= KEPT) this.#merged.clear();
    this.#merged.set(name, account);
    return account;
  }

  /**
   * @param others what a directory says of the account: less than its own entry, more than that of its domain
   * @param listed as in `of`; less than what `others` say
   */
  over(name: string, others: Account, listed: number | null | undefined): Account {
    const files = this.of(name, undefined);
    const { limits, senders, domainLists } = files;
    const own = this.#entries.get(name);
    const quota = this.#quota(name, others.quota === undefined ? listed : others.quota);
    return {
      ...others,
      ...(quota === undefined ? {} : { quota }),
      limits:
        others.limits.size === 0 ? limits : new Map([...limits, ...others.limits, ...(own?.limits ?? [])]),
      senders: others.senders.length === 0 ? senders : [...senders, ...others.senders],
      ...joined(files, others),
      ...(domainLists === undefined
        ? {}
        : { domainLists: { ...domainLists, ...joined(domainLists, others.domainLists ?? {}) } }),
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
    allow: [...base.allow, ...own.allow],
    block: [...base.block, ...own.block],
  };
}

function listsOf({ allow, block }: Settings): SenderLists {
  return { ...(allow.length === 0 ? {} : { allow }), ...(block.length === 0 ? {} : { block }) };
}

/** Only what there is: a list of one keeps its identity, by which its patterns are remembered. */
function joined(one: SenderLists, other: SenderLists): SenderLists {
  const allow = both(one.allow, other.allow);
  const block = both(one.block, other.block);
  return { ...(allow === undefined ? {} : { allow }), ...(block === undefined ? {} : { block }) };
}

function both(
  one: readonly string[] | undefined,
  other: readonly string[] | undefined,
): readonly string[] | undefined {
  if (one === undefined) return other;
  return other === undefined ? one : [...one, ...other];
}

/** As addresses of the envelope are: one character for each octet. */
function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}
