import {
  DnsError,
  type DnsAnswer,
  type RecordData,
  type RecordType,
  type Resolver,
} from '../ports/resolver.ts';

/** As dns.promises.resolve() gives it: the contract that mailauth's parts expect of a resolver. */
export type Lookup = (name: string, type: string) => Promise<LookupResult>;
export type LookupResult = readonly string[] | readonly (readonly string[])[] | readonly MxHost[];

interface MxHost {
  readonly priority: number;
  readonly exchange: string;
}

/** An error as node:dns makes it. Without `readonly`: mailauth notes on it what the error means for SPF. */
export class LookupError extends Error {
  code: string;
  spfResult?: { error: 'permerror' | 'temperror'; text: string };

  constructor(code: string, message: string) {
    // An answer, not a failure: most names have no record of the kind. Gathering the stack would cost more than the question.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(message);
    Error.stackTraceLimit = stackTraceLimit;
    this.name = 'LookupError';
    this.code = code;
  }
}

const TYPES: ReadonlySet<string> = new Set<RecordType>([
  'A',
  'AAAA',
  'CNAME',
  'MX',
  'NS',
  'PTR',
  'SOA',
  'TXT',
]);

/**
 * The DNS questions of one evaluation: at most `limit`. What can't be answered before `signal` aborts counts as a timeout, which makes a
 * temperror of it.
 */
class Questions {
  readonly #resolver: Resolver;
  readonly #limit: number;
  readonly #signal: AbortSignal;
  #asked = 0;
  #broken: { readonly error: unknown } | null = null;

  constructor(resolver: Resolver, limit: number, signal: AbortSignal) {
    this.#resolver = resolver;
    this.#limit = limit;
    this.#signal = signal;
  }

  /** For mailauth, which makes a temperror of whatever it throws. */
  readonly lookup: Lookup = async (name, type) => {
    if (!isRecordType(type)) throw new LookupError('ENODATA', `${type} records are not asked for`);
    if (++this.#asked > this.#limit) {
      const error = new LookupError('EQUERYLIMIT', `more than ${this.#limit} DNS questions`);
      error.spfResult = { error: 'permerror', text: error.message };
      throw error;
    }
    return result(await this.#answer(name, type), name, type);
  };

  /** Throws what came up that was no failure of the DNS: a mistake of ours must not pass for one of theirs. */
  rethrow(): void {
    if (this.#broken !== null) throw this.#broken.error;
  }

  async #answer(name: string, type: RecordType): Promise<DnsAnswer> {
    try {
      return await this.#resolver.query(name, type, this.#signal);
    } catch (error) {
      if (error instanceof DnsError) throw new LookupError(errorCode(error), error.message);
      this.#broken ??= { error };
      throw error;
    }
  }
}

interface Limits {
  readonly questions: number;
  readonly budgetMs: number;
  readonly signal: AbortSignal;
}

/** Runs `work` with DNS questions that are no longer answered when the budget is used up: what is unknown by then is a temperror. */
export async function withinBudget<T>(
  resolver: Resolver,
  { questions: count, budgetMs, signal }: Limits,
  work: (lookup: Lookup, late: AbortSignal) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`no answer within ${budgetMs} ms`)), budgetMs);
  const abort = (): void => late.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const questions = new Questions(resolver, count, late.signal);
  try {
    const made = await work(questions.lookup, late.signal);
    signal.throwIfAborted();
    questions.rethrow();
    return made;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

function errorCode(error: DnsError): string {
  switch (error.code) {
    case 'timeout':
    case 'aborted':
      return 'ETIMEOUT';
    case 'servfail':
      return 'ESERVFAIL';
    case 'refused':
      return 'EREFUSED';
    case 'badname':
      return 'EBADNAME';
  }
}

function result(found: DnsAnswer, name: string, type: RecordType): LookupResult {
  switch (found.kind) {
    case 'nxdomain':
      throw new LookupError('ENOTFOUND', `${name} does not exist`);
    case 'nodata':
      throw new LookupError('ENODATA', `${name} has no ${type} records`);
    case 'records':
      return type === 'MX' ? found.records.flatMap(mxHost) : texts(found.records, type);
  }
}

function mxHost(record: RecordData): readonly MxHost[] {
  return record.type === 'MX' ? [{ priority: record.preference, exchange: record.exchange }] : [];
}

function texts(records: readonly RecordData[], type: RecordType): readonly string[] | readonly string[][] {
  const found = records.flatMap((record) => (record.type === 'MX' ? [] : [record.text]));
  return type === 'TXT' ? found.map((text) => [text]) : found;
}

function isRecordType(type: string): type is RecordType {
  return TYPES.has(type);
}
