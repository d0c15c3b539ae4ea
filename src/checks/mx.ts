import { z } from 'zod';

import { DnsError, type DnsAnswer, type Resolver } from '../ports/resolver.ts';
import type { Finding } from '../verdict/finding.ts';
import { mailCheck } from './check.ts';
import { withinDnsBudget } from './dns-budget.ts';
import { isIpAddress, isPublicAddress } from './networks.ts';

/** Mail hosts of one domain that are looked up; one with a public address is enough. */
const HOSTS_LIMIT = 5;

/** Whether the domain of the envelope sender could take an answer, or a bounce. */
export const mxCheck = mailCheck({
  name: 'mx',
  stage: 'mail',
  policyOnly: true,
  waivable: true,
  summary:
    'Whether the domain of the envelope sender can receive mail: its MX records, and the addresses of its mail hosts.',
  directions: ['in'],
  needs: [],
  codes: {
    'mx.null-sender': {
      meaning:
        'The domain says that it takes no mail (a null MX, RFC 7505), so it sends none that could be answered.',
      action: 'reject',
    },
    'mx.no-domain': {
      meaning:
        "The domain does not exist. Postfix's reject_unknown_sender_domain defers such mail by default, and so does this: a domain that is gone from the DNS for an hour loses nothing.",
      action: 'defer',
    },
    'mx.none': {
      meaning:
        'The domain exists, and has no mail host: neither MX nor address, or mail hosts without an address.',
      action: 'ignore',
    },
    'mx.bogus': {
      meaning:
        'All mail hosts of the domain have private, loopback or reserved addresses, or are addresses where names belong.',
      action: 'ignore',
    },
    'mx.temperror': { meaning: 'The DNS could not be asked in time, or failed.', action: 'ignore' },
  },
  unavailable: 'ignore',
  deadline: '6s',
  options: {
    private_hosts: z
      .boolean()
      .default(false)
      .describe(
        'Whether private addresses do for mail hosts: for networks whose own DNS has such addresses.',
      ),
  },
  run({ facts, tools, options, signal, deadlineMs }) {
    const { sender } = facts;
    if (sender.kind === 'null') return [];
    const { domain } = sender.address;
    // Neither a local user nor an address literal (RFC 5321 §4.1.3) has anything in the DNS.
    if (domain === '' || domain.startsWith('[')) return [];
    const isReachable = options.private_hosts ? isIpAddress : isPublicAddress;
    return withinDnsBudget(signal, deadlineMs, (limit) =>
      new MailHosts(tools.resolver, limit, isReachable).judge(domain, signal),
    );
  },
});

type HostKind = 'reachable' | 'bogus' | 'none';

class MailHosts {
  readonly #resolver: Resolver;
  readonly #limit: AbortSignal;
  readonly #isReachable: (address: string) => boolean;

  constructor(resolver: Resolver, limit: AbortSignal, isReachable: (address: string) => boolean) {
    this.#resolver = resolver;
    this.#limit = limit;
    this.#isReachable = isReachable;
  }

  async judge(domain: string, signal: AbortSignal): Promise<readonly Finding[]> {
    try {
      const answer = await this.#resolver.query(domain, 'MX', this.#limit);
      switch (answer.kind) {
        case 'nxdomain':
          return [{ code: 'mx.no-domain', detail: `${domain} does not exist` }];
        case 'nodata':
          // RFC 5321 §5.1: without MX records the domain is its own mail host.
          return told(await this.#host(domain), domain, 'its own address');
        case 'records':
          return await this.#exchangers(domain, answer);
      }
    } catch (error) {
      if (!(error instanceof DnsError) || signal.aborted) throw error;
      // There can be no such name: a label of more than 63 octets, or an empty one.
      if (error.code === 'badname') return [{ code: 'mx.no-domain', detail: `${domain} can not exist` }];
      return [{ code: 'mx.temperror', detail: `mail hosts of ${domain}: ${error.message}` }];
    }
  }

  async #exchangers(
    domain: string,
    { records }: Extract<DnsAnswer, { kind: 'records' }>,
  ): Promise<readonly Finding[]> {
    const exchangers = records
      .filter((record) => record.type === 'MX')
      .toSorted((a, b) => a.preference - b.preference)
      .map(({ exchange }) => exchange);
    const names = [...new Set(exchangers)].filter((name) => name !== '');
    // RFC 7505 §3: "." alone; beside other records it means nothing.
    if (names.length === 0) return [{ code: 'mx.null-sender', detail: `${domain} has a null MX` }];
    const looked = names.slice(0, HOSTS_LIMIT);
    let kind: HostKind = 'none';
    let failure: DnsError | null = null;
    for (const name of looked) {
      try {
        const found = await this.#host(name);
        if (found === 'reachable') return [];
        if (found === 'bogus') kind = found;
      } catch (error) {
        if (!(error instanceof DnsError)) throw error;
        // One that can't be had now may be the one that works; the others may tell without it.
        if (error.code !== 'badname') failure = error;
      }
    }
    if (failure !== null) throw failure;
    // The rest is not known, and more hosts than that are no sign of anything.
    return names.length > HOSTS_LIMIT ? [] : told(kind, domain, looked.join(', '));
  }

  async #host(name: string): Promise<HostKind> {
    // RFC 5321 §5.1: an exchange is a name; mail servers do not go to an address that stands there.
    if (isIpAddress(name)) return 'bogus';
    let kind: HostKind = 'none';
    for (const type of ['A', 'AAAA'] as const) {
      const answer = await this.#resolver.query(name, type, this.#limit);
      if (answer.kind === 'nxdomain') return 'none';
      if (answer.kind !== 'records') continue;
      kind = 'bogus';
      if (answer.records.some((record) => record.type === type && this.#isReachable(record.text)))
        return 'reachable';
    }
    return kind;
  }
}

function told(kind: HostKind, domain: string, where: string): readonly Finding[] {
  switch (kind) {
    case 'reachable':
      return [];
    case 'bogus':
      return [
        { code: 'mx.bogus', detail: `mail for ${domain} goes to addresses that can't be reached (${where})` },
      ];
    case 'none':
      return [{ code: 'mx.none', detail: `${domain} has no mail host with an address (${where})` }];
  }
}
