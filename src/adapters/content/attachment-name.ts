import type { AttachmentType } from '../../ports/content-scanner.ts';

/** Extensions of what people take for harmless; a second one behind it is what counts. */
const HARMLESS = new Set(
  'pdf doc docx xls xlsx ppt pptx odt ods odp rtf txt csv jpg jpeg png gif bmp tif tiff svg mp3 mp4 avi mov wav zip rar 7z htm html eml msg ics'.split(
    ' ',
  ),
);
/** Extensions of what systems run, or mount, when it is opened. */
const DANGEROUS = new Set(
  'exe scr com bat cmd pif cpl msi msp dll js jse vbs vbe wsf wsh wsc sct hta lnk url ps1 psm1 jar reg inf chm iso img vhd vhdx udf one application gadget scf appx msix docm dotm xlsm xltm xlam pptm potm ppam ppsm sh run desktop app dmg pkg apk html htm shtml svg'.split(
    ' ',
  ),
);

/** What octets must be when the name or the Content-Type says so. */
const EXPECTED = new Map<string, AttachmentType>([
  ...named('pdf', ['pdf', 'application/pdf', 'application/x-pdf']),
  ...named(
    'image',
    'jpg jpeg png gif bmp tif tiff image/jpeg image/png image/gif image/bmp image/tiff'.split(' '),
  ),
  ...named('rtf', ['rtf', 'application/rtf', 'text/rtf']),
  ...named(
    'archive',
    'zip rar 7z gz tgz bz2 xz tar cab application/zip application/gzip application/x-rar-compressed application/x-7z-compressed'.split(
      ' ',
    ),
  ),
  ...named(
    'office',
    'docx xlsx pptx docm xlsm pptm odt ods odp xls ppt application/msword application/vnd.ms-excel application/vnd.ms-powerpoint'.split(
      ' ',
    ),
  ),
]);
/** Text is none of these. */
const NO_TEXT: ReadonlySet<AttachmentType> = new Set([
  'executable',
  'java',
  'office',
  'office-macro',
  'archive',
  'pdf',
  'disk-image',
  'image',
]);

/** As a file system sees it: without a path, and without the dots and blanks at its end that Windows drops. */
export function fileName(name: string): string {
  const clean = name.normalize('NFKC').replaceAll(/[\p{Default_Ignorable_Code_Point}\p{Cc}]+/gu, '');
  const base = clean.slice(Math.max(clean.lastIndexOf('/'), clean.lastIndexOf('\\')) + 1);
  let end = base.length;
  while (end > 0 && (base[end - 1] === '.' || base[end - 1] === ' ')) end--;
  return base.slice(0, end).toLowerCase();
}

/** The last extension without its dot, in lower case; empty: there is none. @param file a `fileName` */
export function extensionOf(file: string): string {
  const dot = file.lastIndexOf('.');
  return dot === -1 ? '' : file.slice(dot + 1).trim();
}

/** `invoice.pdf.exe`, `invoice.pdf      .exe`. @param file a `fileName` */
export function hasDoubleExtension(file: string): boolean {
  const last = extensionOf(file);
  if (!DANGEROUS.has(last)) return false;
  return HARMLESS.has(extensionOf(file.slice(0, file.lastIndexOf('.')).trimEnd()));
}

/** What it says it is, and is not; null: it is what it says, as far as anybody can tell. */
export function mismatchOf(
  declared: string,
  files: readonly string[],
  detected: readonly AttachmentType[],
): string | null {
  if (detected.length === 0) return null;
  for (const claim of [declared, ...files.map(extensionOf)]) {
    const expected = EXPECTED.get(claim);
    const wrong =
      expected === undefined
        ? isText(claim) && detected.some((type) => NO_TEXT.has(type))
        : !detected.includes(expected) && !isKin(expected, detected);
    if (wrong) return `${claim} that is ${detected.join(', ')}`;
  }
  return null;
}

/** Old Word wrote RTF under its own name, and took it; documents of today are zip archives. */
function isKin(expected: AttachmentType, detected: readonly AttachmentType[]): boolean {
  if (expected === 'office') return detected.includes('rtf');
  return expected === 'archive' && (detected.includes('office') || detected.includes('java'));
}

function isText(claim: string): boolean {
  return claim === 'txt' || claim === 'csv' || claim === 'text/plain' || claim === 'text/csv';
}

function named(type: AttachmentType, claims: readonly string[]): [string, AttachmentType][] {
  return claims.map((claim) => [claim, type]);
}
