import { unfold } from '../../mail/header.ts';
import { decodeOctets } from './charset.ts';
import { decodeField } from './encoded-words.ts';

/** A Content-Type or Content-Disposition field, RFC 2045 §5.1. */
export interface Structured {
  /** `text/plain`, `attachment`: in lower case. */
  readonly value: string;
  /** By name in lower case; a name that is there twice has all its values, for readers differ in which they take. */
  readonly parameters: ReadonlyMap<string, readonly string[]>;
}

/** Of one field; more are passed over. */
const PARAMETER_LIMIT = 200;
/** RFC 2231 §3: pieces of one value. */
const SECTION = /^([^*]+)\*(\d{1,3})(\*?)$/;

interface Section {
  readonly number: number;
  readonly extended: boolean;
  readonly text: string;
}

/** @param value latin1, as in HeaderField */
export function parseStructured(value: string): Structured {
  const [head = '', ...rest] = split(unfold(value));
  const parameters = new Map<string, string[]>();
  const sections = new Map<string, Section[]>();
  const add = (name: string, text: string): void => {
    const values = parameters.get(name);
    if (values === undefined) parameters.set(name, [text]);
    else if (!values.includes(text)) values.push(text);
  };
  for (const piece of rest.slice(0, PARAMETER_LIMIT)) {
    const equals = piece.indexOf('=');
    if (equals === -1) continue;
    const name = piece.slice(0, equals).trim().toLowerCase();
    const text = unquoted(piece.slice(equals + 1).trim());
    const [, base, number, star] = SECTION.exec(name) ?? [];
    if (base !== undefined) {
      const list = sections.get(base) ?? [];
      list.push({ number: Number(number), extended: star === '*', text });
      sections.set(base, list);
    } else if (name.endsWith('*')) add(name.slice(0, -1), extendedValue(text));
    else add(name, decodeField(text));
  }
  for (const [name, list] of sections) add(name, joined(list));
  return { value: head.trim().toLowerCase(), parameters };
}

/** At semicolons outside quotes; comments are left out. */
function split(text: string): string[] {
  const pieces: string[] = [];
  let piece = '';
  let quoted = false;
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const character = text[at] ?? '';
    if (character === '\\' && (quoted || depth > 0)) {
      const pair = text.slice(at, at + 2);
      at++;
      if (depth === 0) piece += pair;
    } else if (character === '"' && depth === 0) {
      quoted = !quoted;
      piece += character;
    } else if (quoted) piece += character;
    else if (character === '(') depth++;
    else if (character === ')' && depth > 0) depth--;
    else if (depth > 0) continue;
    else if (character === ';') {
      pieces.push(piece);
      piece = '';
    } else piece += character;
  }
  pieces.push(piece);
  return pieces;
}

function unquoted(text: string): string {
  if (!text.startsWith('"')) return text;
  const end = text.length > 1 && text.endsWith('"') ? -1 : undefined;
  return text.slice(1, end).replaceAll(/\\(.)/g, '$1');
}

/** `utf-8'en'%C3%A4`, RFC 2231 §4. */
function extendedValue(text: string): string {
  const [charset = '', , ...rest] = text.split("'");
  if (rest.length === 0) return decodeField(percentDecoded(text));
  return decoded(percentDecoded(rest.join("'")), charset);
}

/** RFC 2231 §4.1: the first piece names the charset, and each says for itself whether it is encoded. */
function joined(sections: readonly Section[]): string {
  let charset: string | null = null;
  let octets = '';
  for (const { number, extended, text } of sections.toSorted((one, other) => one.number - other.number)) {
    if (!extended) octets += text;
    else if (number === 0) {
      const [name = '', , ...rest] = text.split("'");
      if (rest.length > 0) charset = name;
      octets += percentDecoded(rest.length > 0 ? rest.join("'") : text);
    } else octets += percentDecoded(text);
  }
  return charset === null ? decodeField(octets) : decoded(octets, charset);
}

function decoded(latin1: string, charset: string): string {
  return decodeOctets(Buffer.from(latin1, 'latin1'), charset).texts[0] ?? '';
}

function percentDecoded(text: string): string {
  return text.replaceAll(/%([\da-f]{2})/gi, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
}
