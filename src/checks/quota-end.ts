import type { Finding } from '../verdict/finding.ts';
import { endCheck, type CheckTools, type EndFacts } from './check.ts';
import { claim, limitedAmong, unconditional, type Wish } from './quota-claims.ts';
import { quotaFinding } from './quota-finding.ts';
import { knownQuotaLedger, type Held, type QuotaLedger } from './quota-ledger.ts';
import { QUOTA_OPTIONS, quotaCheck, type QuotaOptions } from './quota.ts';
import { OVERHEAD } from './quota-room.ts';

/** Room for the real size, once it is known. */
export const quotaEndCheck = endCheck({
  name: 'quota-end',
  stage: 'end',
  partOf: 'quota',
  summary:
    'The quota again at the end of the message, with its real size; refuses it only when none of its recipients has room.',
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
  // One answer for all of them: a message that somebody has room for goes on. Of a recipient that we were not asked about nothing is known.
  const refused =
    ledger.recipients.size === facts.accepted.length &&
    facts.accepted.length >= facts.recipientCount &&
    recipients.every(({ free, mailboxes }) => !free && mailboxes.every((mailbox) => full.has(mailbox)));
  if (refused) {
    const finding = await quotaFinding(without, options, tools);
    await tools.state.settle(trace, null, 0);
    return [finding];
  }
  await keepOverdrawn(without, trace, options, tools);
  return [];
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
