import type { CheckTools } from '../checks/check.ts';
import { settleRecipient } from '../checks/quota-settle.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { Answered } from './record.ts';

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
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const settled = message.envelope.recipients.flatMap(({ address }, position) => {
    const final = /^[25]/.exec(replies[position] ?? '')?.[0];
    if (final === undefined) return [];
    const done = settleRecipient(address, origin.trace, final === '2', tools, delimiter, signal);
    return [withinDeadline(done, DEADLINE_MS, 'the state')];
  });
  const results = await Promise.allSettled(settled);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed === undefined) return;
  const err: unknown = failed.reason;
  const fields = { daemon: 'lmtp-filter', trace: origin.trace, qid: origin.queueId, err };
  log.warn(fields, 'room held for the message could not be given back, it lapses by itself');
}
