import { carriesContent, decode, EMPTY, MacroReader, ProtocolError, type Command } from './command.ts';

/**
 * Packets from the bytes of a connection. No sockets here: chunks go in, commands come out.
 *
 * A packet is a length (32 bits, big-endian, counting what follows), a command byte and its arguments.
 */

/** Largest packet, command byte included. Postfix sends at most 65,535 octets of body and 60,000 of a header; Sendmail up to 1 MiB. */
export const PACKET_LIMIT = 1024 * 1024;
/** Largest packet of everything but headers and body. */
export const SHORT_PACKET_LIMIT = 64 * 1024;

const LENGTH_OCTETS = 4;

/** Packets from chunks, however they were cut. */
export class CommandDecoder {
  /** The newest chunk, read up to `#at`. */
  #chunk: Buffer = EMPTY;
  #at = 0;
  /** A packet that began in an earlier chunk: its first `#filled` octets. */
  #partial: Buffer | null = null;
  #filled = 0;
  /** Postfix repeats the same macros before each header and each piece of the body. */
  readonly #macros = new MacroReader();

  /** Takes the chunk over. Commands of earlier chunks should have been taken out by `next`; what was not is copied. */
  push(chunk: Buffer): void {
    this.#chunk =
      this.#at === this.#chunk.length ? chunk : Buffer.concat([this.#chunk.subarray(this.#at), chunk]);
    this.#at = 0;
  }

  /**
   * The next command; null when more bytes are needed.
   *
   * @throws {ProtocolError}
   */
  next(): Command | null {
    if (this.#partial !== null) return this.#resume(this.#partial);
    const held = this.#chunk.length - this.#at;
    if (held > LENGTH_OCTETS) {
      const size = packetSize(this.#chunk, this.#at);
      if (held >= size) {
        const start = this.#at + LENGTH_OCTETS;
        this.#at += size;
        return decode(this.#chunk, start, this.#at, this.#macros);
      }
    }
    if (held > 0) this.#keep(held);
    // The chunk is done with, and its memory free to go.
    this.#chunk = EMPTY;
    this.#at = 0;
    return null;
  }

  /** Begins a packet whose end has not come. Room is taken for what is there, not for what its length promises, and not for more than that either. */
  #keep(held: number): void {
    let room = Math.max(2 * held, LENGTH_OCTETS + 1);
    if (held >= LENGTH_OCTETS) {
      const length = this.#chunk.readUInt32BE(this.#at);
      checkLength(length);
      room = Math.min(room, LENGTH_OCTETS + length);
    }
    this.#partial = Buffer.allocUnsafeSlow(room);
    this.#chunk.copy(this.#partial, 0, this.#at);
    this.#filled = held;
  }

  #resume(partial: Buffer): Command | null {
    // The command byte first: the limit depends on it.
    if (!this.#fill(partial, LENGTH_OCTETS + 1)) {
      if (this.#filled >= LENGTH_OCTETS) checkLength(partial.readUInt32BE(0));
      return null;
    }
    const size = packetSize(partial, 0);
    const roomy = this.#grow(partial, size);
    if (!this.#fill(roomy, size)) return null;
    this.#partial = null;
    return decode(roomy, LENGTH_OCTETS, size, this.#macros);
  }

  /** Copies from the chunk until `wanted` octets are filled; false when the chunk ended before. */
  #fill(partial: Buffer, wanted: number): boolean {
    if (this.#filled < wanted) {
      const copied = this.#chunk.copy(
        partial,
        this.#filled,
        this.#at,
        this.#at + Math.min(wanted - this.#filled, this.#chunk.length - this.#at),
      );
      this.#filled += copied;
      this.#at += copied;
    }
    return this.#filled >= wanted;
  }

  /** Room for what the chunk holds of the packet, at least doubled each time so that the copying stays linear. */
  #grow(partial: Buffer, size: number): Buffer {
    const needed = Math.min(size, this.#filled + this.#chunk.length - this.#at);
    if (needed <= partial.length) return partial;
    const roomy = Buffer.allocUnsafeSlow(Math.min(size, Math.max(needed, 2 * partial.length)));
    partial.copy(roomy, 0, 0, this.#filled);
    this.#partial = roomy;
    return roomy;
  }
}

/** Octets of the packet at `at`, its length included; the command byte must be there. */
function packetSize(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32BE(at);
  checkLength(length);
  if (length > SHORT_PACKET_LIMIT) {
    if (!carriesContent(bytes.readUInt8(at + LENGTH_OCTETS))) {
      throw new ProtocolError('packet-length', `a short command of ${length} octets`);
    }
  }
  return LENGTH_OCTETS + length;
}

function checkLength(length: number): void {
  if (length === 0) throw new ProtocolError('packet-length', 'a packet without a command');
  if (length > PACKET_LIMIT) throw new ProtocolError('packet-length', `a packet of ${length} octets`);
}
