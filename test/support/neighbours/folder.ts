import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface PrivateFolder extends AsyncDisposable {
  readonly path: string;
  join(...parts: string[]): string;
}

/** A fresh folder that any user may enter (the neighbours change to users of their own), removed on disposal. */
export async function privateFolder(kind: string): Promise<PrivateFolder> {
  const path = await mkdtemp(join(tmpdir(), `postern-${kind}-`));
  await chmod(path, 0o755);
  return {
    path,
    join: (...parts) => join(path, ...parts),
    async [Symbol.asyncDispose]() {
      // Retries: a process that was just killed may still be writing a last file.
      await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
    },
  };
}
