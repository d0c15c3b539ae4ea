import { z } from 'zod';

import { readArcAuthResults } from '../mail/auth-results-reader.ts';
import type { AuthResult } from '../mail/auth-results.ts';
import type { ArcHop, ArcResult } from '../ports/mail-auth.ts';
import type { Finding, SealedResults } from '../verdict/finding.ts';
import { bodyCheck } from './check.ts';
import { dnsBudget } from './dns-budget.ts';

/** RFC 1035 §2.3.4, in lower case, without a closing dot. */
const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

const SEALER_FORM = 'expected a domain in lower case, as it stands in d=, such as "lists.example.org"';

/** What those who passed the message on say of it. RFC 8617. */
export const arcCheck = bodyCheck({
  name: 'arc',
  stage: 'message',
  summary:
    'ARC: whether the chain of those who passed the message on (mailing lists, forwarders) and sealed what they found is whole. A chain says nothing for itself, anyone can make one: name in trusted_sealers whom you believe.',
  directions: ['in'],
  needs: [],
  codes: {
    'arc.pass': {
      meaning: 'The chain is whole, and the message has not been changed since it was last sealed.',
      action: 'ignore',
    },
    'arc.fail': {
      meaning:
        'The chain is broken: the message was changed since it was last sealed, a seal is not valid, or a key is gone. RFC 8617 §5.2.1 makes it worth as much as no chain.',
      action: 'ignore',
    },
    'arc.temperror': {
      meaning: 'A key of the chain could not be fetched in time, and nothing else is wrong with it.',
      action: 'ignore',
    },
    'arc.none': { meaning: 'The message has no ARC chain.', action: 'ignore' },
  },
  // Nothing rests on it but what DMARC makes of a trusted sealer's word, and DMARC has its own rule for when it can't know.
  unavailable: 'ignore',
  deadline: '20s',
  options: {
    trusted_sealers: z
      .array(z.string(SEALER_FORM).regex(DOMAIN, SEALER_FORM))
      .max(1000)
      .default([])
      .describe(
        'Domains (d= of ARC-Seal) whose word is taken. Where DMARC fails and the newest seals are theirs, in a whole chain, and one of them recorded that the author domain passed, dmarc.override takes the place of dmarc.fail, -quarantine and -reject.',
      )
      .meta({ examples: [['google.com', 'lists.example.org']] }),
  },
  read({ facts, tools, options, signal }) {
    const verification = tools.mailAuth.arc(facts.headers, signal);
    const trusted = new Set(options.trusted_sealers);
    const found = (result: ArcResult): readonly Finding[] => [finding(result, facts.client.address, trusted)];
    return {
      needsBody: verification.needsBody,
      write: (chunk) => verification.write(chunk),
      end: ({ deadlineMs }) => {
        const result = verification.end(dnsBudget(deadlineMs));
        return result instanceof Promise ? result.then(found) : found(result);
      },
    };
  },
});

function finding(arc: ArcResult, client: string, trusted: ReadonlySet<string>): Finding {
  const { result, detail, hops } = arc;
  const code = `arc.${result}`;
  const auth = authResult(arc, client);
  switch (result) {
    case 'none':
    case 'fail':
      return { code, detail, auth };
    case 'pass':
    case 'temperror': {
      const sealed = sealedResults(hops, trusted);
      return sealed.length === 0 ? { code, detail, auth } : { code, detail, auth, sealed };
    }
  }
}

/** RFC 8617 §4.4 has three words; RFC 8617 §10.2 the properties. */
function authResult({ result, detail, oldestPass }: ArcResult, client: string): AuthResult {
  const properties: (readonly [string, string])[] = [];
  if (result === 'none') return { method: 'arc', result, properties };
  if (client !== '') properties.push(['smtp.remote-ip', client]);
  if (oldestPass !== null) properties.push(['header.oldest-pass', String(oldestPass)]);
  // §5.2.1: every failure is one for good.
  return { method: 'arc', result: result === 'pass' ? result : 'fail', comment: detail, properties };
}

/**
 * What trusted sealers recorded, from the newest down to the first one that is not trusted: whoever sealed after a trusted one can have changed
 * the message as he liked, or have put its chain on another one, and the chain would still be whole (RFC 8617 §9.4, §9.5).
 */
function sealedResults(hops: readonly ArcHop[], trusted: ReadonlySet<string>): readonly SealedResults[] {
  const believed: SealedResults[] = [];
  for (const { instance, sealer, signer, results } of hops) {
    if (!trusted.has(sealer) || !trusted.has(signer)) break;
    const read = readArcAuthResults(results);
    if (read !== null) believed.push({ sealer, instance, results: read.results });
  }
  return believed;
}
