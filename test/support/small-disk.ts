import { mkdir } from 'node:fs/promises';

import { run } from './neighbours/process.ts';

/** A disk of its own for a folder, which can be filled; it goes even while it is in use. @param size as in `4m` */
export async function mountSmallDisk(folder: string, size: string): Promise<AsyncDisposable> {
  await mkdir(folder, { mode: 0o700 });
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0700`, 'tmpfs', folder]);
  if (mounted.code !== 0) throw new Error(mounted.stderr);
  return {
    async [Symbol.asyncDispose]() {
      const { code, stderr } = await run('umount', ['--lazy', folder]);
      if (code !== 0) throw new Error(stderr);
    },
  };
}
