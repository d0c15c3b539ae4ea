import { z } from 'zod';

import type { GreylistAnswer, GreylistTimes, Triplet } from '../ports/greylist.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';
import { selection, selects } from './address-pattern.ts';
import { admissionCheck, type CheckTools, type RcptFacts } from './check.ts';
import { dnsblCheck } from './dnsbl.ts';
import { insider, outsider } from './greylist-key.ts';
import { heloCheck } from './helo.ts';
import { mxCheck } from './mx.ts';
import { nameList } from './names.ts';
import { networkOf, networkSet } from './networks.ts';
import { duration } from './options.ts';
import { ptrCheck } from './ptr.ts';
import { spfCheck } from './spf.ts';

const HOST_FORM = 'expected a host name such as "mail.example.org", or a pattern such as "*.example.org"';
const DOMAIN_FORM =
  'expected a domain such as "example.org", a pattern such as "*.example.org", or "*" for all';

/** What is looked at besides triplets: who a client is, and whether something speaks against it. */
const WITNESSES = [heloCheck, ptrCheck, mxCheck, spfCheck, dnsblCheck];
const TESTIMONIES = WITNESSES.flatMap(({ codes }) => Object.keys(codes));
const CODE_FORM = `expected a code of ${WITNESSES.map(({ name }) => name).join(', ')}, such as "ptr.none"`;

function timeBetween(least: number, most: number, form: string): z.ZodType<number, string> {
  return duration()
    .refine((ms) => ms >= least && ms <= most, form)
    .meta({ title: 'duration' });
}

const SECOND = 1000;
const DAY = 86_400_000;

const options = {
  mode: z
    .enum(['all', 'suspicious'])
    .default('all')
    .describe(
      '"all": every client that is not known or exempt has to wait. "suspicious": only one that something speaks against (`suspicious`), so that ordinary mail comes at once.',
    ),
  suspicious: z
    .array(z.string(CODE_FORM).refine((code) => TESTIMONIES.includes(code), CODE_FORM))
    .default([
      'ptr.none',
      'ptr.unverified',
      'ptr.generic',
      'helo.syntax',
      'helo.bare',
      'helo.address',
      'helo.literal',
      'helo.unknown',
      'mx.none',
      'mx.bogus',
      'spf.fail',
      'spf.softfail',
      'dnsbl.listed',
    ])
    .describe('Findings that speak against a client, for mode "suspicious". dnsbl.greylist always does.'),
  delay: timeBetween(SECOND, DAY / 2, 'expected a duration from "1s" to "12h"')
    .prefault('5m')
    .describe('How long a new client, sender and recipient wait: retries before that are deferred again.'),
  retry_window: timeBetween(DAY, 30 * DAY, 'expected a duration from "1d" to "30d"')
    .prefault('2d')
    .describe('How long after its first attempt a retry counts; later, the wait begins anew.'),
  remember: timeBetween(DAY, 3650 * DAY, 'expected a duration from "1d" to "3650d"')
    .prefault('36d')
    .describe(
      'How long those that passed are remembered after their last message. More than a month lets monthly letters through.',
    ),
  client_passes: z
    .int()
    .min(0)
    .max(1000)
    .default(5)
    .describe(
      'Once so many senders and recipients have passed from one network, all mail from it passes at once. 0: never.',
    )
    .meta({ title: 'number' }),
  ipv4_prefix: z
    .int()
    .min(8)
    .max(32)
    .default(24)
    .describe('Clients of one IPv4 network of this size count as one.')
    .meta({ title: 'number' }),
  ipv6_prefix: z
    .int()
    .min(16)
    .max(128)
    .default(64)
    .describe('Clients of one IPv6 network of this size count as one.')
    .meta({ title: 'number' }),
  by_spf_domain: z
    .boolean()
    .default(true)
    .describe(
      'Whether, where SPF passes, the domain takes the place of the network. Large providers try again from other networks each time; their SPF records say which are theirs.',
    ),
  exempt_spf: nameList(DOMAIN_FORM)
    .prefault([])
    .describe('Domains whose mail does not wait when SPF passes for them; ["*"] for all.')
    .meta({ examples: [['example.com', '*.example.net']], defaultText: 'none' }),
  exempt_welcome: z
    .boolean()
    .default(true)
    .describe('Whether clients on a welcome list (dnsbl.welcome) do not wait.'),
  exempt_networks: networkSet()
    .prefault([])
    .describe('Clients that do not wait, by address.')
    .meta({ examples: [['192.0.2.0/24', '2001:db8::/32']], defaultText: 'none' }),
  exempt_hosts: nameList(HOST_FORM)
    .prefault([])
    .describe(
      'Clients that do not wait, by the name of their PTR record, which has to lead back to the address.',
    )
    .meta({ examples: [['*.example.com']], defaultText: 'none' }),
  recipients: selection()
    .prefault([])
    .describe(
      'Only mail to these recipients waits; "!pattern" takes one out. Empty: all. Rules can say so too: greylist.wait = "ignore" in [[override]].',
    )
    .meta({ examples: [['!postmaster@example.org', '@example.org']] }),
  correspondents: timeBetween(0, 3650 * DAY, 'expected a duration of at most "3650d"')
    .prefault('90d')
    .describe(
      'How long, after one of ours wrote to somebody, his answers do not wait. Learned from outgoing mail, for which Postfix has to ask policyd too. "0s": not at all.',
    ),
  learn: z
    .boolean()
    .default(false)
    .describe(
      'Learning mode: nobody waits, and whoever writes is remembered as having passed. For the weeks before greylisting begins.',
    ),
};

