import type { AttachmentType, EncryptedKind } from '../../ports/content-scanner.ts';
import { readZipDirectory, type ZipEntry } from './zip-directory.ts';

/** What octets say of themselves. */
export interface Detected {
  readonly types: readonly AttachmentType[];
  readonly encrypted: EncryptedKind | null;
  /** Of a zip archive. */
  readonly entries: readonly ZipEntry[];
  /** Why not everything in it is known; null: it is. */
  readonly doubt: string | null;
}

const NOTHING: Detected = { types: [], encrypted: null, entries: [], doubt: null };

/** Octets at the beginning, or the end, in which what tells a format is looked for. */
const REACH = 4096;

const OLE = Buffer.from([0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]);
/** Names of streams in a compound file are UTF-16 ([MS-CFB] §2.6.1). */
const OLE_MACROS = [utf16('_VBA_PROJECT'), utf16('Macros'), utf16('_VBA_PROJECT_CUR')];
const OLE_ENCRYPTED = utf16('EncryptedPackage');
const PDF_ENCRYPTED = Buffer.from('/Encrypt');
/** Coder 06 F1 07 01: AES-256 with SHA-256 (7-Zip's Methods.txt). */
const SEVEN_ZIP_AES = Buffer.from([0x06, 0xf1, 0x07, 0x01]);

const MAGIC: readonly (readonly [string, number, readonly AttachmentType[]])[] = [
  ['MZ', 0, ['executable']],
  ['\x7fELF', 0, ['executable']],
  ['\xfe\xed\xfa\xce', 0, ['executable']],
  ['\xfe\xed\xfa\xcf', 0, ['executable']],
  ['\xcf\xfa\xed\xfe', 0, ['executable']],
  ['\xce\xfa\xed\xfe', 0, ['executable']],
  ['\xca\xfe\xba\xbe', 0, ['executable', 'java']],
  ['L\0\0\0\x01\x14\x02\0', 0, ['executable']],
  ['#!', 0, ['script']],
  ['{\\rt', 0, ['rtf']],
  ['%PDF-', 0, ['pdf']],
  ['Rar!\x1a\x07', 0, ['archive']],
  ["7z\xbc\xaf'\x1c", 0, ['archive']],
  ['\x1f\x8b', 0, ['archive']],
  ['BZh', 0, ['archive']],
  ['\xfd7zXZ\0', 0, ['archive']],
  ['(\xb5/\xfd', 0, ['archive']],
  ['MSCF', 0, ['archive']],
  ['`\xea', 0, ['archive']],
  ['ustar', 257, ['archive']],
  ['CD001', 32_769, ['disk-image']],
  ['vhdxfile', 0, ['disk-image']],
  ['conectix', 0, ['disk-image']],
  ['\x89PNG\r\n\x1a\n', 0, ['image']],
  ['\xff\xd8\xff', 0, ['image']],
  ['GIF8', 0, ['image']],
  ['BM', 0, ['image']],
  ['II*\0', 0, ['image']],
  ['MM\0*', 0, ['image']],
];

const HTML = /^\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--|<!doctype html|<html|<head|<body|<script|<svg)/i;

/** What kind of file it is, by its octets. */
export function detectType(octets: Buffer): Detected {
  if (octets.length === 0) return NOTHING;
  if (octets.subarray(0, OLE.length).equals(OLE)) return compoundFile(octets);
  if (starts(octets, 'PK\x03\x04') || starts(octets, 'PK\x05\x06')) return zip(octets);
  const found = MAGIC.find(([mark, at]) => starts(octets, mark, at));
  if (found === undefined) {
    // Readers take a PDF whose mark comes late. ISO 32000-1, implementation note 13.
    if (octets.subarray(0, 1024).includes('%PDF-')) return pdf(octets);
    const head = octets.toString('latin1', 0, 1024).replace(/^\xef\xbb\xbf/, '');
    return HTML.test(head) ? { ...NOTHING, types: ['html'] } : NOTHING;
  }
  const [mark, , types] = found;
  // Two letters are not much: a text may begin so.
  if (mark === 'MZ' && octets.length < 64) return NOTHING;
  if (mark === 'BM' && (octets.length < 26 || octets.readUInt32LE(6) !== 0)) return NOTHING;
  if (types.includes('pdf')) return pdf(octets);
  if (mark === 'Rar!\x1a\x07')
    return { ...NOTHING, types, encrypted: rarEncrypted(octets) ? 'archive' : null };
  if (mark.startsWith('7z')) {
    const tail = octets.subarray(-REACH);
    return { ...NOTHING, types, encrypted: tail.includes(SEVEN_ZIP_AES) ? 'archive' : null };
  }
  return { ...NOTHING, types };
}

