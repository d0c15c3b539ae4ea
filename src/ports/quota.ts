/** How full a mailbox is and may be. */
export interface MailboxUsage {
  /** Octets in use, as Dovecot counts them. */
  readonly used: number;
  /** Octets allowed; null: no limit. */
  readonly limit: number | null;
  /** Octets one delivery may go over the limit, while usage is below it (Dovecot's quota_grace). */
  readonly grace: number;
  /** Where this comes from, for people: `redis`, `doveadm`. */
  readonly source: string;
}

/** Usage of mailboxes, asked of Dovecot. */
export interface QuotaSource {
  /**
   * By Dovecot's user name; null: no such user, or Dovecot does not know (being recalculated).
   *
   * @throws {NeighbourError} when it can't be had
   */
  usage(user: string, signal: AbortSignal): Promise<MailboxUsage | null>;
}

/** Room that one message wants in one mailbox. */
export interface Claim {
  readonly mailbox: string;
  readonly bytes: number;
  /** Usage and limit as they are now; limit null: never refused, yet counted. */
  readonly used: number;
  readonly limit: number | null;
  readonly grace: number;
}

export interface ClaimResult {
  readonly granted: boolean;
  /** Octets of other mail in flight to this mailbox. */
  readonly inFlight: number;
}

/** What is held for mail in flight. */
export interface Reservation {
  readonly trace: string;
  readonly mailbox: string;
  readonly bytes: number;
  /** When it lapses by itself, milliseconds since 1970. */
  readonly until: number;
}

/**
 * Octets of mail that was accepted and has not reached its mailbox. A claim is granted by Dovecot's own rule, with what is in flight counted as
 * used: refused when `used + inFlight >= limit`, or `used + inFlight + bytes > limit + grace`.
 */
export interface QuotaState {
  /**
   * Holds each claim that there is room for, in one step, under the trace id of its message. A claim for a mailbox that this trace holds already
   * takes the place of the earlier one (its real size is known now); when there is no room for that, the earlier one stays.
   */
  reserve(trace: string, claims: readonly Claim[], holdMs: number): Promise<readonly ClaimResult[]>;
  /**
   * The message has reached the mailbox, or never will: what it held lapses after `lingerMs` (Dovecot tells of a delivery some seconds later).
   * `mailbox` null: everything of that message. Unknown traces are nothing to speak of.
   */
  settle(trace: string, mailbox: string | null, lingerMs: number): Promise<void>;
  reservations(mailbox: string): Promise<readonly Reservation[]>;
  /** Notes whether a mailbox is full; since when it has been without a break, milliseconds since 1970 (null when it is not full). */
  noteFull(mailbox: string, full: boolean): Promise<number | null>;
}
