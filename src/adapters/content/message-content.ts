import { isUtf8 } from 'node:buffer';

import type { HeaderList } from '../../mail/header.ts';
import { normalText } from '../../mail/normal-text.ts';
import type { TextPlace } from '../../ports/content-scanner.ts';
import { decodeOctets } from './charset.ts';
import { decodeField } from './encoded-words.ts';
import { htmlText } from './html-text.ts';
import { HIDDEN_TEXT_LIMIT, NOTE_LIMIT, TEXT_LIMIT } from './mime-limits.ts';
import { walkMime, type Leaf, type MimeNotes } from './mime-walk.ts';

export interface Attachment {
  readonly type: string;
  readonly names: readonly string[];
  readonly octets: Buffer;
}

/** A message as rules look at it. */
export interface MessageContent {
  /** Normal text. */
  readonly texts: Readonly<Record<TextPlace, string>>;
  readonly attachments: readonly Attachment[];
  /** S/MIME or PGP, which nobody on the way can read. */
  readonly encrypted: boolean;
  readonly notes: MimeNotes;
}

/** Stands between texts that do not belong together: no word goes across it. */
const BETWEEN = ' \0 ';

/** Other types than text/* that are text. */
const TEXTUAL =
  /^(?:text\/|message\/|application\/(?:xhtml\+xml|xml|json|javascript|x-javascript|ics|csv|x-sh|sql|rtf)\b|[^/]+\/[^/]+\+(?:xml|json)$)/;
const HTML = /^(?:text\/html|application\/xhtml\+xml)$/;
const META_CHARSET = /<meta\s[^>]{0,200}?charset\s*=\s*["']?([\w.:-]{1,40})/i;
/** What readers look at for a charset in the document. HTML Standard §13.2.3.2. */
const META_REACH = 1024;
/** RFC 8551 §3.2, RFC 3156 §4. */
const SMIME = /^application\/(?:x-)?pkcs7-mime$/;

/**
 * @param message header section, empty line and body
 * @param headerOctets how long the header section may be
 */
export function readContent(message: Buffer, headerOctets: number): MessageContent {
  const content = new Gathered();
  walkMime(message, headerOctets, content, content.notes);
  return content.finished();
}

class Gathered {
  readonly notes: MimeNotes = { unparsable: new Set(), tooLarge: new Set() };
  readonly #texts: Record<TextPlace, string[]> = {
    subject: [],
    body: [],
    'attachment-names': [],
    headers: [],
  };
  readonly #attachments: Attachment[] = [];
  #room = TEXT_LIMIT;
  #encrypted = false;

  header(fields: HeaderList): void {
    for (const { name, value } of fields) {
      this.#add(name.toLowerCase() === 'subject' ? 'subject' : 'headers', decodeField(value));
    }
  }

  multipart(type: string): void {
    if (type === 'multipart/encrypted') this.#encrypted = true;
  }

  loose(octets: Buffer): void {
    this.#read('body', octets, null);
  }

  leaf({ type, charset, names, attached, octets }: Leaf): void {
    if (SMIME.test(type) && !/^smime\.p7c$/i.test(names[0] ?? '')) this.#encrypted = true;
    for (const name of names) this.#add('attachment-names', name);
    const textual = TEXTUAL.test(type);
    if (!textual || attached || names.length > 0) this.#attachments.push({ type, names, octets });
    if (textual) this.#document(octets, type, charset);
    else if (looksLikeText(octets))
      this.#document(octets.subarray(0, HIDDEN_TEXT_LIMIT), 'text/plain', charset);
  }

  finished(): MessageContent {
    const { notes } = this;
    const joined = (place: TextPlace): string => this.#texts[place].join(BETWEEN);
    return {
      texts: {
        subject: joined('subject'),
        body: joined('body'),
        'attachment-names': joined('attachment-names'),
        headers: joined('headers'),
      },
      attachments: this.#attachments,
      encrypted: this.#encrypted,
      notes,
    };
  }

  #document(octets: Buffer, type: string, charset: string | null): void {
    if (!HTML.test(type)) return this.#read('body', octets, charset);
    const named = charset ?? META_CHARSET.exec(octets.toString('latin1', 0, META_REACH))?.[1] ?? null;
    this.#read('body', octets, named, htmlText);
  }

  #read(
    place: TextPlace,
    octets: Buffer,
    charset: string | null,
    plain = (text: string): string => text,
  ): void {
    const { texts, unknown } = decodeOctets(octets, charset);
    if (unknown !== null && this.notes.unparsable.size < NOTE_LIMIT) {
      this.notes.unparsable.add('a charset that nobody knows');
    }
    for (const text of texts) this.#add(place, plain(text));
  }

  #add(place: TextPlace, text: string): void {
    const normal = normalText(text, this.#room + 1);
    if (normal.length > this.#room) this.notes.tooLarge.add(`more than ${TEXT_LIMIT} characters of text`);
    const part = normal.slice(0, this.#room);
    this.#room -= part.length;
    if (part !== '' && part !== ' ') this.#texts[place].push(part);
  }
}

/** Text that was sent as something else: no octet that texts do not have, in the beginning. */
function looksLikeText(octets: Buffer): boolean {
  const sample = octets.subarray(0, 1024);
  if (sample.length === 0) return false;
  for (const octet of sample) {
    if (octet < 0x09 || (octet > 0x0d && octet < 0x20 && octet !== 0x1b)) return hasByteOrderMark(octets);
  }
  // A character may be cut at the end of the sample.
  return (
    isUtf8(sample.subarray(0, Math.max(1, sample.length - 3))) ||
    sample.filter((octet) => octet > 0x7f).length * 2 > sample.length / 4
  );
}

function hasByteOrderMark([first, second]: Buffer): boolean {
  return (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff);
}
