import { dirname, resolve } from 'node:path';

import type { Config } from '../config/config.ts';
import { credentialName } from '../config/secret-file.ts';

/** A secret that Dovecot and we have: the file that Dovecot reads, and how we come by it. */
export interface DovecotSecret {
  readonly path: string;
  /** Follows the shell line that makes the file. */
  readonly ours: string;
}

/** @param written the file as our configuration names it; a credential is a copy that systemd makes of a file of Dovecot's */
export function dovecotSecret({ path }: Pick<Config, 'path'>, written: string): DovecotSecret {
  const name = credentialName(written);
  if (name !== null) {
    const file = `/etc/dovecot/${name}`;
    return { path: file, ours: `   # and in Postern's unit: LoadCredential=${name}:${file}` };
  }
  const file = resolve(path === null ? process.cwd() : dirname(path), written);
  return { path: file, ours: `; chown postern ${file}` };
}
