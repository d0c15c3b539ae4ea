import { parseForwardPath } from '../mail/address.ts';
import type { PathCommand } from './envelope-lines.ts';

// RFC 5321 §4.1.2: Dot-string; UTF-8 where SMTPUTF8 allows it (RFC 6531 §3.3).
const DOT_STRING = /^[\w!#$%&'*+/=?^`{|}~\x80-\xff-]+(?:\.[\w!#$%&'*+/=?^`{|}~\x80-\xff-]+)*$/;

/**
 * The recipient with a folder's name for its detail (RFC 5233 §4): `zeus+Junk@example.org`. A detail that was there gives way: what is junk is to be
 * found among the junk, whatever folder the sender thought of.
 */
export function forFolder({ path, parameters }: PathCommand, folder: string, delimiter: string): PathCommand {
  const { raw, local } = parseForwardPath(path);
  const at = raw.lastIndexOf('@');
  const cut = local.indexOf(delimiter, 1);
  const detailed = `${cut === -1 ? local : local.slice(0, cut)}${delimiter}${folder}`;
  const written = DOT_STRING.test(detailed) ? detailed : `"${detailed.replaceAll(/["\\]/g, '\\$&')}"`;
  return { path: `<${written}${at === -1 ? '' : raw.slice(at)}>`, parameters };
}
