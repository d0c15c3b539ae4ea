import { printable } from '../../mail/reply.ts';
import type { AttachmentConditions, EncryptedKind } from '../../ports/content-scanner.ts';
import { extensionOf, fileName, hasDoubleExtension, mismatchOf } from './attachment-name.ts';
import { detectType, type Detected } from './attachment-type.ts';
import type { MessageContent } from './message-content.ts';
import { NOTE_LIMIT } from './mime-limits.ts';
import type { MimeNotes } from './mime-walk.ts';
import { NESTED_OCTETS_LIMIT, readZipEntry } from './zip-directory.ts';

/** Archives in archives: these are opened, those in them are not. */
const ARCHIVE_DEPTH = 2;
/** Archives within others that are opened, of one message. */
const NESTED_LIMIT = 50;
/** Names and archives of all attachments together. */
const FILE_LIMIT = 20_000;
/** Of a name that is shown. */
const NAME_SHOWN = 60;
const ZIP_EXTENSIONS = new Set(
  'zip jar docx docm dotx dotm xlsx xlsm xltx xltm xlam pptx pptm potx potm ppsx ppsm odt ods odp'.split(' '),
);

/** A file, attached or in an archive that is. */
interface File {
  readonly names: readonly string[];
  /** As a Content-Type field says; empty in an archive. */
  readonly declared: string;
  /** null: it was not looked into. */
  readonly detected: Detected | null;
  readonly inside: boolean;
}

/** The attachments of one message; they are looked into once, when the first rule asks. */
export class AttachmentExaminer {
  readonly #content: MessageContent;
  readonly #notes: MimeNotes;
  #files: readonly File[] | null = null;

  constructor(content: MessageContent, notes: MimeNotes) {
    this.#content = content;
    this.#notes = notes;
  }

  /** What of an attachment meets one of the conditions; null: nothing does. */
  find(conditions: AttachmentConditions): string | null {
    if (!asksAnything(conditions)) return null;
    if (this.#content.encrypted && conditions.encrypted.includes('mail')) return 'the message is encrypted';
    this.#files ??= this.#gather();
    for (const file of this.#files) {
      if (file.inside && !conditions.insideArchives) continue;
      const what = meets(file, conditions);
      if (what !== null) return `attachment "${printable(file.names[0] ?? '', NAME_SHOWN)}": ${what}`;
    }
    return null;
  }

  #gather(): readonly File[] {
    const files: File[] = [];
    const budget = { octets: NESTED_OCTETS_LIMIT, archives: NESTED_LIMIT };
    for (const { names, type, octets } of this.#content.attachments) {
      const detected = detectType(octets);
      files.push({ names: names.map(fileName), declared: type, detected, inside: false });
      this.#open(octets, detected, 1, budget, files);
    }
    return files;
  }

  #open(
    archive: Buffer,
    { entries, doubt }: Detected,
    depth: number,
    budget: { octets: number; archives: number },
    files: File[],
  ): void {
    if (doubt !== null) this.#note(doubt);
    for (const entry of entries) {
      if (files.length >= FILE_LIMIT) {
        this.#notes.tooLarge.add(`archives with more than ${FILE_LIMIT} files`);
        return;
      }
      const name = fileName(entry.name);
      const nested = !entry.encrypted && ZIP_EXTENSIONS.has(extensionOf(name));
      let inner: Buffer | null = null;
      if (nested) {
        if (depth >= ARCHIVE_DEPTH) this.#note(`archives more than ${ARCHIVE_DEPTH} deep`);
        else if (budget.archives-- <= 0) this.#note(`more than ${NESTED_LIMIT} archives in archives`);
        else {
          inner = readZipEntry(archive, entry, budget.octets);
          if (inner === null) this.#note('an archive in an archive that is broken or too large');
          else budget.octets -= inner.length;
        }
      }
      const detected = inner === null ? null : detectType(inner);
      files.push({ names: [name], declared: '', detected, inside: true });
      if (inner !== null && detected !== null) this.#open(inner, detected, depth + 1, budget, files);
    }
  }

  #note(text: string): void {
    if (this.#notes.unparsable.size < NOTE_LIMIT) this.#notes.unparsable.add(text);
  }
}

function meets(file: File, conditions: AttachmentConditions): string | null {
  const { names, declared, detected } = file;
  for (const name of names) {
    const extension = extensionOf(name);
    if (conditions.extensions.includes(extension)) return `extension ${extension}`;
    if (conditions.doubleExtension && hasDoubleExtension(name)) return 'double extension';
  }
  if (detected === null) return null;
  const type = detected.types.find((known) => conditions.types.includes(known));
  if (type !== undefined) return `type ${type}`;
  const { encrypted } = detected;
  if (encrypted !== null && conditions.encrypted.includes(encrypted)) return ENCRYPTED_WORDS[encrypted];
  if (!conditions.mismatch) return null;
  return mismatchOf(declared, names, detected.types);
}

const ENCRYPTED_WORDS: Readonly<Record<EncryptedKind, string>> = {
  archive: 'encrypted archive',
  document: 'encrypted document',
  mail: 'encrypted mail',
};

function asksAnything(conditions: AttachmentConditions): boolean {
  const { extensions, types, encrypted, doubleExtension, mismatch } = conditions;
  return extensions.length + types.length + encrypted.length > 0 || doubleExtension || mismatch;
}
