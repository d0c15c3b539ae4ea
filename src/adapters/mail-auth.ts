import { DkimVerifier } from 'mailauth/lib/dkim/dkim-verifier.js';
import { evaluateDmarc, type DmarcResponse } from 'mailauth/lib/dmarc/index.js';

import { authors } from '../mail/author.ts';
import { SignedFields } from '../mail/dkim-header.ts';
import type { HeaderField, HeaderList } from '../mail/header.ts';
import type { Clock } from '../ports/clock.ts';
import type { DmarcPolicy, DmarcQuery, DmarcResult, MailAuth } from '../ports/mail-auth.ts';
import type { Resolver } from '../ports/resolver.ts';
import { ArcVerification } from './arc-verifier.ts';
import { BodyHashes } from './body-hashes.ts';
import { PublicKeys } from './dkim-keys.ts';
import { DkimVerification, type VerifiedMessage } from './dkim-verifier.ts';
import { withinBudget } from './mail-auth-dns.ts';
import { SpfCache } from './mail-auth-spf-cache.ts';
import { utf8 } from './mail-auth-text.ts';

/** DNS questions of one evaluation. RFC 9989 §4.10 allows eight to a tree walk, of which most are shared. */
export const DMARC_QUERIES_LIMIT = 40;

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

/**
 * Authentication. SPF and DMARC by mailauth's parts, each with a limit on what it may ask and how long it may take; DKIM and ARC by our own
 * verifier, which keeps public keys and looks at the body while it comes.
 */
export function createMailAuth(resolver: Resolver, options: MailAuthOptions): MailAuth {
  const { hostname, clock, spfEntries: entries = SPF_ENTRIES } = options;
  const spf = new SpfCache(resolver, { hostname, clock, entries });
  const keys = new PublicKeys(resolver);
  const seconds = (): number => Math.floor(clock.now() / 1000);
  const messages = new VerifiedMessages();
  return {
    spf: (query, signal, budgetMs) => spf.check(query, signal, budgetMs),
    dkim: (headers, signal) => new DkimVerification(messages.of(headers), keys, seconds(), signal),
    arc: (headers, signal) => new ArcVerification(messages.of(headers), keys, seconds(), signal),
    dmarc: (query, signal, budgetMs) => checkDmarc(resolver, query, signal, budgetMs),
  };
}

/** What DKIM and ARC share of a message whose body has not begun. */
class VerifiedMessages {
  readonly #known = new WeakMap<HeaderList, VerifiedMessage>();

  of(headers: HeaderList): VerifiedMessage {
    const known = this.#known.get(headers);
    if (known !== undefined && !known.hashes.begun) return known;
    const fresh = { headers, fields: new SignedFields(headers), hashes: new BodyHashes() };
    this.#known.set(headers, fresh);
    return fresh;
  }
}

async function checkDmarc(
  resolver: Resolver,
  query: DmarcQuery,
  signal: AbortSignal,
  budgetMs: number,
): Promise<DmarcResult> {
  const from = query.headers.all('From');
  const [field] = from;
  if (field === undefined) return noDmarc('the message has no From field');
  if (from.length > 1) return noDmarc(`the message has ${from.length} From fields`);
  if (field.value.length > FROM_LIMIT) return noDmarc(`From is longer than ${FROM_LIMIT} octets`);
  const headerFrom = wellFormed(query.headers) ?? (await addresses(field));
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

/** Addresses of a From field that is by the grammar, of which DMARC wants no more than the domains; null: of one that is not. */
function wellFormed(headers: HeaderList): readonly string[] | null {
  const named = authors(headers);
  return named === null || named.length === 0 ? null : named.map(({ domain }) => `author@${utf8(domain)}`);
}

/** The addresses in a From field that is by no grammar, as mailauth reads them. */
async function addresses(field: HeaderField): Promise<readonly string[]> {
  const reader = new DkimVerifier({ resolver: () => Promise.resolve([]), strict: true });
  const line = Buffer.from(`From:${field.value}`, 'latin1');
  await reader.messageHeaders({ parsed: [{ key: 'from', casedKey: 'From', line }], original: line });
  return reader.headerFrom;
}
