import type { HeaderList } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';

/** Where in a message a text stands. */
export const TEXT_PLACES = ['subject', 'body', 'attachment-names', 'headers'] as const;

export type TextPlace = (typeof TEXT_PLACES)[number];

/** What the octets of an attachment say that it is, whatever its name and Content-Type claim. */
export const ATTACHMENT_TYPES = [
  'executable',
  'script',
  'java',
  'office',
  'office-macro',
  'rtf',
  'pdf',
  'archive',
  'disk-image',
  'image',
  'html',
] as const;

export type AttachmentType = (typeof ATTACHMENT_TYPES)[number];

/** What can't be looked into without a password or a key. */
export const ENCRYPTED_KINDS = ['archive', 'document', 'mail'] as const;

export type EncryptedKind = (typeof ENCRYPTED_KINDS)[number];

/** What is looked for in attachments: any of these is a hit. */
export interface AttachmentConditions {
  /** In lower case, without the dot. */
  readonly extensions: readonly string[];
  readonly types: readonly AttachmentType[];
  readonly encrypted: readonly EncryptedKind[];
  /** `invoice.pdf.exe` */
  readonly doubleExtension: boolean;
  /** Content-Type or extension says something else than the octets. */
  readonly mismatch: boolean;
  /** Whether what stands in archives counts as an attachment. */
  readonly insideArchives: boolean;
}

/** One rule as the scanner needs it; what follows from a hit is not its affair. */
export interface ContentRule {
  /** With `*` at an end: whatever stands there may be part of a longer word. */
  readonly words: readonly string[];
  /** In RE2's syntax, which is matched in linear time. */
  readonly patterns: readonly string[];
  readonly where: readonly TextPlace[];
  /** Whether letters that look alike are the same in `words`. */
  readonly homoglyphs: boolean;
  /** Words and patterns count when so many are found. */
  readonly minMatches: number;
  readonly attachments: AttachmentConditions;
}

export interface ContentQuestion {
  /** All rules there are: always the same object, so that they are prepared once. */
  readonly rules: readonly ContentRule[];
  /** Positions of those that concern this message. */
  readonly wanted: readonly number[];
  readonly headers: HeaderList;
  readonly body: Body;
  /** So much of the body is scanned. */
  readonly bodyOctets: number;
}

export interface ContentHit {
  /** Position in `rules`. */
  readonly rule: number;
  /** One line; words that were found are masked in it. */
  readonly detail: string;
}

export interface ContentAnswer {
  readonly hits: readonly ContentHit[];
  /** What could not be read as it was meant, in words. */
  readonly unparsable: readonly string[];
  /** What was too much to be looked at to its end, in words. */
  readonly tooLarge: readonly string[];
}

/** Looks into the decoded content of messages, outside the thread that serves mail. */
export interface ContentScanner {
  /** @throws {NeighbourError} when it could not be looked at */
  scan(question: ContentQuestion, signal: AbortSignal): Promise<ContentAnswer>;
}
