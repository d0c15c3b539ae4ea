import { Resolver } from 'node:dns/promises';

import { dkimVerify } from 'mailauth/lib/dkim/verify.js';
import { dkimSign } from 'mailauth/lib/dkim/sign.js';
import type { KeyObject } from 'node:crypto';

import type { Bind } from './neighbours/bind.ts';

/** Results of every DKIM signature by mailauth, which shares no code with our signer; its DNS is our BIND. */
export async function verifyWithMailauth(message: Buffer, bind: Bind): Promise<string[]> {
  const resolver = new Resolver();
  resolver.setServers([`${bind.host}:${bind.port}`]);
  const { results } = await dkimVerify(message, { resolver: (name) => resolver.resolveTxt(name) });
  return results.map(
    ({ signingDomain, selector, algo, status }) => `${signingDomain} ${selector} ${algo}: ${status.result}`,
  );
}

/** The message with a DKIM-Signature of mailauth's signer on top. */
export async function signWithMailauth(
  message: string,
  domain: string,
  selector: string,
  key: KeyObject,
): Promise<string> {
  const signature = {
    signingDomain: domain,
    selector,
    privateKey: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    algorithm: 'rsa-sha256',
    canonicalization: 'relaxed/relaxed',
  };
  // The typings want one signature at the top, the code takes those of the list alone.
  const { signatures, errors } = await dkimSign(message, { ...signature, signatureData: [signature] });
  if (errors.length > 0) throw new Error(`mailauth could not sign: ${JSON.stringify(errors)}`);
  return `${signatures}${message}`;
}
