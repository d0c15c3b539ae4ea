import { resolve, sep } from 'node:path';

import { shown } from './errors.ts';
import { readSmallFile, type FileReading } from './files.ts';

/** A file that only its owner may read, or why it can't be used. */
export type PrivateReading =
  | { readonly ok: true; readonly octets: Buffer }
  | {
      readonly ok: false;
      readonly why: Extract<FileReading, { ok: false }>['why'] | 'open';
      readonly wrong: string;
    };

/** A password or key that a file holds alone, or why it can't be used. The text of the file is in no message. */
export type SecretReading =
  { readonly ok: true; readonly secret: string } | { readonly ok: false; readonly wrong: string };

const LONGEST = 1024;

const CREDENTIAL = /^credential:([A-Za-z0-9_][A-Za-z0-9_.-]{0,254})$/;

/** The name of a secret that systemd gives to this process; null: it is a path. */
export function credentialName(written: string): string | null {
  return CREDENTIAL.exec(written)?.[1] ?? null;
}

/** Where a secret is: relative to the folder, or by "credential:NAME" among those that systemd gave to this process (LoadCredential=). */
export function secretPath(folder: string, written: string): string {
  const name = credentialName(written);
  if (name === null) return resolve(folder, written);
  // systemd.exec(5): the folder that $CREDENTIALS_DIRECTORY names. Without one the message says what is missing.
  return resolve(process.env['CREDENTIALS_DIRECTORY'] ?? '/run/credentials', name);
}

/** Files that systemd handed to this service alone (LoadCredential=); the access list that does so shows as group bits. */
function isCredential(path: string): boolean {
  const folder = process.env['CREDENTIALS_DIRECTORY'];
  return folder !== undefined && folder !== '' && resolve(path).startsWith(resolve(folder) + sep);
}

/** Reads a file of at most `limit` octets that nobody but its owner may read. */
export async function readPrivateFile(path: string, limit: number): Promise<PrivateReading> {
  const reading = await readSmallFile(path, limit);
  if (!reading.ok)
    return { ok: false, why: reading.why, wrong: `${shown(path)} can't be used: ${reading.detail}` };
  const mode = reading.stat.mode & 0o777;
  if ((mode & 0o077) !== 0 && !isCredential(path)) {
    const who = (mode & 0o007) === 0 ? 'its group' : 'everybody';
    return {
      ok: false,
      why: 'open',
      wrong: `${shown(path)} is open to ${who} (mode 0${mode.toString(8)})`,
    };
  }
  return { ok: true, octets: reading.octets };
}

/**
 * Reads a secret of one line.
 *
 * @param lineEnd whether the file may end with one; it does not belong to the secret. Dovecot takes it for a part (`setting = <file`), so that a file
 * shared with it must have none.
 */
export async function readSecret(path: string, lineEnd: 'allowed' | 'refused'): Promise<SecretReading> {
  const reading = await readPrivateFile(path, LONGEST);
  if (!reading.ok)
    return { ok: false, wrong: reading.why === 'open' ? `${reading.wrong}: chmod 600` : reading.wrong };
  const text = reading.octets.toString('utf8');
  if (lineEnd === 'refused' && text.endsWith('\n')) {
    const wrong = `${shown(path)} ends with a line end, which Dovecot takes for a part of the key: write it with printf, not echo`;
    return { ok: false, wrong };
  }
  const secret = text.replace(/\r?\n$/, '');
  if (secret === '' || /\p{Cc}/u.test(secret)) {
    return { ok: false, wrong: `${shown(path)} does not hold one line of text` };
  }
  return { ok: true, secret };
}
