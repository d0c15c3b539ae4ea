import { isUtf8 } from 'node:buffer';
import { inflateRawSync } from 'node:zlib';

/** Of one archive; of more, the first ones are looked at. */
const ENTRY_LIMIT = 10_000;
/** What one archive within another may come to, and all of them together. */
export const NESTED_OCTETS_LIMIT = 16 * 1024 * 1024;

/** APPNOTE.TXT §4.3.16: the record with its longest comment. */
const END_OCTETS = 22;
const END_REACH = END_OCTETS + 65_535;
const END_SIGNATURE = Buffer.from('PK\x05\x06', 'latin1');
const END_64_SIGNATURE = 0x06064b50;
const LOCATOR_64_SIGNATURE = 0x07064b50;
const LOCATOR_64_OCTETS = 20;
const CENTRAL_SIGNATURE = 0x02014b50;
const CENTRAL_OCTETS = 46;
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_OCTETS = 30;
const UTF8_NAME = 0x800;
const ENCRYPTED = 0x1;
const MASKED = 0x2000;
const STORED = 0;
const DEFLATED = 8;
const AES = 99;

export interface ZipEntry {
  readonly name: string;
  readonly encrypted: boolean;
  readonly method: number;
  readonly compressedSize: number;
  /** Of its local header, from the beginning of the archive's octets. */
  readonly at: number;
}

export type ZipDirectory =
  | { readonly ok: true; readonly entries: readonly ZipEntry[]; readonly complete: boolean }
  | { readonly ok: false };

/** The names in a zip archive as its directory tells them. Nothing is inflated. */
export function readZipDirectory(archive: Buffer): ZipDirectory {
  const end = archive.lastIndexOf(END_SIGNATURE);
  if (end === -1 || archive.length - end > END_REACH || end + END_OCTETS > archive.length)
    return { ok: false };
  let count = archive.readUInt16LE(end + 10);
  let size = archive.readUInt32LE(end + 12);
  let offset = archive.readUInt32LE(end + 16);
  let directoryEnd = end;
  const large = zip64(archive, end);
  if (large !== null && (count === 0xffff || size === 0xffff_ffff || offset === 0xffff_ffff)) {
    ({ count, size, offset } = large);
    directoryEnd = large.at;
  }
  // What stands before the archive (a program that unpacks it) moves all offsets.
  const first = directoryEnd - size;
  if (first < 0) return { ok: false };
  const prefix = Math.max(0, first - offset);
  const entries: ZipEntry[] = [];
  let at = first;
  // The count is not believed: some readers go by the records.
  while (at + CENTRAL_OCTETS <= directoryEnd && archive.readUInt32LE(at) === CENTRAL_SIGNATURE) {
    if (entries.length >= ENTRY_LIMIT) return { ok: true, entries, complete: false };
    const flags = archive.readUInt16LE(at + 8);
    const method = archive.readUInt16LE(at + 10);
    const nameLength = archive.readUInt16LE(at + 28);
    const extra = archive.readUInt16LE(at + 30);
    const comment = archive.readUInt16LE(at + 32);
    const name = archive.subarray(at + CENTRAL_OCTETS, at + CENTRAL_OCTETS + nameLength);
    entries.push({
      name: (flags & UTF8_NAME) !== 0 || isUtf8(name) ? name.toString('utf8') : name.toString('latin1'),
      encrypted: (flags & (ENCRYPTED | MASKED)) !== 0 || method === AES,
      method,
      compressedSize: archive.readUInt32LE(at + 20),
      at: prefix + archive.readUInt32LE(at + 42),
    });
    at += CENTRAL_OCTETS + nameLength + extra + comment;
  }
  return {
    ok: true,
    entries,
    complete: at === directoryEnd && (count & 0xffff) === (entries.length & 0xffff),
  };
}

/** The octets of one entry, if they come to no more than `limit`; null: they do not, or can't be had. */
export function readZipEntry(archive: Buffer, entry: ZipEntry, limit: number): Buffer | null {
  const { at, method, compressedSize, encrypted } = entry;
  if (encrypted || at + LOCAL_OCTETS > archive.length || archive.readUInt32LE(at) !== LOCAL_SIGNATURE)
    return null;
  const from = at + LOCAL_OCTETS + archive.readUInt16LE(at + 26) + archive.readUInt16LE(at + 28);
  const octets = archive.subarray(from, from + compressedSize);
  switch (method) {
    case STORED:
      return octets.length <= limit ? octets : null;
    case DEFLATED:
      try {
        return inflateRawSync(octets, { maxOutputLength: Math.max(1, limit) });
      } catch {
        // Too much, or broken: both mean that nobody knows what it is.
        return null;
      }
    default:
      return null;
  }
}

interface Large {
  readonly count: number;
  readonly size: number;
  readonly offset: number;
  readonly at: number;
}

/** APPNOTE.TXT §4.3.14, for archives that want it though they are small. */
function zip64(archive: Buffer, end: number): Large | null {
  const locator = end - LOCATOR_64_OCTETS;
  if (locator < 0 || archive.readUInt32LE(locator) !== LOCATOR_64_SIGNATURE) return null;
  const at = Number(archive.readBigUInt64LE(locator + 8));
  if (at + 56 > locator || archive.readUInt32LE(at) !== END_64_SIGNATURE) return null;
  return {
    count: Number(archive.readBigUInt64LE(at + 32)),
    size: Number(archive.readBigUInt64LE(at + 40)),
    offset: Number(archive.readBigUInt64LE(at + 48)),
    at,
  };
}
