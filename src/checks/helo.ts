import { z } from 'zod';

import { DnsError, type RecordType, type Resolver } from '../ports/resolver.ts';
import type { Finding } from '../verdict/finding.ts';
import { mailCheck } from './check.ts';
import { withinDnsBudget } from './dns-budget.ts';
import { isIpAddress, parseIp } from './networks.ts';

// RFC 5321 §4.1.2, RFC 1035 §2.3.4: letters, digits and hyphens, 63 to a label, 255 in all; underscores are borne with, as Postfix does (valid_hostname).
const HOST_NAME = /^(?=.{1,255}$)(?!-)[\w-]{1,63}(?<!-)(?:\.(?!-)[\w-]{1,63}(?<!-))*$/;

/** What counts as being there: a host, or a domain that takes mail. */
const PROOFS = ['A', 'AAAA', 'MX'] as const satisfies readonly RecordType[];

/** What a client calls itself in HELO or EHLO. */
export const heloCheck = mailCheck({
  name: 'helo',
  stage: 'mail',
  policyOnly: true,
  waivable: true,
  summary: 'The name that the client gives in HELO or EHLO.',
  directions: ['in'],
  needs: [],
  codes: {
    'helo.syntax': {
      meaning:
        'It is neither a host name nor an address literal: other characters, a label of more than 63, or nothing at all.',
      action: 'ignore',
    },
    'helo.own-name': {
      meaning:
        'It is the name of this host, or another of own_names, though the client is not in own_networks. A sure sign of junk once own_networks is complete: then set it to "reject".',
      action: 'ignore',
    },
    'helo.bare': { meaning: 'It is a single word, without a domain.', action: 'ignore' },
    'helo.address': {
      meaning:
        'It is an IP address without brackets, or an address literal of another address than the client has; RFC 5321 allows neither.',
      action: 'ignore',
    },
    'helo.literal': {
      meaning:
        "It is the client's address as a literal, [192.0.2.1]: allowed for hosts without a name, which mail servers have.",
      action: 'ignore',
    },
    'helo.unknown': {
      meaning: 'The DNS knows no such name (no A, AAAA or MX record). Looked up only with lookup = true.',
      action: 'ignore',
    },
    'helo.temperror': {
      meaning: 'It was to be looked up, and the DNS could not be asked in time, or failed.',
      action: 'ignore',
    },
  },
  unavailable: 'ignore',
  deadline: '4s',
  options: {
    own_names: z
      .array(z.string().regex(/^[\w.-]{1,255}$/, 'expected a host or domain name such as "mail.example.org"'))
      .default([])
      .describe('Names that nobody but this site bears, besides site.hostname: its domains, its other hosts.')
      .meta({
        title: 'list of names',
        examples: [['example.org', 'mx2.example.org']],
        defaultText: 'site.hostname alone',
      }),
    lookup: z
      .boolean()
      .default(false)
      .describe(
        'Whether it is looked up that the name is there (helo.unknown). It costs up to three DNS questions for each new name; none when it is the verified name of the client.',
      ),
  },
  run(context) {
    const { client } = context.facts;
    const given = client.helo ?? '';
    const name = (given.endsWith('.') ? given.slice(0, -1) : given).toLowerCase();
    if (
      context.options.own_names.some((own) => own.toLowerCase() === name) ||
      name === context.tools.hostname.toLowerCase()
    )
      return [{ code: 'helo.own-name', detail: `HELO ${given}: the client calls itself by a name of ours` }];
    if (isIpAddress(given))
      return [{ code: 'helo.address', detail: `HELO ${given}: an address without brackets` }];
    if (given.startsWith('[')) return [literal(given, client.address)];
    if (!HOST_NAME.test(name))
      return [{ code: 'helo.syntax', detail: `HELO ${given === '' ? '(nothing)' : given}: not a host name` }];
    if (!name.includes('.')) return [{ code: 'helo.bare', detail: `HELO ${given}: without a domain` }];
    if (!context.options.lookup || client.name?.toLowerCase() === name) return [];
    const { tools, signal, deadlineMs } = context;
    return withinDnsBudget(signal, deadlineMs, (limit) => lookUp(tools.resolver, name, signal, limit));
  },
});

/** RFC 5321 §4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`. */
function literal(given: string, client: string): Finding {
  const [, tag, text = ''] = /^\[(IPv6:)?([0-9a-f:.]{1,64})\]$/i.exec(given) ?? [];
  const address = parseIp(text);
  if (address === null || (tag === undefined) === text.includes(':'))
    return { code: 'helo.syntax', detail: `HELO ${given}: not an address literal` };
  const own = parseIp(client);
  const same = own?.length === address.length && own.every((group, index) => group === address[index]);
  return same
    ? { code: 'helo.literal', detail: `HELO ${given}: the address of the client` }
    : { code: 'helo.address', detail: `HELO ${given}: not the address of the client, ${client}` };
}

async function lookUp(
  resolver: Resolver,
  name: string,
  signal: AbortSignal,
  limit: AbortSignal,
): Promise<readonly Finding[]> {
  try {
    for (const type of PROOFS) {
      const answer = await resolver.query(name, type, limit);
      if (answer.kind === 'records') return [];
      // RFC 8020 §2: a name that does not exist has no records of any type.
      if (answer.kind === 'nxdomain') break;
    }
  } catch (error) {
    if (!(error instanceof DnsError) || signal.aborted) throw error;
    if (error.code !== 'badname')
      return [{ code: 'helo.temperror', detail: `HELO ${name}: ${error.message}` }];
  }
  return [{ code: 'helo.unknown', detail: `HELO ${name}: not in the DNS` }];
}
