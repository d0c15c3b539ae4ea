import { HeaderList, parseHeaderSection, unfold, type HeaderField } from '../mail/header.ts';
import { printable } from '../mail/reply.ts';

/** A message as a user has it in a mailbox. */
export interface ReadMail {
  /** Under which it is labelled: its trace, else its Message-ID; null: it has neither. */
  readonly key: string | null;
  /** The message as the scanner is to see it: with CRLF line ends, and without what was written into it here. */
  readonly content: Uint8Array;
}

/** Octets of a Message-ID, as decisions have it. */
const MESSAGE_ID_LIMIT = 200;
const TRACE = /^[a-z2-7]{16}$/;
const PREVIOUS_SUBJECT = 'x-spam-prev-subject';
/** With this field SpamAssassin knows its own work, and takes it off itself: its fields, its subject tag, its report around the message. */
const ITS_MARK = 'X-Spam-Checker-Version';

/** @param authservId whose Authentication-Results are ours */
export function readMail(octets: Uint8Array, authservId: string): ReadMail {
  const text = Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString('latin1');
  const end = /(?:^|\n)\r?\n/.exec(text);
  const at = end === null ? text.length : end.index + end[0].length;
  const section = text
    .slice(0, at)
    .replaceAll(/\r?\n/g, '\r\n')
    .replace(/(?:\r\n)+$/, '');
  const headers = parseHeaderSection(section);
  const body = text.slice(at).replaceAll(/\r?\n/g, '\r\n');
  const shown = `${taught(headers, authservId).serialize()}\r\n${body}`;
  return { key: messageKey(headers), content: Buffer.from(shown, 'latin1') };
}

/** The Message-ID of a field, or of a command line, as decisions have it. */
export function messageIdKey(text: string): string {
  return printable(text, MESSAGE_ID_LIMIT);
}

function messageKey(headers: HeaderList): string | null {
  const trace = headers.first('X-Postern-Trace');
  const word = trace === undefined ? '' : unfold(trace.value);
  // Anybody can file a message with another one's trace. It then bears a label with his name.
  if (TRACE.test(word)) return word;
  const id = headers.first('Message-ID');
  const text = id === undefined ? '' : unfold(id.value);
  return text === '' ? null : messageIdKey(text);
}

/** What was written into the message here would be learned as a mark of spam, or of ham. */
function taught(headers: HeaderList, authservId: string): HeaderList {
  const marked = headers.first(ITS_MARK) !== undefined;
  const previous = marked ? undefined : headers.first(PREVIOUS_SUBJECT);
  const fields: HeaderField[] = [];
  for (const field of headers) {
    const name = field.name.toLowerCase();
    if (name.startsWith('x-postern-') || name.startsWith('x-envelope-')) continue;
    if (!marked && name.startsWith('x-spam-')) continue;
    if (name === 'authentication-results' && isOurs(field.value, authservId)) continue;
    if (name === 'subject' && previous !== undefined) fields.push({ ...field, value: previous.value });
    else fields.push(field);
  }
  return new HeaderList(fields);
}

// RFC 8601 §2.2: the name of who wrote the field comes first.
function isOurs(value: string, authservId: string): boolean {
  const [first = ''] = unfold(value).split(/[\s;]/, 1);
  return first.toLowerCase() === authservId.toLowerCase();
}
