import { isAscii, isUtf8 } from 'node:buffer';
import { TextDecoder } from 'node:util';

/** Octets as text, in each way that a reader may see them. */
export interface Reading {
  readonly texts: readonly string[];
  /** The charset that nobody knows; null: there is none. */
  readonly unknown: string | null;
}

/** Names that mean no more than that nobody said. */
const VAGUE: ReadonlySet<string> = new Set(['', 'us-ascii', 'ascii', 'unknown-8bit', 'x-unknown', 'default']);
/** Names that the Encoding Standard does not have, as it has them. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['cp936', 'gbk'],
  ['cp932', 'shift_jis'],
  ['ms932', 'shift_jis'],
  ['cp949', 'euc-kr'],
  ['ks_c_5601', 'euc-kr'],
  ['cp950', 'big5'],
  ['utf8mb4', 'utf-8'],
  ['ucs-2', 'utf-16le'],
]);
/** Encodings whose octets below 0x80 are not ASCII. */
const WIDE = /^(?:utf-?16|utf-?7|unicode|ucs-?2|iso-?2022|csiso2022|hz)/;
const LONGEST_NAME = 60;
/** Octets in which a charset that nobody named is looked for. */
const SAMPLE = 2048;

const decoders = new Map<string, TextDecoder | null>();

/** @param label as Content-Type names it; null: it does not */
export function decodeOctets(octets: Buffer, label: string | null): Reading {
  const name = (label ?? '').trim().toLowerCase().slice(0, LONGEST_NAME);
  const marked = byteOrderMark(octets);
  // What a byte order mark says counts more (Encoding Standard §6, "BOM sniff").
  if (marked !== null) return { texts: [decoderOf(marked)?.decode(octets) ?? ''], unknown: null };
  const wide = WIDE.test(name);
  if (!wide && !octets.subarray(0, SAMPLE).includes(0) && isAscii(octets)) {
    return { texts: [octets.toString('latin1')], unknown: null };
  }
  if (VAGUE.has(name)) return { texts: guesses(octets), unknown: null };
  if (/^(?:unicode-1-1-)?utf-7$/.test(name))
    return { texts: [decodeUtf7(octets.toString('latin1'))], unknown: null };
  const decoder = decoderOf(ALIASES.get(name) ?? name);
  if (decoder === null) return { texts: guesses(octets), unknown: name };
  const text = decoder.decode(octets);
  // The name is wrong, or nearly so: some readers go by the octets.
  const odd = wide ? isUtf8(octets) && !octets.includes(0) : octets.subarray(0, SAMPLE).includes(0);
  const doubtful = odd || text.includes('\ufffd');
  return { texts: doubtful ? [...new Set([text, ...guesses(octets)])] : [text], unknown: null };
}

function guesses(octets: Buffer): string[] {
  const hidden = wideWithoutName(octets.subarray(0, SAMPLE));
  const narrow = decoderOf(isUtf8(octets) ? 'utf-8' : 'windows-1252')?.decode(octets) ?? '';
  return hidden === null ? [narrow] : [decoderOf(hidden)?.decode(octets) ?? '', narrow];
}

/** UTF-16 of a script with letters below U+0100 has a NUL in nearly every second octet. */
function wideWithoutName(sample: Buffer): string | null {
  let even = 0;
  let odd = 0;
  for (let at = 0; at + 1 < sample.length; at += 2) {
    if (sample[at] === 0) even++;
    if (sample[at + 1] === 0) odd++;
  }
  const many = sample.length * 0.2;
  if (odd > many && odd > 2 * even) return 'utf-16le';
  return even > many && even > 2 * odd ? 'utf-16be' : null;
}

function byteOrderMark(octets: Buffer): string | null {
  const [first, second, third] = octets;
  if (first === 0xef && second === 0xbb && third === 0xbf) return 'utf-8';
  if (first === 0xff && second === 0xfe) return 'utf-16le';
  return first === 0xfe && second === 0xff ? 'utf-16be' : null;
}

/** null: there is no such charset. The Encoding Standard has some 220 names, and no others are kept. */
function decoderOf(label: string): TextDecoder | null {
  const known = decoders.get(label);
  if (known !== undefined) return known;
  try {
    const decoder = new TextDecoder(label);
    decoders.set(label, decoder);
    return decoder;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** RFC 2152. What is no base64 stays as it is. */
function decodeUtf7(text: string): string {
  return text.replaceAll(/\+([\dA-Za-z+/]*)-?/g, (whole: string, encoded: string) => {
    if (encoded === '') return whole === '+-' ? '+' : whole;
    const octets = Buffer.from(encoded, 'base64');
    return decoderOf('utf-16be')?.decode(octets.subarray(0, octets.length & ~1)) ?? '';
  });
}
