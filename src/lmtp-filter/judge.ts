import type { Config } from '../config/config.ts';
import type { Message } from '../mail/message.ts';
import type { Rewriting } from '../mail/spam-scan.ts';
import { decide, mildest } from '../verdict/decide.ts';
import { messageEdits, type Edit } from '../verdict/edits.ts';
import { concerning, type Outcome } from '../verdict/finding.ts';
import type { Policy, Rules } from '../verdict/rules.ts';
import { recipientRules, settingsIn } from '../verdict/settings.ts';
import { wrapperFor } from '../verdict/spam-wrapper.ts';
import type { Verdict } from '../verdict/verdict.ts';
import type { Origin } from './origin.ts';

/** What is to be done for one recipient. */
export interface Sentence {
  readonly verdict: Verdict;
  /** Changes to the header section of what is forwarded; the same array for recipients who get the same. null: nothing is forwarded. */
  readonly edits: readonly Edit[] | null;
  /** It goes to our own quarantine in place of Dovecot, with these edits. */
  readonly kept: boolean;
  /** The report that takes the place of the body; null: it stays. */
  readonly wrapper: Rewriting | null;
  /** The folder it is to be filed in, named to Dovecot at RCPT; null: none. */
  readonly folder: string | null;
}

/** One sentence for each recipient of the envelope. */
export function sentences(
  message: Message,
  origin: Origin,
  outcomes: readonly Outcome[],
  config: Config,
): readonly Sentence[] {
  // Facts about single recipients make their verdicts their own; otherwise recipients with the same rules share one.
  const personal = outcomes.some(
    (outcome) =>
      outcome.kind === 'found' && outcome.findings.some(({ recipient }) => recipient !== undefined),
  );
  const policy = policyFor(origin, config);
  const settings = settingsIn(outcomes);
  const shared = new Map<Rules, Sentence>();
  const forms = new Forms();
  return message.envelope.recipients.map(({ address }, index) => {
    const all = recipientRules(policy, address, settings.get(index));
    const [first] = all;
    const known = personal || first === undefined ? undefined : shared.get(first);
    if (known !== undefined) return known;
    const own = concerning(outcomes, index);
    const { verdict, rules } = judged(own, all, index);
    const kept = verdict.kind === 'quarantine' && config.file.quarantine.where === 'folder';
    const wrapper = kept ? null : reportFor(own, verdict, rules, config);
    const folder = isFiled(verdict, rules, kept) ? junkFolder(config) : null;
    const edits = forms.of(editsFor(message, origin, own, config, rules, verdict, wrapper), wrapper, folder);
    const sentence = { verdict, edits, kept, wrapper, folder };
    shared.set(rules, sentence);
    return sentence;
  });
}

export function policyFor({ direction }: Origin, { policy, outgoingPolicy }: Config): Policy {
  return direction === 'in' ? policy : outgoingPolicy;
}

/** An alias that the mail store itself resolves may lead to several mailboxes: the mildest of their verdicts is that of the address. */
export function judged(
  outcomes: readonly Outcome[],
  rules: readonly Rules[],
  index: number,
): { readonly verdict: Verdict; readonly rules: Rules } {
  const verdicts = rules.map((each) => decide(outcomes, each, index));
  const verdict = mildest(verdicts);
  const chosen = rules[verdicts.indexOf(verdict)];
  if (chosen === undefined) throw new Error('a recipient has rules');
  return { verdict, rules: chosen };
}

/** Changes by what they come to, so that recipients who get the same have the same array. */
class Forms {
  readonly #known = new Map<string, readonly Edit[]>();
  readonly #wrappers = new Map<string, number>();

  of(
    edits: readonly Edit[] | null,
    wrapper: Rewriting | null,
    folder: string | null,
  ): readonly Edit[] | null {
    if (edits === null) return null;
    const key = JSON.stringify([edits, this.#numberOf(wrapper), folder]);
    const same = this.#known.get(key);
    if (same !== undefined) return same;
    this.#known.set(key, edits);
    return edits;
  }

  #numberOf(wrapper: Rewriting | null): number {
    if (wrapper === null) return 0;
    const number = this.#wrappers.get(wrapper.body) ?? this.#wrappers.size + 1;
    this.#wrappers.set(wrapper.body, number);
    return number;
  }
}

/** The scanner's report, where it is to take the place of the message. */
function reportFor(
  outcomes: readonly Outcome[],
  verdict: Verdict,
  rules: Rules,
  config: Config,
): Rewriting | null {
  return isReportWanted(rules, config) ? wrapperFor(outcomes, verdict) : null;
}

export function isReportWanted({ rewriteBody }: Rules, { checks }: Config): boolean {
  return rewriteBody ?? checks.some((check) => check.replacesBody === true);
}

/**
 * Whether it belongs into the junk folder: what is judged to be junk or, where no score stands for that, what is marked as spam. The Sieve
 * script that "postern wire dovecot" prints says the same.
 */
function isFiled({ kind, tagged }: Verdict, { thresholds }: Rules, kept: boolean): boolean {
  switch (kind) {
    case 'junk':
      return true;
    case 'quarantine':
      return !kept;
    case 'accept':
      return tagged && thresholds.junk === null;
    case 'defer':
    case 'reject':
    case 'discard':
      return false;
  }
}

/** The folder that is named to Dovecot; null: whoever reads the fields files it. */
function junkFolder({ file }: Config): string | null {
  return file['lmtp-filter'].filing === 'header' ? null : file.feedback.junk;
}

function editsFor(
  { headers }: Message,
  { trace }: Origin,
  outcomes: readonly Outcome[],
  { authservId, file }: Config,
  rules: Rules,
  verdict: Verdict,
  wrapper: Rewriting | null,
): readonly Edit[] | null {
  switch (verdict.kind) {
    case 'defer':
    case 'reject':
    case 'discard':
      return null;
    case 'accept':
    case 'junk':
    case 'quarantine': {
      const marked = markedFor(verdict, file.quarantine.where);
      const { hostname } = file.site;
      return messageEdits({
        headers,
        outcomes,
        verdict: marked,
        rules,
        authservId,
        otherAuthservIds: file.site.authserv_ids,
        hostname,
        trace,
        daemon: 'lmtp-filter',
        wrapper,
      });
    }
  }
}

/**
 * With a folder of our own, a quarantined message is kept as it is to be delivered once somebody releases it. Without one there is nowhere to put it: mail
 * must not be lost for that, and must not look like any other either, so it is delivered with every mark spam has, and
 * `X-Postern-Verdict: quarantine` for Sieve to file it by.
 */
function markedFor(verdict: Verdict, where: Config['file']['quarantine']['where']): Verdict {
  if (verdict.kind !== 'quarantine') return verdict;
  return where === 'folder' ? { ...verdict, kind: 'accept' } : { ...verdict, tagged: true };
}