function pdf(octets: Buffer): Detected {
  return { ...NOTHING, types: ['pdf'], encrypted: octets.includes(PDF_ENCRYPTED) ? 'document' : null };
}

function compoundFile(octets: Buffer): Detected {
  if (octets.includes(OLE_ENCRYPTED)) return { ...NOTHING, types: ['office'], encrypted: 'document' };
  const macros = OLE_MACROS.some((name) => octets.includes(name));
  return { ...NOTHING, types: macros ? ['office', 'office-macro'] : ['office'] };
}

const MACRO_ENTRY = /(?:^|\/)vbaproject\.bin$|^xl\/macrosheets\/|^basic\/.*\.x(?:lb|ml)$|^scripts\//i;
const OFFICE_ENTRY = /^(?:\[content_types\]\.xml|word\/|xl\/|ppt\/|content\.xml$)/i;

function zip(octets: Buffer): Detected {
  const directory = readZipDirectory(octets);
  if (!directory.ok) return { ...NOTHING, types: ['archive'], doubt: 'a zip archive without a directory' };
  const { entries, complete } = directory;
  const types: AttachmentType[] = [];
  const has = (pattern: RegExp): boolean => entries.some(({ name }) => pattern.test(name));
  if (has(OFFICE_ENTRY)) types.push('office');
  if (has(MACRO_ENTRY)) types.push('office-macro');
  if (has(/^META-INF\/MANIFEST\.MF$/i)) types.push('java');
  // A document is an archive to a zip program, and to nobody else.
  if (types.length === 0) types.push('archive');
  return {
    types,
    encrypted: entries.some(({ encrypted }) => encrypted) ? 'archive' : null,
    entries,
    doubt: complete ? null : 'a zip archive whose directory is broken or too long',
  };
}

/** RAR 1.5 to 4: TechNote.txt; RAR 5: "RAR 5.0 archive format". */
function rarEncrypted(octets: Buffer): boolean {
  if (octets[6] === 0x01) return rar5Encrypted(octets);
  let at = 7;
  for (let block = 0; block < 1000 && at + 11 <= octets.length; block++) {
    const type = octets[at + 2];
    const flags = octets.readUInt16LE(at + 3);
    if (type === 0x73 && (flags & 0x80) !== 0) return true;
    if (type === 0x74 && (flags & 0x04) !== 0) return true;
    const long = (flags & 0x8000) !== 0 || type === 0x74;
    const size = octets.readUInt16LE(at + 5) + (long ? octets.readUInt32LE(at + 7) : 0);
    if (size === 0) return false;
    at += size;
  }
  return false;
}

function rar5Encrypted(octets: Buffer): boolean {
  let at = 8;
  for (let block = 0; block < 1000 && at + 7 <= octets.length; block++) {
    const reader = new VarReader(octets, at + 4);
    const headerSize = reader.next();
    const headerFrom = reader.at;
    const type = reader.next();
    // 4: the headers themselves are encrypted.
    if (type === 4) return true;
    const flags = reader.next();
    const extra = (flags & 1) !== 0 ? reader.next() : 0;
    const data = (flags & 2) !== 0 ? reader.next() : 0;
    const headerEnd = headerFrom + headerSize;
    if (type === 2 && extra > 0 && headerEnd <= octets.length) {
      const records = new VarReader(octets, headerEnd - extra);
      while (records.at < headerEnd) {
        const size = records.next();
        const next = records.at + size;
        // 1: file encryption.
        if (records.next() === 1) return true;
        if (size === 0) break;
        records.at = next;
      }
    }
    if (headerSize === 0 || !Number.isSafeInteger(headerEnd + data)) return false;
    at = headerEnd + data;
  }
  return false;
}

/** Numbers of seven bits an octet, the lowest first. */
class VarReader {
  at: number;
  readonly #octets: Buffer;

  constructor(octets: Buffer, at: number) {
    this.#octets = octets;
    this.at = Math.max(0, at);
  }

  next(): number {
    let value = 0;
    for (let factor = 1, count = 0; count < 7; count++, factor *= 128) {
      const octet = this.#octets[this.at++] ?? 0;
      value += (octet & 0x7f) * factor;
      if (octet < 0x80) break;
    }
    return value;
  }
}

function starts(octets: Buffer, mark: string, at = 0): boolean {
  return octets.length >= at + mark.length && octets.toString('latin1', at, at + mark.length) === mark;
}

function utf16(text: string): Buffer {
  return Buffer.from(text, 'utf16le');
}
