import { parseTOML, ParseError } from 'toml-eslint-parser';

import { oneLine, shown, type Position } from './errors.ts';

export interface SyntaxProblem {
  readonly position: Position;
  readonly wrong: string;
  readonly remedy: string;
  /** Lines without which the rest can be read; null: what follows can't be told apart from the mistake. `to` is exclusive. */
  readonly leaveOut: { readonly from: number; readonly to: number } | null;
}

type Words = readonly [wrong: string, remedy: string];

const CONTROL: Words = ['there is a control character here', 'remove it'];

const UNTERMINATED = 'Unterminated string constant';
const DUPLICATE = 'Defining a key multiple times is invalid';

/** What the parser says, for the operator. */
const WORDS: Readonly<Record<string, Words>> = {
  [UNTERMINATED]: ['this text has no end', 'expected a closing quote on the same line'],
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
  'Control characters (codes < 0x1f and 0x7f) are not allowed': CONTROL,
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

const STATEMENT = /^(\s*(?:[\w.-]|"[^"]*"|'[^']*')+\s*=\s*)(.*)$/;
const BLANK = /^\s*(?:#.*)?$/;
/** A line that begins a statement or a section, and does not go on with the one before. */
const BEGINNING = /^\s*(?:[\w.-]+\s*=|\[\[?\s*[A-Za-z])/;
const BARE_KEY_COLON = /^(\s*[\w.-]+\s*):/;

/** A mistake that the parser found, said exactly and with its place; `lines` are without their line feeds. */
export function explainSyntax(lines: readonly string[], error: ParseError): SyntaxProblem {
  const open = openText(lines, error);
  if (open !== null) return open;
  const late = noticedLate(lines, error);
  const line = late?.line ?? error.lineNumber;
  const column = late?.column ?? error.column + 1;
  const message = late?.message ?? error.message;
  const text = (lines[line - 1] ?? '').replace(/\r$/, '');
  const leaveOut = late?.leaveOut ?? whatToLeaveOut(lines, line, text, message);
  const value = bareValue(text);
  if (value !== null && message !== DUPLICATE)
    return { ...value, position: { line, column: value.column }, leaveOut };
  const colon = BARE_KEY_COLON.exec(text);
  if (colon?.[1] !== undefined) {
    const position = { line, column: colon[1].length + 1 };
    return { position, wrong: 'there is ":" after the key', remedy: 'expected "=": key = value', leaveOut };
  }
  if (message === DUPLICATE) {
    const wrong = text.trimStart().startsWith('[') ? 'this section is here twice' : 'this key is here twice';
    return { position: { line, column }, wrong, remedy: 'remove one of the two', leaveOut };
  }
  if (/^\s*\[\[?[^\]]*$/.test(text)) {
    const [wrong, remedy] = ['this section name has no end', 'expected "]" after it'];
    return { position: { line, column }, wrong, remedy, leaveOut };
  }
  const [wrong, remedy] = wordsFor(message);
  return { position: { line, column }, wrong, remedy, leaveOut };
}

function wordsFor(message: string): Words {
  // Its message quotes the character itself.
  if (message.startsWith('Invalid code point')) return CONTROL;
  return WORDS[message] ?? [`this can't be read (${oneLine(message)})`, 'expected [section], or key = value'];
}

/** A value that lacks its quotes, the most frequent mistake of all. */
function bareValue(text: string): { column: number; wrong: string; remedy: string } | null {
  const [, before, rest] = STATEMENT.exec(text) ?? [];
  if (before === undefined || rest === undefined || mistakeOf(text) === null) return null;
  const value = rest.trimEnd();
  const bare = /^([^\s"'[\]{}#,][^"'[\]{}#,]*)(?:#.*)?$/.exec(value)?.[1]?.trimEnd();
  if (bare === undefined) return null;
  const column = before.length + 1;
  const wrong = 'a text without quotes';
  if (/^(?:true|yes|on|false|no|off)$/i.test(bare)) {
    const meant = /^(?:true|yes|on)$/i.test(bare) ? 'true' : 'false';
    return { column, wrong: 'this is neither true nor false', remedy: `write ${meant}` };
  }
  // A text that is too long to be repeated, or that is a key, is not offered as the remedy.
  const quoted = shown(bare);
  return { column, wrong, remedy: /^"[^…]*"$/.test(quoted) ? `write ${quoted}` : 'put it in quotes' };
}

/**
 * A line that is wrong by itself can be left out, and so can one that repeats a key. A section whose name is wrong goes with all
 * of its lines: they would be taken for those of the section above.
 */
function whatToLeaveOut(
  lines: readonly string[],
  line: number,
  text: string,
  message: string,
): SyntaxProblem['leaveOut'] {
  const from = line - 1;
  if (/^\s*\[/.test(text) && !/^\s*\[.*\]\s*,?\s*$/.test(text.replace(/#.*$/, '')) && message !== DUPLICATE) {
    return { from, to: nextSection(lines, line) };
  }
  if (/^\s*\[/.test(text)) return message === DUPLICATE ? { from, to: nextSection(lines, line) } : null;
  if (message === DUPLICATE) return mistakeOf(text) === null ? { from, to: line } : null;
  return mistakeOf(text) === null ? null : { from, to: line };
}

function nextSection(lines: readonly string[], after: number): number {
  const index = lines.findIndex((text, number) => number >= after && /^\s*\[/.test(text));
  return index === -1 ? lines.length : index;
}

/** A text of several lines that never ends takes in the rest of the file; what is wrong is where it begins. */
function openText(lines: readonly string[], error: ParseError): SyntaxProblem | null {
  if (error.message !== UNTERMINATED || mistakeOf(lines[error.lineNumber - 1] ?? '') === UNTERMINATED)
    return null;
  const index = lines.findLastIndex((text) => /"""|'''/.test(text));
  if (index === -1 || index > error.lineNumber - 1) return null;
  const column = (lines[index] ?? '').search(/"""|'''/) + 1;
  const remedy = 'put the text on one line, in single or double quotes';
  return { position: { line: index + 1, column }, wrong: 'this text has no end', remedy, leaveOut: null };
}

/** What is missing at the end of a statement is only noticed at the start of the next one; it is wanted where the first one ends. */
function noticedLate(
  lines: readonly string[],
  error: ParseError,
): (Omit<SyntaxProblem, 'position' | 'wrong' | 'remedy'> & Position & { message: string }) | null {
  const { lineNumber: noticed, message: said } = error;
  if (error.column !== 0 || noticed === 1 || said === DUPLICATE) return null;
  if (mistakeOf(lines[noticed - 1] ?? '') !== null) return null;
  let end = noticed - 1;
  while (end > 1 && BLANK.test(lines[end - 1] ?? '')) end -= 1;
  let start = end;
  while (start > 1 && !BEGINNING.test(lines[start - 1] ?? '')) start -= 1;
  const mistake = mistakeOf(lines.slice(start - 1, end).join('\n'));
  if (mistake === null) return null;
  // After a last comma the parser misses a value; what an operator sees is a list that goes on.
  const list = STATEMENT.exec(lines[start - 1] ?? '')?.[2]?.startsWith('[') ?? false;
  const message = list ? 'Unterminated array' : mistake;
  const column = (lines[end - 1] ?? '').trimEnd().length + 1;
  const leaveOut = start === end ? null : { from: start - 1, to: end };
  return { line: end, column, message, leaveOut };
}

/** What is wrong with a part of the file when it is read without the rest; null: nothing. */
function mistakeOf(text: string): string | null {
  try {
    parseTOML(text, { tomlVersion: '1.0.0' });
    return null;
  } catch (error) {
    if (error instanceof ParseError) return error.message;
    throw error;
  }
}
