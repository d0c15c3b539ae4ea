import { createPrivateKey, type KeyObject } from 'node:crypto';

import { shown } from './errors.ts';
import { readPrivateFile } from './secret-file.ts';

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
const LARGEST_KEY = 65_536;

const MAKE_ONE = 'expected a PEM file as opendkim-genkey or "openssl genpkey" makes it';

/** Reads and judges the file of a signing key. The text of the file is in no message. */
export async function readSigningKey(path: string): Promise<KeyReading> {
  // RFC 6376 §8.4: whoever reads the private key can sign as this domain.
  const reading = await readPrivateFile(path, LARGEST_KEY);
  if (reading.ok) return parsePem(reading.octets.toString('latin1'), shown(path));
  switch (reading.why) {
    case 'open':
      return bad(reading.wrong, 'take the permissions away: chmod 600');
    case 'denied':
      return bad(reading.wrong, 'make that user its owner');
    case 'too-large':
      return bad(reading.wrong, MAKE_ONE);
    case 'absent':
    case 'not-a-file':
    case 'failed':
      return bad(reading.wrong, 'expected the path of a file with a private key');
  }
}

const BASE64 = /^[A-Za-z0-9+/\s]+={0,2}\s*$/;

/** RFC 8032 §5.1.5; RFC 8410 §7: what stands before the octets of such a key. */
const ED25519_SEED = 32;
const ED25519_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');

/**
 * Judges a signing key that is kept in a table: PEM, or the base64 that PEM has between its lines; of Ed25519 also the base64 of its 32 octets, as
 * dkimpy and rspamd write it. The text is in no message.
 *
 * @param name of the key, for messages
 */
export function parseSigningKey(text: string, name: string): KeyReading {
  if (text.length > LARGEST_KEY) return bad(`${name} has more than ${LARGEST_KEY} octets`, MAKE_ONE);
  if (text.includes('-----BEGIN ')) return parsePem(text, name);
  if (!BASE64.test(text)) return bad(`${name} is neither PEM nor base64`, MAKE_ONE);
  const octets = Buffer.from(text, 'base64');
  const der = octets.length === ED25519_SEED ? Buffer.concat([ED25519_PREFIX, octets]) : octets;
  // PKCS#8, which names its kind, else the older form of RSA alone (RFC 8017 §A.1.2).
  return judged(
    keyIn({ key: der, format: 'der', type: 'pkcs8' }) ?? keyIn({ key: der, format: 'der', type: 'pkcs1' }),
    name,
  );
}

/** @param name of the file, for messages */
function parsePem(pem: string, name: string): KeyReading {
  const label = /-----BEGIN ([A-Z0-9 ]{1,40})-----/.exec(pem)?.[1];
  if (label === undefined) return bad(`${name} holds no PEM`, MAKE_ONE);
  if (label.endsWith('PUBLIC KEY'))
    return bad(`${name} holds the public key`, 'expected the private key; the public one goes into DNS');
  if (!label.endsWith('PRIVATE KEY')) return bad(`${name} holds ${article(label)}`, 'expected a private key');
  if (label.startsWith('ENCRYPTED') || /^Proc-Type: 4,ENCRYPTED/m.test(pem))
    return bad(
      `${name} is protected by a pass phrase`,
      'expected a key without one: run openssl pkey -in … -out …',
    );
  return judged(keyIn(pem), name);
}

/** null: OpenSSL's words say nothing to an operator ("error:1E08010C:DECODER routines::unsupported"). */
function keyIn(given: Parameters<typeof createPrivateKey>[0]): KeyObject | null {
  try {
    return createPrivateKey(given);
  } catch {
    return null;
  }
}

function judged(key: KeyObject | null, name: string): KeyReading {
  if (key === null) return bad(`${name} is damaged: no key can be read from it`, MAKE_ONE);
  // RFC 8463
  if (key.asymmetricKeyType === 'ed25519') return { ok: true, key, algorithm: 'ed25519-sha256', note: null };
  if (key.asymmetricKeyType !== 'rsa') {
    return bad(
      `${name} holds a key of type ${key.asymmetricKeyType ?? 'unknown'}, which DKIM does not know`,
      'expected an RSA or Ed25519 key',
    );
  }
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
  // RFC 8301 §3.2: signers MUST use at least 1024 bits and SHOULD use at least 2048; verifiers refuse less than 1024.
  if (bits < 1024) {
    return bad(
      `${name} is an RSA key of ${bits} bits, which is not accepted anywhere`,
      'expected 2048 bits or more',
    );
  }
  const note = bits < 2048 ? `${name} is an RSA key of ${bits} bits; 2048 bits are better` : null;
  return { ok: true, key, algorithm: 'rsa-sha256', note };
}

function article(label: string): string {
  return `${/^[AEIOU]/.test(label) ? 'an' : 'a'} ${label.toLowerCase()}`;
}

function bad(wrong: string, remedy: string): Extract<KeyReading, { ok: false }> {
  return { ok: false, wrong, remedy };
}
