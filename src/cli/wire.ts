import { EXIT, parseOptions, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { dovecotLines, loginLines } from './wire-dovecot.ts';
import { postfixLines } from './wire-postfix.ts';

/** `postern wire postfix|dovecot [--config FILE]` */
export async function wire(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseOptions('wire', args, ['config']);
  const [neighbour, surplus] = positionals;
  if (neighbour === undefined) throw new UsageError('wire what: postfix or dovecot?', 'wire');
  if (neighbour !== 'postfix' && neighbour !== 'dovecot') {
    throw new UsageError(`there are no lines for "${neighbour}"; there are postfix and dovecot`, 'wire');
  }
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`, 'wire');
  const loaded = await readConfig(values['config'] ?? null);
  if (loaded === null) return EXIT.config;
  const { config, source } = loaded;
  if (neighbour === 'dovecot') {
    process.stdout.write(
      `# Dovecot 2.3 lines for Postern, from ${source}\n\n${dovecotLines(config)}${loginLines(config)}`,
    );
    return EXIT.ok;
  }
  const { mainCf, masterCf } = postfixLines(config);
  process.stdout.write(
    `# Postfix lines for Postern, from ${source}\n\n# ---- main.cf ----\n\n${mainCf}\n# ---- master.cf ----\n\n${masterCf}`,
  );
  return EXIT.ok;
}
