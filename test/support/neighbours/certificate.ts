import { chmod } from 'node:fs/promises';

import type { ServerCertificate } from './database.ts';
import type { PrivateFolder } from './folder.ts';
import { run } from './process.ts';

/** A certificate for a name, and the one that signed it (`ca.pem`), in the folder. Whoever may enter the folder may read the certificates. */
export async function makeCertificate(folder: PrivateFolder, name: string): Promise<ServerCertificate> {
  const ca = folder.join('ca.pem');
  const caKey = folder.join('ca.key');
  const certificate = folder.join('server.pem');
  const key = folder.join('server.key');
  const newKey = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '2',
  ];
  await openssl([...newKey, '-subj', '/CN=Postern test CA', '-keyout', caKey, '-out', ca]);
  await openssl([
    ...newKey,
    '-subj',
    `/CN=${name}`,
    '-addext',
    `subjectAltName=DNS:${name}`,
    '-addext',
    'basicConstraints=critical,CA:FALSE',
    '-CA',
    ca,
    '-CAkey',
    caKey,
    '-keyout',
    key,
    '-out',
    certificate,
  ]);
  for (const path of [ca, certificate]) await chmod(path, 0o644);
  return { certificate, key, ca };
}

async function openssl(args: readonly string[]): Promise<void> {
  const result = await run('openssl', args);
  if (result.code !== 0) throw new Error(`openssl: ${result.stderr}`);
}
