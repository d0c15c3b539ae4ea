import { createPrivateKey, type KeyObject } from 'node:crypto';
import { resolve, sep } from 'node:path';

import { shown } from './errors.ts';
import { readSmallFile } from './files.ts';

/** A private key, or why the file can't be used. */
export type KeyReading =
  | {
      readonly ok: true;
      readonly key: KeyObject;
      readonly algorithm: 'rsa-sha256' | 'ed25519-sha256';
      /** Something that works, and had better be changed; null: nothing. */
      readonly note: string | null;
    }
  | { readonly ok: false; readonly wrong: string; readonly remedy: string };

/** Far above any key: a 16,384-bit RSA key has 13 KB. */
const LARGEST_FILE = 65_536;

const MAKE_ONE = 'expected a PEM file as opendkim-genkey or "openssl genpkey" makes it';

/** Reads and judges the file of a signing key. The text of the file is in no message. */
export async function readSigningKey(path: string): Promise<KeyReading> {
  const reading = await readSmallFile(path, LARGEST_FILE);
  if (!reading.ok) {
    const remedy =
      reading.why === 'denied'
        ? 'make that user its owner'
        : reading.why === 'too-large'
          ? MAKE_ONE
          : 'expected the path of a file with a private key';
    return bad(`${shown(path)} can't be used: ${reading.detail}`, remedy);
  }
  // RFC 6376 §8.4: whoever reads the private key can sign as this domain.
  const mode = reading.stat.mode & 0o777;
  if ((mode & 0o077) !== 0 && !isCredential(path)) {
    const who = (mode & 0o007) === 0 ? 'its group' : 'everybody';
    return bad(
      `${shown(path)} is open to ${who} (mode 0${mode.toString(8)})`,
      'take the permissions away: chmod 600',
    );
  }
  return parseSigningKey(reading.octets.toString('latin1'), path);
}

/** Files that systemd handed to this service alone (LoadCredential=); the access list that does so shows as group bits. */
export function isCredential(path: string): boolean {
  const folder = process.env['CREDENTIALS_DIRECTORY'];
  return folder !== undefined && folder !== '' && resolve(path).startsWith(resolve(folder) + sep);
}

/** @param name of the file, for messages */
function parseSigningKey(pem: string, name: string): KeyReading {
  const label = /-----BEGIN ([A-Z0-9 ]{1,40})-----/.exec(pem)?.[1];
  if (label === undefined) return bad(`${shown(name)} holds no PEM`, MAKE_ONE);
  if (label.endsWith('PUBLIC KEY'))
    return bad(
      `${shown(name)} holds the public key`,
      'expected the private key; the public one goes into DNS',
    );
  if (!label.endsWith('PRIVATE KEY'))
    return bad(`${shown(name)} holds ${article(label)}`, 'expected a private key');
  if (label.startsWith('ENCRYPTED') || /^Proc-Type: 4,ENCRYPTED/m.test(pem))
    return bad(
      `${shown(name)} is protected by a pass phrase`,
      'expected a key without one: run openssl pkey -in … -out …',
    );
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    // OpenSSL's words say nothing to an operator ("error:1E08010C:DECODER routines::unsupported"); the label was right, so:
    return bad(`${shown(name)} is damaged: no key can be read from it`, MAKE_ONE);
  }
  // RFC 8463
  if (key.asymmetricKeyType === 'ed25519') return { ok: true, key, algorithm: 'ed25519-sha256', note: null };
  if (key.asymmetricKeyType !== 'rsa') {
    return bad(
      `${shown(name)} holds a key of type ${key.asymmetricKeyType ?? 'unknown'}, which DKIM does not know`,
      'expected an RSA or Ed25519 key',
    );
  }
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
  // RFC 8301 §3.2: signers MUST use at least 1024 bits and SHOULD use at least 2048; verifiers refuse less than 1024.
  if (bits < 1024) {
    return bad(
      `${shown(name)} is an RSA key of ${bits} bits, which is not accepted anywhere`,
      'expected 2048 bits or more',
    );
  }
  const note = bits < 2048 ? `${shown(name)} is an RSA key of ${bits} bits; 2048 bits are better` : null;
  return { ok: true, key, algorithm: 'rsa-sha256', note };
}

function article(label: string): string {
  return `${/^[AEIOU]/.test(label) ? 'an' : 'a'} ${label.toLowerCase()}`;
}

function bad(wrong: string, remedy: string): Extract<KeyReading, { ok: false }> {
  return { ok: false, wrong, remedy };
}
