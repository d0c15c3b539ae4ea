import type { Finding } from '../verdict/finding.ts';
import { endCheck, type CheckTools, type EndFacts } from './check.ts';
import { claim, limitedAmong, unconditional, type Wish } from './quota-claims.ts';
import { quotaFinding } from './quota-finding.ts';
import { knownQuotaLedger, type Held, type QuotaLedger } from './quota-ledger.ts';
import { noteRoom } from './quota-notes.ts';
import { QUOTA_OPTIONS, quotaCheck, type QuotaOptions } from './quota.ts';
import { OVERHEAD } from './quota-room.ts';

/** Room for the real size, once it is known. */
export const quotaEndCheck = endCheck({
  name: 'quota-end',
  stage: 'end',
  partOf: 'quota',
  summary:
    'The quota again at the end of the message, with its real size; refuses it when none of its recipients has room, or one has none and the sender announced less.',
  directions: ['in', 'out'],
  needs: [],
  codes: quotaCheck.codes,
  unavailable: 'ignore',
  deadline: '3s',
  options: QUOTA_OPTIONS,
  ready: (tools) => tools.quota !== null,
  run({ facts, tools, options, signal }) {
    const ledger = knownQuotaLedger(facts.identity);
    if (facts.moment === 'data' || facts.size === null || ledger === null || ledger.recipients.size === 0)
      return [];
    return settleSize(facts, facts.size, ledger, options, tools, signal);
  },
});

async function settleSize(
  facts: EndFacts,
  size: number,
  ledger: QuotaLedger,
  options: QuotaOptions,
  tools: CheckTools,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const recipients = [...ledger.recipients.values()];
  const { trace } = facts.identity;
  const copies = copiesIn(recipients);
  const limited = await limitedAmong([...copies.keys()], tools, signal);
  const wishes = Array.from(limited, ([mailbox, usage]): Wish => {
    const bytes = (copies.get(mailbox) ?? 1) * (size + OVERHEAD);
    return { mailbox, usage, bytes, held: ledger.inMailbox(mailbox) };
  });
  const answers = await claim(wishes, trace, options.hold, tools);
  const without = answers.filter(({ obstacle }) => obstacle !== null);
  const full = new Set(without.map(({ wish }) => wish.mailbox));
  const lacking = recipients.filter((recipient) => lacksRoom(recipient, full, options));
  if (isRefused(lacking.length, size, facts, ledger, options)) {
    const finding = await quotaFinding(without, options, tools);
    await tools.state.settle(trace, null, 0);
    return [finding];
  }
  noteRoom(answers, tools);
  await keepOverdrawn(without, trace, options, tools);
  return [];
}

function lacksRoom(
  { free, mailboxes }: Held,
  full: ReadonlySet<string>,
  { alias_room: room }: QuotaOptions,
): boolean {
  if (free) return false;
  return room === 'all'
    ? mailboxes.some((mailbox) => full.has(mailbox))
    : mailboxes.every((mailbox) => full.has(mailbox));
}

/** There is one answer for all recipients. */
function isRefused(
  lacking: number,
  size: number,
  { accepted, recipientCount }: EndFacts,
  { announced, recipients }: QuotaLedger,
  { alias_room: room }: QuotaOptions,
): boolean {
  if (lacking === 0) return false;
  // RFC 1870 §6.3: an announcement that was too small is no claim on anything, and a copy that can't be delivered would come back as a bounce.
  if (room === 'all' || (announced !== null && size > announced)) return true;
  // A message that somebody has room for goes on. Of a recipient that we were not asked about nothing is known.
  return (
    lacking === recipients.size && recipients.size === accepted.length && accepted.length >= recipientCount
  );
}

/** How often the message will be stored in each mailbox. */
function copiesIn(recipients: readonly Held[]): ReadonlyMap<string, number> {
  const copies = new Map<string, number>();
  for (const { mailboxes } of recipients) {
    for (const mailbox of mailboxes) copies.set(mailbox, (copies.get(mailbox) ?? 0) + 1);
  }
  return copies;
}

/** The message goes on for the sake of others, and is tried at these mailboxes too: what it held there is held on. */
async function keepOverdrawn(
  without: readonly { readonly wish: Wish }[],
  trace: string,
  { hold }: QuotaOptions,
  { state }: CheckTools,
): Promise<void> {
  const held = without.filter(({ wish }) => wish.held > 0);
  if (held.length === 0) return;
  await state.reserve(
    trace,
    held.map(({ wish }) => unconditional(wish.mailbox, wish.held)),
    hold,
  );
}
