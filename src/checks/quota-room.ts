import type { MailboxUsage } from '../ports/quota.ts';

/** A mailbox with a limit, as Dovecot tells of it. */
export interface LimitedMailbox extends MailboxUsage {
  readonly limit: number;
}

/**
 * Why a mailbox does not take a message. `full`: Dovecot would refuse it now; `busy`: it would once it has what is on its way there;
 * `too-large`: it would even if the mailbox were empty.
 */
export type Obstacle = 'full' | 'busy' | 'too-large';

/**
 * What a message grows by from policyd to the mailbox: Received and Return-Path of Postfix and Dovecot, our own fields, and a
 * scanner's report.
 */
export const OVERHEAD = 8192;

/**
 * Dovecot's own rule, quota.c quota_transaction_set_limits: below its limit a mailbox takes one more message that ends within the grace; at its
 * limit it takes none.
 *
 * Mail does not arrive in the order in which it was accepted. A message that needs the grace is let in only while nothing else is on its way:
 * otherwise it could come before the others, and leave no room for them.
 *
 * @param bytes what the message will take, with OVERHEAD
 */
export function obstacle(
  { used, limit, grace }: LimitedMailbox,
  inFlight: number,
  bytes: number,
): Obstacle | null {
  if (bytes - OVERHEAD > limit + grace) return 'too-large';
  if (used >= limit || used + bytes > limit + grace) return 'full';
  const whole = used + inFlight + bytes;
  return whole <= limit || inFlight === 0 ? null : 'busy';
}

export function isLimited(usage: MailboxUsage): usage is LimitedMailbox {
  return usage.limit !== null;
}

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB'];

/** Octets for people: `800 B`, `14.3 MiB`. */
export function sizeText(octets: number): string {
  let value = octets;
  let unit = 'B';
  for (const larger of UNITS) {
    if (value < 1024) break;
    value /= 1024;
    unit = larger;
  }
  return `${Number(value.toFixed(1))} ${unit}`;
}
