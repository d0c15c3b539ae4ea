/** A place in the file; both count from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** One mistake in the configuration: where it is, what is wrong, and what would be right. */
export interface Problem {
  readonly file: string;
  /** null: the file as a whole. */
  readonly position: Position | null;
  /** Path of the key such as `policyd.listen`; empty when no key is meant. */
  readonly key: string;
  readonly wrong: string;
  /** "expected …", or what to do about it. */
  readonly remedy: string;
}

/** `postern.toml:12:9: policyd.listen: found "10040"; expected "host:port" …` */
export function formatProblem(problem: Problem): string {
  const { file, position, key, wrong, remedy } = problem;
  const where = position === null ? file : `${file}:${position.line}:${position.column}`;
  return [where, ...(key === '' ? [] : [key]), `${wrong}; ${remedy}`].join(': ');
}

/** In the order of the file; what concerns all of it first. */
export function inFileOrder(problems: readonly Problem[]): Problem[] {
  return problems.toSorted((one, other) => {
    const lines = (one.position?.line ?? 0) - (other.position?.line ?? 0);
    return lines === 0 ? (one.position?.column ?? 0) - (other.position?.column ?? 0) : lines;
  });
}

const SHOWN_LENGTH = 60;

/** A value of the file for a message: on one line, cut, and never a key that was pasted where its file name belongs. */
export function shown(value: unknown): string {
  if (typeof value === 'string') {
    if (/-----BEGIN|PRIVATE KEY/.test(value)) return 'the text of a key (not shown)';
    return `"${value.length > SHOWN_LENGTH ? `${oneLine(value.slice(0, 20))}…` : oneLine(value)}"`;
  }
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (value instanceof Date) return 'a date';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  return 'a table';
}

/** Control characters and the quote as escapes, so that a message stays on its line and can't steer a terminal. */
export function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}"]/gu, (character) =>
    character === '"'
      ? '\\"'
      : `\\u${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`,
  );
}

/** `"a", "b" or "c"` */
export function oneOf(words: readonly string[]): string {
  const quoted = words.map((word) => `"${word}"`);
  const last = quoted.pop() ?? '';
  return quoted.length === 0 ? last : `${quoted.join(', ')} or ${last}`;
}

/** The known word that was probably meant; null when none is near enough to be worth naming. */
export function nearest(word: string, known: Iterable<string>): string | null {
  if (word.length > 80) return null;
  const folded = fold(word);
  let best: string | null = null;
  let fewest = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const other = fold(candidate);
    // "warning" for "warn", "max" for "max_size": further apart than typing errors are, and still clear.
    const begins =
      Math.min(folded.length, other.length) >= 3 && (folded.startsWith(other) || other.startsWith(folded));
    const edits = begins ? 1 : distance(folded, other);
    if (edits < fewest) {
      best = candidate;
      fewest = edits;
    }
  }
  return best;
}

function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[-_ ]/g, '_');
}

/** Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other. */
function distance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= to.length; j += 1) {
      const same = from[i - 1] === to[j - 1];
      let edits = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]) {
        edits = Math.min(edits, (beforeLast[j - 2] ?? 0) + 1);
      }
      row.push(edits);
    }
    beforeLast = last;
    last = row;
  }
  return last[to.length] ?? 0;
}
