const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;

/**
 * Makes every line of a message end in CRLF, whatever pieces the message comes in: an LF without a CR before it gets one.
 *
 * Bare LF is mended and not refused, because such mail (Postfix's own queue never holds any, BDAT and other MTAs may) is somebody's mail,
 * and a refusal here is a bounce. RFC 5321 §2.3.8 has it that it must not be passed on as it is: Dovecot 2.3 takes LF.LF for the
 * end of the message. A bare CR ends no line to anybody and stays.
 *
 * With `stuffing`, a dot is put before each dot that begins a line. RFC 5321 §4.5.2.
 */
export class CanonicalLines {
  readonly #stuffing: boolean;
  /** The octet before the next one; the start of a message is the start of a line. */
  #previous = LF;

  constructor(options: { readonly stuffing: boolean }) {
    this.#stuffing = options.stuffing;
  }

  /** The chunk itself when nothing in it has to change. */
  encode(chunk: Uint8Array): Uint8Array {
    if (chunk.length === 0) return chunk;
    const places = this.#places(chunk);
    this.#previous = chunk[chunk.length - 1] ?? LF;
    return places.length === 0 ? chunk : inserted(chunk, places);
  }

  /** Whether the message ends with a whole line. */
  get ended(): boolean {
    return this.#previous === LF;
  }

  /** Before which octets one has to be put: a CR before an LF, a dot before a dot. */
  #places(chunk: Uint8Array): number[] {
    const places: number[] = [];
    const buffer = asBuffer(chunk);
    if (this.#stuffing && this.#previous === LF && buffer[0] === DOT) places.push(0);
    for (let i = buffer.indexOf(LF); i !== -1; i = buffer.indexOf(LF, i + 1)) {
      if ((i === 0 ? this.#previous : buffer[i - 1]) !== CR) places.push(i);
      if (this.#stuffing && buffer[i + 1] === DOT) places.push(i + 1);
    }
    return places;
  }
}

function inserted(chunk: Uint8Array, places: readonly number[]): Uint8Array {
  const out = Buffer.allocUnsafe(chunk.length + places.length);
  let from = 0;
  let to = 0;
  for (const place of places) {
    out.set(chunk.subarray(from, place), to);
    to += place - from;
    out[to++] = chunk[place] === DOT ? DOT : CR;
    from = place;
  }
  out.set(chunk.subarray(from), to);
  return out;
}

/** The same octets with Buffer's methods, which search far faster than Uint8Array's own. */
function asBuffer(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}
