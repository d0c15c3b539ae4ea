/**
 * What a filter says to an MTA, as bytes (`SMFIR_*`).
 *
 * All of one answer goes into one buffer, and so into one write: modifications and verdict written apart cost 40 ms a message between
 * Nagle's algorithm and delayed acknowledgements.
 */

export type Response =
  | {
      readonly kind: 'insert-header' | 'change-header';
      readonly index: number;
      readonly name: string;
      readonly value: string;
    }
  | { readonly kind: 'add-header'; readonly name: string; readonly value: string }
  /** A piece of the new body, of at most BODY_PIECE octets; one character per octet. All pieces follow each other. */
  | { readonly kind: 'replace-body'; readonly piece: string }
  | { readonly kind: 'quarantine'; readonly reason: string }
  /** A path in angle brackets; null: without parameters, which older MTAs do not take. */
  | { readonly kind: 'add-recipient'; readonly path: string; readonly parameters: string | null }
  /** A whole SMTP reply line. */
  | { readonly kind: 'reply'; readonly line: string }
  | { readonly kind: 'continue' | 'discard' };

/** SMFIC_OPTNEG, the filter's half. */
export interface Answer {
  readonly version: number;
  /** `SMFIF_*` */
  readonly actions: number;
  /** `SMFIP_*` */
  readonly protocol: number;
}

const SMFIC_OPTNEG = 0x4f; // O
const SMFIR_ADDRCPT = 0x2b; // +
const SMFIR_ADDRCPT_PAR = 0x32; // 2
const SMFIR_REPLBODY = 0x62; // b
const SMFIR_CONTINUE = 0x63; // c
const SMFIR_DISCARD = 0x64; // d
const SMFIR_ADDHEADER = 0x68; // h
const SMFIR_INSHEADER = 0x69; // i
const SMFIR_CHGHEADER = 0x6d; // m
const SMFIR_PROGRESS = 0x70; // p
const SMFIR_QUARANTINE = 0x71; // q
const SMFIR_TEMPFAIL = 0x74; // t
const SMFIR_REPLYCODE = 0x79; // y

export const CONTINUE: Buffer = Buffer.from([0, 0, 0, 1, SMFIR_CONTINUE]);
/** 451 4.7.1 */
export const TEMPFAIL: Buffer = Buffer.from([0, 0, 0, 1, SMFIR_TEMPFAIL]);
/** Restarts the MTA's timeout. */
export const PROGRESS: Buffer = Buffer.from([0, 0, 0, 1, SMFIR_PROGRESS]);

/** MILTER_CHUNK_SIZE: the most that one packet may bring of a body. */
export const BODY_PIECE = 65_535;

/** Length and command byte. */
const HEAD_OCTETS = 5;
const INDEX_OCTETS = 4;

export function encodeAnswer(answer: Answer): Buffer {
  const bytes = Buffer.allocUnsafe(17);
  bytes.writeUInt32BE(13, 0);
  bytes.writeUInt8(SMFIC_OPTNEG, 4);
  bytes.writeUInt32BE(answer.version, 5);
  bytes.writeUInt32BE(answer.actions, 9);
  bytes.writeUInt32BE(answer.protocol, 13);
  return bytes;
}

interface Packet {
  readonly code: number;
  readonly index: number | null;
  /** One character per octet. */
  readonly text: string;
}

/** All responses in one buffer. */
export function encodeResponses(responses: readonly Response[]): Buffer {
  const packets = responses.map(packetOf);
  let size = 0;
  for (const { index, text } of packets) size += HEAD_OCTETS + indexOctets(index) + text.length;
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { code, index, text } of packets) {
    at = bytes.writeUInt32BE(1 + indexOctets(index) + text.length, at);
    at = bytes.writeUInt8(code, at);
    if (index !== null) at = bytes.writeUInt32BE(index, at);
    at += bytes.write(text, at, 'latin1');
  }
  return bytes;
}

function indexOctets(index: number | null): number {
  return index === null ? 0 : INDEX_OCTETS;
}

function packetOf(response: Response): Packet {
  switch (response.kind) {
    case 'insert-header':
      return { code: SMFIR_INSHEADER, index: response.index, text: field(response.name, response.value) };
    case 'change-header':
      return { code: SMFIR_CHGHEADER, index: response.index, text: field(response.name, response.value) };
    case 'add-header':
      return { code: SMFIR_ADDHEADER, index: null, text: field(response.name, response.value) };
    case 'replace-body':
      return { code: SMFIR_REPLBODY, index: null, text: response.piece };
    case 'add-recipient': {
      const path = `${oneLine(response.path)}\0`;
      return response.parameters === null
        ? { code: SMFIR_ADDRCPT, index: null, text: path }
        : { code: SMFIR_ADDRCPT_PAR, index: null, text: `${path}${oneLine(response.parameters)}\0` };
    }
    case 'quarantine':
      return { code: SMFIR_QUARANTINE, index: null, text: `${oneLine(response.reason)}\0` };
    case 'reply':
      // Postfix and Sendmail read the text as a format: a single % is lost, or takes the text with it.
      return {
        code: SMFIR_REPLYCODE,
        index: null,
        text: `${oneLine(response.line).replaceAll('%', '%%')}\0`,
      };
    case 'continue':
      return { code: SMFIR_CONTINUE, index: null, text: '' };
    case 'discard':
      return { code: SMFIR_DISCARD, index: null, text: '' };
  }
}

/** Name and value, each with its NUL. Folds are LF and white space here: a CR would stay in the mail. */
function field(name: string, value: string): string {
  return `${oneLine(name)}\0${foldWithLf(value)}\0`;
}

/** Whatever is no fold can't break a line, end a string early, or lose bits on its way into an octet. */
function foldWithLf(value: string): string {
  if (!/[\r\n\0\u0100-\uffff]/.test(value)) return value;
  return value
    .replaceAll('\r\n', '\n')
    .replaceAll(/\n(?![ \t])/g, '\n\t')
    .replaceAll(/[\r\0\u0100-\uffff]/g, '?');
}

function oneLine(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?');
}
