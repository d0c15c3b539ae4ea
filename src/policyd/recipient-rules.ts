import { settingsRcptCheck } from '../checks/settings.ts';
import type { Address } from '../mail/address.ts';
import type { Outcome } from '../verdict/finding.ts';
import { rulesFor, type MailboxSettings, type Policy, type Rules } from '../verdict/rules.ts';
import { recipientRules } from '../verdict/settings.ts';

/** No score decides anything. */
export const NO_BANDS: Rules['thresholds'] = { tag: null, junk: null, reject: null, discard: null };

export interface RcptRules {
  /** By which the recipient is answered. */
  readonly rules: Rules;
  /** Of each mailbox: they have their say when the content is there. */
  readonly all: readonly Rules[];
}

/** The rules for a recipient, with what the directory says. @param own what was found about the recipient */
export function rulesAtRcpt(policy: Policy, recipient: Address, own: readonly Outcome[]): RcptRules {
  const all = recipientRules(policy, recipient, settingsOf(own));
  const [only, ...others] = all;
  const rules = only === undefined || others.length > 0 ? rulesFor(policy, recipient) : only;
  // Thresholds that could not be looked up are for those to apply who see the content.
  return { rules: isOwed(own) ? { ...rules, thresholds: NO_BANDS } : rules, all };
}

function settingsOf(own: readonly Outcome[]): readonly MailboxSettings[] | undefined {
  for (const outcome of own) {
    if (outcome.kind !== 'found') continue;
    for (const { settings } of outcome.findings) if (settings !== undefined) return settings;
  }
  return undefined;
}

function isOwed(own: readonly Outcome[]): boolean {
  return own.some(({ kind, check }) => kind === 'unavailable' && check === settingsRcptCheck.name);
}
