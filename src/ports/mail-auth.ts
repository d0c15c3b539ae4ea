import type { AuthResult } from '../mail/auth-results.ts';
import type { ReversePath } from '../mail/address.ts';
import type { HeaderList } from '../mail/header.ts';

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
  readonly headers: HeaderList;
  /** Domains that passed SPF as MAIL FROM (or as HELO for the null path). */
  readonly spfDomains: readonly string[];
  /** Domains (d=) of DKIM signatures that passed. */
  readonly dkimDomains: readonly string[];
}

/** One ARC set, by what its ARC-Seal says. RFC 8617 §4.2. */
export interface ArcHop {
  /** i= */
  readonly instance: number;
  /** d= of the ARC-Seal, and of the ARC-Message-Signature, in lower case. */
  readonly sealer: string;
  readonly signer: string;
  /** Value of the ARC-Authentication-Results field, with its i=. */
  readonly results: string;
}

/** RFC 8617 §4.4, §5.2. */
export interface ArcResult {
  /** temperror: what is wrong is a DNS question without an answer; to RFC 8617 §5.2.1 that is a fail. */
  readonly result: 'none' | 'pass' | 'fail' | 'temperror';
  readonly detail: string;
  /** The newest first. Empty where there is no chain, or none whose parts could be told apart. */
  readonly hops: readonly ArcHop[];
  /** RFC 8617 §5.2 step 5: the oldest instance whose message signature, and that of each later one, is still valid; 0: all of them. Only of a pass. */
  readonly oldestPass: number | null;
}

/** The verification of one message, whose header section is known and whose body comes. */
export interface BodyVerification<T> {
  /** false: nothing has to be written. */
  readonly needsBody: boolean;
  /** The next octets. A promise: nothing more is to be given until it is kept. */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /**
   * The body has ended. At once, without a promise, where all is known. `budgetMs` is how long the DNS questions may take from now on in all: what is not
   * known by then is a temperror.
   */
  end(budgetMs: number): T | Promise<T>;
}

/**
 * The authentication of mail. None of these fail for what a remote party sent or published; only `signal` ends them. `budgetMs` is how long their DNS
 * questions may take in all: what is not known by then is a temperror.
 */
export interface MailAuth {
  /** At once, without a promise, where it is known. */
  spf(query: SpfQuery, signal: AbortSignal, budgetMs: number): SpfResult | Promise<SpfResult>;
  /** One result per signature up to a cap; empty for an unsigned message. Asks for the keys at once. */
  dkim(headers: HeaderList, signal: AbortSignal): BodyVerification<readonly DkimResult[]>;
  /** Shares its work on the body with `dkim` of the same list, begun before the body is. */
  arc(headers: HeaderList, signal: AbortSignal): BodyVerification<ArcResult>;
  dmarc(query: DmarcQuery, signal: AbortSignal, budgetMs: number): Promise<DmarcResult>;
}
