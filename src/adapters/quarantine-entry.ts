import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

/** Within the folder of one message. */
export const MESSAGE_FILE = 'message.eml';
export const ENVELOPE_FILE = 'envelope.json';

/** Octets of an envelope file: 4 MiB of addresses, each octet of which may be written as \u00XX, and the rest. */
const ENVELOPE_LIMIT = 32 * 1024 * 1024;

/** What stands beside a message. Versioned, because it outlives the program that wrote it. */
const ENVELOPE = z.strictObject({
  version: z.literal(1),
  daemon: z.enum(['milter', 'lmtp-filter']),
  trace: z.string(),
  queueId: z.string().nullable(),
  time: z.number(),
  direction: z.enum(['in', 'out']),
  client: z.string(),
  helo: z.string().nullable(),
  login: z.string().nullable(),
  sender: z.string(),
  recipients: z.array(z.string()),
  rule: z.string(),
  why: z.string(),
  score: z.number().nullable(),
  from: z.string(),
  subject: z.string(),
  /** Octets of the message file. */
  size: z.number(),
});

export type QuarantineEnvelope = z.output<typeof ENVELOPE>;

/** null: there is no such entry. @throws when it can't be read, or is not what was written */
export async function readEnvelope(folder: string): Promise<QuarantineEnvelope | null> {
  let file: FileHandle;
  try {
    file = await open(join(folder, ENVELOPE_FILE), constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (isAbsent(error)) return null;
    throw error;
  }
  await using owned = file;
  const { size } = await owned.stat();
  if (size > ENVELOPE_LIMIT) throw new Error(`the envelope has more than ${ENVELOPE_LIMIT} octets`);
  const { buffer, bytesRead } = await owned.read(Buffer.alloc(size), 0, size, 0);
  return ENVELOPE.parse(JSON.parse(buffer.toString('utf8', 0, bytesRead)));
}

export function envelopeText(envelope: QuarantineEnvelope): string {
  return `${JSON.stringify(ENVELOPE.parse(envelope))}\n`;
}

/** Octets that survive a crash, in a new file that nobody else may read. */
export async function writeDurably(
  path: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<number> {
  await using file = await open(path, 'wx', 0o600);
  let size = 0;
  for await (const chunk of content) {
    for (let at = 0; at < chunk.length;) at += (await file.write(chunk, at)).bytesWritten;
    size += chunk.length;
  }
  await file.sync();
  return size;
}

/** What was made, renamed or removed in a folder survives a crash. */
export async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  await folder.sync();
}

export function isAbsent(error: unknown): boolean {
  return hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR');
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
