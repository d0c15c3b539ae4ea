import { randomBytes } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { Examiner } from '../../../../src/adapters/content/examiner.ts';
import type { AttachmentConditions, ContentAnswer } from '../../../../src/ports/content-scanner.ts';
import { attachment, contentRule, entity, mixed, zipArchive, type ZipFile } from '../../../support/mime.ts';

const HEADER_OCTETS = 1 << 20;

const EXE = Buffer.concat([Buffer.from('MZ\x90\0', 'latin1'), Buffer.alloc(200)]);
const PDF = Buffer.from('%PDF-1.7\n1 0 obj\n<<>>\nendobj\n');
const OLE = Buffer.concat([Buffer.from([0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]), Buffer.alloc(600)]);

function examine(message: Buffer, attachments: Partial<AttachmentConditions>): ContentAnswer {
  return new Examiner([contentRule({ attachments })]).examine(message, HEADER_OCTETS, [0]);
}

/** What is said of one attachment; null: nothing. */
function found(
  name: string,
  octets: Uint8Array,
  conditions: Partial<AttachmentConditions>,
  type?: string,
): string | null {
  return examine(mixed([attachment(name, octets, type)]), conditions).hits[0]?.detail ?? null;
}

function withName(octets: Buffer, name: string): Buffer {
  return Buffer.concat([octets, Buffer.from(name, 'utf16le')]);
}

/** RAR 5: signature, then one block with these bytes. */
const rar5 = (block: readonly number[]): Buffer =>
  Buffer.from([...Buffer.from('Rar!\x1a\x07\x01\0', 'latin1'), 0, 0, 0, 0, ...block, 0, 0, 0, 0, 0, 0, 0]);
/** RAR 4: signature, then a main header with these flags. */
const rar4 = (flags: number): Buffer =>
  Buffer.from([...Buffer.from('Rar!\x1a\x07\0', 'latin1'), 0, 0, 0x73, flags, 0, 13, 0, 0, 0, 0, 0, 0, 0]);

const nested = (levels: number): Buffer => {
  let octets = zipArchive([{ name: 'docs/run.exe' }]);
  for (let level = 1; level < levels; level++) octets = zipArchive([{ name: 'in.zip', octets }]);
  return octets;
};

const many = (count: number): Buffer =>
  zipArchive(
    Array.from({ length: count }, (_, at): ZipFile => ({
      name: `f${at}`,
      stored: true,
      octets: Buffer.alloc(0),
    })),
  );

describe('by extension', () => {
  test.each([
    ['invoice.exe', true],
    ['INVOICE.EXE', true],
    ['invoice.exe.', true],
    ['invoice.exe . .', true],
    ['C:\\temp\\invoice.exe', true],
    ['invoice\u202efdp.exe', true],
    ['invoice.ｅｘｅ', true],
    ['invoice.e\u200bxe', true],
    ['invoice.exe.txt', false],
    ['exe', false],
  ])('%s: %s', (name, expected) => {
    const field = `attachment; filename*=utf-8''${encodeURIComponent(name)}`;
    const message = mixed([entity({ 'Content-Disposition': field }, 'x')]);
    expect(examine(message, { extensions: ['exe'] }).hits.length === 1).toBe(expected);
  });

  test('each name counts where there are several', () => {
    const fields = {
      'Content-Type': 'application/pdf; name="a.exe"',
      'Content-Disposition': 'attachment; filename="a.pdf"',
    };
    expect(examine(mixed([entity(fields, 'x')]), { extensions: ['exe'] }).hits).toEqual([
      { rule: 0, detail: 'attachment "a.pdf": extension exe' },
    ]);
  });

  test('in encoded-words, which are not allowed there', () => {
    const fields = { 'Content-Disposition': 'attachment; filename="=?utf-8?b?YS5leGU=?="' };
    expect(examine(mixed([entity(fields, 'x')]), { extensions: ['exe'] }).hits).toHaveLength(1);
  });
});

