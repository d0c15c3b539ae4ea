import { parseMailbox, settingsKey, type Address } from '../mail/address.ts';
import type { Outcome } from './finding.ts';
import {
  BANDS,
  rulesFor,
  type Band,
  type MailboxSettings,
  type Policy,
  type Rules,
  type Setting,
} from './rules.ts';

/** Settings by the recipient's position in the envelope. */
type SettingsByRecipient = ReadonlyMap<number, readonly MailboxSettings[]>;

const NOBODY: SettingsByRecipient = new Map();

/** What the directory says of the recipients. */
export function settingsIn(outcomes: readonly Outcome[]): SettingsByRecipient {
  let found: Map<number, readonly MailboxSettings[]> | null = null;
  for (const outcome of outcomes) {
    if (outcome.kind !== 'found') continue;
    for (const { settings, recipient } of outcome.findings) {
      if (settings !== undefined && recipient !== undefined) (found ??= new Map()).set(recipient, settings);
    }
  }
  return found ?? NOBODY;
}

/**
 * The rules for one recipient, one set for each mailbox that its mail ends in: user, else domain, else site, with what the directory says of
 * the account on top, and what `[[override]]` says of this very user on top of that.
 */
export function recipientRules(
  policy: Policy,
  recipient: Address,
  settings: readonly MailboxSettings[] | undefined,
): readonly Rules[] {
  if (settings === undefined || settings.length === 0) return [rulesFor(policy, recipient)];
  return settings.map((own) => tailored(baseFor(policy, recipient, own.mailbox), own));
}

/** `[[override]]` by the address the mail came for, else by the mailbox it ends in. */
function baseFor(policy: Policy, recipient: Address, mailbox: string | null): Rules {
  const { overrides, delimiter } = policy;
  if (mailbox === null || overrides.size === 0) return rulesFor(policy, recipient);
  const user = parseMailbox(mailbox);
  return (
    overrides.get(settingsKey(recipient, delimiter)) ??
    overrides.get(settingsKey(user, delimiter)) ??
    overrides.get(`@${user.domain}`) ??
    rulesFor(policy, recipient)
  );
}

function tailored(base: Rules, { mailbox, thresholds, subjectTag, rewriteBody }: MailboxSettings): Rules {
  if (mailbox === null) return base;
  if (thresholds === undefined && subjectTag === undefined && rewriteBody === undefined) return base;
  const { pinned } = base;
  const bandsSetBy: Partial<Record<Band, Setting>> = { ...base.bandsSetBy };
  const bands = { ...base.thresholds };
  for (const band of BANDS) {
    const own = thresholds?.[band];
    if (own === undefined || pinned?.thresholds?.[band] !== undefined) continue;
    bands[band] = own;
    bandsSetBy[band] = 'directory';
  }
  return {
    ...base,
    thresholds: bands,
    bandsSetBy,
    mailbox,
    subjectTag: pinned?.subjectTag ?? subjectTag ?? base.subjectTag,
    ...(rewriteBody === undefined ? {} : { rewriteBody }),
  };
}
