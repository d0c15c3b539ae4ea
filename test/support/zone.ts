import {
  DnsError,
  type DnsAnswer,
  type DnsErrorCode,
  type RecordData,
  type RecordType,
  type Resolver,
} from '../../src/ports/resolver.ts';

/** Records of one name by type (MX: `10 exchange`), or how every question about it fails. */
export type ZoneEntry = Partial<Readonly<Record<RecordType, readonly string[]>>> | DnsErrorCode | 'never';

const TTL = 300;

/** A name service made of a table, which remembers what it was asked. Names that are not in it do not exist. */
export class Zone implements Resolver {
  readonly asked: string[] = [];
  readonly #entries: ReadonlyMap<string, ZoneEntry>;

  constructor(entries: Readonly<Record<string, ZoneEntry>>) {
    this.#entries = new Map(Object.entries(entries).map(([name, entry]) => [name.toLowerCase(), entry]));
  }

  async query(name: string, type: RecordType, signal: AbortSignal): Promise<DnsAnswer> {
    this.asked.push(`${type} ${name}`);
    if (name.split('.').some((label) => label === '' || label.length > 63) || name.length > 253)
      throw new DnsError('badname', name);
    const entry = this.#entries.get(name.toLowerCase()) ?? this.#wildcard(name);
    if (entry === undefined) return { kind: 'nxdomain', ttl: TTL };
    if (entry === 'never') return aborted(signal);
    if (typeof entry === 'string') throw new DnsError(entry, `${name}: ${entry}`);
    const records = (entry[type] ?? []).map((text) => recordOf(type, text));
    return records.length === 0 ? { kind: 'nodata', ttl: TTL } : { kind: 'records', records, ttl: TTL };
  }

  #wildcard(name: string): ZoneEntry | undefined {
    return this.#entries.get(`*${name.toLowerCase().slice(name.indexOf('.'))}`);
  }
}

async function aborted(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(new DnsError('aborted', 'given up'));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  return promise;
}

function recordOf(type: RecordType, text: string): RecordData {
  if (type !== 'MX') return { type, text };
  const [preference = '', exchange = ''] = text.split(' ');
  return { type, preference: Number(preference), exchange };
}
