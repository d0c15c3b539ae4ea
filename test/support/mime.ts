import { crc32, deflateRawSync } from 'node:zlib';

import type { AttachmentConditions, ContentRule } from '../../src/ports/content-scanner.ts';

/** Looks for nothing in attachments. */
const NO_CONDITIONS: AttachmentConditions = {
  extensions: [],
  types: [],
  encrypted: [],
  doubleExtension: false,
  mismatch: false,
  insideArchives: true,
};

/** A rule with what a test says of it. */
export function contentRule(
  values: Partial<Omit<ContentRule, 'attachments'>> & {
    readonly attachments?: Partial<AttachmentConditions>;
  },
): ContentRule {
  return {
    words: [],
    patterns: [],
    where: ['subject', 'body', 'attachment-names'],
    homoglyphs: false,
    minMatches: 1,
    ...values,
    attachments: { ...NO_CONDITIONS, ...values.attachments },
  };
}

/** Octets as base64 in lines of 76 characters. RFC 2045 §6.8. */
export function base64Lines(octets: Uint8Array): string {
  return Buffer.from(octets).toString('base64').replaceAll(/.{76}/g, '$&\r\n');
}

/** Header fields and a body, as octets. Strings are latin1. */
export function entity(fields: Readonly<Record<string, string>>, body: string | Uint8Array): Buffer {
  const head = Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
  const octets = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  return Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), octets]);
}

/** A multipart/mixed message with these parts. */
export function mixed(parts: readonly Buffer[], fields: Readonly<Record<string, string>> = {}): Buffer {
  const pieces = parts.flatMap((part) => [Buffer.from('--=_b\r\n'), part, Buffer.from('\r\n')]);
  return entity(
    { Subject: 'parts', 'MIME-Version': '1.0', 'Content-Type': 'multipart/mixed; boundary="=_b"', ...fields },
    Buffer.concat([...pieces, Buffer.from('--=_b--\r\n')]),
  );
}

/** An attachment in base64. */
export function attachment(name: string, octets: Uint8Array, type = 'application/octet-stream'): Buffer {
  return entity(
    {
      'Content-Type': type,
      'Content-Transfer-Encoding': 'base64',
      'Content-Disposition': `attachment; filename="${name}"`,
    },
    base64Lines(octets),
  );
}

export interface ZipFile {
  readonly name: string;
  readonly octets?: Uint8Array;
  readonly encrypted?: boolean;
  readonly stored?: boolean;
}

/** A zip archive. What is called encrypted has the flag, not the cipher. APPNOTE.TXT §4.3. */
export function zipArchive(files: readonly ZipFile[]): Buffer {
  const locals: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  for (const { name, octets = Buffer.from('content'), encrypted = false, stored = false } of files) {
    const packed = stored ? Buffer.from(octets) : deflateRawSync(octets);
    const path = Buffer.from(name, 'utf8');
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(0x800 | (encrypted ? 1 : 0), 2);
    common.writeUInt16LE(stored ? 0 : 8, 4);
    common.writeUInt32LE(crc32(octets), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(octets.length, 18);
    common.writeUInt16LE(path.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, path, packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(at, 10);
    central.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\0', 'latin1'), common, tail, path]));
    locals.push(local);
    at += local.length;
  }
  const directory = Buffer.concat(central);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...locals, directory, end]);
}
