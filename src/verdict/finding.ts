import type { ReadResult } from '../mail/auth-results-reader.ts';
import type { AuthResult } from '../mail/auth-results.ts';
import type { SpamScan } from '../mail/spam-scan.ts';
import type { MailboxSettings, Setting } from './rules.ts';

/**
 * A fact that a check found; never an action. What it means is the operator's rule for its code.
 *
 * The code is the check's name and a word: `spf.fail`, `dmarc.fail-reject`, `spam.scored`.
 */
export interface Finding {
  readonly code: string;
  /** One line for people: what was seen, with the values that matter. May hold remote text; escape where it is shown. */
  readonly detail: string;
  /** Points towards the message's spam score. */
  readonly score?: number;
  /** Position in the envelope's recipients, when the fact concerns only that one. */
  readonly recipient?: number;
  /** What Authentication-Results says of it. */
  readonly auth?: AuthResult;
  /** What a domain says in its own words to those it refuses; a refusal passes it on. */
  readonly explanation?: Explanation;
  /** The scanner's whole answer, for the X-Spam-* fields. */
  readonly scan?: SpamScan;
  /** What intermediaries that the site trusts say they found when the message came to them, the newest first. RFC 8617 §7.2. */
  readonly sealed?: readonly SealedResults[];
  /** What is set for the mailboxes that mail for this recipient ends in: one for each, and one more when some of it leaves for other hosts. */
  readonly settings?: readonly MailboxSettings[];
  /** Where it was set, when what was found is a setting of the recipient's. */
  readonly setting?: Setting;
  /** Checks that an `allow` for this finding sets aside, besides the waivable ones: whoever wants a sender's mail wants it whatever its score. */
  readonly waives?: readonly string[];
}

/** Results that an intermediary recorded and sealed. */
export interface SealedResults {
  /** d= of the seal. */
  readonly sealer: string;
  readonly instance: number;
  readonly results: readonly ReadResult[];
}

/** Remote text, with who said it. RFC 7208 §6.2. */
export interface Explanation {
  readonly by: string;
  readonly text: string;
}

/** Why a check has no findings. */
export type UnavailableReason = 'deadline' | 'neighbour' | 'failed' | 'needs';

/**
 * What became of one check. Made only by the runner, so that a throw or a timeout can't turn into silence.
 *
 * `elapsed` is milliseconds of waiting, not of CPU.
 */
export type Outcome =
  | {
      readonly kind: 'found';
      readonly check: string;
      readonly findings: readonly Finding[];
      readonly elapsed: number;
    }
  | {
      readonly kind: 'unavailable';
      readonly check: string;
      readonly reason: UnavailableReason;
      readonly detail: string;
      readonly elapsed: number;
    };

/** What concerns one recipient: facts about others taken out. The same list when there are none. */
export function concerning(outcomes: readonly Outcome[], recipient: number): readonly Outcome[] {
  const isForeign = (finding: Finding): boolean =>
    finding.recipient !== undefined && finding.recipient !== recipient;
  let foreign = false;
  for (const outcome of outcomes) {
    if (outcome.kind === 'found' && outcome.findings.some(isForeign)) foreign = true;
  }
  if (!foreign) return outcomes;
  return outcomes.map((outcome) =>
    outcome.kind === 'found'
      ? { ...outcome, findings: outcome.findings.filter((finding) => !isForeign(finding)) }
      : outcome,
  );
}

/** What was found, for a log line: codes of findings, and `unavailable:CHECK`. */
export function codesOf(outcomes: readonly Outcome[]): readonly string[] {
  return outcomes.flatMap((outcome) => {
    switch (outcome.kind) {
      case 'found':
        return outcome.findings.map(({ code }) => code);
      case 'unavailable':
        return [`unavailable:${outcome.check}`];
    }
  });
}
