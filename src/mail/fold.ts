/** Octets of one line of a header section, without its CRLF. RFC 5322 §2.1.1. */
export const LINE_LIMIT = 998;

/** Octets of a field value made of remote text; what goes beyond is cut. SpamAssassin's longest reports have some 4 KiB. */
export const REMOTE_VALUE_LIMIT = 16_384;

const BREAK = /[\r\n][\r\n\t ]*/g;
const FOLD = /^\r\n[\t ]+$/;
/** White space this long holds no sense, and folding inside it would leave a line of white space alone. */
const LONG_SPACE = /[\t ]{80,}/g;

/**
 * A field value whose line breaks are folds and nothing else (RFC 5322 §2.2.3), so that it can't end its field, start another, or
 * end the header section. All other bytes stay, but NUL, which ends a string in the milter protocol.
 */
export function foldedValue(value: string): string {
  return value.replaceAll('\0', '?').replaceAll(BREAK, (found, at: number) => {
    if (at + found.length === value.length) return '';
    return FOLD.test(found) ? found : '\r\n\t';
  });
}

/** A field value made of remote text: printable US-ASCII, its line breaks folds, no line longer than RFC 5322 §2.1.1 allows. */
export function remoteValue(name: string, value: string): string {
  const text = foldedValue(value.slice(0, REMOTE_VALUE_LIMIT))
    .replaceAll(/[^\t\n\r\x20-\x7e]/g, '?')
    .replaceAll(LONG_SPACE, ' ');
  return wrapLines(name, text);
}

/** Folds lines that are longer than RFC 5322 §2.1.1 allows: at white space where there is some, else anywhere. */
export function wrapLines(name: string, value: string): string {
  if (name.length + 1 + value.length <= LINE_LIMIT) return value;
  let room = LINE_LIMIT - name.length - 1;
  const lines: string[] = [];
  for (const line of value.split('\r\n')) {
    let rest = line.length > room ? line.trimEnd() : line;
    while (rest.length > room) {
      const space = rest.lastIndexOf(' ', room);
      // A line of white space alone is taken for the end of the header section by some.
      const spaced = space > 0 && rest.slice(0, space).trim() !== '';
      const at = spaced ? space : room;
      lines.push(rest.slice(0, at));
      rest = spaced ? rest.slice(at) : `\t${rest.slice(at)}`;
      room = LINE_LIMIT;
    }
    lines.push(rest);
    room = LINE_LIMIT;
  }
  return lines.join('\r\n');
}
