import type { Reply } from '../mail/reply.ts';
import type { Setting } from './rules.ts';

/** In rising order of severity; when several rules speak, the most severe verdict stands. */
export const VERDICT_KINDS = ['accept', 'junk', 'quarantine', 'defer', 'reject', 'discard'] as const;

export type VerdictKind = (typeof VERDICT_KINDS)[number];

interface Decided {
  /** The rule that decided: a finding code, `unavailable:CHECK`, `score>=15`, or `default`. */
  readonly rule: string;
  /** Why, for people: the detail of the fact behind the rule. */
  readonly why: string;
  /** Where the rule that decided was set; left out: for the site. */
  readonly setting?: Setting;
  /** Sum of all points; null when nothing scored. */
  readonly score: number | null;
  /** Whether the message is to be marked as spam (X-Spam-Flag, subject tag). */
  readonly tagged: boolean;
  /** What shadow rules would have done. */
  readonly shadow: readonly ShadowVerdict[];
}

export interface ShadowVerdict {
  readonly rule: string;
  readonly kind: VerdictKind;
}

/** What is to be done with one message for one recipient. */
export type Verdict =
  | (Decided & { readonly kind: 'accept' | 'junk' | 'quarantine' | 'discard' })
  | (Decided & { readonly kind: 'defer' | 'reject'; readonly reply: Reply });

export function severity(kind: VerdictKind): number {
  return VERDICT_KINDS.indexOf(kind);
}
