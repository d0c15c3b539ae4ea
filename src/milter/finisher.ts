import type { WithoutKey } from '../config/signing.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import type { Outcome } from '../verdict/finding.ts';

/** What is known when a message has been judged. */
export interface FinishContext {
  /** As it will leave: with all edits. */
  readonly headers: HeaderList;
  /** What stands in place of the body that came (one character per octet); null: that one leaves. */
  readonly newBody: string | null;
  readonly outcomes: readonly Outcome[];
  readonly timeSeconds: number;
}

/** Makes the fields that are put on top of one message last, over the message as it leaves: DKIM signatures, or an ARC set. */
export interface Finisher {
  /** What becomes of the message when it fails. */
  readonly withoutKey: WithoutKey;
  /** The next octets of the body. Keeps nothing of the chunk. */
  body(chunk: Uint8Array): void;
  /** The topmost field last; empty: this message needs none. @throws when they can't be made */
  finish(context: FinishContext): Promise<readonly HeaderField[]>;
  /** It failed, and what becomes of the message was done. */
  failed(): void;
}

/** The key can't be used. Its source has told the operator why, once for all the messages that it concerns. */
export class BrokenKey extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'BrokenKey';
  }
}
