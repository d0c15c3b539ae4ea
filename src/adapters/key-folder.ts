import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { KeyPlace } from './key-file.ts';

/** The most domains of one folder, and keys of one domain. */
export const DOMAINS_LIMIT = 100_000;
export const KEYS_LIMIT = 16;

const SUFFIX = '.private';

/** Letters, digits and hyphens, dots between: what else lies about (lost+found, .git) is not meant. */
export const KEY_NAME =
  /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*$/i;

export interface FolderListing {
  readonly places: readonly KeyPlace[];
  /** Domains whose folder can't be used. */
  readonly faults: readonly { readonly place: KeyPlace; readonly why: string }[];
}

/** The keys in FOLDER/DOMAIN/SELECTOR.private. @throws {Error} when the folder can't be read, or has too many domains */
export async function listKeyFolder(folder: string, subdomains: boolean): Promise<FolderListing> {
  const names = (await namesIn(folder)).filter((entry) => !entry.isFile() && KEY_NAME.test(entry.name));
  if (names.length > DOMAINS_LIMIT) {
    throw new Error(`${folder} has more than ${DOMAINS_LIMIT} domains`);
  }
  const places: KeyPlace[] = [];
  const faults: { place: KeyPlace; why: string }[] = [];
  for (const { name } of names) {
    const path = join(folder, name);
    const place = { domain: name.toLowerCase(), selector: '', subdomains, path };
    try {
      const selectors = (await namesIn(path))
        .filter((entry) => !entry.isDirectory() && entry.name.endsWith(SUFFIX))
        .map((entry) => entry.name.slice(0, -SUFFIX.length))
        .filter((selector) => KEY_NAME.test(selector))
        .toSorted();
      if (selectors.length > KEYS_LIMIT) throw new Error(`${path} has more than ${KEYS_LIMIT} keys`);
      for (const selector of selectors) {
        places.push({ ...place, selector, path: join(path, `${selector}${SUFFIX}`) });
      }
    } catch (error) {
      faults.push({ place, why: error instanceof Error ? error.message : String(error) });
    }
  }
  return { places, faults };
}

async function namesIn(folder: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    throw new Error(`${folder} can't be read: ${codeOf(error)}`, { cause: error });
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

/** Changes with content and permissions. What can't be looked at has a stamp of its own. */
export async function stampOf(path: string): Promise<{ readonly stamp: string; readonly modified: number }> {
  try {
    const { ino, size, mtimeMs, ctimeMs, mode, uid } = await stat(path);
    return { stamp: `${ino} ${size} ${mtimeMs} ${ctimeMs} ${mode} ${uid}`, modified: mtimeMs };
  } catch (error) {
    return { stamp: codeOf(error), modified: 0 };
  }
}
