import type { MessageIdentity } from './check.ts';

/** One recipient of a message, as quota knows it. */
export interface Held {
  /** Where its mail goes, of mailboxes that have a limit. */
  readonly mailboxes: readonly string[];
  /** Octets held for it in each of those that have room. */
  readonly bytes: ReadonlyMap<string, number>;
  /** It is no reason to refuse the message, whatever its mailboxes say. */
  readonly free: boolean;
}

/** What is held for one message, by recipient. */
export class QuotaLedger {
  readonly #recipients = new Map<string, Held>();
  /** The recipient besides whom the message can have no other. */
  #alone: string | null = null;
  /** The size that the sender announced. */
  announced: number | null = null;

  get recipients(): ReadonlyMap<string, Held> {
    return this.#recipients;
  }

  get alone(): string | null {
    return this.#alone;
  }

  hold(recipient: string, held: Held, alone: boolean): void {
    this.#recipients.set(recipient, held);
    if (alone) this.#alone = recipient;
  }

  /** Takes a recipient out; what was held for it. */
  release(recipient: string): Held | null {
    const held = this.#recipients.get(recipient) ?? null;
    this.#recipients.delete(recipient);
    if (this.#alone === recipient) this.#alone = null;
    return held;
  }

  /** Octets held in a mailbox: a message that reaches it by several recipients is stored several times. */
  inMailbox(mailbox: string): number {
    let sum = 0;
    for (const { bytes } of this.#recipients.values()) sum += bytes.get(mailbox) ?? 0;
    return sum;
  }
}

const ledgers = new WeakMap<MessageIdentity, QuotaLedger>();

export function quotaLedger(identity: MessageIdentity): QuotaLedger {
  let ledger = ledgers.get(identity);
  if (ledger === undefined) ledgers.set(identity, (ledger = new QuotaLedger()));
  return ledger;
}

/** null: nothing was asked about this message. */
export function knownQuotaLedger(identity: MessageIdentity): QuotaLedger | null {
  return ledgers.get(identity) ?? null;
}
