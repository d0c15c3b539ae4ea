import type { AuthResult } from '../mail/auth-results.ts';
import type { Message } from '../mail/message.ts';
import type { ReversePath } from '../mail/address.ts';

export type SpfResultWord = 'none' | 'neutral' | 'pass' | 'fail' | 'softfail' | 'temperror' | 'permerror';

/** RFC 7208 §2.3, §2.4: which identity is checked. */
export interface SpfQuery {
  readonly identity: 'helo' | 'mailfrom';
  /** IP address of the SMTP client. */
  readonly client: string;
  readonly helo: string;
  readonly sender: ReversePath;
}

export interface SpfResult {
  readonly result: SpfResultWord;
  /** Domain whose record was evaluated. */
  readonly domain: string;
  /** Why, for people. */
  readonly detail: string;
  /** The domain owner's explanation (RFC 7208 §6.2); remote text. */
  readonly explanation: string | null;
}

export type DkimResultWord = 'none' | 'pass' | 'fail' | 'policy' | 'neutral' | 'temperror' | 'permerror';

/** Result of one DKIM-Signature. RFC 6376 §6.1, RFC 8601 §2.7.1. */
export interface DkimResult {
  readonly result: DkimResultWord;
  /** d= */
  readonly domain: string;
  /** s= */
  readonly selector: string;
  readonly detail: string;
  readonly auth: AuthResult;
}

export type DmarcPolicy = 'none' | 'quarantine' | 'reject';

/** RFC 9989. */
export interface DmarcResult {
  readonly result: 'none' | 'pass' | 'fail' | 'temperror' | 'permerror';
  /** The author domain; empty when From has none or several. */
  readonly domain: string;
  /** What the domain owner asks for on failure, after t= and np=; none when there is no record. */
  readonly policy: DmarcPolicy;
  readonly detail: string;
}

export interface DmarcQuery {
  readonly message: Message;
  /** Domains that passed SPF as MAIL FROM (or as HELO for the null path). */
  readonly spfDomains: readonly string[];
  /** Domains (d=) of DKIM signatures that passed. */
  readonly dkimDomains: readonly string[];
}

/**
 * The authentication of mail. None of these reject their promise for what a remote party sent or published; only `signal` ends them.
 * `budgetMs` is how long their DNS questions may take in all: what is not known by then is a temperror.
 */
export interface MailAuth {
  /** At once, without a promise, where it is known. */
  spf(query: SpfQuery, signal: AbortSignal, budgetMs: number): SpfResult | Promise<SpfResult>;
  /** One result per signature up to a cap; empty for an unsigned message. */
  dkim(message: Message, signal: AbortSignal, budgetMs: number): Promise<readonly DkimResult[]>;
  dmarc(query: DmarcQuery, signal: AbortSignal, budgetMs: number): Promise<DmarcResult>;
}
