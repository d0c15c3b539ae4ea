import { generateKeyPairSync, type KeyObject } from 'node:crypto';

import { arc, sealMessage } from 'mailauth/lib/arc/index.js';
import { dkimSign } from 'mailauth/lib/dkim/sign.js';
import { dkimVerify } from 'mailauth/lib/dkim/verify.js';

import type { Canonicalization } from '../../src/mail/dkim-body.ts';
import type { ArcResult, DkimResultWord } from '../../src/ports/mail-auth.ts';
import { DnsError } from '../../src/ports/resolver.ts';
import type { Zone } from './zone.ts';

/** A key with the TXT record of its public half. */
export interface TestKey {
  readonly algorithm: 'rsa-sha256' | 'ed25519-sha256';
  readonly privateKey: KeyObject;
  readonly record: string;
}

export function rsaKey(modulusLength = 2048): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength });
  const der = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  return { algorithm: 'rsa-sha256', privateKey, record: `v=DKIM1; k=rsa; p=${der}` };
}

export function ed25519Key(): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const raw = publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('base64');
  return { algorithm: 'ed25519-sha256', privateKey, record: `v=DKIM1; k=ed25519; p=${raw}` };
}

export interface Signer {
  readonly domain: string;
  readonly selector: string;
  readonly key: TestKey;
  readonly canonicalization?: `${Canonicalization}/${Canonicalization}`;
  /** l= */
  readonly length?: number;
  /** Seconds. */
  readonly time?: number;
}

function pem({ privateKey }: TestKey): string {
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** The message with a DKIM-Signature of mailauth's signer on top. One character for each octet. */
export async function dkimSigned(message: string, signer: Signer): Promise<string> {
  const { domain, selector, key, canonicalization = 'relaxed/relaxed', length, time } = signer;
  const signature = {
    signingDomain: domain,
    selector,
    privateKey: pem(key),
    algorithm: key.algorithm,
    canonicalization,
    ...(length === undefined ? {} : { maxBodyLength: length }),
    ...(time === undefined ? {} : { signTime: new Date(time * 1000) }),
  };
  const { signatures, errors } = await dkimSign(Buffer.from(message, 'latin1'), {
    ...signature,
    signatureData: [signature],
  });
  if (errors.length > 0) throw new Error(`mailauth could not sign: ${JSON.stringify(errors)}`);
  return `${signatures}${message}`;
}

/** The message with one more ARC set of mailauth's on top. */
export async function arcSealed(
  message: string,
  { domain, selector, key }: Signer,
  results: string,
  cv: 'none' | 'pass' | 'fail',
): Promise<string> {
  const set = await sealMessage(Buffer.from(message, 'latin1'), {
    signingDomain: domain,
    selector,
    privateKey: pem(key),
    algorithm: key.algorithm,
    canonicalization: 'relaxed/relaxed',
    authResults: results,
    cv,
  });
  return `${set.toString('latin1')}${message}`;
}

/** mailauth's own verdict, in the words of RFC 8601: its neutral is ours but for what is wrong with a key (RFC 6376 §6.1.2). */
export interface OracleVerdict {
  readonly dkim: readonly { readonly word: DkimResultWord; readonly why: string }[];
  readonly arc: ArcResult['result'];
}

const KEY_FAULTS: ReadonlySet<string> = new Set([
  'no key',
  'unknown key version',
  'unknown key type',
  'invalid public key',
  'inappropriate hash algorithm',
  'inappropriate key algorithm',
  'key not for email',
]);

/** What mailauth makes of a message, which shares nothing with our verifier but the zone. */
export async function mailauthVerdict(message: string, zone: Zone, now: Date): Promise<OracleVerdict> {
  const resolver = async (name: string): Promise<string[][]> => {
    try {
      const answer = await zone.query(name, 'TXT', new AbortController().signal);
      if (answer.kind !== 'records') throw nodeError('ENOTFOUND');
      return answer.records.map((record) => [record.type === 'TXT' ? record.text : '']);
    } catch (error) {
      if (!(error instanceof DnsError)) throw error;
      throw nodeError(error.code === 'badname' ? 'ENOTFOUND' : 'ESERVFAIL');
    }
  };
  const options = { resolver, strict: true, curTime: now };
  const verified = await dkimVerify(Buffer.from(message, 'latin1'), options);
  const { chain, lastEntry, error } = verified.arc ?? { chain: false };
  const { status } = await arc(
    {
      chain: chain === false ? [] : chain,
      ...(lastEntry === undefined ? {} : { lastEntry }),
      ...(error === undefined ? {} : { error }),
    },
    options,
  );
  const results = verified.results.filter((result) => result.status.result !== 'none');
  return {
    dkim: results.map(({ status: found }) => {
      const why = found.comment ?? '';
      return { word: wordOf(found.result, why, found.underSized ?? 0), why };
    }),
    arc: status.result === 'pass' || status.result === 'none' ? status.result : 'fail',
  };
}

function wordOf(result: string, why: string, unsigned: number): DkimResultWord {
  switch (result) {
    case 'pass':
      return unsigned > 0 ? 'policy' : 'pass';
    case 'fail':
    case 'policy':
    case 'temperror':
      return result;
    default:
      return KEY_FAULTS.has(why) ? 'permerror' : 'neutral';
  }
}

function nodeError(code: string): Error {
  return Object.assign(new Error(code), { code });
}
