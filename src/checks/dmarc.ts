import type { AuthResult } from '../mail/auth-results.ts';
import type { DmarcResult } from '../ports/mail-auth.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';
import { messageCheck, UnmetNeed } from './check.ts';
import { dnsBudget } from './dns-budget.ts';

/** Whether the author's domain answers for the message. RFC 9989. */
export const dmarcCheck = messageCheck({
  name: 'dmarc',
  stage: 'message',
  summary:
    'DMARC: whether SPF or DKIM passes for the domain in From, and what that domain asks for when neither does. With one of those two checks switched off, only the other counts.',
  directions: ['in'],
  needs: ['spf', 'dkim'],
  codes: {
    'dmarc.pass': {
      meaning: 'SPF or DKIM passes for the domain in From, or for one that belongs to the same organization.',
      action: 'ignore',
    },
    'dmarc.none': { meaning: 'The domain in From has no DMARC record.', action: 'ignore' },
    'dmarc.fail': {
      meaning:
        'Neither SPF nor DKIM passes for the domain in From, which asks for nothing to be done about it (p=none, or a stricter policy that is only tested with t=y).',
      action: 'ignore',
    },
    'dmarc.fail-quarantine': {
      meaning: 'Neither passes, and the domain in From asks for such mail to be treated as suspicious.',
      action: 'junk',
    },
    'dmarc.fail-reject': {
      meaning:
        'Neither passes, and the domain in From asks for such mail to be refused. RFC 9989 says not to refuse it for that alone, because mail that went through mailing lists is hit as well; write "reject" here if you want to.',
      action: 'junk',
    },
    'dmarc.temperror': {
      meaning:
        'It could not be told: the DNS did not answer about the policy, or about an SPF record or a key that could have made it pass.',
      action: 'ignore',
    },
    'dmarc.permerror': {
      meaning:
        'There is no single author domain: From is missing, is there twice, or has addresses of several domains or none. Honest mail is hardly ever like that.',
      action: 'ignore',
    },
  },
  unavailable: 'defer',
  deadline: '10s',
  options: {},
  async run({ facts, tools, prior, signal, deadlineMs }) {
    const passed = authenticated(prior, 'pass');
    // Together they have the time of one.
    const budget = dnsBudget(deadlineMs) / 2;
    const { message } = facts;
    const result = await tools.mailAuth.dmarc({ message, ...passed }, signal, budget);
    if (result.result !== 'fail') return [finding(result)];
    const unmet = missing(prior);
    if (unmet !== null) throw new UnmetNeed(`${unmet}, and nothing else passes for ${result.domain}`);
    // RFC 9989 §5.3.6: what failed only because the DNS did is no failure. Only for identities that would have been aligned: anyone can
    // add a signature whose key never comes.
    const undecided = authenticated(prior, 'temperror');
    if (undecided.spfDomains.length === 0 && undecided.dkimDomains.length === 0) return [finding(result)];
    const other = await tools.mailAuth.dmarc({ message, ...undecided }, signal, budget);
    if (other.result !== 'pass') return [finding(result)];
    const detail = `${result.domain}: its SPF record or DKIM key could not be read`;
    return [finding({ ...result, result: 'temperror', detail })];
  },
});

interface Identities {
  readonly spfDomains: readonly string[];
  readonly dkimDomains: readonly string[];
}

/** Domains for which SPF, as the envelope sender, or DKIM came to that result. RFC 9989 §4.4.2: HELO alone doesn't count. */
function authenticated(prior: ReadonlyMap<string, Outcome>, word: 'pass' | 'temperror'): Identities {
  const domains = (code: string, property: readonly string[]): string[] =>
    [...prior.values()].flatMap((outcome) =>
      outcome.kind === 'found'
        ? outcome.findings
            .filter((found) => found.code === code)
            .flatMap((found) => propertyOf(found.auth, property))
        : [],
    );
  return {
    // Under spf.WORD smtp.helo stands only for the null path.
    spfDomains: domains(`spf.${word}`, ['smtp.mailfrom', 'smtp.helo']).map(domainOf),
    dkimDomains: domains(`dkim.${word}`, ['header.d']),
  };
}

function propertyOf(auth: AuthResult | undefined, names: readonly string[]): string[] {
  return (auth?.properties ?? []).filter(([name]) => names.includes(name)).map(([, value]) => value);
}

function domainOf(identity: string): string {
  return identity.slice(identity.lastIndexOf('@') + 1).toLowerCase();
}

/** Why the outcomes this rests on are not complete; null when they are. */
function missing(prior: ReadonlyMap<string, Outcome>): string | null {
  for (const outcome of prior.values()) {
    if (outcome.kind === 'unavailable') return `${outcome.check} could not be checked (${outcome.reason})`;
  }
  return null;
}

function finding(result: DmarcResult): Finding {
  const properties: (readonly [string, string])[] = [];
  if (result.domain !== '') properties.push(['header.from', result.domain]);
  // RFC 9989 §9.1: the policy as evaluated.
  if (result.result === 'pass' || result.result === 'fail') properties.push(['policy.dmarc', result.policy]);
  return {
    code: codeOf(result),
    detail: result.detail,
    auth: { method: 'dmarc', result: result.result, properties },
  };
}

function codeOf({ result, policy }: DmarcResult): string {
  if (result !== 'fail') return `dmarc.${result}`;
  switch (policy) {
    case 'none':
      return 'dmarc.fail';
    case 'quarantine':
      return 'dmarc.fail-quarantine';
    case 'reject':
      return 'dmarc.fail-reject';
  }
}
