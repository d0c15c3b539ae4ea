import { parseHeaderSection, type HeaderList } from '../../mail/header.ts';
import { BOUNDARY_LIMIT, DEPTH_LIMIT, NOTE_LIMIT, PART_HEADER_LIMIT, PART_LIMIT } from './mime-limits.ts';
import { parseStructured } from './parameters.ts';
import { decodeTransfer } from './transfer-encoding.ts';

/** A body that holds no other. */
export interface Leaf {
  /** As Content-Type says: `text/html`. */
  readonly type: string;
  readonly charset: string | null;
  /** Every name that it has; readers differ in which one they take. */
  readonly names: readonly string[];
  /** Whether it is meant to be saved, not read. */
  readonly attached: boolean;
  /** Decoded from its transfer encoding. */
  readonly octets: Buffer;
}

export interface MimeVisitor {
  /** The header section of the message, and of each message within. */
  header(fields: HeaderList): void;
  /** What stands before, between and behind the parts of a multipart, and what could not be taken apart. */
  loose(octets: Buffer): void;
  leaf(leaf: Leaf): void;
  /** A multipart: its type. */
  multipart(type: string): void;
}

export interface MimeNotes {
  readonly unparsable: Set<string>;
  readonly tooLarge: Set<string>;
}

const LF = 0x0a;
const CR = 0x0d;
const DASH = 0x2d;
const DEFAULT_TYPE = 'text/plain';

/**
 * Takes a message apart. Nothing it may hold makes it fail: what can't be understood is given as it stands, and noted. Time and memory are bounded by the size
 * of the message and the limits.
 */
export function walkMime(
  message: Buffer,
  headerOctets: number,
  visitor: MimeVisitor,
  notes: MimeNotes,
): void {
  new Walk(visitor, notes).entity(message, {
    depth: 0,
    isMessage: true,
    usual: DEFAULT_TYPE,
    headerLimit: headerOctets,
  });
}

interface Place {
  readonly depth: number;
  /** Whether it is a message, with a subject of its own. */
  readonly isMessage: boolean;
  /** What it is when it does not say. */
  readonly usual: string;
  readonly headerLimit: number;
}

class Walk {
  readonly #visitor: MimeVisitor;
  readonly #notes: MimeNotes;
  #parts = 0;

  constructor(visitor: MimeVisitor, notes: MimeNotes) {
    this.#visitor = visitor;
    this.#notes = notes;
  }

