import { settingsKey, type Address } from '../mail/address.ts';
import type { CheckTools } from '../checks/check.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { Answered } from './record.ts';

/**
 * How long room stays held after a delivery: Dovecot's quota_clone writes up to 10 s after a change (QUOTA_CLONE_FLUSH_DELAY_MSECS), and what
 * doveadm told is used for 5 s.
 */
export const LINGER_MS = 15_000;

const DEADLINE_MS = 2000;

/**
 * Tells policyd's quota what became of a message: the room that was held for it is free again for those recipients who have it, or never will.
 * What is to be tried again keeps its room. Nobody waits for it, and it never rejects: what can't be told lapses by itself.
 */
export async function settleQuota(
  answered: Answered,
  tools: CheckTools,
  delimiter: string,
  log: Log,
): Promise<void> {
  if (tools.quota === null) return;
  const { message, origin, replies } = answered;
  const settled = message.envelope.recipients.flatMap(({ address }, position) => {
    const final = /^[25]/.exec(replies[position] ?? '')?.[0];
    return final === undefined ? [] : [settle(address, origin.trace, final === '2', tools, delimiter)];
  });
  const results = await Promise.allSettled(settled);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed === undefined) return;
  const err: unknown = failed.reason;
  const fields = { daemon: 'lmtp-filter', trace: origin.trace, qid: origin.queueId, err };
  log.warn(fields, 'room held for the message could not be given back, it lapses by itself');
}

async function settle(
  address: Address,
  trace: string,
  delivered: boolean,
  tools: CheckTools,
  delimiter: string,
): Promise<void> {
  const done = Promise.all(
    (await mailboxesOf(address, tools, delimiter)).map((mailbox) =>
      tools.state.settle(trace, mailbox, delivered ? LINGER_MS : 0),
    ),
  );
  await withinDeadline(done, DEADLINE_MS, 'the state');
}

/** By the same names under which room was held for them. */
async function mailboxesOf(
  address: Address,
  { directory }: CheckTools,
  delimiter: string,
): Promise<readonly string[]> {
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const destination = await directory.destination(address, signal);
  if (destination.kind === 'unknown') return [];
  const { mailboxes } = destination;
  // An address that is an alias for itself and others comes here once for each of them.
  const own = settingsKey(address, delimiter);
  return mailboxes.includes(own) ? [own] : mailboxes;
}
