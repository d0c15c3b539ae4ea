import { generateKeyPair, type KeyObject } from 'node:crypto';

export type KeyKind = 'rsa' | 'ed25519';

/** A new private key as PEM, PKCS#8. RFC 8301 §3.2, RFC 8463. Made on another thread: an RSA key takes from a tenth of a second to several. */
export async function makeKey(kind: KeyKind, rsaBits: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<KeyObject>();
  const done = (error: Error | null, _publicKey: KeyObject, privateKey: KeyObject): void => {
    if (error === null) resolve(privateKey);
    else reject(error);
  };
  switch (kind) {
    case 'rsa':
      generateKeyPair('rsa', { modulusLength: rsaBits }, done);
      break;
    case 'ed25519':
      generateKeyPair('ed25519', {}, done);
      break;
  }
  const key = await promise;
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}
