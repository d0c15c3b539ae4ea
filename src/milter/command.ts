/** What an MTA says to a filter: one packet's payload, read into a command (`SMFIC_*`). Strings end in NUL and are kept as latin1. */

/** SMFIC_OPTNEG: the protocol version and the bits of actions and steps that the MTA can do. */
export interface Offer {
  readonly version: number;
  /** `SMFIF_*` */
  readonly actions: number;
  /** `SMFIP_*` */
  readonly protocol: number;
}

/** SMFIC_CONNECT. `local` is a unix socket, `unknown` anything the MTA can't name. */
export interface Connect {
  readonly kind: 'connect';
  readonly host: string;
  readonly family: 'inet' | 'inet6' | 'local' | 'unknown';
  readonly port: number;
  /** As the MTA wrote it; empty for `unknown`. */
  readonly address: string;
}

export type Command =
  | ({ readonly kind: 'optneg' } & Offer)
  /** `stage` is the command byte they belong to, as a character; `macros` holds names and values in turn. */
  | { readonly kind: 'macros'; readonly stage: string; readonly macros: readonly string[] }
  | Connect
  | { readonly kind: 'helo'; readonly name: string }
  | { readonly kind: 'mail' | 'rcpt'; readonly path: string; readonly parameters: readonly string[] }
  | { readonly kind: 'header'; readonly name: string; readonly value: string }
  /** `chunk` is a view of the bytes that were pushed, not a copy. */
  | { readonly kind: 'body'; readonly chunk: Buffer }
  /** SMFIC_BODYEOB; Sendmail may put the last piece of the body in it. */
  | { readonly kind: 'end-of-message'; readonly chunk: Buffer }
  | { readonly kind: 'unknown'; readonly line: string }
  | { readonly kind: 'data' | 'end-of-headers' | 'abort' | 'quit-nc' }
  | { readonly kind: 'quit' };

export type CommandKind = Command['kind'];

/** Why a connection can't go on. */
export const PROTOCOL_ERRORS = [
  'packet-length',
  'unknown-command',
  'malformed',
  'out-of-order',
  'negotiation',
] as const;
export type ProtocolErrorKind = (typeof PROTOCOL_ERRORS)[number];

/** The peer does not speak the protocol; nothing after this can be understood. */
export class ProtocolError extends Error {
  readonly kind: ProtocolErrorKind;

  constructor(kind: ProtocolErrorKind, message: string) {
    super(message);
    this.name = 'ProtocolError';
    this.kind = kind;
  }
}

/** What precedes headers and body is a queue id. */
const REPEATED_MACROS_LIMIT = 128;

const NUL = 0;
export const EMPTY: Buffer = Buffer.alloc(0);

const SMFIC_ABORT = 0x41; // A
const SMFIC_BODY = 0x42; // B
const SMFIC_CONNECT = 0x43; // C
const SMFIC_MACRO = 0x44; // D
const SMFIC_BODYEOB = 0x45; // E
const SMFIC_HELO = 0x48; // H
const SMFIC_QUIT_NC = 0x4b; // K
const SMFIC_HEADER = 0x4c; // L
const SMFIC_MAIL = 0x4d; // M
const SMFIC_EOH = 0x4e; // N
const SMFIC_OPTNEG = 0x4f; // O
const SMFIC_QUIT = 0x51; // Q
const SMFIC_RCPT = 0x52; // R
const SMFIC_DATA = 0x54; // T
const SMFIC_UNKNOWN = 0x55; // U

const SMFIA_INET = 0x34; // 4
const SMFIA_INET6 = 0x36; // 6
const SMFIA_UNIX = 0x4c; // L
const SMFIA_UNKNOWN = 0x55; // U

const ABORT: Command = Object.freeze({ kind: 'abort' });
const DATA: Command = Object.freeze({ kind: 'data' });
const END_OF_HEADERS: Command = Object.freeze({ kind: 'end-of-headers' });
const QUIT: Command = Object.freeze({ kind: 'quit' });
const QUIT_NC: Command = Object.freeze({ kind: 'quit-nc' });

