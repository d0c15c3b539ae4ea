/** What the login side finds, in the order in which ties are decided. */
export const LOGIN_CODES = [
  'login.account-blocked',
  'login.net-failures',
  'login.spraying',
  'login.pair-failures',
  'login.failures',
] as const;

export type LoginCode = (typeof LOGIN_CODES)[number];

/** A fact about a login that is being tried; what it means is the operator's rule for its code. */
export interface LoginFinding {
  readonly code: LoginCode;
  /** One line for people. */
  readonly detail: string;
  /** How far past its limit, from 1 on; delays grow with it. */
  readonly excess: number;
}

/** Only the caller of the state makes one, so that silence is never taken for "nothing was found". */
export type LoginOutcome =
  | { readonly kind: 'found'; readonly findings: readonly LoginFinding[] }
  | { readonly kind: 'unavailable'; readonly detail: string };

export type LoginAction =
  | { readonly kind: 'ignore' }
  /** Waits 1 s, then twice as long with each further excess, at most so many seconds. */
  | { readonly kind: 'delay'; readonly most: number }
  | { readonly kind: 'refuse' };

export interface LoginRule {
  readonly action: LoginAction;
  readonly mode: 'enforce' | 'shadow';
  /** The operator's words to the client, in place of ours. */
  readonly text?: string | undefined;
}

export interface LoginRules {
  readonly findings: Readonly<Record<LoginCode, LoginRule>>;
  /** When the state could not be asked in time. */
  readonly unavailable: LoginRule;
}

export type LoginRuleName = LoginCode | 'unavailable' | 'none';

export interface LoginShadow {
  readonly rule: LoginRuleName;
  readonly kind: 'delay' | 'refuse';
}

interface Decided {
  readonly rule: LoginRuleName;
  readonly why: string;
  readonly shadow: readonly LoginShadow[];
}

export type LoginVerdict =
  | (Decided & { readonly kind: 'allow' })
  | (Decided & { readonly kind: 'delay'; readonly seconds: number })
  | (Decided & { readonly kind: 'refuse'; readonly text: string });

/** What a rule makes of one fact; null: nothing. */
type Effect =
  { readonly kind: 'delay'; readonly seconds: number } | { readonly kind: 'refuse'; readonly text: string };

/** The client sees these words: nothing in them tells what was counted, or how much. */
const TEXTS: Readonly<Record<LoginCode | 'unavailable', string>> = {
  'login.account-blocked': 'This account is blocked, please contact your administrator',
  'login.net-failures': 'Too many failed logins from your network, please try again later',
  'login.spraying': 'Too many failed logins from your network, please try again later',
  'login.pair-failures': 'Too many failed logins, please try again later',
  'login.failures': 'Too many failed logins, please try again later',
  unavailable: 'Logins can not be checked just now, please try again later',
};

/**
 * Facts and rules in, verdict out; pure. A refusal stands above a delay, the longer delay above the shorter, and among equals the first
 * in the order of LOGIN_CODES.
 *
 * @param longestDelay seconds that the asking protocol can wait
 */
export function decideLogin(outcome: LoginOutcome, rules: LoginRules, longestDelay: number): LoginVerdict {
  const shadow: LoginShadow[] = [];
  let loudest: { readonly rule: LoginRuleName; readonly why: string; readonly effect: Effect } | null = null;

  const hear = (name: LoginCode | 'unavailable', why: string, rule: LoginRule, excess: number): void => {
    const effect = effectOf(name, rule, excess, longestDelay);
    if (effect === null) return;
    if (rule.mode === 'shadow') shadow.push({ rule: name, kind: effect.kind });
    else if (loudest === null || weight(effect) > weight(loudest.effect))
      loudest = { rule: name, why, effect };
  };

  switch (outcome.kind) {
    case 'unavailable':
      hear('unavailable', outcome.detail, rules.unavailable, 1);
      break;
    case 'found':
      for (const code of LOGIN_CODES) {
        for (const finding of outcome.findings) {
          if (finding.code === code) hear(code, finding.detail, rules.findings[code], finding.excess);
        }
      }
      break;
  }
  return verdictOf(loudest, outcome, shadow);
}

function verdictOf(
  loudest: { readonly rule: LoginRuleName; readonly why: string; readonly effect: Effect } | null,
  outcome: LoginOutcome,
  shadow: readonly LoginShadow[],
): LoginVerdict {
  // That nothing could be found out is said even where it is nobody's disadvantage.
  if (loudest === null && outcome.kind === 'unavailable')
    return { kind: 'allow', rule: 'unavailable', why: outcome.detail, shadow };
  if (loudest === null) return { kind: 'allow', rule: 'none', why: '', shadow };
  const { rule, why, effect } = loudest;
  return { ...effect, rule, why, shadow };
}

function effectOf(
  name: LoginCode | 'unavailable',
  { action, text }: LoginRule,
  excess: number,
  longestDelay: number,
): Effect | null {
  switch (action.kind) {
    case 'ignore':
      return null;
    case 'delay': {
      const seconds = Math.min(2 ** Math.max(0, Math.ceil(excess) - 1), action.most, longestDelay);
      return { kind: 'delay', seconds };
    }
    case 'refuse':
      return { kind: 'refuse', text: text ?? TEXTS[name] };
  }
}

function weight(effect: Effect): number {
  return effect.kind === 'refuse' ? Number.POSITIVE_INFINITY : effect.seconds;
}
