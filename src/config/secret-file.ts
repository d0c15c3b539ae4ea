import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';
import { isCredential } from './keys.ts';

/** A password or key that a file holds alone, or why it can't be used. The text of the file is in no message. */
export type SecretReading =
  { readonly ok: true; readonly secret: string } | { readonly ok: false; readonly wrong: string };

const LONGEST = 1024;

/** Reads a secret: one line, whose end does not belong to it. */
export async function readSecret(path: string): Promise<SecretReading> {
  const reading = await readSmallFile(path, LONGEST);
  if (!reading.ok) return { ok: false, wrong: `${shown(path)} can't be used: ${reading.detail}` };
  const mode = reading.stat.mode & 0o777;
  if ((mode & 0o077) !== 0 && !isCredential(path)) {
    const who = (mode & 0o007) === 0 ? 'its group' : 'everybody';
    return { ok: false, wrong: `${shown(path)} is open to ${who} (mode 0${mode.toString(8)}): chmod 600` };
  }
  const secret = reading.octets.toString('utf8').replace(/\r?\n$/, '');
  if (secret === '' || /\p{Cc}/u.test(secret)) {
    return { ok: false, wrong: `${shown(path)} does not hold one line of text` };
  }
  return { ok: true, secret };
}
