import { constants, type Stats } from 'node:fs';
import { open } from 'node:fs/promises';

/** A file's octets, or why there are none. */
export type FileReading =
  | { readonly ok: true; readonly octets: Buffer; readonly stat: Stats }
  | {
      readonly ok: false;
      readonly why: 'absent' | 'denied' | 'not-a-file' | 'too-large' | 'failed';
      readonly detail: string;
    };

/** Reads a regular file of at most `limit` octets. Neither a pipe nor a device can make it wait or fill the memory. */
export async function readSmallFile(path: string, limit: number): Promise<FileReading> {
  try {
    // Without O_NONBLOCK, opening a named pipe waits for its other end.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stat = await file.stat();
    if (!stat.isFile()) return failure('not-a-file', 'it is not a regular file');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(limit + 1), 0, limit + 1, 0);
    if (bytesRead > limit) return failure('too-large', `it has more than ${limit} octets`);
    return { ok: true, octets: buffer.subarray(0, bytesRead), stat };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const code = 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return failure('absent', 'it does not exist');
    if (code === 'EACCES' || code === 'EPERM') {
      return failure('denied', `the user with the number ${process.getuid?.() ?? '?'} may not read it`);
    }
    return failure('failed', error.message);
  }
}

function failure(
  why: Extract<FileReading, { ok: false }>['why'],
  detail: string,
): Extract<FileReading, { ok: false }> {
  return { ok: false, why, detail };
}
