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
  spfResult?: { error: 'permerror'; text: string };

  constructor(code: string, message: string) {
    super(message);
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
 * A resolver for one evaluation: at most `limit` questions. What can't be answered before `signal` aborts counts as a timeout, which makes a
 * temperror of it.
 */
export function lookup(resolver: Resolver, limit: number, signal: AbortSignal): Lookup {
  let asked = 0;
  return async (name, type) => {
    if (!isRecordType(type)) throw new LookupError('ENODATA', `${type} records are not asked for`);
    if (++asked > limit) {
      const error = new LookupError('EQUERYLIMIT', `more than ${limit} DNS questions`);
      error.spfResult = { error: 'permerror', text: error.message };
      throw error;
    }
    return result(await answer(resolver, name, type, signal), name, type);
  };
}

async function answer(
  resolver: Resolver,
  name: string,
  type: RecordType,
  signal: AbortSignal,
): Promise<DnsAnswer> {
  try {
    return await resolver.query(name, type, signal);
  } catch (error) {
    if (error instanceof DnsError) throw new LookupError(errorCode(error), error.message);
    throw error;
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
