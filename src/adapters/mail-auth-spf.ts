import ipaddr from 'ipaddr.js';
import { toALabel } from 'mailauth/lib/tools.js';
import { spfVerify, type SpfOutcome } from 'mailauth/lib/spf/spf-verify.js';

import type { SpfQuery, SpfResult, SpfResultWord } from '../ports/mail-auth.ts';
import type { DnsAnswer, RecordType, Resolver } from '../ports/resolver.ts';
import { LookupError, withinBudget, type Lookup, type LookupResult } from './mail-auth-dns.ts';
import { utf8 } from './mail-auth-text.ts';

// RFC 7208 §4.6.4: terms that cause DNS questions, and of these how many may find nothing. For each MX and PTR, so many hosts.
const TERMS_LIMIT = 10;
const VOID_LIMIT = 2;

/** DNS questions of one evaluation: ten terms, each of which may be an MX with ten hosts, and then the explanation. */
const QUESTIONS_LIMIT = 128;

/** Octets of a record. RFC 7208 §3.4 asks for 512 at most; macros can make a record many times as long as it is. */
export const RECORD_LIMIT = 8192;

/** Octets of an explanation before its macros are expanded, and characters of it after; a reply has room for less. */
export const EXPLANATION_LIMIT = 512;

/** RFC 5321 §4.5.3.1.2: octets of a domain; a HELO name that is longer is none. */
export const HELO_LIMIT = 255;

/** RFC 5321 §4.5.3.1.1 has 64; what is longer is cut from the left like any name that is too long (RFC 7208 §7.3). */
export const LOCAL_LIMIT = 256;

