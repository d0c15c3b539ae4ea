import { parseTOML, ParseError } from 'toml-eslint-parser';

import type { Position } from './toml.ts';

export interface SyntaxProblem {
  readonly position: Position;
  readonly wrong: string;
  readonly remedy: string;
  /** Lines without which the rest can be read; null: what follows can't be told apart from the mistake. `to` is exclusive. */
  readonly leaveOut: { readonly from: number; readonly to: number } | null;
}

type Words = readonly [wrong: string, remedy: string];

const DUPLICATE = 'Defining a key multiple times is invalid';

/** What the parser says, for the operator. */
const WORDS: Readonly<Record<string, Words>> = {
  'Unterminated string constant': ['this text has no end', 'expected a closing quote on the same line'],
  'Unterminated array': ['this list has no end', 'expected "]" after its last entry'],
  'Unterminated inline table': ['this table has no end', 'expected "}" after its last entry'],
  'Unterminated table-key': ['this section name has no end', 'expected "]" after it'],
  'Must be a newline': ['more stands here than one value', 'expected the end of the line'],
  'Expected equal (=) token': ['there is no "=" after the key', 'expected key = value'],
  'Unspecified values are invalid': ['there is no value after "="', 'expected key = value'],
  'Expected comma (,) token': ['there is no comma between two entries', 'expected ","'],
  'Empty bare keys are not allowed': ['there is no key', 'expected key = value'],
  'The key, equals sign, and value must be on the same line': [
    'this line is not complete',
    'expected [section], or key = value',
  ],
  'Control characters (codes < 0x1f and 0x7f) are not allowed': [
    'there is a control character here',
    'remove it',
  ],
  'No newlines are allowed between the curly braces unless they are valid within a value': [
    'a table in braces must stand on one line',
    'expected "}" on this line, or use a [section]',
  ],
  'Trailing comma is not permitted in an inline table': [
    'a table in braces must not end with a comma',
    'remove the comma',
  ],
  'Invalid character in escape sequence': [
    'this backslash begins no known escape',
    'write "\\\\" for a backslash, or put the text in single quotes',
  ],
  'Leading zeros are not allowed': [
    'a number must not begin with 0',
    'remove the zero, or put the value in quotes',
  ],
  'Underscores are allowed between digits': [
    'this number is not complete',
    'expected a number such as 1_000',
  ],
};

const STATEMENT = /^(\s*(?:[\w.-]+|"[^"]*"|'[^']*')+\s*=\s*)(.*?)\s*$/;
const BARE_KEY_COLON = /^(\s*[\w.-]+\s*):/;

/** A mistake that the parser found, said exactly and with its place; `lines` are without their line feeds. */
export function explainSyntax(lines: readonly string[], error: ParseError): SyntaxProblem {
  let line = error.lineNumber;
  let column = error.column + 1;
  // What is missing at the end of a line is only noticed at the start of a later one.
  if (column === 1 && line > 1 && error.message !== DUPLICATE && isWhole(lines[line - 1] ?? '')) {
    const before = lastUsed(lines, line - 1);
    if (!isWhole(lines[before - 1] ?? '')) {
      line = before;
      column = (lines[before - 1] ?? '').trimEnd().length + 1;
    }
  }
  const text = (lines[line - 1] ?? '').replace(/\r$/, '');
  const leaveOut = whatToLeaveOut(lines, line, text, error);
  const value = bareValue(text);
  if (value !== null && error.message !== DUPLICATE)
    return { ...value, position: { line, column: value.column }, leaveOut };
  const colon = BARE_KEY_COLON.exec(text);
  if (colon?.[1] !== undefined) {
    const position = { line, column: colon[1].length + 1 };
    return { position, wrong: 'there is ":" after the key', remedy: 'expected "=": key = value', leaveOut };
  }
  if (error.message === DUPLICATE) {
    const wrong = text.trimStart().startsWith('[') ? 'this section is here twice' : 'this key is here twice';
    return { position: { line, column }, wrong, remedy: 'remove one of the two', leaveOut };
  }
  if (/^\s*\[\[?[^\]]*$/.test(text)) {
    const [wrong, remedy] = ['this section name has no end', 'expected "]" after it'];
    return { position: { line, column }, wrong, remedy, leaveOut };
  }
  const [wrong, remedy] = WORDS[error.message] ?? [
    `this can't be read (${error.message})`,
    'expected [section], or key = value',
  ];
  return { position: { line, column }, wrong, remedy, leaveOut };
}

/** A value that lacks its quotes, the most frequent mistake of all. */
function bareValue(text: string): { column: number; wrong: string; remedy: string } | null {
  const [, before, value] = STATEMENT.exec(text) ?? [];
  if (before === undefined || value === undefined || isWhole(text)) return null;
  const bare = /^([^\s"'[\]{}#,][^"'[\]{}#,]*?)\s*(?:#.*)?$/.exec(value)?.[1];
  if (bare === undefined) return null;
  const column = before.length + 1;
  const wrong = 'a text without quotes';
  if (/^(?:true|yes|on|false|no|off)$/i.test(bare)) {
    const meant = /^(?:true|yes|on)$/i.test(bare) ? 'true' : 'false';
    return { column, wrong: 'this is neither true nor false', remedy: `write ${meant}` };
  }
  return {
    column,
    wrong,
    remedy: bare.length <= 60 ? `write "${bare.replaceAll('\\', '\\\\')}"` : 'put it in quotes',
  };
}

/**
 * A line that is wrong by itself can be left out, and so can one that repeats a key. A section whose name is wrong goes with all
 * of its lines: they would be taken for those of the section above.
 */
function whatToLeaveOut(
  lines: readonly string[],
  line: number,
  text: string,
  error: ParseError,
): SyntaxProblem['leaveOut'] {
  const from = line - 1;
  if (
    /^\s*\[/.test(text) &&
    !/^\s*\[.*\]\s*,?\s*$/.test(text.replace(/#.*$/, '')) &&
    error.message !== DUPLICATE
  ) {
    return { from, to: nextSection(lines, line) };
  }
  if (/^\s*\[/.test(text)) return error.message === DUPLICATE ? { from, to: nextSection(lines, line) } : null;
  if (error.message === DUPLICATE) return isWhole(text) ? { from, to: line } : null;
  return isWhole(text) ? null : { from, to: line };
}

function nextSection(lines: readonly string[], after: number): number {
  const index = lines.findIndex((text, number) => number >= after && /^\s*\[/.test(text));
  return index === -1 ? lines.length : index;
}

/** The last line up to this one that holds more than blanks and comments. */
function lastUsed(lines: readonly string[], upTo: number): number {
  for (let line = upTo; line > 1; line -= 1) {
    if (!/^\s*(?:#.*)?$/.test(lines[line - 1] ?? '')) return line;
  }
  return upTo;
}

/** Whether the line can be read without the others. */
function isWhole(text: string): boolean {
  try {
    parseTOML(text, { tomlVersion: '1.0.0' });
    return true;
  } catch (error) {
    if (error instanceof ParseError) return false;
    throw error;
  }
}
