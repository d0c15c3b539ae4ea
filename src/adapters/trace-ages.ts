/** How old an unclaimed trace may be to be taken for this message: longer than any SMTP client takes from RCPT to the final dot. */
export const CLAIM_AGE_MS = 3_600_000;
/** Deliveries are retried for 5 days (Postfix maximal_queue_lifetime); after that a queue id may name another message. */
export const TRACE_AGE_MS = 6 * 86_400_000;
/** A message that was held up for longer is better checked again, with the lists of that day. */
export const FACTS_AGE_MS = 86_400_000;
