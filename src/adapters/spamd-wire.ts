import { parseHeaderSection, unfold, type HeaderField, type HeaderList } from '../mail/header.ts';
import { printable } from '../mail/reply.ts';
import type { Rewriting, SpamScan } from '../mail/spam-scan.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';

/**
 * SPAMC/1.5, as spamd speaks it (`spamd/PROTOCOL` in SpamAssassin's sources, and what was measured where that is wrong). Knows no
 * sockets; text is latin1, one character per octet.
 */

/** What a scan can be asked with: score and rules alone; with the header section as SpamAssassin would have it; with the body, too. */
export type ScanVerb = 'SYMBOLS' | 'HEADERS' | 'PROCESS';

export interface SpamcAnswer {
  readonly verb: ScanVerb;
  /** The header section as it was sent, without the empty line. */
  readonly section: string;
  /** The first fields of it, which the message itself does not have; empty: none. */
  readonly preamble: string;
  /** Octets of the body that were sent. */
  readonly bodyOctets: number;
}

export interface SpamcRequest {
  readonly verb: ScanVerb | 'PING';
  /** Octets of the message that follows; null: none does. */
  readonly contentLength: number | null;
  /** Whose preferences and Bayes database are used; null: those of spamd itself. */
  readonly user: string | null;
}

/** Fields of one answer's head. spamd sends two. */
const HEAD_FIELD_LIMIT = 64;
/** Names of rules that are taken from one answer. */
const RULE_LIMIT = 500;
const RULE_NAME = /^[A-Za-z0-9_]{1,100}$/;
const STATUS_LINE = /^SPAMD\/\d{1,3}\.\d{1,3} (\d{1,3}) ([^\r\n]*)$/;
const SPAM_LINE = /^(?:True|False|Yes|No) ; (-?\d{1,9}(?:\.\d{1,9})?) \/ (-?\d{1,9}(?:\.\d{1,9})?)$/;
const QUOTE_LIMIT = 200;

/** The head of a request. Names are written as here and no other way: spamd tells upper from lower case, and waits when it doesn't see a length. */
export function requestHead(request: SpamcRequest): string {
  let head = `${request.verb} SPAMC/1.5\r\n`;
  if (request.contentLength !== null) head += `Content-length: ${request.contentLength}\r\n`;
  // spamd takes every octet from 0x20 on.
  if (request.user !== null) head += `User: ${request.user.replaceAll(/[^\x20-\xff]/g, '?')}\r\n`;
  return `${head}\r\n`;
}

/** @throws {NeighbourError} unless it is PONG */
export function readPong(answer: string): void {
  const end = answer.indexOf('\r\n');
  const text = readStatus(end === -1 ? answer : answer.slice(0, end));
  if (text !== 'PONG') throw new NeighbourError(`spamd answered PING with "${quote(text)}"`);
}

/** Reads the whole answer to a scan. @throws {NeighbourError} */
export function readScan(answer: string, sent: SpamcAnswer): SpamScan {
  const firstEnd = answer.indexOf('\r\n');
  readStatus(firstEnd === -1 ? answer : answer.slice(0, firstEnd));
  const headEnd = answer.indexOf('\r\n\r\n');
  if (headEnd === -1) throw new NeighbourError('spamd broke off within the head of its answer');
  const head = readHead(answer.slice(firstEnd + 2, Math.max(headEnd, firstEnd + 2)));
  const content = answer.slice(headEnd + 4);
  const length = head.get('content-length');
  if (length === undefined || !/^\d{1,10}$/.test(length) || Number(length) !== content.length) {
    throw new NeighbourError(`spamd announced "${quote(length ?? 'no')}" octets and sent ${content.length}`);
  }
  const spam = SPAM_LINE.exec(head.get('spam') ?? '');
  if (spam === null) {
    throw new NeighbourError(`spamd's Spam line can't be read: "${quote(head.get('spam') ?? 'none')}"`);
  }
  const score = { score: points(spam[1]), required: points(spam[2]) };
  switch (sent.verb) {
    case 'SYMBOLS':
      return { ...score, rules: ruleNames(content.split(',', RULE_LIMIT)), fields: [] };
    case 'HEADERS': {
      const fields = spamFieldsOf(sectionOf(content).fields);
      return { ...score, rules: rulesOf(fields), fields };
    }
    case 'PROCESS': {
      const { fields: all, body } = sectionOf(content);
      const fields = spamFieldsOf(all);
      const scan = { ...score, rules: rulesOf(fields), fields };
      const rewriting = rewritingOf(all, body, sent);
      return rewriting === null ? scan : { ...scan, rewriting };
    }
  }
}

