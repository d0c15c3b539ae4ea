import packet, { type Answer, type DecodedPacket } from 'dns-packet';

import type { DnsAnswer, RecordData, RecordType } from '../ports/resolver.ts';

/** RFC 1035 §2.3.4; the name as text, without the root's dot. */
const NAME_LIMIT = 253;
const LABEL_LIMIT = 63;

/** What we say we take over UDP: fits into one packet on any path (DNS flag day 2020). RFC 6891 §6.2.5. */
const UDP_PAYLOAD = 1232;

/** Records in one response; the largest sets in use have some dozens. */
export const RECORDS_LIMIT = 512;

/** Octets of one response: 13 times as many TXT records as any well-known domain has. */
export const RESPONSE_LIMIT = 32 * 1024;

/** CNAMEs followed within one response. RFC 1034 §3.6.2 sets no number; resolvers stop between 8 and 17. */
export const CHAIN_LIMIT = 12;

const HEADER_LENGTH = 12;

/** Longest a record is kept, in seconds, whatever its TTL says. */
const TTL_LIMIT = 3600;

export interface Question {
  readonly name: string;
  readonly type: RecordType;
  /** Asked of a server that is thought to have the zone: without recursion, and CNAMEs are told, not followed. */
  readonly direct?: true;
}

/** What a server that was asked directly says of the name itself. */
export interface DirectWord {
  /** AA: it has the zone. RFC 1035 §4.1.1. */
  readonly authoritative: boolean;
  /** Where a CNAME at the name leads. */
  readonly alias: string | null;
  /** The zone below that was given to other servers. RFC 1034 §4.3.2 step 3b. */
  readonly referral: { readonly zone: string; readonly servers: readonly string[] } | null;
}

/** What a response says. `other`: it does not answer this question. */
export type Response =
  /** `direct`: of a question that was. */
  | { readonly kind: 'answer'; readonly answer: DnsAnswer; readonly direct?: DirectWord }
  | { readonly kind: 'servfail' | 'refused' | 'formerr' }
  | { readonly kind: 'truncated' }
  | { readonly kind: 'other' };

/**
 * The name as it is asked for: lower case, without the root's dot. null when there can't be such a name in the DNS (empty or long
 * label, long name), or when it holds what is no printable ASCII.
 */
export function questionName(name: string): string | null {
  const text = (name.endsWith('.') ? name.slice(0, -1) : name).toLowerCase();
  if (text.length > NAME_LIMIT || !/^[\x20-\x7e]+$/.test(text)) return null;
  return text.split('.').every((label) => label !== '' && label.length <= LABEL_LIMIT) ? text : null;
}

export function encodeQuery(id: number, question: Question, edns: boolean): Uint8Array {
  return packet.encode({
    type: 'query',
    id,
    flags: question.direct === true ? 0 : packet.RECURSION_DESIRED,
    questions: [{ type: question.type, name: question.name, class: 'IN' }],
    additionals: edns
      ? [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: UDP_PAYLOAD,
            extendedRcode: 0,
            ednsVersion: 0,
            flags: 0,
            flag_do: false,
            options: [],
          },
        ]
      : [],
  });
}

/** Reads a response. Never throws: what can't be read, or answers something else, is `other`. */
export function readResponse(bytes: Buffer, id: number, question: Question): Response {
  const OTHER = { kind: 'other' } as const;
  // Looked at before anything is decoded, so that a forged count costs nothing.
  if (bytes.length < HEADER_LENGTH || bytes.length > RESPONSE_LIMIT) return OTHER;
  if (bytes.readUInt16BE(0) !== id || bytes.readUInt16BE(4) !== 1) return OTHER;
  if (bytes.readUInt16BE(6) + bytes.readUInt16BE(8) + bytes.readUInt16BE(10) > RECORDS_LIMIT) return OTHER;
  const message = decode(bytes);
  if (message === null || message.type !== 'response' || message.opcode !== 'QUERY') return OTHER;
  const [echo] = message.questions ?? [];
  // RFC 5452 §9.1: the question section has to be ours.
  if (echo?.type !== question.type || echo.class !== 'IN' || echo.name.toLowerCase() !== question.name)
    return OTHER;
  if (message.flag_tc) return { kind: 'truncated' };
  const rcode = message.rcode ?? '';
  switch (rcode) {
    case 'NOERROR':
      return answerTo(message, question, 'nodata');
    case 'NXDOMAIN':
      return answerTo(message, question, 'nxdomain');
    case 'REFUSED':
      return { kind: 'refused' };
    case 'FORMERR':
    case 'NOTIMP':
      return { kind: 'formerr' };
    default:
      return { kind: 'servfail' };
  }
}

