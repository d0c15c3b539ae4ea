import { nearest, oneLine } from '../config/errors.ts';
import { NeighbourError } from '../ports/neighbour-error.ts';
import { EXIT, parseRun, UsageError } from './arguments.ts';
import { causes } from './causes.ts';
import { helpText } from './help.ts';
import { version } from './version.ts';

/** The `postern` command. Each sub-command is loaded when it is asked for, so that --help does not wait for the others. */
export async function command(args: readonly string[]): Promise<number> {
  const [word = '', ...rest] = args;
  try {
    if (asksHelp(word, rest)) return printHelp(word, rest);
    switch (word) {
      case '--version':
      case '-V':
      case 'version':
        process.stdout.write(`postern ${await version()}\n`);
        return EXIT.ok;
      case 'run': {
        const parsed = await parseRun(rest);
        const { run } = await import('./run.ts');
        return await run(parsed);
      }
      case 'check': {
        const { check } = await import('./check.ts');
        return await check(rest);
      }
      case 'wire': {
        const { wire } = await import('./wire.ts');
        return await wire(rest);
      }
      case 'import': {
        const { importCommand } = await import('./import.ts');
        return await importCommand(rest);
      }
      case 'history': {
        const { history } = await import('./history.ts');
        return await history(rest);
      }
      case 'learn': {
        const { learn } = await import('./learn.ts');
        return await learn(rest);
      }
      case 'limits': {
        const { limits } = await import('./limits.ts');
        return await limits(rest);
      }
      case 'logins': {
        const { logins } = await import('./logins.ts');
        return await logins(rest);
      }
      case 'quota': {
        const { quota } = await import('./quota.ts');
        return await quota(rest);
      }
      case 'directory': {
        const { directory } = await import('./directory.ts');
        return await directory(rest);
      }
      case 'sender': {
        const { sender } = await import('./sender.ts');
        return await sender(rest);
      }
      case 'quarantine': {
        const { quarantine } = await import('./quarantine.ts');
        return await quarantine(rest);
      }
      case 'store': {
        const { store } = await import('./store.ts');
        return await store(rest);
      }
      case 'keys': {
        const { keys } = await import('./keys.ts');
        return await keys(rest);
      }
      case '':
        throw new UsageError(
          'which command? There are run, check, wire, import, history, learn, limits, logins, quota, directory, sender, quarantine, store and keys',
        );
      default:
        throw new UsageError(word.startsWith('-') ? `unknown option ${word}` : noCommand(word));
    }
  } catch (error) {
    if (error instanceof NeighbourError) {
      process.stderr.write(`postern: ${causes(error)}\n`);
      return EXIT.failed;
    }
    if (!(error instanceof UsageError)) throw error;
    const help = error.command === '' ? 'postern --help' : `postern ${error.command} --help`;
    process.stderr.write(`postern: ${error.message}\nSee: ${help}\n`);
    return EXIT.usage;
  }
}

const COMMANDS = [
  'run',
  'check',
  'wire',
  'history',
  'learn',
  'limits',
  'logins',
  'quota',
  'directory',
  'sender',
  'quarantine',
  'store',
  'keys',
];

function noCommand(word: string): string {
  const near = nearest(word, COMMANDS);
  return `there is no command "${oneLine(word)}"${near === null ? '' : `; did you mean "${near}"?`}`;
}

const HELP_WORDS = new Set(['--help', '-h', 'help']);

function asksHelp(word: string, rest: readonly string[]): boolean {
  if (HELP_WORDS.has(word)) return true;
  return (
    helpText(word) !== undefined &&
    word !== '' &&
    rest.some((option) => option === '--help' || option === '-h')
  );
}

function printHelp(word: string, rest: readonly string[]): number {
  const [topic = ''] = HELP_WORDS.has(word) ? rest : [word];
  const text = helpText(topic);
  if (text === undefined) throw new UsageError(`there is no help about "${topic}"`);
  process.stdout.write(text);
  return EXIT.ok;
}
