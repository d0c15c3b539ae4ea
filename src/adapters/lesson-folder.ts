import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { LessonsFull, type Lesson, type LessonQueue } from '../ports/lessons.ts';
import { LABEL_KINDS } from '../ports/store.ts';

/** Waits for the scanner: `DIGEST.lesson`, the digest being that of message and user. */
const WAITING = /^[0-9a-f]{32}\.lesson$/;
/** Taken out for an attempt. */
const TAKEN = /^[0-9a-f]{32}\.lesson\.taken$/;
const TAKEN_SUFFIX = '.taken';
/** Not yet complete. */
const NEW = /^\.new-/;
/** So old, it is what a process that was killed left behind. */
const LEFT_BEHIND_MS = 3_600_000;
/** What a file takes on the disk at least, in octets. */
const LEAST_SIZE = 4096;
/** The first line of a file: message, user and label. */
const HEAD_LIMIT = 8192;

/** Versioned, because it outlives the program that wrote it. */
const HEAD = z.strictObject({
  version: z.literal(1),
  message: z.string(),
  user: z.string(),
  label: z.enum(LABEL_KINDS),
  time: z.number(),
});

export interface LessonFolderOptions {
  /** Octets of all that waits. */
  readonly limit: () => number;
  /** A file that nobody can learn from was removed. */
  readonly unreadable: (name: string, error: unknown) => void;
}

/**
 * A file for each lesson: a line of JSON, then the message. It appears whole, by a rename. What a power cut takes of the last moments is not worth
 * a sync for each of a thousand messages that are moved at once.
 */
export class LessonFolder implements LessonQueue {
  readonly #folder: string;
  readonly #options: LessonFolderOptions;
  /** Octets of each file, as far as known: another process may have written some. */
  readonly #sizes = new Map<string, number>();
  #total = 0;
  /** Names that changed since the folder began to be looked through: what was found of them is old. */
  readonly #changed = new Set<string>();

  private constructor(folder: string, options: LessonFolderOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  /** Opens `folder`, made when missing. */
  static async open(folder: string, options: LessonFolderOptions): Promise<LessonFolder> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const opened = new LessonFolder(folder, options);
    await opened.#look();
    return opened;
  }

  /** For the one process that teaches, at its start: what an earlier one had taken out waits again. */
  async recover(now: number): Promise<void> {
    for (const name of await readdir(this.#folder)) {
      if (TAKEN.test(name)) await this.putBack(name.slice(0, -TAKEN_SUFFIX.length));
      if (!NEW.test(name)) continue;
      const path = join(this.#folder, name);
      const { mtimeMs } = await stat(path);
      if (now - mtimeMs > LEFT_BEHIND_MS) await rm(path, { force: true });
    }
    await this.#look();
  }

  /** Octets of all that waits. */
  get octets(): number {
    return this.#total;
  }

  get count(): number {
    return this.#sizes.size;
  }

  async add(lesson: Lesson): Promise<void> {
    const { message, user, label, time, content } = lesson;
    const head = `${JSON.stringify({ version: 1, message, user, label, time } satisfies z.input<typeof HEAD>)}\n`;
    if (Buffer.byteLength(head) > HEAD_LIMIT) throw new TypeError('the names in a lesson are too long');
    const name = nameOf(lesson);
    const size = Math.max(LEAST_SIZE, Buffer.byteLength(head) + content.length);
    const limit = this.#options.limit();
    if (this.#total - (this.#sizes.get(name) ?? 0) + size > limit) throw new LessonsFull(this.#total);
    // Counted before it is there: many may come at once.
    const before = this.#sizes.get(name);
    this.#note(name, size);
    const passing = join(this.#folder, `.new-${randomBytes(8).toString('hex')}`);
    try {
      await using file = await open(passing, 'wx', 0o600);
      await file.writeFile(head);
      await file.writeFile(content);
      await rename(passing, join(this.#folder, name));
      // Whoever looked meanwhile did not see it.
      this.#note(name, size);
    } catch (error) {
      if (before === undefined) this.#forget(name);
      else this.#note(name, before);
      await rm(passing, { force: true });
      throw error;
    }
  }

  async drop(lesson: Pick<Lesson, 'message' | 'user'>): Promise<void> {
    const name = nameOf(lesson);
    await rm(join(this.#folder, name), { force: true });
    this.#forget(name);
  }

  async waiting(): Promise<readonly string[]> {
    return await this.#look();
  }

  async take(name: string): Promise<Lesson | null> {
    const taken = this.#taken(name);
    try {
      await rename(join(this.#folder, name), taken);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      this.#forget(name);
      return null;
    }
    this.#forget(name);
    try {
      return await readLesson(taken);
    } catch (error) {
      if (isAbsent(error)) return null;
      if (!(error instanceof z.ZodError || error instanceof SyntaxError)) {
        await this.putBack(name);
        throw error;
      }
      await rm(taken, { force: true });
      this.#options.unreadable(name, error);
      return null;
    }
  }

  async done(name: string): Promise<void> {
    await rm(this.#taken(name), { force: true });
  }

  async putBack(name: string): Promise<void> {
    const taken = this.#taken(name);
    const path = join(this.#folder, name);
    try {
      // Unlike a rename, this does not take the place of a later lesson.
      await link(taken, path);
      this.#note(name, Math.max(LEAST_SIZE, (await stat(path)).size));
    } catch (error) {
      if (!hasCode(error, 'EEXIST') && !isAbsent(error)) throw error;
    }
    await rm(taken, { force: true });
  }

  /** Names of what waits, the oldest first. */
  async #look(): Promise<string[]> {
    this.#changed.clear();
    const found: { name: string; time: number }[] = [];
    for (const name of await readdir(this.#folder)) {
      if (!WAITING.test(name)) continue;
      try {
        const { mtimeMs, size } = await stat(join(this.#folder, name));
        found.push({ name, time: mtimeMs });
        if (!this.#changed.has(name)) this.#set(name, Math.max(LEAST_SIZE, size));
      } catch (error) {
        // Another process has dropped it.
        if (!isAbsent(error)) throw error;
      }
    }
    const there = new Set(found.map(({ name }) => name));
    for (const name of this.#sizes.keys()) {
      if (!there.has(name) && !this.#changed.has(name)) this.#set(name, null);
    }
    return found.toSorted((a, b) => a.time - b.time).map(({ name }) => name);
  }

  #taken(name: string): string {
    return join(this.#folder, `${name}${TAKEN_SUFFIX}`);
  }

  #note(name: string, size: number): void {
    this.#changed.add(name);
    this.#set(name, size);
  }

  #forget(name: string): void {
    this.#changed.add(name);
    this.#set(name, null);
  }

  #set(name: string, size: number | null): void {
    this.#total += (size ?? 0) - (this.#sizes.get(name) ?? 0);
    if (size === null) this.#sizes.delete(name);
    else this.#sizes.set(name, size);
  }
}

function nameOf({ message, user }: Pick<Lesson, 'message' | 'user'>): string {
  const digest = createHash('sha256').update(`${message}\0${user}`).digest('hex');
  return `${digest.slice(0, 32)}.lesson`;
}

async function readLesson(path: string): Promise<Lesson> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const octets = await file.readFile();
  const end = octets.indexOf(0x0a);
  if (end === -1) throw new SyntaxError('it has no first line');
  const { version: _, ...label } = HEAD.parse(JSON.parse(octets.toString('utf8', 0, end)));
  return { ...label, content: octets.subarray(end + 1) };
}

function isAbsent(error: unknown): boolean {
  return hasCode(error, 'ENOENT');
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
