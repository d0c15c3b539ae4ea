import type { Verdict } from '../verdict/verdict.ts';
import type { MailState } from './request.ts';
import { DUNNO, type PolicyAction } from './wire.ts';

/** What besides the verdict makes the answer. */
export interface Occasion {
  readonly state: MailState;
  readonly trace: string;
  /** The field that this message shall still get; null when it has it, or shall have none. */
  readonly field: string | null;
  /** Whether the verdict holds for every recipient the message has or may still get. */
  readonly everyone: boolean;
}

/** A verdict in the words of access(5). */
export function renderVerdict(verdict: Verdict, occasion: Occasion): PolicyAction {
  const { state, trace } = occasion;
  switch (verdict.kind) {
    case 'accept':
    case 'junk': // filed as junk by those who see the content: milter and lmtp-filter
      return goOn(occasion);
    case 'quarantine':
      // HOLD and DISCARD take the whole message, so one recipient's own rule must not bring them about.
      return occasion.everyone ? { kind: 'HOLD', note: `${verdict.rule} (${trace})` } : goOn(occasion);
    case 'discard':
      return occasion.everyone ? { kind: 'DISCARD', note: `${verdict.rule} (${trace})` } : goOn(occasion);
    case 'defer':
      // At RCPT the restrictions below may still refuse for good (no such user), which is better news for both sides than a retry.
      // Postfix answers DEFER_IF_PERMIT with 450: what another code says (452 mailbox full, 421 end of session) must be said as it is.
      return state === 'RCPT' && (verdict.reply.code === 450 || verdict.reply.code === 451)
        ? { kind: 'DEFER_IF_PERMIT', reply: verdict.reply, trace }
        : { kind: 'REPLY', reply: verdict.reply, trace };
    case 'reject':
      return { kind: 'REPLY', reply: verdict.reply, trace };
  }
}

function goOn({ state, field }: Occasion): PolicyAction {
  // access(5): PREPEND must be used before the end of the message.
  return field === null || state === 'END-OF-MESSAGE' ? DUNNO : { kind: 'PREPEND', field };
}
