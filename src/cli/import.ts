import { writeFile } from 'node:fs/promises';

import { EXIT, parseOptions, UsageError } from './arguments.ts';
import { ImportError } from './opendkim-conf.ts';
import { importOpendkim } from './opendkim-import.ts';

/** `postern import opendkim FILE [--out FILE]` */
export async function importCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseOptions('import', args, ['out']);
  const [what, path, surplus] = positionals;
  if (what !== 'opendkim') throw new UsageError('import what? There is opendkim', 'import');
  if (path === undefined) throw new UsageError('which opendkim.conf?', 'import');
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`, 'import');
  try {
    const { toml, reports } = await importOpendkim(path);
    for (const { place, what: text } of reports)
      process.stderr.write(`${place.file}:${place.line}: ${text}\n`);
    const out = values['out'];
    if (out === undefined) process.stdout.write(toml);
    // Never over a configuration that is there.
    else await writeFile(out, toml, { mode: 0o644, flag: 'wx' });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof ImportError) {
      process.stderr.write(`${error.place.file}:${error.place.line}: ${error.message}\n`);
      return EXIT.failed;
    }
    if (error instanceof Error && 'code' in error) {
      process.stderr.write(`postern: ${error.message}\n`);
      return EXIT.failed;
    }
    throw error;
  }
}
