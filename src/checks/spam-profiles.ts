import { lowerAscii, settingsKey } from '../mail/address.ts';
import type { Recipient } from '../mail/envelope.ts';
import type { Outcome } from '../verdict/finding.ts';

interface ProfileOptions {
  readonly user: 'none' | 'recipient' | 'domain';
  readonly default_user?: string | undefined;
}

/** Recipients for whom a message is scanned together. */
export interface Profile {
  /** null: the scanner's own. */
  readonly user: string | null;
  /** Positions in the envelope. */
  readonly recipients: readonly number[];
}

/** Scans of one message; recipients with further profiles go by default_user. */
export const PROFILE_LIMIT = 50;

/**
 * Whose preferences and training count for whom, each user once.
 *
 * @param settings outcome of the check of that name, which knows where aliases lead
 */
export function profilesOf(
  recipients: readonly Recipient[],
  options: ProfileOptions,
  delimiter: string,
  settings?: Outcome,
): readonly Profile[] {
  const { user } = options;
  const otherwise = options.default_user ?? null;
  const all = recipients.map((_, index) => index);
  if (user === 'none' || recipients.length === 0) return [{ user: otherwise, recipients: all }];
  const mailboxes = user === 'recipient' ? mailboxesIn(settings) : NO_MAILBOXES;
  const profiles = new Map<string | null, number[]>();
  for (const [index, { address }] of recipients.entries()) {
    const own = mailboxes.get(index) ?? settingsKey(address, delimiter);
    const name = user === 'domain' ? address.domain : own;
    const wanted = name === '' ? otherwise : name;
    const known = profiles.get(wanted);
    if (known !== undefined) known.push(index);
    else if (profiles.size < PROFILE_LIMIT || wanted === otherwise) profiles.set(wanted, [index]);
    else profiles.set(otherwise, [...(profiles.get(otherwise) ?? []), index]);
  }
  return Array.from(profiles, ([name, positions]) => ({ user: name, recipients: positions }));
}

const NO_MAILBOXES: ReadonlyMap<number, string> = new Map();

/** By the recipient's position, where its mail ends in one mailbox. */
function mailboxesIn(settings: Outcome | undefined): ReadonlyMap<number, string> {
  if (settings?.kind !== 'found') return NO_MAILBOXES;
  const mailboxes = new Map<number, string>();
  for (const { recipient, settings: of = [] } of settings.findings) {
    const [only, ...others] = of;
    const mailbox = only?.mailbox ?? null;
    if (recipient !== undefined && mailbox !== null && others.length === 0)
      mailboxes.set(recipient, lowerAscii(mailbox));
  }
  return mailboxes;
}
