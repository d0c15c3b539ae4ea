import { mkdir, open, readdir, rename, rm, rmdir, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import type { LmtpTap, TapStep } from '../players/lmtp-tap.ts';
import { TAP_STEPS } from '../players/lmtp-tap.ts';
import type { StreamStep, StreamTap } from '../players/stream-tap.ts';

const STEP_DEADLINE_MS = 300_000;

/** Something that is done harm to while mail flows. */
export interface Victim {
  readonly name: string;
  readonly steps: readonly string[];
  /** Harms it at that step, when the step was seen so many times before. Resolves when it is harmed. */
  strike(step: string, skip: number): Promise<void>;
  /** Afterwards it is as it was. */
  heal(): Promise<void>;
}

interface Tap<S extends string> {
  onStep: (step: S) => void;
}

/** Calls `harm` within the step. */
async function at<S extends string>(
  tap: Tap<S>,
  step: string,
  skip: number,
  harm: () => Promise<void>,
): Promise<void> {
  const harmed = Promise.withResolvers<void>();
  let left = skip;
  tap.onStep = (seen) => {
    if (seen !== step || left-- > 0) return;
    tap.onStep = () => {};
    harmed.resolve(harm());
  };
  const late = setTimeout(() => harmed.reject(new Error(`${step} was not seen`)), STEP_DEADLINE_MS);
  try {
    await harmed.promise;
  } finally {
    clearTimeout(late);
  }
}

/** New connections are few: of them the first is the one. */
const RARE: ReadonlySet<string> = new Set<TapStep>(['connect', 'LHLO']);

/** One end of the dialogue between lmtp-filter and Dovecot. @param kill sends SIGKILL before it returns */
export function lmtpVictim(
  name: string,
  tap: LmtpTap,
  kill: () => Promise<void>,
  heal: () => Promise<void>,
): Victim {
  return {
    name,
    steps: TAP_STEPS,
    strike: (step, skip) => at(tap, step, RARE.has(step) ? 0 : skip, kill),
    heal,
  };
}

/** A server that lmtp-filter asks. @param kill sends SIGKILL before it returns */
export function askedVictim(
  name: string,
  steps: readonly StreamStep[],
  tap: StreamTap,
  kill: () => Promise<void>,
  heal: () => Promise<void>,
): Victim {
  return { name, steps, strike: (step, skip) => at(tap, step, skip, kill), heal };
}

const FILES = ['postern.sqlite', 'state.sqlite'];
const LOCK_TIMEOUT_MS = 5000;
const CHUNK = Buffer.alloc(65_536);

/**
 * The store as files, which nobody can kill: what else can become of them.
 *
 * @param folder on a small disk of its own
 * @param says resolves when the store's user complains of it, from now on
 */
export function fileVictim(tap: LmtpTap, folder: string, says: (pattern: RegExp) => Promise<void>): Victim {
  let undo: (() => Promise<void>) | null = null;
  const harms = new Map<string, () => Promise<void>>([
    [
      'locked',
      () => {
        const noticed = says(/"why":"database is locked/);
        const locks = FILES.map((name) => new DatabaseSync(join(folder, name), { timeout: LOCK_TIMEOUT_MS }));
        for (const lock of locks) lock.exec('BEGIN IMMEDIATE');
        undo = async () => {
          await noticed;
          for (const lock of locks) lock.close();
        };
        return Promise.resolve();
      },
    ],
    [
      'full',
      async () => {
        const noticed = says(/"why":"database or disk is full/);
        const path = join(folder, 'full');
        await writeFile(path, '');
        await using file = await open(path, 'a');
        await fill(file);
        undo = async () => {
          await noticed;
          await rm(path);
        };
      },
    ],
    [
      'moved',
      async () => {
        const elsewhere = join(folder, 'elsewhere');
        await mkdir(elsewhere);
        const moved = (await readdir(folder)).filter((name) => FILES.some((file) => name.startsWith(file)));
        for (const name of moved) await rename(join(folder, name), join(elsewhere, name));
        undo = async () => {
          for (const name of moved) await rename(join(elsewhere, name), join(folder, name));
          await rmdir(elsewhere);
        };
      },
    ],
  ]);
  return {
    name: 'store',
    steps: [...harms.keys()],
    strike: (step, skip) => at(tap, 'MAIL', skip, harms.get(step) ?? (() => Promise.reject(new Error(step)))),
    async heal() {
      const undoing = undo;
      undo = null;
      await undoing?.();
    },
  };
}

/** Up to the last octet of the disk. */
async function fill(file: FileHandle): Promise<void> {
  for (let size = CHUNK.length; size >= 1;) {
    try {
      await file.write(CHUNK.subarray(0, size));
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
      size = Math.floor(size / 16);
    }
  }
}
