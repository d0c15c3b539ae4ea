/**
 * Text as it is compared: what looks or reads the same to people is the same here. Compatibility forms (full width, ligatures) are resolved, case is
 * folded, what is not seen (zero width, soft hyphens, direction marks) is gone, and any white space is one space.
 */

/** Taken at once: what grows while it is normalised (U+FDFA becomes 18 letters) is noticed in time. */
const PIECE = 65_536;
/** How far before the end of a piece a place to cut is looked for. */
const CUT_WINDOW = 256;

const ASCII = /^[\0-\x7f]*$/;
/** Marks on one letter; UAX #15 §13 (Stream-Safe Text Format). Putting more of them in order takes quadratic time. */
const PILE = /(\p{M}{30})\p{M}+/gu;
const UNSEEN = /\p{Default_Ignorable_Code_Point}/gu;
// White space and controls; NFKC has made spaces of all others. Single spaces, which are many, are not touched.
const BLANK = /[\p{Cc}\u1680\u2028\u2029]+/gu;
const ASCII_BLANK = /[^\x20-\x7e]+/g;
const SPACES = / {2,}/g;

/** @param limit characters of the result; what comes after them is cut off */
export function normalText(text: string, limit = Infinity): string {
  if (text.length <= PIECE) return normalPiece(text).slice(0, limit);
  const pieces: string[] = [];
  let length = 0;
  let blank = false;
  let at = 0;
  while (at < text.length && length < limit) {
    const end = cutBefore(text, Math.min(at + PIECE, text.length));
    const piece = normalPiece(text.slice(at, end));
    // White space on both sides of a cut is one run.
    const rest = blank && piece.startsWith(' ') ? piece.slice(1) : piece;
    if (piece !== '') blank = piece.endsWith(' ');
    pieces.push(rest);
    length += rest.length;
    at = end;
  }
  return pieces.join('').slice(0, limit);
}

function normalPiece(text: string): string {
  if (ASCII.test(text)) return text.toLowerCase().replaceAll(ASCII_BLANK, ' ').replaceAll(SPACES, ' ');
  return (
    text
      .replaceAll(UNSEEN, '')
      .replaceAll(PILE, '$1')
      .normalize('NFKC')
      // Upper case first: "ß" and "SS" are the same word.
      .toUpperCase()
      .toLowerCase()
      .replaceAll('ς', 'σ')
      .normalize('NFKC')
      .replaceAll(BLANK, ' ')
      .replaceAll(SPACES, ' ')
  );
}

/** A place at which no letter comes apart: behind an ASCII character, if there is one near. */
function cutBefore(text: string, end: number): number {
  if (end === text.length) return end;
  for (let at = end; at > end - CUT_WINDOW; at--) {
    if (text.charCodeAt(at - 1) < 0x80 && text.charCodeAt(at) < 0x80) return at;
  }
  const high = text.charCodeAt(end - 1);
  return high >= 0xd800 && high <= 0xdbff ? end - 1 : end;
}

/** Letters and digits that are taken for others, after `normalText`: each of the left for the one at its place on the right. */
const LOOKALIKES: readonly (readonly [string, string])[] = [
  // Cyrillic
  ['авекмнорстухѕіјһԁԛԝѵпьгшѡ', 'abekmhopctyxsljhdqwvnbrww'],
  // Greek
  ['αβγεηικνορτυχωσ', 'abyenlkvoptuxwo'],
  // Armenian
  ['օսհոցզ', 'ouhngq'],
  // Latin letters with strokes and hooks that do not decompose, and small capitals
  ['łøđħŧɑɡıƒɩʋæ', 'lodhtaglflva'],
  ['ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ', 'abcdefghljklmnoprstuvwyz'],
  // What stands for letters
  ['013457@$i|', 'oleastasll'],
];

const LATIN = new Map(
  LOOKALIKES.flatMap(([from, to]) =>
    Array.from(from, (letter, index): [string, string] => [letter, to[index] ?? letter]),
  ),
);
const LOOKALIKE = new RegExp(
  `[${Array.from(LATIN.keys(), (letter) => (letter === '|' ? '\\|' : letter)).join('')}]`,
  'gu',
);
const MARKS = /\p{M}+/gu;

/** Normal text in which letters that look alike are one: "sеcrét" (with a Cyrillic letter) and "s3cret" are "secret". */
export function foldLookalikes(normal: string): string {
  const bare = ASCII.test(normal) ? normal : normal.normalize('NFKD').replaceAll(MARKS, '');
  return bare.replaceAll(LOOKALIKE, (letter) => LATIN.get(letter) ?? letter);
}
