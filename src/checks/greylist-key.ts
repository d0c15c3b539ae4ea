import { lowerAscii, settingsKey, type Address } from '../mail/address.ts';

/** More of an address than RFC 5321 §4.5.3.1.3 allows a path; what is cut off only makes two absurd addresses one. */
const ADDRESS_LIMIT = 256;

/** BATV signs a sender anew every day: `prvs=1234abcdef=user`. */
const SIGNED = /^(?:ms)?prvs\d?=[0-9a-z]{1,32}=/;
/** SRS names a forwarder's sender with a digest and the day: `SRS0=hash=day=domain=user`, `SRS1=hash=forwarder==hash=day=domain=user`. */
const REWRITTEN = /^srs(?:0[=+-]|1[=+-][^=]{1,32}=[^=]{1,255}==)[^=]{1,32}=[^=]{1,8}=/;

/** A word so long that is all hexadecimal digits, or has letters and digits, is taken for made up. */
const HEX_LEAST = 8;
const MIXED_LEAST = 16;
/** Beside a word that was made up, so is a shorter one of hexadecimal digits. */
const SHORT_HEX_LEAST = 4;

/**
 * Somebody outside as greylisting remembers him: without what differs from message to message (address extensions; the numbers and digests of
 * VERP, SRS and BATV), so that a newsletter waits once and not with every issue.
 */
export function outsider({ local, domain }: Address): string {
  const signed = lowerAscii(local).replace(SIGNED, '').replace(REWRITTEN, 'srs=');
  const extension = signed.indexOf('+', 1);
  const plain = extension === -1 ? signed : signed.slice(0, extension);
  return `${steady(plain)}@${domain}`.slice(-ADDRESS_LIMIT);
}

/** One of ours: without the address extension. */
export function insider(address: Address, delimiter: string): string {
  return settingsKey(address, delimiter).slice(-ADDRESS_LIMIT);
}

/** `bounce-4711-0a1b2c3d` becomes `bounce-#`; a local part of one word stays, whatever it looks like: it may be a name. */
function steady(local: string): string {
  const words: readonly string[] = local.match(/[a-z0-9]+/g) ?? [];
  if (words.length < 2 || !words.some(isMadeUp)) return local;
  const marked = local.replaceAll(/[a-z0-9]+/g, (word) =>
    isMadeUp(word) || isPieceOfOne(word) ? '#' : word,
  );
  return marked.replaceAll(/#(?:[^a-z0-9#]#)+/g, '#');
}

function isMadeUp(word: string): boolean {
  if (/^\d+$/.test(word)) return true;
  if (!/\d/.test(word)) return false;
  return word.length >= MIXED_LEAST || (word.length >= HEX_LEAST && /^[\da-f]+$/.test(word));
}

function isPieceOfOne(word: string): boolean {
  return word.length >= SHORT_HEX_LEAST && /^[\da-f]+$/.test(word);
}
