import { DkimVerifier } from 'mailauth/lib/dkim/dkim-verifier.js';
import { evaluateDmarc, type DmarcResponse } from 'mailauth/lib/dmarc/index.js';
import { spf } from 'mailauth/lib/spf/index.js';

import type { HeaderField } from '../mail/header.ts';
import type { Clock } from '../ports/clock.ts';
import type {
  DkimResult,
  DmarcPolicy,
  DmarcQuery,
  DmarcResult,
  MailAuth,
  SpfQuery,
  SpfResult,
  SpfResultWord,
} from '../ports/mail-auth.ts';
import type { Message } from '../mail/message.ts';
import type { Resolver } from '../ports/resolver.ts';
import { SIGNATURES_LIMIT, verifySignatures } from './mail-auth-dkim.ts';
import { Questions, type Lookup } from './mail-auth-dns.ts';

/**
 * DNS questions of one evaluation. SPF: RFC 7208 §4.6.4 allows ten terms, each of which may be an MX with ten hosts, and then the
 * explanation. DKIM: one key to a signature. DMARC: RFC 9989 §4.10 allows eight to a tree walk, of which most are shared.
 */
const SPF_QUERIES_LIMIT = 128;
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
}

/** Authentication by mailauth, its parts called one by one, each with a limit on what it may ask and how long it may take. */
export function createMailAuth(resolver: Resolver, options: MailAuthOptions): MailAuth {
  return {
    spf: (query, signal, budgetMs) => checkSpf(resolver, options, query, signal, budgetMs),
    dkim: (message, signal, budgetMs) => checkDkim(resolver, options, message, signal, budgetMs),
    dmarc: (query, signal, budgetMs) => checkDmarc(resolver, query, signal, budgetMs),
  };
}

interface Limits {
  readonly questions: number;
  readonly budgetMs: number;
  readonly signal: AbortSignal;
}

/** Runs `work` with DNS questions that are no longer answered when the budget is used up: what is unknown by then is a temperror. */
async function within<T>(
  resolver: Resolver,
  { questions: count, budgetMs, signal }: Limits,
  work: (lookup: Lookup) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`no answer within ${budgetMs} ms`)), budgetMs);
  const abort = (): void => late.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const questions = new Questions(resolver, count, late.signal);
  try {
    const result = await work(questions.lookup);
    signal.throwIfAborted();
    questions.rethrow();
    return result;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

async function checkSpf(
  resolver: Resolver,
  options: MailAuthOptions,
  query: SpfQuery,
  signal: AbortSignal,
  budgetMs: number,
): Promise<SpfResult> {
  const identity = spfIdentity(query);
  // RFC 7208 §4.3, §2.3: what is no domain, or has no address to compare with, gives none.
  if (identity.domain === null) return noSpf('', identity.why);
  if (query.client === '') return noSpf(identity.domain, 'the client has no IP address');
  const response = await within(resolver, { questions: SPF_QUERIES_LIMIT, budgetMs, signal }, (lookup) =>
    spf({
      ip: query.client,
      helo: utf8(query.helo),
      ...(identity.sender === null ? {} : { sender: identity.sender }),
      mta: options.hostname,
      strict: true,
      maxElapsedTime: budgetMs,
      resolver: lookup,
    }),
  );
  const result = spfWord(response.status.result);
  return {
    result,
    domain: response.domain,
    detail: spfDetail(result, query.client, response.domain, response.status.comment ?? '', response.rr),
    explanation: response.explanation ?? null,
  };
}

type SpfIdentity =
  | { readonly domain: null; readonly why: string }
  | { readonly domain: string; readonly sender: string | null };

/** RFC 7208 §2.3, §2.4: the null path stands for postmaster at the HELO name, which is what mailauth takes without a sender. */
function spfIdentity({ identity, helo, sender }: SpfQuery): SpfIdentity {
  if (identity === 'mailfrom' && sender.kind === 'address') {
    const { raw, domain } = sender.address;
    if (domain === '') return { domain: null, why: 'the sender has no domain' };
    return { domain, sender: utf8(`${raw.slice(0, raw.lastIndexOf('@'))}@${domain}`) };
  }
  // With a @ in it mailauth would take what follows for the domain.
  if (helo === '' || /[@\s]/.test(helo)) return { domain: null, why: 'the HELO name is no domain' };
  return { domain: helo.toLowerCase(), sender: null };
}

function noSpf(domain: string, detail: string): SpfResult {
  return { result: 'none', domain, detail, explanation: null };
}

function spfWord(word: string): SpfResultWord {
  switch (word) {
    case 'none':
    case 'neutral':
    case 'pass':
    case 'fail':
    case 'softfail':
    case 'permerror':
      return word;
    default:
      return 'temperror';
  }
}

function spfDetail(
  result: SpfResultWord,
  client: string,
  domain: string,
  comment: string,
  record?: string,
): string {
  const source = record === undefined ? '' : ` (${record})`;
  switch (result) {
    case 'pass':
      return `${client} may send for ${domain}${source}`;
    case 'fail':
      return `${client} may not send for ${domain}${source}`;
    case 'softfail':
      return `${client} probably may not send for ${domain}${source}`;
    case 'neutral':
      return `${domain} does not say whether ${client} may send for it${source}`;
    case 'none':
      return `${domain} has no SPF record`;
    case 'temperror':
    case 'permerror':
      // "host: what happened in processing during lookup of sender: why"
      return `${domain}: ${comment.split(': ').slice(2).join(': ') || 'it could not be evaluated'}${source}`;
  }
}

async function checkDkim(
  resolver: Resolver,
  options: MailAuthOptions,
  message: Message,
  signal: AbortSignal,
  budgetMs: number,
): Promise<readonly DkimResult[]> {
  const now = new Date(options.clock.now() - CLOCK_SKEW_MS);
  return within(resolver, { questions: DKIM_QUERIES_LIMIT, budgetMs, signal }, (lookup) =>
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
  const { response, reason } = await within(
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

/** Text of the message, one character per byte, as UTF-8. RFC 6531. */
function utf8(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
