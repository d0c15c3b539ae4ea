import type { Recipient } from '../mail/envelope.ts';
import type { Directory } from '../ports/directory.ts';
import { withinDeadline } from '../runtime/deadline.ts';

/** How many recipients are looked up; a message with more counts as forwarded. smtpd_recipient_limit is as high. */
const LOOKUP_LIMIT = 1000;

const DIRECTORY_DEADLINE_MS = 5000;

/**
 * Whether some of a message leaves again: an alias leads to another site, or a recipient is in none of our domains. The first that does is
 * enough.
 *
 * @throws when the directory does not answer
 */
export async function leavesAgain(recipients: readonly Recipient[], directory: Directory): Promise<boolean> {
  if (recipients.length > LOOKUP_LIMIT) return true;
  const signal = AbortSignal.timeout(DIRECTORY_DEADLINE_MS);
  const look = async (): Promise<boolean> => {
    for (const { address } of recipients) {
      if (signal.aborted) break;
      const destination = await directory.destination(address, signal);
      switch (destination.kind) {
        case 'delivered':
          if (destination.elsewhere) return true;
          break;
        case 'unknown':
          // Without a domain it is for a user of this host.
          if (address.domain !== '' && !(await directory.isLocalDomain(address.domain, signal))) return true;
          break;
      }
    }
    return false;
  };
  return await withinDeadline(look(), DIRECTORY_DEADLINE_MS, 'the directory');
}
