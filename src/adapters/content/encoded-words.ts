import { unfold } from '../../mail/header.ts';
import { decodeOctets } from './charset.ts';
import { decodeBase64, decodeQuotedPrintable } from './transfer-encoding.ts';

/**
 * An encoded-word, RFC 2047 §2, with RFC 2231's language. Broader than the grammar: what readers decode all the same (too long, blanks in Q) is decoded
 * here, too.
 */
const WORD = /=\?([^\s?*]{1,60})(?:\*[^?\s]{0,60})?\?([bq])\?([^?\r\n]*)\?=/gi;

/** A field's value as people see it. @param value latin1, as in HeaderField */
export function decodeField(value: string): string {
  const flat = unfold(value);
  if (!flat.includes('=?')) return plain(flat);
  let text = '';
  let end = 0;
  /** Octets of words in a row, which may have cut a character in two. */
  let open: { readonly charset: string; readonly octets: Buffer[] } | null = null;
  const close = (): void => {
    if (open !== null) text += reading(Buffer.concat(open.octets), open.charset);
    open = null;
  };
  for (const match of flat.matchAll(WORD)) {
    const [whole, charset = '', encoding = '', encoded = ''] = match;
    const between = flat.slice(end, match.index);
    end = match.index + whole.length;
    // RFC 2047 §6.2: white space between two words is not shown.
    if (open === null || between.trim() !== '') {
      close();
      text += plain(between);
    }
    const octets = Buffer.from(encoded, 'latin1');
    const decoded =
      encoding.toLowerCase() === 'b'
        ? decodeBase64(octets)
        : decodeQuotedPrintable(Buffer.from(encoded.replaceAll('_', ' '), 'latin1'));
    const name = charset.toLowerCase();
    if (open === null || open.charset !== name) {
      close();
      open = { charset: name, octets: [] };
    }
    open.octets.push(decoded);
  }
  close();
  return text + plain(flat.slice(end));
}

/** What stands there as it is: UTF-8 (RFC 6532), or something older. */
function plain(latin1: string): string {
  return /[\x80-\xff]/.test(latin1) ? reading(Buffer.from(latin1, 'latin1'), null) : latin1;
}

function reading(octets: Buffer, charset: string | null): string {
  return decodeOctets(octets, charset).texts.join(' ');
}
