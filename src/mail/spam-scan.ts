import type { HeaderField } from './header.ts';

/** What a content scanner said of one message. */
export interface SpamScan {
  /** Points; negative for ham. */
  readonly score: number;
  /** The scanner's own threshold. */
  readonly required: number;
  /** Names of the rules that hit, in the scanner's order. */
  readonly rules: readonly string[];
  /** The X-Spam-* fields the scanner wrote for this message, as it wrote them. */
  readonly fields: readonly HeaderField[];
  /** What the scanner itself would do, where it says so and it is not nothing; printable text. */
  readonly action?: string;
  /** Whose preferences and training counted; left out: the site's. */
  readonly user?: string;
  /** Left out when the scanner leaves the body as it is, or nobody asked. Of no use once the message is answered, and as long as it: never kept. */
  readonly rewriting?: Rewriting;
  /** The body has been replaced with that. */
  readonly rewritten?: boolean;
}

/** The message as the scanner would deliver it: a report with the original attached (SpamAssassin's `report_safe 1` and `2`). */
export interface Rewriting {
  /** The header section of the new message, X-Spam-* fields included. */
  readonly fields: readonly HeaderField[];
  /** All of the new body; one character per octet, lines end in CRLF. */
  readonly body: string;
}
