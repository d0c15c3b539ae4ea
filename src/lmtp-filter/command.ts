/** One command line, read. What it means in the state of the session is not decided here. RFC 5321 §4.1, RFC 2033 §4.1. */
export type Command =
  | { readonly verb: 'LHLO'; readonly name: string }
  | { readonly verb: 'MAIL' | 'RCPT'; readonly path: string; readonly parameters: readonly Parameter[] }
  | { readonly verb: 'XFORWARD'; readonly attributes: string }
  | { readonly verb: 'DATA' | 'RSET' | 'NOOP' | 'VRFY' }
  | { readonly verb: 'QUIT' }
  | { readonly verb: 'none'; readonly problem: Problem };

/** Why a line is no command. */
export type Problem =
  /** Not known, HELO and EHLO included (RFC 2033 §4.1). */
  | 'unknown'
  /** Control characters: nothing of it may reach Dovecot or a log as it is. */
  | 'characters'
  | 'arguments'
  | 'path'
  | 'parameters';

/** An ESMTP parameter of MAIL or RCPT. RFC 5321 §4.1.2. */
export interface Parameter {
  /** Upper case. */
  readonly keyword: string;
  /** As sent; null without `=`. */
  readonly value: string | null;
}

/** More parameters than any client has reason to send. */
export const PARAMETER_LIMIT = 20;

const CONTROL = /[^\x20-\x7e\x80-\xff]/;
// RFC 5321 §4.1.2 esmtp-keyword, esmtp-value; octets from 0x80 by RFC 6531 §3.3.
const PARAMETER = /^([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\x80-\xff]+))?$/;

/** Reads a line without its line end, one character per octet. Never throws. */
export function parseCommand(line: string): Command {
  // A tab is white space to some parsers and part of the word to others, so it is no better than other controls.
  if (CONTROL.test(line)) return none('characters');
  const space = line.indexOf(' ');
  const verb = (space === -1 ? line : line.slice(0, space)).toUpperCase();
  const rest = space === -1 ? '' : line.slice(space + 1);
  switch (verb) {
    case 'LHLO': {
      const name = rest.trim();
      return name === '' ? none('arguments') : { verb, name };
    }
    case 'MAIL':
      return pathCommand(verb, 'FROM:', rest);
    case 'RCPT':
      return pathCommand(verb, 'TO:', rest);
    case 'XFORWARD':
      return { verb, attributes: rest.trim() };
    case 'DATA':
    case 'RSET':
    case 'QUIT':
      // RFC 5321 §4.1.1.4, §4.1.1.5, §4.1.1.10: without arguments.
      return rest.trim() === '' ? { verb } : none('arguments');
    case 'NOOP':
    case 'VRFY':
      return { verb };
    default:
      return none('unknown');
  }
}

/** `KEYWORD` or `KEYWORD=value`, as it was sent but for the case of the keyword. */
export function parameterText({ keyword, value }: Parameter): string {
  return value === null ? keyword : `${keyword}=${value}`;
}

function pathCommand(verb: 'MAIL' | 'RCPT', label: string, rest: string): Command {
  if (rest.slice(0, label.length).toUpperCase() !== label) return none('arguments');
  const start = label.length;
  const end = pathEnd(rest, start);
  if (end === -1) return none('path');
  const after = rest.slice(end);
  if (after !== '' && !after.startsWith(' ')) return none('path');
  const parameters: Parameter[] = [];
  for (const word of after.split(' ')) {
    if (word === '') continue;
    const match = PARAMETER.exec(word);
    if (match === null || parameters.length === PARAMETER_LIMIT) return none('parameters');
    parameters.push({ keyword: (match[1] ?? '').toUpperCase(), value: match[2] ?? null });
  }
  return { verb, path: rest.slice(start, end), parameters };
}

/** Index behind the `>` that closes the path at `start`; -1 when there is none. A quoted local part may hold `>`. RFC 5321 §4.1.2. */
function pathEnd(text: string, start: number): number {
  if (text[start] !== '<') return -1;
  let quoted = false;
  for (let i = start + 1; i < text.length; i++) {
    const c = text[i];
    if (quoted && c === '\\') i++;
    else if (c === '"') quoted = !quoted;
    else if (!quoted && c === '>') return i + 1;
    else if (!quoted && (c === ' ' || c === '<')) return -1;
  }
  return -1;
}

function none(problem: Problem): Command {
  return { verb: 'none', problem };
}
