import type { AuthResult } from '../mail/auth-results.ts';
import type { ReadResult } from '../mail/auth-results-reader.ts';
import type { DmarcResult } from '../ports/mail-auth.ts';
import type { Finding, Outcome, SealedResults } from '../verdict/finding.ts';
import { messageCheck, UnmetNeed } from './check.ts';
import { dnsBudget } from './dns-budget.ts';

/** Whether the author's domain answers for the message. RFC 9989. */
export const dmarcCheck = messageCheck({
  name: 'dmarc',
  stage: 'message',
  summary:
    'DMARC: whether SPF or DKIM passes for the domain in From, and what that domain asks for when neither does. With one of those two checks switched off, only the other counts.',
  directions: ['in'],
  needs: ['spf', 'dkim', 'arc'],
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
    'dmarc.override': {
      meaning:
        'Neither passes, but it did when the message came to a forwarder or mailing list that is trusted ([checks.arc] trusted_sealers) and sealed that. Takes the place of dmarc.fail, dmarc.fail-quarantine and dmarc.fail-reject.',
      action: 'ignore',
    },
    'dmarc.both-fail': {
      meaning:
        'SPF says that the client may not send for the envelope sender ("-all"), and no DKIM signature is valid, whatever domain they are of and whether it has a DMARC record or not. Forwarding alone breaks SPF, and a mailing list DKIM, but seldom both. Found besides the others; not with dmarc.override.',
      action: 'ignore',
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
  headersOnly: true,
  async run({ facts, tools, prior, signal, deadlineMs }) {
    const { headers } = facts.message;
    // Together they have the time of one.
    const budget = dnsBudget(deadlineMs) / EVALUATIONS;
    const evaluate = (identities: Identities): Promise<DmarcResult> =>
      tools.mailAuth.dmarc({ headers, ...identities }, signal, budget);
    const result = await evaluate(authenticated(prior, 'pass'));
    if (result.result !== 'fail') return [finding(result), ...bothFail(prior)];
    const unmet = missing(prior);
    if (unmet !== null) throw new UnmetNeed(`${unmet}, and nothing else passes for ${result.domain}`);
    // RFC 9989 §5.3.6: what failed only because the DNS did is no failure. Only for identities that would have been aligned: anyone can
    // add a signature whose key never comes.
    const undecided = authenticated(prior, 'temperror');
    if (isAny(undecided) && (await evaluate(undecided)).result === 'pass') {
      const detail = `${result.domain}: its SPF record or DKIM key could not be read`;
      return [finding({ ...result, result: 'temperror', detail })];
    }
    const vouched = await voucher(prior, result.domain, evaluate);
    if (vouched === null) return [finding(result), ...bothFail(prior)];
    return [vouched.certain ? overridden(result, vouched) : unsure(result, vouched)];
  },
});

/** Of what passed, of what could have, and of what trusted sealers saw. */
const EVALUATIONS = 3;

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

function isAny({ spfDomains, dkimDomains }: Identities): boolean {
  return spfDomains.length > 0 || dkimDomains.length > 0;
}

/** Somebody whose word is taken. */
interface Voucher {
  readonly sealer: string;
  readonly instance: number;
  /** false: his seal could not be verified, for want of an answer of the DNS. */
  readonly certain: boolean;
}

/** The newest of the trusted sealers who found that the author domain passed. RFC 8617 §7.2.1, RFC 9989 §5.4. */
async function voucher(
  prior: ReadonlyMap<string, Outcome>,
  domain: string,
  evaluate: (identities: Identities) => Promise<DmarcResult>,
): Promise<Voucher | null> {
  const arc = prior.get('arc');
  const [found] = arc?.kind === 'found' ? arc.findings : [];
  if (found?.sealed === undefined) return null;
  const certain = found.code === 'arc.pass';
  for (const { sealer, instance, results } of found.sealed) {
    // Of the domain that From has now: a list may have put its own there.
    if (saysPass(results, domain)) return { sealer, instance, certain };
  }
  // Those who do not evaluate DMARC themselves still say what passed.
  const identities = sealedIdentities(found.sealed);
  const [newest] = found.sealed;
  if (newest === undefined || !isAny(identities) || (await evaluate(identities)).result !== 'pass')
    return null;
  return { sealer: newest.sealer, instance: newest.instance, certain };
}

function saysPass(results: readonly ReadResult[], domain: string): boolean {
  return results.some(
    ({ method, result, properties }) =>
      method === 'dmarc' &&
      result === 'pass' &&
      properties.some(([name, value]) => name === 'header.from' && domainOf(value) === domain),
  );
}

/** Identities that one evaluation is made with: each may cost a walk through the DNS. */
const SEALED_IDENTITIES_LIMIT = 8;

function sealedIdentities(sealed: readonly SealedResults[]): Identities {
  const values = (method: string, wanted: readonly string[]): string[] => {
    const passed = sealed
      .flatMap(({ results }) => results)
      .filter((read) => read.method === method && read.result === 'pass')
      .flatMap(({ properties }) => properties.filter(([name]) => wanted.includes(name)))
      .map(([, value]) => domainOf(value));
    return [...new Set(passed)].slice(0, SEALED_IDENTITIES_LIMIT);
  };
  return {
    spfDomains: values('spf', ['smtp.mailfrom']),
    dkimDomains: values('dkim', ['header.d', 'header.i']),
  };
}

/** Neither of the two says that anybody answers for this message, and one says that somebody does not. */
function bothFail(prior: ReadonlyMap<string, Outcome>): readonly Finding[] {
  const spf = codes(prior.get('spf'));
  const dkim = codes(prior.get('dkim'));
  if (!spf.includes('spf.fail') || dkim.length === 0) return [];
  if (dkim.includes('dkim.pass') || dkim.includes('dkim.temperror')) return [];
  const signed = dkim.includes('dkim.none') ? 'there is no DKIM signature' : 'no DKIM signature is valid';
  return [{ code: 'dmarc.both-fail', detail: `SPF fails and ${signed}` }];
}

function codes(outcome: Outcome | undefined): readonly string[] {
  return outcome?.kind === 'found' ? outcome.findings.map(({ code }) => code) : [];
}

function overridden(result: DmarcResult, { sealer, instance }: Voucher): Finding {
  const { auth } = finding(result);
  const comment = `overridden: arc=pass, sealed by ${sealer} (i=${instance})`;
  return {
    code: 'dmarc.override',
    detail: `${result.detail}; but it passed for ${sealer}, which is trusted (ARC i=${instance})`,
    ...(auth === undefined ? {} : { auth: { ...auth, comment } }),
  };
}

function unsure(result: DmarcResult, { sealer }: Voucher): Finding {
  const detail = `${result.domain}: the key of ${sealer}, which is trusted and says that it passed, could not be read`;
  return finding({ ...result, result: 'temperror', detail });
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
