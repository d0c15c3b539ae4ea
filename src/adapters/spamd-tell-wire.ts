import { printable } from '../mail/reply.ts';
import type { Learned } from '../ports/lessons.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import type { LabelKind } from '../ports/store.ts';

/** SPAMC/1.5's TELL (`spamd/PROTOCOL` in SpamAssassin's sources). Knows no sockets; text is latin1, one character per octet. */

export interface TellRequest {
  /** spamd takes any word, and what is not "spam" for ham. */
  readonly label: LabelKind;
  /** Octets of the message that follows. */
  readonly contentLength: number;
  /** Whose Bayes database learns; null: that of spamd itself. */
  readonly user: string | null;
}

const STATUS_LINE = /^SPAMD\/\d{1,3}\.\d{1,3} (\d{1,3}) ([^\r\n]*)$/;
/** sysexits(3), EX_UNAVAILABLE. */
const UNAVAILABLE = 69;
const QUOTE_LIMIT = 200;

/** Learning a class makes SpamAssassin forget the other one: no "Remove" is needed when a user has changed his mind. */
export function tellHead({ label, contentLength, user }: TellRequest): string {
  let head = `TELL SPAMC/1.5\r\nContent-length: ${contentLength}\r\n`;
  // spamd takes every octet from 0x20 on.
  if (user !== null) head += `User: ${user.replaceAll(/[^\x20-\xff]/g, '?')}\r\n`;
  return `${head}Message-class: ${label}\r\nSet: local\r\n\r\n`;
}

/** Reads the whole answer. @throws {NeighbourError} when nothing was learned that could have been */
export function readTold(answer: string): Learned {
  const end = answer.indexOf('\r\n');
  const line = end === -1 ? answer : answer.slice(0, end);
  const [, code = '', text = ''] = STATUS_LINE.exec(line) ?? [];
  const quoted = printable(text, QUOTE_LIMIT);
  if (code === '') throw new NeighbourError(`not spamd's language: "${printable(line, QUOTE_LIMIT)}"`);
  if (Number(code) === UNAVAILABLE) {
    throw new NeighbourError(`spamd answered ${code} ${quoted}: does it run with --allow-tell?`);
  }
  if (Number(code) !== 0) throw new NeighbourError(`spamd answered ${code} ${quoted}`);
  // The empty line behind the fields tells an answer from the beginning of one.
  if (!answer.includes('\r\n\r\n')) throw new NeighbourError('spamd broke off within its answer');
  return /\r\nDidSet: local\r\n/i.test(answer) ? 'learned' : 'known';
}
