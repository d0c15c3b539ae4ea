import { z } from 'zod';

import { pathText, type ReversePath } from '../mail/address.ts';
import type { AuthResult } from '../mail/auth-results.ts';
import type { SpfResult } from '../ports/mail-auth.ts';
import type { Finding } from '../verdict/finding.ts';
import { mailCheck } from './check.ts';
import { dnsBudget } from './dns-budget.ts';

/** Whether the client may send for the domain of the envelope sender, and for its HELO name. RFC 7208. */
export const spfCheck = mailCheck({
  name: 'spf',
  stage: 'mail',
  summary:
    'SPF: whether the client may send mail for the domain of the envelope sender, and may use its HELO name.',
  directions: ['in'],
  needs: [],
  codes: {
    'spf.pass': {
      meaning:
        'The record of the sender domain allows this client. For a bounce, whose sender is empty, the HELO name takes the place of the sender domain, here and below.',
      action: 'ignore',
    },
    'spf.fail': {
      meaning:
        'The record of the sender domain says that this client may not send for it ("-all"). Also hits mail that was forwarded without a new sender; name such forwarders in own_networks, or leave the decision to DMARC with "ignore".',
      action: 'reject',
    },
    'spf.softfail': {
      meaning: 'The record says that this client probably may not send for the domain ("~all").',
      action: 'ignore',
    },
    'spf.neutral': {
      meaning: 'The record says nothing about this client ("?all", or nothing in it matches).',
      action: 'ignore',
    },
    'spf.none': {
      meaning:
        'The sender domain has no SPF record, or there is no sender domain: an address literal, a name without a dot.',
      action: 'ignore',
    },
    'spf.temperror': {
      meaning: 'The DNS could not be asked in time, or failed. Trying again later may help.',
      action: 'ignore',
    },
    'spf.permerror': {
      meaning:
        'The record is broken: a syntax error, two records, or more DNS lookups than RFC 7208 allows. Its owner has to mend it.',
      action: 'ignore',
    },
    'spf.helo-pass': { meaning: 'The record of the HELO name allows this client.', action: 'ignore' },
    'spf.helo-fail': {
      meaning: 'The record of the HELO name says that this client does not bear that name.',
      action: 'reject',
    },
    'spf.helo-softfail': {
      meaning: 'The record of the HELO name says that this client probably does not bear that name.',
      action: 'ignore',
    },
    'spf.helo-neutral': {
      meaning: 'The record of the HELO name says nothing about this client.',
      action: 'ignore',
    },
    'spf.helo-none': {
      meaning: 'The HELO name has no SPF record, which is usual, or is no domain name.',
      action: 'ignore',
    },
    'spf.helo-temperror': {
      meaning: 'The DNS could not be asked about the HELO name in time, or failed.',
      action: 'ignore',
    },
    'spf.helo-permerror': { meaning: 'The record of the HELO name is broken.', action: 'ignore' },
  },
  unavailable: 'defer',
  waivable: true,
  deadline: '6s',
  options: {
    helo: z
      .boolean()
      .default(true)
      .describe(
        'Whether the HELO name is checked too (spf.helo-*). For a bounce it is checked in any case, as the sender.',
      ),
    explanation: z
      .boolean()
      .default(true)
      .describe(
        'Whether a refusal passes on the explanation that the sender domain publishes (RFC 7208 §6.2), as the domain\'s words: "; example.com explains: …". Our history has it in any case.',
      ),
  },
  run({ facts, tools, options, signal, deadlineMs }) {
    const { client, sender } = facts;
    const budget = dnsBudget(deadlineMs);
    const query = { client: client.address, helo: client.helo ?? '', sender };
    const found = (helo: SpfResult | null, mailfrom: SpfResult): readonly Finding[] => {
      const main = finding(`spf.${mailfrom.result}`, mailfrom, senderProperty(sender, query.helo), options);
      if (helo === null) return [main];
      return [finding(`spf.helo-${helo.result}`, helo, heloProperty(query.helo), options), main];
    };
    // RFC 7208 §2.4: the null path is checked as the HELO identity; once is enough.
    // Where the name is not known (XFORWARD without HELO), there is no such identity.
    const separate = options.helo && sender.kind === 'address' && query.helo !== '';
    // RFC 7208 §2.3 has HELO first, to save the second; both are facts, and DMARC needs the second.
    const helo = separate ? tools.mailAuth.spf({ ...query, identity: 'helo' }, signal, budget) : null;
    const mailfrom = tools.mailAuth.spf({ ...query, identity: 'mailfrom' }, signal, budget);
    if (helo instanceof Promise || mailfrom instanceof Promise)
      return Promise.all([helo, mailfrom]).then(([one, other]) => found(one, other));
    return found(helo, mailfrom);
  },
});

function finding(
  code: string,
  { result, domain, detail, explanation }: SpfResult,
  property: readonly [string, string],
  options: { readonly explanation: boolean },
): Finding {
  const auth: AuthResult = { method: 'spf', result, properties: [property] };
  if (explanation === null) return { code, detail, auth };
  const told = `${detail}; ${domain} explains: ${explanation}`;
  return options.explanation
    ? { code, detail: told, auth, explanation: { by: domain, text: explanation } }
    : { code, detail: told, auth };
}

/** RFC 8601 §2.7.2: the identity that was checked. */
function senderProperty(sender: ReversePath, helo: string): readonly [string, string] {
  return sender.kind === 'null' ? heloProperty(helo) : ['smtp.mailfrom', pathText(sender)];
}

function heloProperty(helo: string): readonly [string, string] {
  return ['smtp.helo', helo];
}
