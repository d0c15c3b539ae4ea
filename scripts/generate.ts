import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { format, resolveConfig } from 'prettier';

import { CHECKS } from '../src/checks/index.ts';
import { exampleFile, referencePage } from '../src/config/reference.ts';
import { LAYOUT_PAGES } from './layout-pages.ts';
import { metricsPage } from './metrics-page.ts';

// Writes the files that are made from the program: `node scripts/generate.ts`. With --check nothing is written, and the exit
// status is 1 when a file is not what would be written.

interface Generated {
  /** Path from the root of the project. */
  readonly path: string;
  readonly text: () => string | Promise<string>;
}

const FILES: readonly Generated[] = [
  { path: 'examples/postern.toml', text: () => exampleFile(CHECKS) },
  { path: 'docs/configuration.md', text: () => referencePage(CHECKS) },
  { path: 'docs/metrics.md', text: metricsPage },
  ...LAYOUT_PAGES,
];

const root = new URL('../', import.meta.url);

/** What a file is to hold, formatted as the project's other files of its kind. */
async function generated({ path, text }: Generated): Promise<string> {
  if (!path.endsWith('.md')) return text();
  const url = fileURLToPath(new URL(path, root));
  return await format(await text(), { ...(await resolveConfig(url)), filepath: url });
}

/** The files that differ from what would be written. */
export async function outdated(): Promise<string[]> {
  const differing: string[] = [];
  for (const file of FILES) {
    if ((await current(file.path)) !== (await generated(file))) differing.push(file.path);
  }
  return differing;
}

async function current(path: string): Promise<string | null> {
  try {
    return await readFile(new URL(path, root), 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}

async function main(args: readonly string[]): Promise<number> {
  const differing = await outdated();
  if (args.includes('--check')) {
    for (const path of differing) console.error(`${path} is not up to date; run: npm run generate`);
    return differing.length === 0 ? 0 : 1;
  }
  for (const file of FILES.filter(({ path }) => differing.includes(path))) {
    await writeFile(new URL(file.path, root), await generated(file));
    console.log(`wrote ${file.path}`);
  }
  return 0;
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
