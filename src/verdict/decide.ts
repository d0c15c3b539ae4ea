import { withText, type Reply } from '../mail/reply.ts';
import type { Explanation, Finding, Outcome } from './finding.ts';
import { deferral, explained, rejection } from './replies.ts';
import type { Action, Band, Rule, Rules, Setting } from './rules.ts';
import { severity, type ShadowVerdict, type Verdict, type VerdictKind } from './verdict.ts';

const DEFER: Rule = { action: { kind: 'defer' }, mode: 'enforce' };

/** One rule that speaks about this message. */
interface Voice {
  readonly rule: string;
  readonly why: string;
  readonly kind: VerdictKind;
  readonly tagged: boolean;
  readonly reply: Reply | null;
  readonly setting?: Setting | undefined;
  /** It set something aside: the reason why nothing else speaks. */
  readonly allows?: boolean;
}

const NOTHING_WAIVED: ReadonlySet<string> = new Set();

const SILENT: Voice = { rule: 'default', why: '', kind: 'accept', tagged: false, reply: null };

/**
 * Facts and rules in, verdict out. Pure: the same facts and rules always give the same verdict, which is what explain, replay
 * and tune rest on.
 *
 * The most severe verdict stands; among equals the first in the order of `outcomes`. With `recipient`, facts that concern another
 * recipient are passed over; without it, facts about single recipients are.
 */
export function decide(outcomes: readonly Outcome[], rules: Rules, recipient: number | null = null): Verdict {
  let loudest = SILENT;
  let tagged = false;
  const scored: { readonly points: number; readonly detail: string }[] = [];
  const shadow: ShadowVerdict[] = [];

  const hear = (voice: Voice, mode: Rule['mode']): void => {
    if (mode === 'shadow') {
      shadow.push({ rule: voice.rule, kind: voice.kind });
      return;
    }
    tagged ||= voice.tagged;
    const louder = severity(voice.kind) > severity(loudest.kind);
    if (louder || (loudest === SILENT && (voice.tagged || voice.allows === true))) loudest = voice;
  };

  const add = (points: number, detail: string): void => {
    scored.push({ points, detail });
  };
  const waived = waivedFor(outcomes, rules, recipient);
  for (const outcome of outcomes) {
    if (waived.has(outcome.check)) continue;
    switch (outcome.kind) {
      case 'unavailable': {
        const name = `unavailable:${outcome.check}`;
        const rule = rules.unavailable.get(outcome.check) ?? DEFER;
        const why = `${outcome.check} could not be checked (${outcome.reason}): ${outcome.detail}`;
        if (rule.action.kind === 'score' && rule.mode === 'enforce')
          add(rule.action.points, `${name} ${rule.action.points}`);
        hear(voiceFrom(name, why, rule), rule.mode);
        break;
      }
      case 'found':
        for (const finding of outcome.findings) {
          if (finding.recipient !== undefined && finding.recipient !== recipient) continue;
          if (finding.score !== undefined) add(finding.score, finding.detail);
          const rule = rules.findings.get(finding.code);
          if (rule === undefined) continue;
          if (rule.action.kind === 'score' && rule.mode === 'enforce')
            add(rule.action.points, `${finding.code} ${rule.action.points}`);
          hear(voiceOf(finding, rule), rule.mode);
        }
        break;
    }
  }
  // Sums of tenths are not exact in binary; SpamAssassin's scores have one decimal, operators' points at most three.
  const sum = scored.reduce((total, { points }) => total + points, 0);
  const score = scored.length === 0 ? null : Math.round(sum * 1000) / 1000;
  const bands = areSettingsOwed(outcomes, rules)
    ? { ...rules, thresholds: { ...rules.thresholds, reject: null, discard: null } }
    : rules;
  const band = scoreBand(score, bands, scored.map(({ detail }) => detail).join('; '));
  if (band !== null) hear(band, 'enforce');

  const { kind, rule, why, reply, setting } = loudest;
  const decided = { rule, why, score, tagged, shadow, ...(setting === undefined ? {} : { setting }) };
  switch (kind) {
    case 'defer':
    case 'reject':
      return { ...decided, kind, reply: reply ?? deferral(rule) };
    case 'accept':
    case 'junk':
    case 'quarantine':
    case 'discard':
      return { ...decided, kind };
  }
}

/** The check that knows the recipients' own thresholds. */
const SETTINGS_CHECK = 'settings';

/**
 * Whether the recipient's own thresholds are to be waited for, as the rule for that check says: a message that they may allow is not refused for good
 * by those of the site.
 */
