import { generateKeyPairSync, type KeyObject } from 'node:crypto';

import { sealMessage } from 'mailauth/lib/arc/index.js';

import { DkimSigner } from '../src/milter/dkim-signer.ts';
import { HeaderList, parseHeaderSection } from '../src/mail/header.ts';
import type { SigningKey } from '../src/ports/signing-keys.ts';

export interface KeyPair {
  readonly algorithm: SigningKey['algorithm'];
  readonly privateKey: KeyObject;
  /** Value of the TXT record. */
  readonly record: string;
}

export type Fields = readonly (readonly [string, string])[];

export interface Sample {
  readonly name: string;
  readonly headers: Fields;
  readonly body: Buffer;
}

export function rsaPair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const der = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  return { algorithm: 'rsa-sha256', privateKey, record: `v=DKIM1; k=rsa; p=${der}` };
}

export function ed25519Pair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  // RFC 8463 §4: the 32 raw octets, which close the SubjectPublicKeyInfo.
  const raw = publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('base64');
  return { algorithm: 'ed25519-sha256', privateKey, record: `v=DKIM1; k=ed25519; p=${raw}` };
}

/** A message of about `size` octets in all, plain text in lines of 76. */
export function sample(name: string, size: number, from: string): Sample {
  const headers: Fields = [
    ['From', ` Alice <alice@${from}>`],
    ['To', ' Bob <bob@example.org>'],
    ['Subject', ` A message of ${name}`],
    ['Date', ' Sat, 21 Nov 2026 09:00:00 +0000'],
    ['Message-ID', ` <${name.replaceAll(/\W/g, '')}@${from}>`],
    ['MIME-Version', ' 1.0'],
    ['Content-Type', ' text/plain; charset=us-ascii'],
    ['User-Agent', ' Postern bench'],
  ];
  const line = 'The quick brown fox jumps over the lazy dog, and does so again until it ends\r\n';
  return {
    name,
    headers,
    body: Buffer.from(line.repeat(Math.max(1, Math.round((size - 300) / line.length))), 'latin1'),
  };
}

export async function signed(mail: Sample, domain: string, pair: KeyPair): Promise<Sample> {
  const key: SigningKey = {
    domain,
    selector: 'bench',
    subdomains: false,
    algorithm: pair.algorithm,
    key: pair.privateKey,
  };
  const signing = {
    headerCanonicalization: 'relaxed',
    bodyCanonicalization: 'relaxed',
    oversign: ['From'],
    expire: null,
    lineLimit: 0,
  } as const;
  const signer = new DkimSigner(signing);
  signer.body(mail.body);
  const list = new HeaderList(mail.headers.map(([name, value]) => ({ name, value })));
  const fields = await signer.sign([key], list, Math.floor(Date.now() / 1000));
  return { ...mail, headers: [...fields.map(({ name, value }) => [name, value] as const), ...mail.headers] };
}

/** With one ARC set, as a mailing list or a large provider puts it there. */
export async function sealed(mail: Sample, domain: string, pair: KeyPair): Promise<Sample> {
  const set = await sealMessage(content(mail), {
    signingDomain: domain,
    selector: 'bench',
    privateKey: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    algorithm: pair.algorithm,
    canonicalization: 'relaxed/relaxed',
    authResults: `${domain}; dkim=pass header.d=${domain}; dmarc=pass header.from=${domain}`,
    cv: 'none',
  });
  const fields = parseHeaderSection(set.toString('latin1')).toArray();
  return { ...mail, headers: [...fields.map(({ name, value }) => [name, value] as const), ...mail.headers] };
}

/** The whole message. */
export function content(mail: Sample): Buffer {
  const section = mail.headers.map(([name, value]) => `${name}:${value}\r\n`).join('');
  return Buffer.concat([Buffer.from(`${section}\r\n`, 'latin1'), mail.body]);
}
