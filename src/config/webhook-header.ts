import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { isCredential } from './keys.ts';

export interface WebhookHeader {
  readonly name: string;
  readonly value: string;
}

/** The field that the webhook wants, or why the file can't be used. */
export type WebhookHeaderReading =
  | { readonly ok: true; readonly header: WebhookHeader }
  | { readonly ok: false; readonly wrong: string; readonly remedy: string };

/** Longer than any token; web servers refuse fields of more than 8 KB. */
export const LARGEST_HEADER_FILE = 4096;

const MAKE_ONE = 'expected one line such as "Authorization: Bearer …"';

/** Fields by which the request itself is told. RFC 9110 §7.2, §8.6, RFC 9112 §6.1, §9.6. */
const NOT_THESE =
  /^(?:host|content-length|content-type|transfer-encoding|connection|upgrade|te|trailer|expect)$/i;

/** The text of the file is in no message. */
export async function readWebhookHeader(path: string): Promise<WebhookHeaderReading> {
  const reading = await readSmallFile(path, LARGEST_HEADER_FILE);
  if (!reading.ok) return bad(`${shown(path)} can't be used: ${reading.detail}`, MAKE_ONE);
  const mode = reading.stat.mode & 0o777;
  if ((mode & 0o077) !== 0 && !isCredential(path)) {
    const who = (mode & 0o007) === 0 ? 'its group' : 'everybody';
    return bad(
      `${shown(path)} is open to ${who} (mode 0${mode.toString(8)})`,
      'take the permissions away: chmod 600',
    );
  }
  // RFC 9110 §5.1, §5.5: a token, and printable text without white space around it.
  const line = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~](?:[ -~]*[!-~])?)\r?\n?$/.exec(
    reading.octets.toString('latin1'),
  );
  const [, name = '', value = ''] = line ?? [];
  if (line === null) return bad(`${shown(path)} holds no header field`, MAKE_ONE);
  if (NOT_THESE.test(name))
    return bad(`${shown(path)} holds the field ${name}, which is not free to choose`, MAKE_ONE);
  return { ok: true, header: { name, value } };
}

function bad(wrong: string, remedy: string): WebhookHeaderReading {
  return { ok: false, wrong, remedy };
}
