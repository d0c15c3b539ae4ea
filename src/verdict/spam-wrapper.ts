import type { HeaderField } from '../mail/header.ts';
import type { Rewriting } from '../mail/spam-scan.ts';
import type { Outcome } from './finding.ts';
import { isSpamField } from './spam-fields.ts';
import type { Verdict } from './verdict.ts';

/**
 * Fields of the original that stay above a report: those by which SpamAssassin addresses it, and the trace, which no one may change
 * (RFC 5321 §4.4) and by which MTAs notice that a message goes in a circle.
 */
const KEPT = new Set(['from', 'to', 'cc', 'subject', 'date', 'message-id', 'received', 'return-path']);

/** Fields of the report that can be its own: more than `report_safe_copy_headers` names. */
const OWN_LIMIT = 64;

/** What the body is replaced with: the scanner's report about a message that the rules mark as spam. null: it stays. */
export function wrapperFor(outcomes: readonly Outcome[], verdict: Verdict): Rewriting | null {
  if (!verdict.tagged && verdict.kind !== 'junk') return null;
  for (const outcome of outcomes) {
    if (outcome.kind !== 'found') continue;
    for (const { scan } of outcome.findings) {
      if (scan?.rewriting !== undefined) return scan.rewriting;
    }
  }
  return null;
}

/** Whether a field of the original is to be found in the attached message alone. */
export function isWrapped(name: string): boolean {
  return !KEPT.has(name.toLowerCase());
}

/** The report's own fields, besides X-Spam-*, which are made for every message. */
export function wrapperFields({ fields }: Rewriting): HeaderField[] {
  const own: HeaderField[] = [];
  fields.forEach((field, index) => {
    const name = field.name.toLowerCase();
    // "Received: from localhost by HOST with SpamAssassin" is on top; others are copies of what is kept.
    const isTrace = name === 'received' && index === 0;
    if (isTrace || (!KEPT.has(name) && !isSpamField(name))) own.push(field);
  });
  return own.slice(0, OWN_LIMIT);
}

function isRewriting(outcome: Outcome): boolean {
  return outcome.kind === 'found' && outcome.findings.some(({ scan }) => scan?.rewriting !== undefined);
}

/** Without what is of no use once the message is answered. @param rewritten whether the report took the place of the message */
export function withoutRewriting(outcomes: readonly Outcome[], rewritten: boolean): readonly Outcome[] {
  if (!outcomes.some(isRewriting)) return outcomes;
  return outcomes.map((outcome): Outcome => {
    if (outcome.kind !== 'found' || !isRewriting(outcome)) return outcome;
    const findings = outcome.findings.map((finding) => {
      if (finding.scan?.rewriting === undefined) return finding;
      const { rewriting: _, ...scan } = finding.scan;
      return { ...finding, scan: rewritten ? { ...scan, rewritten } : scan };
    });
    return { ...outcome, findings };
  });
}
