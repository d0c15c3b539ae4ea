import { parseHeaderSection, type HeaderList } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';
import { Spool } from '../runtime/spool.ts';
import { CanonicalLines } from './lines.ts';

/** Octets of a header section. Postfix cuts single fields at 100 KiB (header_size_limit); it has no limit for all of them. */
export const HEADER_LIMIT = 1024 * 1024;
/** Smaller pieces of a header section are joined before they are searched, so that single octets do not cost a buffer each. */
const SMALL = 1024;

const END_OF_HEADER = Buffer.from('\r\n\r\n', 'latin1');
const CR = 0x0d;
const LF = 0x0a;

export interface IntakeOptions {
  /** Octets of body kept in memory. */
  readonly memory: number;
  /** Octets of the whole message. */
  readonly limit: number;
  readonly folder: string;
}

/** A message as it was received. */
export interface Received {
  readonly headers: HeaderList;
  readonly body: Body;
  /** Whether an empty line stood behind the header section; some messages have no more than a header section. */
  readonly separated: boolean;
  /** Octets of all of it. */
  readonly size: number;
}

export type IntakeResult =
  | { readonly kind: 'received'; readonly message: Received }
  | { readonly kind: 'too-large' | 'header-too-large' }
  /** The spool could not be written. */
  | { readonly kind: 'failed'; readonly error: unknown };

/**
 * Takes a message in: makes its lines canonical before anything looks at them, so that what is judged is what is delivered; parses the
 * header section, spools the body. A message that is refused is read to its end all the same, because replies come only then.
 */
export class Intake implements AsyncDisposable {
  readonly #options: IntakeOptions;
  readonly #lines = new CanonicalLines({ stuffing: false });
  readonly #spool: Spool;
  #header: Buffer[] = [];
  #headerSize = 0;
  /** How many octets of CRLF CRLF the header section ends with so far; it begins as if behind a CRLF. */
  #matched = 2;
  #separated = false;
  #small: Buffer[] = [];
  #smallSize = 0;
  #size = 0;
  #given: Exclude<IntakeResult, { kind: 'received' }> | null = null;

  constructor(options: IntakeOptions) {
    this.#options = options;
    this.#spool = new Spool(options);
  }

  /** A promise is to be awaited before the next write. Never throws and never rejects: `finish` tells. */
  write(piece: Buffer): Promise<void> | undefined {
    if (this.#given !== null) return undefined;
    const chunk = this.#lines.encode(piece);
    this.#size += chunk.length;
    if (this.#size > this.#options.limit) return this.#give({ kind: 'too-large' });
    if (this.#separated) return this.#spooled(chunk);
    return this.#headerPiece(chunk);
  }

  async finish(): Promise<IntakeResult> {
    if (this.#given === null && this.#smallSize > 0) await this.#search(this.#joined());
    if (this.#given !== null) return this.#given;
    const section = Buffer.concat(this.#header).toString('latin1');
    return {
      kind: 'received',
      message: {
        headers: parseHeaderSection(this.#separated ? section.slice(0, -2) : section),
        body: this.#spool,
        separated: this.#separated,
        size: this.#size,
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#spool[Symbol.asyncDispose]();
  }

  #headerPiece(chunk: Uint8Array): Promise<void> | undefined {
    this.#small.push(asBuffer(chunk));
    this.#smallSize += chunk.length;
    // The first piece is looked at as it is: most messages come in one.
    if (this.#smallSize < SMALL && this.#headerSize + this.#smallSize > chunk.length) return undefined;
    return this.#search(this.#joined());
  }

  #joined(): Buffer {
    const joined = this.#small.length === 1 ? this.#small[0] : undefined;
    const buffer = joined ?? Buffer.concat(this.#small);
    this.#small = [];
    this.#smallSize = 0;
    return buffer;
  }

  /** Looks for the empty line; what is behind it goes to the spool. */
  #search(chunk: Buffer): Promise<void> | undefined {
    const end = this.#endOfHeader(chunk);
    const part = end === -1 ? chunk : chunk.subarray(0, end);
    this.#header.push(part);
    this.#headerSize += part.length;
    if (this.#headerSize > HEADER_LIMIT) return this.#give({ kind: 'header-too-large' });
    if (end === -1) return undefined;
    this.#separated = true;
    return this.#spooled(chunk.subarray(end));
  }

  /** Index behind the empty line; -1 when it is not in this chunk. */
  #endOfHeader(chunk: Buffer): number {
    let at = 0;
    while (this.#matched > 0 && at < chunk.length) {
      this.#matched = step(this.#matched, chunk[at++]);
      if (this.#matched === END_OF_HEADER.length) return at;
    }
    if (at === chunk.length) return -1;
    const found = chunk.indexOf(END_OF_HEADER, at);
    if (found !== -1) return found + END_OF_HEADER.length;
    for (let i = Math.max(at, chunk.length - 3); i < chunk.length; i++) {
      this.#matched = step(this.#matched, chunk[i]);
    }
    return -1;
  }

  #spooled(chunk: Uint8Array): Promise<void> | undefined {
    try {
      return this.#spool.write(chunk)?.catch((error: unknown) => this.#give({ kind: 'failed', error }));
    } catch (error) {
      return this.#give({ kind: 'failed', error });
    }
  }

  #give(result: Exclude<IntakeResult, { kind: 'received' }>): undefined {
    this.#given ??= result;
    this.#header = [];
    this.#small = [];
    return undefined;
  }
}

/** How many octets of CRLF CRLF are matched after one more. */
function step(matched: number, octet: number | undefined): number {
  if (octet === CR) return matched === 2 ? 3 : 1;
  return octet === LF && (matched === 1 || matched === 3) ? matched + 1 : 0;
}

function asBuffer(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}