function areSettingsOwed(outcomes: readonly Outcome[], { unavailable }: Rules): boolean {
  const rule = unavailable.get(SETTINGS_CHECK) ?? DEFER;
  if (rule.action.kind !== 'defer' || rule.mode === 'shadow') return false;
  return outcomes.some(({ kind, check }) => kind === 'unavailable' && check === SETTINGS_CHECK);
}

/** Checks that do not count, because a rule that is enforced allows this message whatever they found. */
function waivedFor(
  outcomes: readonly Outcome[],
  rules: Rules,
  recipient: number | null,
): ReadonlySet<string> {
  let waived = NOTHING_WAIVED;
  for (const outcome of outcomes) {
    if (outcome.kind === 'unavailable') continue;
    for (const { code, recipient: only, waives } of outcome.findings) {
      if (only !== undefined && only !== recipient) continue;
      const rule = rules.findings.get(code);
      if (rule?.action.kind !== 'allow' || rule.mode !== 'enforce') continue;
      if (waives !== undefined) return new Set([...rules.waivable, ...waives]);
      waived = rules.waivable;
    }
  }
  return waived;
}

/**
 * One verdict for all recipients, for the protocols that can say only one (milter, END-OF-MESSAGE): the mildest, so that nobody loses
 * mail through another's settings. What is stricter for some is lmtp-filter's to do.
 */
export function mildest(verdicts: readonly Verdict[]): Verdict {
  let mild = verdicts[0];
  for (const verdict of verdicts) {
    if (mild === undefined || severity(verdict.kind) < severity(mild.kind)) mild = verdict;
    else if (verdict.kind === mild.kind && mild.tagged && !verdict.tagged) mild = verdict;
  }
  return (
    mild ??
    decide([], {
      findings: new Map(),
      unavailable: new Map(),
      waivable: new Set(),
      thresholds: { tag: null, junk: null, reject: null, discard: null },
      subjectTag: '',
    })
  );
}

function voiceOf(finding: Finding, rule: Rule): Voice {
  const voice = voiceFrom(finding.code, finding.detail, rule, finding.explanation);
  if (finding.setting === undefined) return voice;
  const allows = finding.waives !== undefined && rule.action.kind === 'allow';
  return { ...voice, setting: rule.setting ?? finding.setting, allows };
}

function voiceFrom(name: string, why: string, rule: Rule, explanation?: Explanation): Voice {
  return {
    rule: name,
    why,
    kind: kindOf(rule.action),
    tagged: rule.action.kind === 'tag',
    reply: replyFor(name, rule, explanation),
    setting: rule.setting,
  };
}

function kindOf(action: Action): VerdictKind {
  switch (action.kind) {
    case 'ignore':
    case 'score':
    case 'tag':
    case 'allow':
      return 'accept';
    case 'junk':
    case 'quarantine':
    case 'defer':
    case 'reject':
    case 'discard':
      return action.kind;
  }
}

function replyFor(name: string, rule: Rule, explanation?: Explanation): Reply | null {
  switch (rule.action.kind) {
    case 'reject':
      return words(rejection(name), rule, explanation);
    case 'defer':
      return words(deferral(name), rule);
    case 'ignore':
    case 'score':
    case 'tag':
    case 'junk':
    case 'quarantine':
    case 'discard':
    case 'allow':
      return null;
  }
}

function words(reply: Reply, rule: Rule, explanation?: Explanation): Reply {
  if (rule.text !== undefined) return withText(reply, rule.text);
  return explanation === undefined ? reply : explained(reply, explanation);
}

function scoreBand(score: number | null, rules: Rules, detail: string): Voice | null {
  if (score === null) return null;
  const { tag, junk, reject, discard } = rules.thresholds;
  const tagged = tag !== null && score >= tag;
  const voice = (band: Band, threshold: number, kind: VerdictKind, reply: Reply | null): Voice => {
    const setting = rules.bandsSetBy?.[band];
    const whose = setting === 'directory' ? ` (${rules.mailbox ?? ''}: ${band} from ${threshold})` : '';
    return {
      rule: `score>=${threshold}`,
      why: `score ${score}: ${detail}${whose}`,
      kind,
      tagged: tagged || kind === 'reject' || kind === 'discard',
      reply,
      setting,
    };
  };
  if (discard !== null && score >= discard) return voice('discard', discard, 'discard', null);
  if (reject !== null && score >= reject) return voice('reject', reject, 'reject', rejection('spam.score'));
  if (junk !== null && score >= junk) return voice('junk', junk, 'junk', null);
  return tagged ? voice('tag', tag, 'accept', null) : null;
}