type Options = z.output<z.ZodObject<typeof options>>;

/** Has unknown clients try again later, which most junk never does. RFC 6647. */
export const greylistCheck = admissionCheck({
  name: 'greylist',
  stage: 'admission',
  waivable: true,
  optIn: true,
  summary:
    'Greylisting (RFC 6647): mail of an unknown client, sender and recipient is deferred once. Mail servers try again; most junk does not.',
  directions: ['in', 'out'],
  needs: WITNESSES.map(({ name }) => name),
  codes: {
    'greylist.wait': { meaning: 'Not known, or back too early: it has to wait.', action: 'defer' },
    'greylist.passed': { meaning: 'It came back after the wait.', action: 'ignore' },
    'greylist.known': { meaning: 'It passed before, or its network did often enough.', action: 'ignore' },
    'greylist.exempt': {
      meaning:
        'It need not wait: by SPF, a welcome list, its address or name, because the recipient wrote first, or because nothing speaks against it.',
      action: 'ignore',
    },
    'greylist.learned': { meaning: 'Learning mode: it was remembered, and let through.', action: 'ignore' },
  },
  unavailable: 'ignore',
  deadline: '2s',
  options,
  run({ facts, tools, options: set, prior }) {
    if (facts.direction === 'out') return remember(facts, tools, set);
    if (!selects(set.recipients, insider(facts.recipient, tools.delimiter))) return [];
    const exempt = exemption(facts, set, prior);
    if (exempt !== null) return [{ code: 'greylist.exempt', detail: exempt }];
    const network = networkOf(facts.client.address, { ipv4: set.ipv4_prefix, ipv6: set.ipv6_prefix });
    if (network === null) return [{ code: 'greylist.exempt', detail: 'the client has no address' }];
    const triplet = tripletOf(
      facts,
      tools,
      set.by_spf_domain ? (spfDomain(facts, prior) ?? network) : network,
    );
    return set.learn ? learn(triplet, tools, set) : judge(triplet, tools, set);
  },
});

const NOTHING: readonly Finding[] = [];

/** RFC 1035 §2.3.4: a domain for which SPF passed is no longer. */
const NETWORK_LIMIT = 255;

/** Outgoing mail: whoever is written to may answer at once. */
function remember(
  { sender, recipient }: RcptFacts,
  { state, delimiter }: CheckTools,
  { correspondents }: Options,
): readonly Finding[] | Promise<readonly Finding[]> {
  if (sender.kind === 'null' || correspondents === 0 || recipient.domain === sender.address.domain)
    return NOTHING;
  const pair = { local: insider(sender.address, delimiter), remote: outsider(recipient) };
  return state.correspond([pair], correspondents).then(() => NOTHING);
}

