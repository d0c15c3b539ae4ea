import { createHash, sign, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';

import type { SigningAlgorithm } from '../ports/signing-keys.ts';

// The form with a callback: it works on another thread, so that the loop does not wait for RSA.
const signAside = promisify(sign);

/** b= of RFC 6376 §3.7, in base64. `data` is latin1 text. */
export async function signature(
  { algorithm, key }: { readonly algorithm: SigningAlgorithm; readonly key: KeyObject },
  data: string,
): Promise<string> {
  switch (algorithm) {
    case 'rsa-sha256':
      return (await signAside('sha256', Buffer.from(data, 'latin1'), key)).toString('base64');
    case 'ed25519-sha256':
      // RFC 8463 §3: what Ed25519 signs is the SHA-256 of the data. Here and now: the way to another thread and back costs half as much again.
      return sign(null, createHash('sha256').update(data, 'latin1').digest(), key).toString('base64');
  }
}
