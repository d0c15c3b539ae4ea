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
}