/** Text behind EX_OK's zero. */
function readStatus(line: string): string {
  const status = STATUS_LINE.exec(line);
  if (status === null) throw new NeighbourError(`not spamd's language: "${quote(line)}"`);
  const [, code = '', text = ''] = status;
  // sysexits(3): 64 to 79, such as 76 for a request spamd can't read and 79 for a timeout of its own.
  if (Number(code) !== 0) throw new NeighbourError(`spamd answered ${code} ${quote(text)}`);
  return text;
}

function readHead(text: string): ReadonlyMap<string, string> {
  const head = new Map<string, string>();
  if (text === '') return head;
  for (const line of text.split('\r\n', HEAD_FIELD_LIMIT + 1)) {
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(colon, 0)).toLowerCase();
    if (name === '') throw new NeighbourError(`spamd sent a line that is no field: "${quote(line)}"`);
    if (head.has(name)) throw new NeighbourError(`spamd sent "${quote(name)}" twice`);
    if (head.size === HEAD_FIELD_LIMIT) throw new NeighbourError('the head of the answer is too long');
    head.set(name, line.slice(colon + 1).trim());
  }
  return head;
}

/** The header section of a message, and what stands behind the empty line. spamd ends its own lines as the message does. */
function sectionOf(content: string): { readonly fields: HeaderList; readonly body: string } {
  const end = /(?:^|\n)\r?\n/.exec(content);
  const at = end === null ? content.length : end.index + end[0].length;
  const fields = parseHeaderSection(
    content
      .slice(0, at)
      .replaceAll(/\r?\n/g, '\r\n')
      .replace(/(?:\r\n)+$/, ''),
  );
  return { fields, body: content.slice(at) };
}

/**
 * The first of each X-Spam-* field. X-Spam-Prev-* tells of a rewriting of fields that is not taken over. All others are passed over: with
 * `report_safe 1` or 2 they are those of a wrapper, and on the message itself they would be wrong.
 */
function spamFieldsOf(section: HeaderList): HeaderField[] {
  const seen = new Set<string>();
  const fields: HeaderField[] = [];
  for (const { name, value } of section) {
    const key = name.toLowerCase();
    if (!key.startsWith('x-spam-') || key.startsWith('x-spam-prev-') || seen.has(key)) continue;
    seen.add(key);
    fields.push({ name, value });
  }
  return fields;
}

/**
 * What `report_safe` made of the message; null: it left the body alone.
 *
 * The original within it is what we showed, and loses what is ours again: the envelope names recipients that others must not see.
 */
function rewritingOf(section: HeaderList, body: string, sent: SpamcAnswer): Rewriting | null {
  // The original is part of it, so that it is longer.
  if (body.length === sent.bodyOctets) return null;
  const shown = `\r\n\r\n${sent.section}\r\n`;
  const at = body.indexOf(shown);
  // Something else happened to the body: the message keeps its own, and is marked in its header section.
  if (at === -1 || body.length < at + shown.length + sent.bodyOctets) return null;
  const start = at + '\r\n\r\n'.length;
  const own = new Set(preambleKeys(sent.preamble));
  const fields = section.toArray().filter((field) => !own.has(fieldKey(field)));
  return { fields, body: body.slice(0, start) + body.slice(start + sent.preamble.length) };
}

function preambleKeys(preamble: string): string[] {
  return parseHeaderSection(preamble).toArray().map(fieldKey);
}

function fieldKey({ name, value }: HeaderField): string {
  return `${name.toLowerCase()}:${value}`;
}

/** `tests=A,B,C` of X-Spam-Status; empty when the scanner's configuration leaves that field out. */
function rulesOf(fields: readonly HeaderField[]): string[] {
  const status = fields.find((field) => field.name.toLowerCase() === 'x-spam-status');
  if (status === undefined) return [];
  const text = unfold(status.value);
  const at = text.indexOf('tests=');
  if (at === -1) return [];
  // A fold behind a comma leaves its tab within the list; the list ends at the next `name=`.
  const names: string[] = [];
  for (const part of text.slice(at + 'tests='.length).split(',', RULE_LIMIT)) {
    const [word = '', ...rest] = part.trim().split(/[\t ]/, 2);
    names.push(word);
    if (rest.length > 0) break;
  }
  return ruleNames(names);
}

function ruleNames(words: readonly string[]): string[] {
  const names: string[] = [];
  for (const word of words) {
    const name = word.trim();
    if (RULE_NAME.test(name) && name !== 'none') names.push(name);
  }
  return names;
}

function points(text: string | undefined): number {
  // -0.0 is how spamd says that the rules that hit come to nothing.
  return Number(text) + 0;
}

function quote(text: string): string {
  return printable(text, QUOTE_LIMIT);
}