/** `start` is the command byte's place, `end` the first after the packet. */
export function decode(bytes: Buffer, start: number, end: number, macros: MacroReader): Command {
  const code = bytes.readUInt8(start);
  const at = start + 1;
  switch (code) {
    case SMFIC_HEADER: {
      const middle = stringEnd(bytes, at, end);
      const last = stringEnd(bytes, middle + 1, end);
      if (last + 1 !== end) throw malformed('more than a name and a value in a header');
      return {
        kind: 'header',
        name: bytes.toString('latin1', at, middle),
        value: bytes.toString('latin1', middle + 1, last),
      };
    }
    case SMFIC_MACRO:
      return macros.read(bytes, at, end);
    case SMFIC_BODY:
      return { kind: 'body', chunk: bytes.subarray(at, end) };
    case SMFIC_BODYEOB:
      return { kind: 'end-of-message', chunk: at === end ? EMPTY : bytes.subarray(at, end) };
    case SMFIC_MAIL:
      return path('mail', bytes, at, end);
    case SMFIC_RCPT:
      return path('rcpt', bytes, at, end);
    case SMFIC_DATA:
      return bare(DATA, at, end);
    case SMFIC_EOH:
      return bare(END_OF_HEADERS, at, end);
    case SMFIC_ABORT:
      return bare(ABORT, at, end);
    case SMFIC_QUIT:
      return bare(QUIT, at, end);
    case SMFIC_QUIT_NC:
      return bare(QUIT_NC, at, end);
    case SMFIC_CONNECT:
      return connect(bytes, at, end);
    case SMFIC_HELO:
      return { kind: 'helo', name: onlyString(bytes, at, end) };
    case SMFIC_UNKNOWN:
      return { kind: 'unknown', line: onlyString(bytes, at, end) };
    case SMFIC_OPTNEG:
      return optneg(bytes, at, end);
    default:
      throw new ProtocolError('unknown-command', `command 0x${code.toString(16)}`);
  }
}

/** Whether the packet may be large: headers and body. */
export function carriesContent(code: number): boolean {
  return code === SMFIC_BODY || code === SMFIC_HEADER || code === SMFIC_BODYEOB;
}

function optneg(bytes: Buffer, at: number, end: number): Command {
  // What a newer MTA may add after the three words is none of ours, as in libmilter (st_optionneg).
  if (end - at < 12) throw malformed('a negotiation of fewer than three words');
  return {
    kind: 'optneg',
    version: bytes.readUInt32BE(at),
    actions: bytes.readUInt32BE(at + 4),
    protocol: bytes.readUInt32BE(at + 8),
  };
}

/** Macros repeated octet by octet give the same list again, whatever their stage. */
export class MacroReader {
  readonly #bytes = Buffer.allocUnsafeSlow(REPEATED_MACROS_LIMIT);
  #length = -1;
  #macros: readonly string[] = [];

  read(bytes: Buffer, at: number, end: number): Command {
    if (at === end) throw malformed('macros of no stage');
    const stage = String.fromCharCode(bytes.readUInt8(at));
    const from = at + 1;
    const length = end - from;
    if (length === this.#length && bytes.compare(this.#bytes, 0, length, from, end) === 0) {
      return { kind: 'macros', stage, macros: this.#macros };
    }
    const macros = strings(bytes, from, end);
    if (macros.length % 2 !== 0) throw malformed('a macro without a value');
    if (length <= REPEATED_MACROS_LIMIT) {
      bytes.copy(this.#bytes, 0, from, end);
      this.#length = length;
      this.#macros = macros;
    }
    return { kind: 'macros', stage, macros };
  }
}

function path(kind: 'mail' | 'rcpt', bytes: Buffer, at: number, end: number): Command {
  const [first, ...parameters] = strings(bytes, at, end);
  if (first === undefined) throw malformed(`${kind} without an address`);
  return { kind, path: first, parameters };
}

function connect(bytes: Buffer, at: number, end: number): Command {
  const hostEnd = stringEnd(bytes, at, end);
  const host = bytes.toString('latin1', at, hostEnd);
  const family = hostEnd + 1 < end ? familyOf(bytes.readUInt8(hostEnd + 1)) : null;
  if (family === null) throw malformed('a connection of no known address family');
  const rest = hostEnd + 2;
  if (family === 'unknown') {
    if (rest !== end) throw malformed('an address of an unknown family');
    return { kind: 'connect', host, family, port: 0, address: '' };
  }
  if (rest + 2 > end) throw malformed('a connection without a port');
  const address = onlyString(bytes, rest + 2, end);
  return { kind: 'connect', host, family, port: bytes.readUInt16BE(rest), address };
}

function familyOf(code: number): Connect['family'] | null {
  switch (code) {
    case SMFIA_INET:
      return 'inet';
    case SMFIA_INET6:
      return 'inet6';
    case SMFIA_UNIX:
      return 'local';
    case SMFIA_UNKNOWN:
      return 'unknown';
    default:
      return null;
  }
}

function bare(command: Command, at: number, end: number): Command {
  if (at !== end) throw malformed(`arguments of ${command.kind}, which has none`);
  return command;
}

function onlyString(bytes: Buffer, at: number, end: number): string {
  const last = stringEnd(bytes, at, end);
  if (last + 1 !== end) throw malformed('octets after the last string');
  return bytes.toString('latin1', at, last);
}

function strings(bytes: Buffer, at: number, end: number): string[] {
  const list: string[] = [];
  for (let from = at; from < end;) {
    const last = stringEnd(bytes, from, end);
    list.push(bytes.toString('latin1', from, last));
    from = last + 1;
  }
  return list;
}

/** Place of the NUL that ends the string at `from`. */
function stringEnd(bytes: Buffer, from: number, end: number): number {
  const at = bytes.indexOf(NUL, from);
  if (at === -1 || at >= end) throw malformed('a string without its NUL');
  return at;
}

function malformed(what: string): ProtocolError {
  return new ProtocolError('malformed', what);
}