  entity(octets: Buffer, place: Place): void {
    const { depth } = place;
    if (++this.#parts > PART_LIMIT) return this.#beyond(octets, `more than ${PART_LIMIT} parts`);
    if (depth > DEPTH_LIMIT) return this.#beyond(octets, `parts more than ${DEPTH_LIMIT} deep`);
    const bodyAt = endOfHeader(octets);
    const section = octets.subarray(0, bodyAt);
    if (section.length > place.headerLimit) {
      return this.#beyond(octets, `a part with more than ${place.headerLimit} octets of header fields`);
    }
    const fields = parseHeaderSection(section.toString('latin1').replaceAll(/\r?\n/g, '\r\n'));
    if (place.isMessage) this.#visitor.header(fields);
    this.#body(octets.subarray(bodyAt), fields, place);
  }

  #body(body: Buffer, fields: HeaderList, place: Place): void {
    const contentType = parseStructured(fields.first('Content-Type')?.value ?? '');
    const disposition = parseStructured(fields.first('Content-Disposition')?.value ?? '');
    if (fields.all('Content-Type').length > 1) this.#note('a part with two Content-Type fields');
    const type = /^[^\s/]+\/[^\s/]+$/.test(contentType.value) ? contentType.value : place.usual;
    const encoding = parseStructured(fields.first('Content-Transfer-Encoding')?.value ?? '').value;
    const octets = decodeTransfer(encoding, body);
    if (octets === null) this.#note('a transfer encoding that nobody knows');
    const decoded = octets ?? body;
    const deeper = place.depth + 1;
    if (type.startsWith('multipart/')) {
      this.#visitor.multipart(type);
      const [boundary = ''] = contentType.parameters.get('boundary') ?? [];
      return this.#multipart(decoded, boundary, {
        depth: deeper,
        isMessage: false,
        // RFC 2046 §5.1.5.
        usual: type === 'multipart/digest' ? 'message/rfc822' : DEFAULT_TYPE,
        headerLimit: PART_HEADER_LIMIT,
      });
    }
    if (type === 'message/rfc822' || type === 'message/global') {
      return this.entity(decoded, {
        depth: deeper,
        isMessage: true,
        usual: DEFAULT_TYPE,
        headerLimit: PART_HEADER_LIMIT,
      });
    }
    const [charset = null] = contentType.parameters.get('charset') ?? [];
    const names = [
      ...(disposition.parameters.get('filename') ?? []),
      ...(contentType.parameters.get('name') ?? []),
    ];
    this.#visitor.leaf({
      type,
      charset,
      names: [...new Set(names)].filter((name) => name !== ''),
      attached: disposition.value === 'attachment',
      octets: decoded,
    });
  }

  #multipart(octets: Buffer, boundary: string, place: Place): void {
    if (boundary === '' || boundary.length > BOUNDARY_LIMIT) {
      return this.#beyond(octets, 'a multipart without a boundary');
    }
    const delimiter = Buffer.from(`--${boundary}`, 'latin1');
    /** Where the open part begins; null: before the first. */
    let open: number | null = null;
    let closed = false;
    let looseFrom = 0;
    for (let at = octets.indexOf(delimiter); at !== -1; at = octets.indexOf(delimiter, at + 1)) {
      if (at > 0 && octets[at - 1] !== LF) continue;
      const line = delimiterLine(octets, at + delimiter.length);
      if (line === null) continue;
      const end = lineEndBefore(octets, at);
      if (open === null) this.#loose(octets.subarray(looseFrom, end));
      else this.entity(octets.subarray(open, end), place);
      open = line.closes ? null : line.next;
      closed = line.closes;
      looseFrom = line.next;
      at = Math.max(at, line.next - 2);
    }
    if (open !== null) {
      this.#note('a multipart that does not end');
      this.entity(octets.subarray(open), place);
    } else {
      if (!closed) this.#note('a multipart whose boundary is nowhere');
      this.#loose(octets.subarray(looseFrom));
    }
  }

  #loose(octets: Buffer): void {
    if (octets.length > 0) this.#visitor.loose(octets);
  }

  #beyond(octets: Buffer, what: string): void {
    this.#note(what);
    this.#loose(octets);
  }

  #note(text: string): void {
    if (this.#notes.unparsable.size < NOTE_LIMIT) this.#notes.unparsable.add(text);
  }
}

/** Behind the empty line; without one, all is header section where its first line looks so, and else nothing is. */
function endOfHeader(octets: Buffer): number {
  if (octets[0] === LF) return 1;
  if (octets[0] === CR && octets[1] === LF) return 2;
  for (let at = octets.indexOf(LF); at !== -1; at = octets.indexOf(LF, at + 1)) {
    if (octets[at + 1] === LF) return at + 2;
    if (octets[at + 1] === CR && octets[at + 2] === LF) return at + 3;
  }
  return /^[!-9;-~]{1,76}[\t ]*:/.test(octets.toString('latin1', 0, 120)) ? octets.length : 0;
}

/** What follows a boundary on its line. RFC 2046 §5.1.1: `--` when it is the last, and blanks. */
function delimiterLine(
  octets: Buffer,
  from: number,
): { readonly closes: boolean; readonly next: number } | null {
  const closes = octets[from] === DASH && octets[from + 1] === DASH;
  let at = closes ? from + 2 : from;
  while (octets[at] === 0x20 || octets[at] === 0x09) at++;
  if (octets[at] === CR) at++;
  if (at >= octets.length) return { closes, next: octets.length };
  if (octets[at] === LF) return { closes, next: at + 1 };
  // Behind the last one readers do not look.
  return closes ? { closes, next: at } : null;
}

/** The line break before a delimiter belongs to it. */
function lineEndBefore(octets: Buffer, at: number): number {
  if (at > 1 && octets[at - 2] === CR) return at - 2;
  return Math.max(0, at - 1);
}
