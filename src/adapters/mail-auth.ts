import { DkimVerifier } from 'mailauth/lib/dkim/dkim-verifier.js';
import { evaluateDmarc, type DmarcResponse } from 'mailauth/lib/dmarc/index.js';

import type { HeaderField } from '../mail/header.ts';
import type { Clock } from '../ports/clock.ts';
import type { DkimResult, DmarcPolicy, DmarcQuery, DmarcResult, MailAuth } from '../ports/mail-auth.ts';
import type { Message } from '../mail/message.ts';
import type { Resolver } from '../ports/resolver.ts';
import { SIGNATURES_LIMIT, verifySignatures } from './mail-auth-dkim.ts';
import { withinBudget } from './mail-auth-dns.ts';
import { SpfCache } from './mail-auth-spf-cache.ts';
import { utf8 } from './mail-auth-text.ts';

/** DNS questions of one evaluation. DKIM: one key to a signature. DMARC: RFC 9989 §4.10 allows eight to a tree walk, of which most are shared. */
const DKIM_QUERIES_LIMIT = SIGNATURES_LIMIT;
export const DMARC_QUERIES_LIMIT = 40;

/** Signatures of a clock that goes ahead are taken, and those that have just expired. RFC 6376 §3.5 (x=). */
const CLOCK_SKEW_MS = 300_000;

/** Octets of a From field: some hundred mailboxes. Reading it can take quadratic time. */
export const FROM_LIMIT = 16_384;

export interface MailAuthOptions {
  /** Name of this host: %{r} of an SPF explanation. */
  readonly hostname: string;
  readonly clock: Clock;
  /** SPF results kept; 0: none. */
  readonly spfEntries?: number;
}

/** As many as answers of the DNS, where nothing is said. */
const SPF_ENTRIES = 20_000;

/** Authentication by mailauth, its parts called one by one, each with a limit on what it may ask and how long it may take. */
export function createMailAuth(resolver: Resolver, options: MailAuthOptions): MailAuth {
  const { hostname, clock, spfEntries: entries = SPF_ENTRIES } = options;
  const spf = new SpfCache(resolver, { hostname, clock, entries });
  return {
    spf: (query, signal, budgetMs) => spf.check(query, signal, budgetMs),
    dkim: (message, signal, budgetMs) => checkDkim(resolver, options, message, signal, budgetMs),
    dmarc: (query, signal, budgetMs) => checkDmarc(resolver, query, signal, budgetMs),
  };
}

async function checkDkim(
  resolver: Resolver,
  options: MailAuthOptions,
  message: Message,
  signal: AbortSignal,
  budgetMs: number,
): Promise<readonly DkimResult[]> {
  const now = new Date(options.clock.now() - CLOCK_SKEW_MS);
  return withinBudget(resolver, { questions: DKIM_QUERIES_LIMIT, budgetMs, signal }, (lookup) =>
    verifySignatures(message, lookup, now, signal),
  );
}

async function checkDmarc(
  resolver: Resolver,
  query: DmarcQuery,
  signal: AbortSignal,
  budgetMs: number,
): Promise<DmarcResult> {
  const from = query.message.headers.all('From');
  const [field] = from;
  if (field === undefined) return noDmarc('the message has no From field');
  if (from.length > 1) return noDmarc(`the message has ${from.length} From fields`);
  if (field.value.length > FROM_LIMIT) return noDmarc(`From is longer than ${FROM_LIMIT} octets`);
  const headerFrom = await addresses(field);
  const { response, reason } = await withinBudget(
    resolver,
    { questions: DMARC_QUERIES_LIMIT, budgetMs, signal },
    (lookup) =>
      evaluateDmarc({
        headerFrom,
        fromFields: 1,
        spfDomains: query.spfDomains.map(utf8),
        dkimDomains: query.dkimDomains,
        strict: true,
        resolver: lookup,
      }),
  );
  return response === false ? noDmarc(fromFault(reason ?? '')) : dmarcResult(response);
}

/** RFC 9989 §5.3.1: without one author domain DMARC can't be applied. */
function noDmarc(detail: string): DmarcResult {
  return { result: 'permerror', domain: '', policy: 'none', detail };
}

function fromFault(reason: string): string {
  switch (reason) {
    case 'multiple-author-domains':
      return 'From has addresses in several domains';
    case 'invalid-author-domain':
      return 'From has an address whose domain can not be read';
    default:
      return 'From has no address with a domain';
  }
}

function dmarcResult(response: DmarcResponse): DmarcResult {
  const domain = response.status.header?.from ?? '';
  const policy = dmarcPolicy(response.policy);
  switch (response.status.result) {
    case 'pass': {
      const { spf: bySpf, dkim: byDkim } = response.alignment ?? {};
      const by = byDkim?.result === undefined ? `SPF for ${bySpf?.result}` : `DKIM d=${byDkim.result}`;
      return { result: 'pass', domain, policy, detail: `${domain} is aligned with ${by}` };
    }
    case 'fail': {
      const test = response.testMode === true ? ', a test (t=y)' : '';
      const asks = `${response.policyDomain ?? domain} asks for ${policy} (p=${response.p ?? ''}${test})`;
      return {
        result: 'fail',
        domain,
        policy,
        detail: `nothing that passed is aligned with ${domain}; ${asks}`,
      };
    }
    case 'none':
      return { result: 'none', domain, policy: 'none', detail: `${domain} has no DMARC record` };
    default:
      return {
        result: 'temperror',
        domain,
        policy: 'none',
        detail: `${domain}: ${response.error ?? 'unknown'}`,
      };
  }
}

function dmarcPolicy(policy: string | undefined): DmarcPolicy {
  return policy === 'quarantine' || policy === 'reject' ? policy : 'none';
}

/** The addresses in a From field, as mailauth reads them. */
async function addresses(field: HeaderField): Promise<readonly string[]> {
  const reader = new DkimVerifier({ resolver: () => Promise.resolve([]), strict: true });
  const line = Buffer.from(`From:${field.value}`, 'latin1');
  await reader.messageHeaders({ parsed: [{ key: 'from', casedKey: 'From', line }], original: line });
  return reader.headerFrom;
}
