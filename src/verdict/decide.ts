import { withText, type Reply } from '../mail/reply.ts';
import type { Explanation, Finding, Outcome } from './finding.ts';
import { deferral, explained, rejection } from './replies.ts';
import type { Action, Rule, Rules } from './rules.ts';
import { severity, type ShadowVerdict, type Verdict, type VerdictKind } from './verdict.ts';

const DEFER: Rule = { action: { kind: 'defer' }, mode: 'enforce' };

/** One rule that speaks about this message. */
interface Voice {
  readonly rule: string;
  readonly why: string;
  readonly kind: VerdictKind;
  readonly tagged: boolean;
  readonly reply: Reply | null;
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
    if (louder || (loudest === SILENT && voice.tagged)) loudest = voice;
  };

  const add = (points: number, detail: string): void => {
    scored.push({ points, detail });
  };
  const waived = allowed(outcomes, rules, recipient) ? rules.waivable : NOTHING_WAIVED;
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
  const band = scoreBand(score, rules, scored.map(({ detail }) => detail).join('; '));
  if (band !== null) hear(band, 'enforce');

  const { kind, rule, why, reply } = loudest;
  const decided = { rule, why, score, tagged, shadow };
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

/** Whether a rule that is enforced allows this message whatever the waivable checks found. */
function allowed(outcomes: readonly Outcome[], rules: Rules, recipient: number | null): boolean {
  for (const outcome of outcomes) {
    if (outcome.kind === 'unavailable') continue;
    for (const { code, recipient: only } of outcome.findings) {
      if (only !== undefined && only !== recipient) continue;
      const rule = rules.findings.get(code);
      if (rule?.action.kind === 'allow' && rule.mode === 'enforce') return true;
    }
  }
  return false;
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
      thresholds: { tag: null, junk: null, reject: null },
      subjectTag: '',
    })
  );
}

function voiceOf(finding: Finding, rule: Rule): Voice {
  return voiceFrom(finding.code, finding.detail, rule, finding.explanation);
}

function voiceFrom(name: string, why: string, rule: Rule, explanation?: Explanation): Voice {
  return {
    rule: name,
    why,
    kind: kindOf(rule.action),
    tagged: rule.action.kind === 'tag',
    reply: replyFor(name, rule, explanation),
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
  const { tag, junk, reject } = rules.thresholds;
  const why = `score ${score}: ${detail}`;
  const tagged = tag !== null && score >= tag;
  if (reject !== null && score >= reject) {
    return { rule: `score>=${reject}`, why, kind: 'reject', tagged: true, reply: rejection('spam.score') };
  }
  if (junk !== null && score >= junk)
    return { rule: `score>=${junk}`, why, kind: 'junk', tagged, reply: null };
  if (tagged) return { rule: `score>=${tag}`, why, kind: 'accept', tagged, reply: null };
  return null;
}