/** Why this mail need not be looked up at all; null: it has to. */
function exemption(
  { client, sender }: RcptFacts,
  set: Options,
  prior: ReadonlyMap<string, Outcome>,
): string | null {
  if (set.exempt_networks.has(client.address)) return `${client.address} is in exempt_networks`;
  if (client.name !== null && set.exempt_hosts.has(client.name.toLowerCase()))
    return `${client.name} is in exempt_hosts`;
  // A list that asks for the wait knows more than a record that anybody can publish.
  if (isFound(prior, 'dnsbl.greylist')) return null;
  if (set.exempt_welcome && isFound(prior, 'dnsbl.welcome')) return `${client.address} is on a welcome list`;
  const domain = spfDomain({ client, sender }, prior);
  if (domain !== null && set.exempt_spf.has(domain))
    return `SPF passes for ${domain}, which is in exempt_spf`;
  if (set.mode === 'suspicious' && !set.suspicious.some((code) => isFound(prior, code)))
    return 'nothing speaks against the client';
  return null;
}

function isFound(prior: ReadonlyMap<string, Outcome>, code: string): boolean {
  const outcome = prior.get(code.slice(0, code.indexOf('.')));
  return outcome?.kind === 'found' && outcome.findings.some((found) => found.code === code);
}

/** The domain that SPF has found to be responsible for the client; null: none. RFC 7208 §2.4: for a bounce, the HELO name. */
function spfDomain(
  { client, sender }: Pick<RcptFacts, 'client' | 'sender'>,
  prior: ReadonlyMap<string, Outcome>,
): string | null {
  if (!isFound(prior, 'spf.pass')) return null;
  const domain = sender.kind === 'null' ? (client.helo ?? '').toLowerCase() : sender.address.domain;
  return domain === '' ? null : domain;
}

function tripletOf({ sender, recipient }: RcptFacts, { delimiter }: CheckTools, network: string): Triplet {
  return {
    network: network.slice(0, NETWORK_LIMIT),
    sender: sender.kind === 'null' ? '' : outsider(sender.address),
    recipient: insider(recipient, delimiter),
  };
}

function timesOf(set: Options): GreylistTimes {
  return {
    delayMs: set.delay,
    windowMs: set.retry_window,
    ageMs: set.remember,
    clientPasses: set.client_passes,
  };
}

async function judge(triplet: Triplet, { state }: CheckTools, set: Options): Promise<readonly Finding[]> {
  return [finding(triplet, await state.greylist(triplet, timesOf(set)))];
}

/** Without a wait the second look is the retry, so that the triplet has passed. */
async function learn(triplet: Triplet, { state }: CheckTools, set: Options): Promise<readonly Finding[]> {
  const times = { ...timesOf(set), delayMs: 0 };
  const first = await state.greylist(triplet, times);
  if (first.kind !== 'wait') return [finding(triplet, first)];
  await state.greylist(triplet, times);
  return [{ code: 'greylist.learned', detail: `${named(triplet)}: remembered, no wait while learning` }];
}

function finding(triplet: Triplet, answer: GreylistAnswer): Finding {
  const who = named(triplet);
  switch (answer.kind) {
    case 'wait': {
      const seconds = Math.ceil(answer.remainingMs / SECOND);
      const since = answer.first ? 'not seen before' : 'back too early';
      return { code: 'greylist.wait', detail: `${who}: ${since}, ${seconds} s to wait` };
    }
    case 'passed':
      return {
        code: 'greylist.passed',
        detail: `${who}: back after ${Math.floor(answer.waitedMs / SECOND)} s`,
      };
    case 'known':
      return { code: 'greylist.known', detail: `${who}: passed before` };
    case 'client':
      return { code: 'greylist.known', detail: `${triplet.network}: passed often enough` };
    case 'correspondent':
      return { code: 'greylist.exempt', detail: `${triplet.recipient} wrote to ${triplet.sender} first` };
  }
}

function named({ network, sender, recipient }: Triplet): string {
  return `${network} <${sender}> to <${recipient}>`;
}
