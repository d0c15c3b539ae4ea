import { randomBytes } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import type { Config } from '../config/config.ts';
import { FILINGS, type Filing } from '../config/upstream.ts';
import { EXIT, parseOptions, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { dovecotLines, loginLines, sieveText } from './wire-dovecot.ts';
import { sieveFiles, type SieveFile } from './wire-dovecot-sieve.ts';
import { postfixLines } from './wire-postfix.ts';

/** `postern wire postfix|dovecot [--config FILE]` */
export async function wire(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseOptions('wire', args, ['config', 'filing', 'write']);
  const [neighbour, surplus] = positionals;
  if (neighbour === undefined) throw new UsageError('wire what: postfix or dovecot?', 'wire');
  if (neighbour !== 'postfix' && neighbour !== 'dovecot') {
    throw new UsageError(`there are no lines for "${neighbour}"; there are postfix and dovecot`, 'wire');
  }
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`, 'wire');
  const { write } = values;
  const wanted = filingOf(values['filing']);
  if (neighbour === 'postfix' && (write !== undefined || values['filing'] !== undefined)) {
    throw new UsageError('--filing and --write are for dovecot', 'wire');
  }
  const loaded = await readConfig(values['config'] ?? null);
  if (loaded === null) return EXIT.config;
  const { config, source } = loaded;
  const filing = wanted ?? config.file['lmtp-filter'].filing;
  if (neighbour === 'dovecot') {
    const head = `# Dovecot 2.3 lines for Postern, from ${source}\n\n`;
    if (write !== undefined) return await writeFiles(resolve(write), head, config, filing);
    const lines = `${dovecotLines(config, filing)}${loginLines(config)}`;
    process.stdout.write(`${head}${lines}${sieveText(config, filing)}`);
    return EXIT.ok;
  }
  const { mainCf, masterCf } = postfixLines(config);
  process.stdout.write(
    `# Postfix lines for Postern, from ${source}\n\n# ---- main.cf ----\n\n${mainCf}\n# ---- master.cf ----\n\n${masterCf}`,
  );
  return EXIT.ok;
}

const LINES_FILE = '99-postern.conf';

async function writeFiles(folder: string, head: string, config: Config, filing: Filing): Promise<number> {
  if (/[\s"#$%]/.test(folder)) {
    throw new UsageError(`--write ${folder}: dovecot.conf takes no path with such characters`, 'wire');
  }
  const lines = `${head}${dovecotLines(config, filing, folder)}${loginLines(config)}`;
  const scripts = sieveFiles(config, filing);
  const written: readonly SieveFile[] = [...scripts, { name: LINES_FILE, content: lines }];
  for (const { name, content, executable } of written) {
    const path = join(folder, name);
    try {
      await replaceFile(path, content, executable === true ? 0o755 : 0o644);
    } catch (error) {
      process.stderr.write(
        `postern: cannot write ${path}: ${error instanceof Error ? error.message : 'unknown error'}\n`,
      );
      return EXIT.failed;
    }
    process.stdout.write(`${path}\n`);
  }
  if (scripts.length > 0) process.stderr.write(`Now compile the scripts: sievec ${folder}\n`);
  return EXIT.ok;
}

/** At no time is there a part of it. */
async function replaceFile(path: string, content: string, mode: 0o644 | 0o755): Promise<void> {
  const passing = `${path}.${randomBytes(4).toString('hex')}.new`;
  try {
    // Dovecot's users read it.
    await writeFile(passing, content, { flag: 'wx', mode });
    await rename(passing, path);
  } catch (error) {
    await rm(passing, { force: true });
    throw error;
  }
}

function filingOf(text: string | undefined): Filing | null {
  if (text === undefined) return null;
  const known = FILINGS.find((filing) => filing === text);
  if (known === undefined) throw new UsageError(`--filing ${text}: expected ${FILINGS.join(', ')}`, 'wire');
  return known;
}
