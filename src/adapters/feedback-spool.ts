import { constants } from 'node:fs';
import { chmod, chown, lstat, mkdir, open, opendir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';

import type { SpooledFeedback, SpooledRequest } from '../ports/spooled-feedback.ts';

/** Complete, by a rename: what `postern-keep` writes (postern wire dovecot). */
const KEPT = /^[A-Za-z0-9]{8,64}\.kept$/;
/** Being written. */
const NEW = /^\.new-/;
/** So old, it is what a process that was killed left behind. */
const LEFT_BEHIND_MS = 3_600_000;
/** Names that are looked at in one go: whoever may write there may write many. */
export const SPOOL_NAMES = 2000;

export interface FeedbackSpoolOptions {
  readonly now: () => number;
  /** Group of those who write there; null: that of this process. */
  readonly group: number | null;
  /** Whether everybody may. */
  readonly open: boolean;
}

/** A folder that others write files into, each a file of their own, and this process reads and empties. */
export class FeedbackSpool implements SpooledFeedback {
  readonly #folder: string;
  readonly #now: () => number;

  private constructor(folder: string, now: () => number) {
    this.#folder = folder;
    this.#now = now;
  }

  /** Opens `folder`, made when missing. @throws {Error} that says how to mend it */
  static async open(folder: string, options: FeedbackSpoolOptions): Promise<FeedbackSpool> {
    try {
      await make(folder, options);
      const found = await lstat(folder);
      if (!found.isDirectory()) throw new Error('it is no folder');
      // Only the owner may remove what others wrote.
      if (found.uid !== process.geteuid?.()) throw new Error('it belongs to somebody else');
    } catch (error) {
      const why = error instanceof Error ? error.message : 'unknown error';
      const remedy =
        'make it: install -d -o USER -g GROUP -m 3770, with the user of Postern and feedback.group';
      throw new Error(`feedback.spool ${folder}: ${why}; ${remedy}`, { cause: error });
    }
    return new FeedbackSpool(folder, options.now);
  }

  async waiting(): Promise<readonly string[]> {
    const found: { readonly name: string; readonly time: number }[] = [];
    for await (const entry of await opendir(this.#folder)) {
      // A link, a pipe or a folder comes from nobody who may speak here.
      if (!entry.isFile()) continue;
      const { name } = entry;
      if (found.length === SPOOL_NAMES) break;
      if (KEPT.test(name)) {
        const time = await this.#changed(name);
        if (time !== null) found.push({ name, time });
      } else if (NEW.test(name)) await this.#tidy(name);
    }
    return found.toSorted((a, b) => a.time - b.time).map(({ name }) => name);
  }

  async read(name: string, limit: number): Promise<SpooledRequest | null> {
    let file;
    try {
      // Neither a link to somebody else's file, nor a pipe that nobody writes to.
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      file = await open(join(this.#folder, name), flags);
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'ELOOP')) return null;
      throw error;
    }
    await using _ = file;
    const found = await file.stat();
    if (!found.isFile() || found.nlink !== 1) return null;
    const octets = Buffer.alloc(Math.min(found.size, limit));
    let length = 0;
    while (length < octets.length) {
      const { bytesRead } = await file.read(octets, length, octets.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return { octets: octets.subarray(0, length), time: Math.min(Math.floor(found.mtimeMs), this.#now()) };
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.#folder, name), { force: true });
  }

  async #tidy(name: string): Promise<void> {
    const time = await this.#changed(name);
    if (time !== null && this.#now() - time > LEFT_BEHIND_MS) await this.remove(name);
  }

  async #changed(name: string): Promise<number | null> {
    try {
      return (await lstat(join(this.#folder, name))).mtimeMs;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return null;
      throw error;
    }
  }
}

/** An existing one stays as its owner made it. */
async function make(folder: string, { group, open: forAll }: FeedbackSpoolOptions): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return;
    throw error;
  }
  try {
    if (group !== null) await chown(folder, -1, group);
    // What is written there belongs to the folder's group, so that this process can read it, and only its writer and this process can remove it.
    await chmod(folder, forAll ? 0o3777 : 0o3770);
  } catch (error) {
    await rmdir(folder);
    throw error;
  }
}

function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return (
    error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code)
  );
}