// RFC 7208 §4.3: more than one label, none empty or above 63 octets. RFC 1035 does not forbid the underscore in names that are not
// of hosts, and such names send mail. §7.1, toplabel: the last one is not a number, as that of an IP address is.
const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?![0-9]+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Macros that say who wrote, and the one that says when. RFC 7208 §7.2. */
const LOCAL_MACRO = /%\{[ls]/i;
const TIME_MACRO = /%\{t/i;
const RECORD = /^v=spf1(?: |$)/i;

/** check_host() is asked about this. RFC 7208 §4.1, all in lower case but the HELO name and the local part. */
export interface SpfSubject {
  readonly client: string;
  readonly domain: string;
  readonly local: string;
  readonly helo: string;
}

/** Nothing to ask about; a result at once. */
export interface NoSubject {
  readonly domain: null;
  readonly result: SpfResult;
}

export interface SpfEvaluation {
  readonly result: SpfResult;
  /** Seconds for which the DNS lets it stand; 0 when it must not be kept. */
  readonly ttl: number;
  /** Whether it could be another one for another local part. */
  readonly usesLocal: boolean;
}

/** RFC 7208 §2.3, §2.4: the null path stands for postmaster at the HELO name. Cheap: what is malformed comes out when it is evaluated. */
export function spfSubject({ identity, client, helo, sender }: SpfQuery): SpfSubject | NoSubject {
  if (identity === 'mailfrom' && sender.kind === 'address') {
    const { local, domain } = sender.address;
    if (domain === '') return nothing('', 'the sender has no domain');
    // RFC 7208 §4.3: without a local part it is postmaster.
    return client === ''
      ? nothing(domain, 'the client has no IP address')
      : {
          client,
          domain,
          local: local === '' ? 'postmaster' : local.slice(-LOCAL_LIMIT),
          helo: heloText(helo),
        };
  }
  const text = heloText(helo);
  if (text === '') return nothing('', 'the HELO name is no domain');
  const domain = text.toLowerCase().replace(/\.$/, '');
  if (client === '') return nothing(domain, 'the client has no IP address');
  return { client, domain, local: 'postmaster', helo: text };
}

function heloText(helo: string): string {
  return helo.length > HELO_LIMIT ? '' : helo;
}

function nothing(domain: string, detail: string): NoSubject {
  return { domain: null, result: { result: 'none', domain, detail, explanation: null } };
}

/** Asks the DNS and says what it comes to. `subject` and the answers decide it alone, so that it may be kept as long as they may. */
export async function evaluateSpf(
  subject: SpfSubject,
  resolver: Resolver,
  hostname: string,
  signal: AbortSignal,
  budgetMs: number,
): Promise<SpfEvaluation> {
  const ip = clientAddress(subject.client);
  const domain = toALabel(utf8(subject.domain)).toLowerCase();
  if (ip === null) return unasked('', `${subject.client} is no IP address`);
  if (!DOMAIN.test(domain))
    return unasked(subject.domain, `${subject.domain} is no domain of more than one label`);
  const answers = new Answers(resolver);
  const outcome = await withinBudget(
    answers,
    { questions: QUESTIONS_LIMIT, budgetMs, signal },
    (ask, late) => {
      const lookup = inTime(ask, late, budgetMs);
      return outcomeOf(
        spfVerify(domain, {
          sender: `${utf8(subject.local)}@${domain}`,
          ip,
          helo: utf8(subject.helo),
          mta: hostname,
          strict: true,
          resolver: counted(lookup),
          createSubResolver: () => hostsOf(lookup),
          expResolver: explanationsOf(lookup),
        }),
      );
    },
  );
  return {
    result: resultOf(outcome, ip, domain),
    ttl: answers.failed ? 0 : answers.ttl,
    usesLocal: answers.usesLocal,
  };
}

function unasked(domain: string, detail: string): SpfEvaluation {
  return { result: nothing(domain, detail).result, ttl: 0, usesLocal: false };
}

/** RFC 7208 §5: an IPv4 client that came to an IPv6 socket is an IPv4 client. */
function clientAddress(text: string): string | null {
  return ipaddr.isValid(text) ? ipaddr.process(text).toString() : null;
}

/** The answers of one evaluation: each question is asked once, and what they have in common is noted. */
class Answers implements Resolver {
  readonly #resolver: Resolver;
  readonly #asked = new Map<string, Promise<DnsAnswer>>();
  /** Seconds: the least of all answers. */
  ttl = Number.POSITIVE_INFINITY;
  failed = false;
  usesLocal = false;

  constructor(resolver: Resolver) {
    this.#resolver = resolver;
  }

  query(name: string, type: RecordType, signal: AbortSignal): Promise<DnsAnswer> {
    const key = `${type} ${name}`;
    const known = this.#asked.get(key) ?? this.#ask(name, type, signal);
    this.#asked.set(key, known);
    return known;
  }

  async #ask(name: string, type: RecordType, signal: AbortSignal): Promise<DnsAnswer> {
    try {
      const answer = await this.#resolver.query(name, type, signal);
      this.ttl = Math.min(this.ttl, answer.ttl);
      if (answer.kind === 'records' && type === 'TXT') {
        for (const record of answer.records) {
          if (record.type !== 'TXT') continue;
          this.usesLocal ||= LOCAL_MACRO.test(record.text);
          this.failed ||= TIME_MACRO.test(record.text);
        }
      }
      return answer;
    } catch (error) {
      this.failed = true;
      throw error;
    }
  }
}

/** A failure of the DNS makes a PTR not match; being out of time must end the evaluation. mailauth knows it by this code. */
function inTime(ask: Lookup, late: AbortSignal, budgetMs: number): Lookup {
  const lookup: Lookup = async (name, type) => {
    try {
      return await ask(name, type);
    } catch (error) {
      if (!late.aborted) throw error;
      throw failure('ESPFTIMELIMIT', 'temperror', `no answer within ${budgetMs} ms`);
    }
  };
  return lookup;
}

/** RFC 7208 §4.6.4: the terms of a record and of all that it includes. The first question is for the record itself and is free. */
function counted(ask: Lookup): Lookup {
  let terms = -1;
  let voids = 0;
  return async (name, type) => {
    if (++terms > TERMS_LIMIT)
      throw failure('ELIMIT', 'permerror', `more than ${TERMS_LIMIT} terms with DNS lookups`);
    const found = await meant(ask, name, type);
    // §4.6.4: NXDOMAIN and an empty answer alike; not for the record itself.
    if (found.length === 0 && terms > 0 && ++voids > VOID_LIMIT)
      throw failure('ELIMIT', 'permerror', `more than ${VOID_LIMIT} DNS lookups without an answer`);
    if (type === 'TXT') checkRecords(found, name);
    return found;
  };
}

/** The hosts of one MX or PTR record: RFC 7208 §4.6.4 counts them for themselves, and their being there or not does not count. */
function hostsOf(ask: Lookup): Lookup {
  let hosts = 0;
  return async (name, type) => {
    if (++hosts > TERMS_LIMIT)
      throw failure('ELIMIT', 'permerror', `more than ${TERMS_LIMIT} hosts of one name`);
    return meant(ask, name, type);
  };
}

function explanationsOf(ask: Lookup): Lookup {
  return async (name, type) => {
    const found = await ask(name, type);
    return type === 'TXT' && octets(found) > EXPLANATION_LIMIT ? [] : found;
  };
}

/** What a failure means to the evaluation; a name that does not exist is an empty list. RFC 7208 §5. */
async function meant(ask: Lookup, name: string, type: string): Promise<LookupResult> {
  try {
    return await ask(name, type);
  } catch (error) {
    if (!(error instanceof LookupError) || error.spfResult !== undefined) throw error;
    switch (error.code) {
      case 'ENOTFOUND':
      case 'ENODATA':
      // A name that an MX or PTR record made up; that of a term was looked at by mailauth before.
      case 'EBADNAME':
        return [];
      default:
        error.spfResult = { error: 'temperror', text: error.message };
        throw error;
    }
  }
}

function checkRecords(found: LookupResult, name: string): void {
  for (const record of found) {
    const text = Array.isArray(record) ? record.join('') : '';
    if (text.length > RECORD_LIMIT && RECORD.test(text))
      throw failure('ELIMIT', 'permerror', `the record of ${name} has more than ${RECORD_LIMIT} octets`);
  }
}

function octets(found: LookupResult): number {
  let sum = 0;
  for (const record of found) if (Array.isArray(record)) sum += record.join('').length;
  return sum;
}

function failure(code: string, error: 'permerror' | 'temperror', text: string): LookupError {
  const made = new LookupError(code, text);
  made.spfResult = { error, text };
  return made;
}

/** mailauth throws its errors with what they mean to SPF. What has no meaning is a mistake of ours. */
async function outcomeOf(evaluation: Promise<SpfOutcome | false>): Promise<SpfOutcome> {
  try {
    // RFC 7208 §4.7: nothing in the record matched.
    return (await evaluation) || {};
  } catch (error) {
    const outcome: unknown = error instanceof Error && 'spfResult' in error ? error.spfResult : null;
    if (!isOutcome(outcome)) throw error;
    return outcome;
  }
}

function isOutcome(value: unknown): value is SpfOutcome {
  return typeof value === 'object' && value !== null && 'error' in value && typeof value.error === 'string';
}

function resultOf(outcome: SpfOutcome, client: string, domain: string): SpfResult {
  const result = wordOf(outcome);
  const explanation = result === 'fail' ? (outcome.explanation ?? '').slice(0, EXPLANATION_LIMIT) : '';
  return {
    result,
    domain,
    detail: detailOf(result, client, domain, outcome),
    explanation: explanation === '' ? null : explanation,
  };
}

function wordOf({ error, qualifier }: SpfOutcome): SpfResultWord {
  switch (error ?? qualifier) {
    case '+':
      return 'pass';
    case '-':
      return 'fail';
    case '~':
      return 'softfail';
    case '?':
    case undefined:
      return 'neutral';
    case 'none':
      return 'none';
    case 'permerror':
      return 'permerror';
    default:
      return 'temperror';
  }
}

function detailOf(
  result: SpfResultWord,
  client: string,
  domain: string,
  { rr: record, text }: SpfOutcome,
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
      return `${domain}: ${text ?? 'it could not be evaluated'}${source}`;
  }
}
