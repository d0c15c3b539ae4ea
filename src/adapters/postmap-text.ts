import { lowerAscii } from '../mail/address.ts';

/** Postfix's table format, as postmap(1) reads it: `key whitespace value`. Strings here hold one byte per character (latin1). */

export interface PostmapEntry {
  /** In lower case: postmap(1) folds the keys of its tables. A quoted local part stays quoted. */
  readonly key: string;
  readonly value: string;
}

/** A line that postmap(1) would warn about and leave out. */
export interface PostmapFault {
  /** Where the logical line begins; counts from 1. */
  readonly line: number;
  readonly fault: string;
}

/** The longest logical line. A thousand targets of 254 characters each fit. */
export const LINE_LIMIT = 262_144;

/** The entries of a table's text in their order, and what is no entry. */
export function* postmapEntries(text: string): Generator<PostmapEntry | PostmapFault> {
  for (const { line, content } of logicalLines(text)) {
    if (content.length > LINE_LIMIT) {
      yield { line, fault: `a line of more than ${LINE_LIMIT} octets` };
      continue;
    }
    const end = endOfKey(content);
    if (end === null) {
      yield { line, fault: 'an odd number of quotes' };
      continue;
    }
    const value = trimmed(content.slice(end));
    if (value === '') yield { line, fault: 'a key without a value' };
    else yield { key: lowerAscii(content.slice(0, end)), value };
  }
}

interface LogicalLine {
  readonly line: number;
  readonly content: string;
}

/**
 * postconf(5), "file format": empty lines and those whose first character that is no white space is "#" are left out, wherever they
 * stand; a line that begins with white space continues the one before.
 */
function* logicalLines(text: string): Generator<LogicalLine> {
  let begun: { readonly line: number; readonly parts: string[] } | null = null;
  let line = 0;
  for (let start = 0; start < text.length;) {
    const feed = text.indexOf('\n', start);
    const end = feed === -1 ? text.length : feed;
    const raw = text.slice(start, end);
    start = end + 1;
    line += 1;
    const first = raw.search(/[^ \t\r\v\f]/);
    if (first === -1 || raw[first] === '#') continue;
    if (first > 0) {
      // Continues nothing at the top of the file: postmap(1) leaves such a line out.
      begun?.parts.push(raw);
      continue;
    }
    if (begun !== null) yield { line: begun.line, content: begun.parts.join('') };
    begun = { line, parts: [raw] };
  }
  if (begun !== null) yield { line: begun.line, content: begun.parts.join('') };
}

/** Where the first white space outside of quotes stands; null: a quote is not closed. */
function endOfKey(content: string): number | null {
  let quoted = false;
  for (let at = 0; at < content.length; at += 1) {
    const character = content[at] ?? '';
    if (character === '\\') at += 1;
    else if (character === '"') quoted = !quoted;
    else if (!quoted && /\s/.test(character)) return at;
  }
  return quoted ? null : content.length;
}

function trimmed(text: string): string {
  return text.replaceAll(/^[ \t\r\v\f]+|[ \t\r\v\f]+$/g, '');
}