test.each([
  ['invoice.pdf.exe', true],
  ['invoice.pdf          .exe', true],
  ['photo.jpg.scr', true],
  ['page.doc.html', true],
  ['archive.tar.gz', false],
  ['report.v2.pdf', false],
  ['setup.exe', false],
  ['.exe', false],
])('a double extension: %s %s', (name, expected) => {
  expect(found(name, Buffer.from('x'), { doubleExtension: true }) !== null).toBe(expected);
});

describe('by type', () => {
  const macros = zipArchive([{ name: '[Content_Types].xml' }, { name: 'word/vbaProject.bin' }]);
  test.each([
    ['executable', 'a.txt', EXE],
    ['executable', 'a.txt', Buffer.from('\x7fELF\x02\x01\x01\0', 'latin1')],
    ['script', 'a.txt', Buffer.from('#!/bin/sh\n')],
    ['pdf', 'a.txt', PDF],
    ['pdf', 'a.txt', Buffer.concat([Buffer.alloc(900, ' '), PDF])],
    ['rtf', 'a.doc', Buffer.from('{\\rtf1 }')],
    ['office', 'a.doc', OLE],
    ['office-macro', 'a.doc', withName(OLE, '_VBA_PROJECT')],
    ['office', 'a.docx', zipArchive([{ name: '[Content_Types].xml' }, { name: 'word/document.xml' }])],
    ['office-macro', 'a.docx', macros],
    ['office-macro', 'a.zip', zipArchive([{ name: 'in/a.docm', octets: macros }])],
    ['java', 'a.jar', zipArchive([{ name: 'META-INF/MANIFEST.MF' }])],
    ['archive', 'a.bin', zipArchive([{ name: 'a.txt' }])],
    ['archive', 'a.bin', Buffer.from('\x1f\x8b\x08\0', 'latin1')],
    ['archive', 'a.bin', Buffer.concat([Buffer.alloc(257), Buffer.from('ustar\0'), Buffer.alloc(250)])],
    ['image', 'a.bin', Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')],
    ['html', 'a.txt', Buffer.from('\ufeff <!DOCTYPE html><p>')],
  ] as const)('%s', (type, name, octets) => {
    expect(found(name, octets, { types: [type] })).toContain(`type ${type}`);
  });

  test('text is none of them, though it may begin like one', () => {
    for (const text of ['MZ is a city', 'BMW sells cars, and more than 26 letters', 'PK', 'Hello']) {
      expect(
        found('a.txt', Buffer.from(text), { types: ['executable', 'image', 'archive', 'html'] }),
      ).toBeNull();
    }
  });
});

describe('encrypted', () => {
  test.each([
    ['zip', zipArchive([{ name: 'a.txt' }, { name: 'b.txt', encrypted: true }]), true],
    ['zip that is not', zipArchive([{ name: 'a.txt' }]), false],
    ['zip behind a program', Buffer.concat([EXE, zipArchive([{ name: 'a.txt', encrypted: true }])]), false],
    ['rar 5 headers', rar5([1, 4]), true],
    ['rar 5 file', rar5([6, 2, 1, 3, 2, 1, 0]), true],
    ['rar 5 that is not', rar5([2, 1, 0]), false],
    ['rar 4 headers', rar4(0x80), true],
    ['rar 4 that is not', rar4(0), false],
    ['7z', Buffer.concat([Buffer.from("7z\xbc\xaf'\x1c", 'latin1'), Buffer.from([6, 0xf1, 7, 1])]), true],
  ])('archive: %s', (_, octets, expected) => {
    expect(found('a.bin', octets, { encrypted: ['archive'] })).toBe(
      expected ? 'attachment "a.bin": encrypted archive' : null,
    );
  });

  test('documents and mails, each for itself', () => {
    const pdf = Buffer.concat([PDF, Buffer.from('trailer <</Encrypt 5 0 R>>')]);
    expect(found('a.pdf', pdf, { encrypted: ['document'] })).toContain('encrypted document');
    expect(found('a.docx', withName(OLE, 'EncryptedPackage'), { encrypted: ['document'] })).not.toBeNull();
    expect(found('a.pdf', pdf, { encrypted: ['archive', 'mail'] })).toBeNull();
    const smime = entity({ 'Content-Type': 'application/pkcs7-mime; smime-type=enveloped-data' }, 'x');
    expect(examine(smime, { encrypted: ['mail'] }).hits).toHaveLength(1);
    expect(examine(smime, { encrypted: ['archive', 'document'] }).hits).toEqual([]);
    const pgp = mixed([], { 'Content-Type': 'multipart/encrypted; boundary="=_b"' });
    expect(examine(pgp, { encrypted: ['mail'] }).hits).toHaveLength(1);
  });
});

test.each([
  ['a.pdf', 'application/pdf', PDF, null],
  ['a.pdf', 'application/pdf', EXE, 'application/pdf that is executable'],
  ['a.pdf', 'application/octet-stream', EXE, 'pdf that is executable'],
  ['a.txt', 'text/plain', EXE, 'text/plain that is executable'],
  ['a.jpg', 'image/jpeg', PDF, 'image/jpeg that is pdf'],
  ['a.bin', 'application/octet-stream', EXE, null],
  ['a.docx', 'application/zip', zipArchive([{ name: 'word/document.xml' }]), null],
  ['a.doc', 'application/msword', Buffer.from('{\\rtf1 }'), null],
  ['a.txt', 'text/plain', Buffer.from('hello'), null],
])('a mismatch: %s as %s', (name, type, octets, expected) => {
  const detail = found(name, octets, { mismatch: true }, type);
  expect(detail).toBe(expected === null ? null : `attachment "${name}": ${expected}`);
});

describe('inside zip archives', () => {
  const wanted = { extensions: ['exe'] };

  test('names count, unless they are not to', () => {
    expect(found('a.zip', nested(1), wanted)).toBe('attachment "run.exe": extension exe');
    expect(found('a.zip', nested(1), { ...wanted, insideArchives: false })).toBeNull();
    expect(
      found('a.zip', zipArchive([{ name: 'a.pdf.exe', encrypted: true }]), { doubleExtension: true }),
    ).not.toBeNull();
    expect(found('a.zip', Buffer.concat([Buffer.from('PK\x03\x04junk'), nested(1)]), wanted)).not.toBeNull();
  });

  test('archives in archives are opened to a depth of two', () => {
    expect(found('a.zip', nested(2), wanted)).not.toBeNull();
    const third = examine(mixed([attachment('a.zip', nested(3))]), wanted);
    expect(third).toEqual({ hits: [], unparsable: ['archives more than 2 deep'], tooLarge: [] });
  });

  test('an archive that would be too large is not inflated further', () => {
    const bomb = Buffer.alloc(16 * 1024 * 1024 + 1);
    const begun = process.memoryUsage().rss;
    const octets = zipArchive([{ name: 'bomb.zip', octets: bomb }]);
    const { unparsable } = examine(mixed([attachment('a.zip', octets)]), wanted);
    expect(unparsable).toEqual(['an archive in an archive that is broken or too large']);
    expect(process.memoryUsage().rss - begun).toBeLessThan(100 * 1024 * 1024);
    const allowed = zipArchive([{ name: 'large.zip', octets: bomb.subarray(1) }]);
    // It is no archive, but it was looked at.
    expect(examine(mixed([attachment('a.zip', allowed)]), wanted).unparsable).toEqual([]);
  });

  test('10,000 names are read, and one more is told of', () => {
    expect(examine(mixed([attachment('a.zip', many(10_000))]), wanted).unparsable).toEqual([]);
    expect(examine(mixed([attachment('a.zip', many(10_001))]), wanted).unparsable).toEqual([
      'a zip archive whose directory is broken or too long',
    ]);
  });

  test('without a directory is told of', () => {
    const whole = nested(1);
    expect(examine(mixed([attachment('a.zip', whole.subarray(0, -10))]), wanted).unparsable).toEqual([
      'a zip archive without a directory',
    ]);
  });

  test('whatever stands there, nothing fails', () => {
    const whole = zipArchive([{ name: 'in.zip', octets: nested(1) }, { name: 'b.txt' }]);
    for (let round = 0; round < 2000; round++) {
      const broken = Buffer.from(whole);
      for (const octet of randomBytes(4)) broken[Math.floor(Math.random() * broken.length)] = octet;
      expect(() => examine(mixed([attachment('a.zip', broken)]), wanted)).not.toThrow();
    }
  });
});
