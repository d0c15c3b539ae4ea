import { access } from 'node:fs/promises';

import type { Config } from '../config/config.ts';
import { formatProblem, type Problem } from '../config/errors.ts';
import { loadConfig } from '../config/load.ts';

const SEARCHED = ['postern.toml', '/etc/postern/postern.toml'];

/** The configuration file to use: the one that was named, else the first of the usual ones that is there; null: none is. */
export async function findConfig(
  named: string | null,
  usual: readonly string[] = SEARCHED,
): Promise<string | null> {
  if (named !== null) return named;
  for (const path of usual) {
    if (await exists(path)) return path;
  }
  return null;
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    // Only what is not there is passed over: a file that may not be looked at is not silently replaced by defaults.
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    return code !== 'ENOENT' && code !== 'ENOTDIR';
  }
}

export interface LoadedFile {
  readonly config: Config;
  readonly notes: readonly string[];
  /** Signing keys that can't be used. */
  readonly faults: readonly Problem[];
  /** What was read, for messages: the path, or that there was none. */
  readonly source: string;
}

/** Finds and loads the configuration; when it can't be used, says why on stderr, a line for each mistake, and gives null. */
export async function readConfig(named: string | null): Promise<LoadedFile | null> {
  const path = await findConfig(named);
  const result = await loadConfig(path);
  if (result.ok) {
    const source = path ?? `built-in defaults (neither ./${SEARCHED.join(' nor ')} is there)`;
    return { config: result.config, notes: result.notes, faults: result.faults, source };
  }
  const count = result.problems.length;
  for (const problem of result.problems) process.stderr.write(`${formatProblem(problem)}\n`);
  process.stderr.write(
    `postern: the configuration can't be used: ${count} ${count === 1 ? 'mistake' : 'mistakes'}\n`,
  );
  return null;
}
