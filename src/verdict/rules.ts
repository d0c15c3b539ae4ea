import { settingsKey, type Address } from '../mail/address.ts';

/** What a rule does when its fact is there. */
export type Action =
  | { readonly kind: 'ignore' }
  | { readonly kind: 'score'; readonly points: number }
  | { readonly kind: 'tag' }
  | { readonly kind: 'junk' }
  | { readonly kind: 'quarantine' }
  | { readonly kind: 'defer' }
  | { readonly kind: 'reject' }
  | { readonly kind: 'discard' }
  /** Sets aside what checks on who the client is have found (`Rules.waivable`). */
  | { readonly kind: 'allow' };

/** A rule as the operator set it. A shadow rule is decided, recorded and counted, and never acted on. */
export interface Rule {
  readonly action: Action;
  readonly mode: 'enforce' | 'shadow';
  /** The operator's own words for a refusal, in place of ours. */
  readonly text?: string;
  /** It is not the site's. */
  readonly setting?: 'override';
}

/** Where what decided for one recipient was set, when not for the site: in `[[override]]`, or for the account in the directory. */
export const SETTINGS = ['override', 'directory'] as const;

export type Setting = (typeof SETTINGS)[number];

export const BANDS = ['tag', 'junk', 'reject', 'discard'] as const;

export type Band = (typeof BANDS)[number];

/** Score bands; a message belongs to the highest one whose threshold it reaches. null: band not used. */
export interface Thresholds {
  /** X-Spam-Flag and the subject tag. */
  readonly tag: number | null;
  /** Filed as junk. */
  readonly junk: number | null;
  readonly reject: number | null;
  /** Taken and not delivered. */
  readonly discard: number | null;
}

/** What is set for one mailbox as far as it decides about mail. What is left out is as for the site. */
export interface MailboxSettings {
  /** Dovecot's user name; null: it leaves for other hosts. */
  readonly mailbox: string | null;
  readonly thresholds?: Partial<Thresholds>;
  /** Subject tag; empty: none. */
  readonly subjectTag?: string;
  readonly rewriteBody?: boolean;
}

/** All that decide() needs to know of the operator's will for one recipient. */
export interface Rules {
  /** By finding code. A code without an entry is ignored. */
  readonly findings: ReadonlyMap<string, Rule>;
  /** By check name: what it means when the check could not be made. A check without an entry defers. */
  readonly unavailable: ReadonlyMap<string, Rule>;
  /** Names of checks whose findings an `allow` sets aside. */
  readonly waivable: ReadonlySet<string>;
  /** By finding code: who gets a copy of a message that goes on. */
  readonly copies?: ReadonlyMap<string, readonly string[]>;
  readonly thresholds: Thresholds;
  /** Put in front of Subject when tagged; empty: the subject is left alone. */
  readonly subjectTag: string;
  /** Bands that are not the site's. */
  readonly bandsSetBy?: Readonly<Partial<Record<Band, Setting>>>;
  /** What `[[override]]` says of one user: it stands above what the directory says. */
  readonly pinned?: { readonly thresholds?: Partial<Thresholds>; readonly subjectTag?: string };
  /** Whose settings these are, where the directory has some; for people. */
  readonly mailbox?: string;
  /** Whether the recipient wants a report in place of mail that is marked as spam; left out: as the scanner's check says. */
  readonly rewriteBody?: boolean;
}

/** The site's rules with what single domains and users changed. */
export interface Policy {
  readonly site: Rules;
  /** Keys: `user@domain` and `@domain`, in lower case, without address extension. Each value is complete, merged with the site's. */
  readonly overrides: ReadonlyMap<string, Rules>;
  /** Postfix's recipient_delimiter, with which the keys were made. */
  readonly delimiter: string;
}

/** Rules for one recipient: user, else domain, else site. */
export function rulesFor(policy: Policy, recipient: Address | null): Rules {
  if (recipient === null || policy.overrides.size === 0) return policy.site;
  return (
    policy.overrides.get(settingsKey(recipient, policy.delimiter)) ??
    policy.overrides.get(`@${recipient.domain}`) ??
    policy.site
  );
}
