import { settleMessage } from '../checks/quota-settle.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import type { Conclusion } from './conclusion.ts';
import type { SessionTools } from './session.ts';

const DEADLINE_MS = 2000;

/**
 * Tells policyd's quota of a message that ends here: Postfix asks policyd before it asks the milter, so that room is held for it by now. Nobody waits for
 * it, and it never rejects: what can't be told lapses by itself.
 */
export async function settleQuota(
  { ends, trace, envelope }: Pick<Conclusion, 'ends' | 'trace' | 'envelope'>,
  { checks, log }: Pick<SessionTools, 'checks' | 'log'>,
): Promise<void> {
  if (!ends) return;
  try {
    await withinDeadline(settleMessage(trace, checks), DEADLINE_MS, 'the state');
  } catch (err) {
    const fields = { daemon: 'milter', trace, qid: envelope.queueId, err };
    log.warn(fields, 'room held for the message could not be given back, it lapses by itself');
  }
}
