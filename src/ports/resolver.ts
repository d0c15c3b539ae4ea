/** The record types that checks ask for. */
export type RecordType = 'A' | 'AAAA' | 'CNAME' | 'MX' | 'NS' | 'PTR' | 'SOA' | 'TXT';

/**
 * Data of one record. A, AAAA, CNAME, NS, PTR: the address or name as text. MX: preference and exchange (the root is `''`, RFC 7505).
 * TXT: the character-strings joined without separator, one byte per character (RFC 7208 §3.3).
 */
export type RecordData =
  | { readonly type: 'A' | 'AAAA' | 'CNAME' | 'NS' | 'PTR' | 'TXT' | 'SOA'; readonly text: string }
  | { readonly type: 'MX'; readonly preference: number; readonly exchange: string };

/** An answer; NXDOMAIN and an empty answer are answers too (both are void lookups, RFC 7208 §4.6.4). */
export type DnsAnswer =
  | { readonly kind: 'records'; readonly records: readonly RecordData[]; readonly ttl: number }
  | { readonly kind: 'nodata' | 'nxdomain'; readonly ttl: number };

export type DnsErrorCode = 'timeout' | 'servfail' | 'refused' | 'badname' | 'aborted';

/** No answer could be had. `badname`: the name can't be asked for at all (empty label, label over 63 octets). */
export class DnsError extends Error {
  readonly code: DnsErrorCode;
  constructor(code: DnsErrorCode, message: string) {
    super(message);
    this.name = 'DnsError';
    this.code = code;
  }
}

export interface Resolver {
  /** @throws {DnsError} */
  query(name: string, type: RecordType, signal: AbortSignal): Promise<DnsAnswer>;
  /** The answer, when it is in memory; `name` in lower case and without a closing dot. */
  cached?(name: string, type: RecordType): DnsAnswer | null;
}