type Decoded = DecodedPacket & { readonly opcode?: string; readonly rcode?: string };

function decode(bytes: Buffer): Decoded | null {
  try {
    return packet.decode(bytes);
  } catch {
    return null; // not a DNS message; the sender is waited on no longer than for a lost one
  }
}

function answerTo(message: Decoded, question: Question, empty: 'nodata' | 'nxdomain'): Response {
  const answer = answerOf(message, question, empty);
  return question.direct === true
    ? { kind: 'answer', answer, direct: directWord(message, question) }
    : { kind: 'answer', answer };
}

function directWord(message: Decoded, { name }: Question): DirectWord {
  const alias = (message.answers ?? [])
    .filter(isRecord)
    .find((record) => record.type === 'CNAME' && sameName(record.name, name));
  const servers = (message.authorities ?? []).filter(isRecord).filter((record) => record.type === 'NS');
  const zone = servers[0]?.name.toLowerCase();
  return {
    authoritative: message.flag_aa,
    alias: alias?.type === 'CNAME' ? hostName(alias.data.toLowerCase()) : null,
    referral:
      zone === undefined || message.flag_aa
        ? null
        : {
            zone,
            servers: servers.flatMap((record) =>
              record.type === 'NS' && sameName(record.name, zone)
                ? [hostName(record.data.toLowerCase())]
                : [],
            ),
          },
  };
}

/** RFC 1034 §4.3.1, §3.6.2: CNAMEs in the answer section lead to the records. */
function answerOf(message: Decoded, question: Question, empty: 'nodata' | 'nxdomain'): DnsAnswer {
  const answers = (message.answers ?? []).filter(isRecord);
  let name = question.name;
  let ttl = TTL_LIMIT;
  const followed = question.type === 'CNAME' || question.direct === true ? 0 : CHAIN_LIMIT;
  for (let hops = 0; hops < followed; hops++) {
    const alias = answers.find((record) => record.type === 'CNAME' && sameName(record.name, name));
    if (alias?.type !== 'CNAME') break;
    name = alias.data.toLowerCase();
    ttl = Math.min(ttl, ttlOf(alias.ttl));
  }
  const records: RecordData[] = [];
  for (const record of answers) {
    if (record.type !== question.type || !sameName(record.name, name)) continue;
    const data = dataOf(record);
    if (data === null) continue;
    records.push(data);
    ttl = Math.min(ttl, ttlOf(record.ttl));
  }
  if (records.length > 0) return { kind: 'records', records, ttl };
  return { kind: empty, ttl: Math.min(ttl, negativeTtl(message)) };
}

type Record = Exclude<Answer, { type: 'OPT' }>;

function isRecord(answer: Answer): answer is Record {
  return answer.type !== 'OPT' && (answer.class ?? 'IN') === 'IN';
}

function dataOf(record: Record): RecordData | null {
  const { type } = record;
  if (type === 'A' || type === 'AAAA') return { type, text: record.data };
  if (type === 'CNAME' || type === 'NS' || type === 'PTR') return { type, text: hostName(record.data) };
  if (type === 'MX') {
    return { type, preference: record.data.preference ?? 0, exchange: hostName(record.data.exchange) };
  }
  if (type === 'SOA') return { type, text: `${hostName(record.data.mname)} ${record.data.rname}` };
  if (type === 'TXT') {
    // RFC 7208 §3.3, RFC 6376 §3.6.2.2: joined without separator; octets, which need not be UTF-8.
    const strings = [record.data].flat();
    return { type, text: strings.map((part) => Buffer.from(part).toString('latin1')).join('') };
  }
  return null;
}

/** RFC 2308 §5: the lesser of the SOA's own TTL and its MINIMUM; without an SOA an answer is not to be kept. */
function negativeTtl(message: Decoded): number {
  const soa = (message.authorities ?? []).find((record) => record.type === 'SOA');
  return soa?.type === 'SOA' ? Math.min(ttlOf(soa.ttl), ttlOf(soa.data.minimum)) : 0;
}

/** RFC 2181 §8: a TTL with its highest bit set counts as zero. */
function ttlOf(ttl: number | undefined): number {
  return ttl === undefined || ttl >= 2 ** 31 ? 0 : Math.min(ttl, TTL_LIMIT);
}

function sameName(a: string, b: string): boolean {
  return a.length === b.length && a.toLowerCase() === b;
}

/** As it stands in mail: the root is the empty name. */
function hostName(name: string): string {
  return name === '.' ? '' : name;
}
