import { settingsKey, type Address } from '../mail/address.ts';
import type { CheckTools } from './check.ts';

/**
 * How long room stays held after a delivery: Dovecot's quota_clone writes up to 10 s after a change (QUOTA_CLONE_FLUSH_DELAY_MSECS), and what
 * doveadm told is used for 5 s.
 */
export const LINGER_MS = 15_000;

/** The message ends here, for all of its recipients: what was held for it is free again. @throws {NeighbourError} */
export async function settleMessage(trace: string, { quota, state }: CheckTools): Promise<void> {
  if (quota !== null) await state.settle(trace, null, 0);
}

/**
 * What was held for one recipient is free again: soon, when the message was delivered, or at once, when it never will be.
 *
 * @throws {NeighbourError}
 */
export async function settleRecipient(
  recipient: Address,
  trace: string,
  delivered: boolean,
  tools: CheckTools,
  delimiter: string,
  signal: AbortSignal,
): Promise<void> {
  const mailboxes = await mailboxesOf(recipient, tools, delimiter, signal);
  await Promise.all(
    mailboxes.map((mailbox) => tools.state.settle(trace, mailbox, delivered ? LINGER_MS : 0)),
  );
}

/** By the same names under which room was held for them. */
async function mailboxesOf(
  recipient: Address,
  { directory }: CheckTools,
  delimiter: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const destination = await directory.destination(recipient, signal);
  if (destination.kind === 'unknown') return [];
  const { mailboxes } = destination;
  // An address that is an alias for itself and others comes here once for each of them.
  const own = settingsKey(recipient, delimiter);
  return mailboxes.includes(own) ? [own] : mailboxes;
}
