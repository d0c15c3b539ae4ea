import { foldedValue, LINE_LIMIT } from '../mail/fold.ts';
import { unfold } from '../mail/header.ts';

/** Keeps the subject as it was, as SpamAssassin does. */
export const PREVIOUS_SUBJECT = 'X-Spam-Prev-Subject';

/** What SpamAssassin writes there for a message that had no subject. */
const NONEXISTENT = '(nonexistent)';

export interface SubjectQuestion {
  /** Values of the Subject fields, top first. */
  readonly subjects: readonly string[];
  /** Value of the topmost X-Spam-Prev-Subject; null when there is none. */
  readonly previous: string | null;
  /** Whether `previous` was written by us. */
  readonly trusted: boolean;
  /** Whether our milter has been at this message: what it tagged without a previous subject stays without (a report, see spam-wrapper). */
  readonly handled: boolean;
  /** The tag; empty: the subject is to be as the sender wrote it. */
  readonly tag: string;
}

export interface SubjectAnswer {
  /** Values for the Subject fields, as many as there were or, when there were none and one is to be added, one. */
  readonly subjects: readonly string[];
  /** Value for X-Spam-Prev-Subject; null: none. */
  readonly previous: string | null;
}

/** What the subject is to be, whether or not it was tagged on the way here. */
export function tagSubject(question: SubjectQuestion): SubjectAnswer {
  const { subjects, previous, trusted, handled } = question;
  const [first, ...others] = subjects;
  const tag = encodeTag(question.tag.trim());
  // A subject may really read so; then it still does behind the tag.
  const missing =
    previous !== null && unfold(previous) === NONEXISTENT && first?.includes(NONEXISTENT) !== true;
  if (tag === '') {
    // Tagged at an earlier stage, by rules that are not this recipient's.
    if (!trusted || previous === null || first === undefined) return { subjects, previous: null };
    return { subjects: missing ? others : [previous, ...others], previous: null };
  }
  // With the space behind it, as SpamAssassin leaves it.
  if (first === undefined) return { subjects: [` ${tag} `], previous: ` ${NONEXISTENT}` };
  const original = missing ? '' : previous;
  // A previous subject that tells the truth is kept, whoever wrote it: tagging a message twice is as tagging it once.
  // It is compared as it can be written: the previous subject has no octets that a field must not have.
  const truth = original !== null && unfold(tagged(tag, original)) === unfold(foldedValue(first));
  const base = original !== null && (truth || trusted) ? original : first;
  const result = truth ? first : tagged(tag, base);
  const rest = others.map((subject) => tagged(tag, subject));
  if (handled && previous === null && result === base) return { subjects: [result, ...rest], previous: null };
  return { subjects: [result, ...rest], previous: base === first ? previousValue(base) : previous };
}

function tagged(tag: string, value: string): string {
  const text = foldedValue(value);
  const words = unfold(text);
  if (words.startsWith(tag)) return value;
  if (words === '') return ` ${tag} `;
  const spaced = /^[\t\r ]/.test(text) ? text : ` ${text}`;
  const firstLine = 'Subject: '.length + tag.length + `${spaced}\r`.indexOf('\r');
  // A line that the tag would make too long is folded behind the tag.
  return firstLine > LINE_LIMIT ? ` ${tag}\r\n${spaced}` : ` ${tag}${spaced}`;
}

/** The longer name must not make a line too long either. */
function previousValue(subject: string): string {
  const firstLine = PREVIOUS_SUBJECT.length + 1 + `${subject}\r`.indexOf('\r');
  if (firstLine <= LINE_LIMIT) return subject;
  return /^[\t ]/.test(subject) ? `\r\n${subject}` : `\r\n ${subject}`;
}

/** A tag that is not US-ASCII, as encoded-words of at most 75 characters. RFC 2047 §2, §5. */
function encodeTag(tag: string): string {
  if (/^[\x20-\x7e]*$/.test(tag)) return tag;
  const words: string[] = [];
  let bytes = '';
  const close = (): void => {
    words.push(`=?UTF-8?B?${btoa(bytes)}?=`);
    bytes = '';
  };
  // White space between two encoded-words is not shown, so the space behind the tag goes inside.
  for (const char of `${tag.replaceAll(/\p{Cc}/gu, '?')} `) {
    const encoded = String.fromCharCode(...new TextEncoder().encode(char));
    if (bytes.length + encoded.length > 45) close();
    bytes += encoded;
  }
  close();
  return words.join(' ');
}
