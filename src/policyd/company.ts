import { isSpared } from '../checks/quota.ts';
import type { AnyBoundCheck } from '../checks/check.ts';
import type { Address } from '../mail/address.ts';
import type { Outcome } from '../verdict/finding.ts';
import { deferral } from '../verdict/replies.ts';
import type { Action, Rule, Rules } from '../verdict/rules.ts';
import type { Verdict } from '../verdict/verdict.ts';

/** What `policyd.split` says to a recipient whose message could be refused where that of the others could not. RFC 5321 §4.5.3.1.10. */
export const SPLIT_RULE = 'split';

export function splitVerdict(recipient: Address, first: Address): Verdict {
  return {
    kind: 'defer',
    rule: SPLIT_RULE,
    why: `${recipient.raw} has other rules of refusal than ${first.raw}, which is there already`,
    score: null,
    tagged: false,
    shadow: [],
    reply: deferral(SPLIT_RULE),
  };
}

/**
 * What could be refused of a message, once its content is there, by these rules: recipients for whom this is the same may come together. null: the
 * recipient goes with everybody (RFC 5321 §4.5.1, RFC 2142).
 *
 * @param checks of milter and lmtp-filter: what policyd itself finds is said to each recipient anyway
 * @param own what policyd found about this recipient
 */
export function companyOf(
  recipient: Address,
  rules: readonly Rules[],
  own: readonly Outcome[],
  checks: readonly AnyBoundCheck[],
): string | null {
  if (isSpared(recipient)) return null;
  const names = new Set(checks.flatMap(({ name, stage }) => (stage === 'message' ? [name] : [])));
  return JSON.stringify([rules.map((each) => refusalsOf(each, names)).toSorted(), listedAs(rules, own)]);
}

function refusalsOf(rules: Rules, names: ReadonlySet<string>): string {
  const { reject } = rules.thresholds;
  return JSON.stringify([reject, reject === null ? '' : pointsOf(rules, names), ruledBy(rules, names)]);
}

function ruledBy({ findings, unavailable }: Rules, names: ReadonlySet<string>): readonly string[] {
  const codes = [...findings].filter(
    ([code, rule]) => names.has(checkOf(code)) && !isListed(code) && isRefusal(rule),
  );
  const missing = [...unavailable].filter(([name, rule]) => names.has(name) && isRefusal(rule));
  const words = [...codes, ...missing].map(([name, { action }]) => `${name} ${action.kind}`);
  return words.toSorted();
}

/** Points count where a score can refuse. */
function pointsOf({ findings }: Rules, names: ReadonlySet<string>): string {
  const points = [...findings].flatMap(([code, { action, mode }]) =>
    action.kind === 'score' && mode === 'enforce' && names.has(checkOf(code))
      ? [`${code} ${action.points}`]
      : [],
  );
  return points.toSorted().join();
}

/** What the recipient's own lists say of the envelope sender, as far as it could make a difference. */
function listedAs(rules: readonly Rules[], own: readonly Outcome[]): string {
  const codes = own.flatMap((outcome) =>
    outcome.kind === 'found' ? outcome.findings.map(({ code }) => code) : [],
  );
  const refuses = rules.some(({ findings }) => {
    const rule = findings.get('lists.block');
    return rule !== undefined && isRefusal(rule);
  });
  const scored = rules.some(({ thresholds }) => thresholds.reject !== null);
  if (refuses && codes.includes('settings-rcpt.block')) return 'block';
  return scored && codes.includes('settings-rcpt.allow') ? 'allow' : '';
}

function isListed(code: string): boolean {
  return checkOf(code) === 'lists';
}

function isRefusal({ action, mode }: Rule): boolean {
  return mode === 'enforce' && REFUSALS.has(action.kind);
}

const REFUSALS: ReadonlySet<Action['kind']> = new Set(['defer', 'reject']);

function checkOf(code: string): string {
  const dot = code.indexOf('.');
  return dot === -1 ? code : code.slice(0, dot);
}
