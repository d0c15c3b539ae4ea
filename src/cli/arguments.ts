import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';

import type { SocketAddress } from '../config/values.ts';

/** sysexits(3), as far as the command uses them. `todo`: all is well, and the operator has something to do. */
export const EXIT = { ok: 0, failed: 1, todo: 2, usage: 64, software: 70, unknown: 75, config: 78 } as const;

export const DAEMONS = ['policyd', 'milter', 'lmtp-filter'] as const;

export type DaemonName = (typeof DAEMONS)[number];

/** What `postern run` is asked to do. */
export interface RunArguments {
  /** In the order of DAEMONS; all three when none was named. */
  readonly daemons: readonly DaemonName[];
  /** --config; null: searched for, see findConfig. */
  readonly config: string | null;
  /** --admin; null: as the configuration says. */
  readonly admin: SocketAddress | 'none' | null;
}

/** A command line that can't be understood. The message is for the operator and complete. */
export class UsageError extends Error {
  /** The command whose help is of use; empty: that of all. */
  readonly command: string;

  constructor(message: string, command = '') {
    super(message);
    this.name = 'UsageError';
    this.command = command;
  }
}

export interface ParsedOptions {
  readonly positionals: readonly string[];
  readonly values: Readonly<Record<string, string | undefined>>;
}

type Arguments<O extends ParseArgsOptionsConfig> = ReturnType<
  typeof parseArgs<{ options: O; allowPositionals: true }>
>;

/** Options and words of a command. @throws {UsageError} in Node's words: "unknown option '--x'", "option '--key <value>' argument missing" */
export function readArguments<const O extends ParseArgsOptionsConfig>(
  command: string,
  args: readonly string[],
  options: O,
): Arguments<O> {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    const [reason = ''] = error instanceof Error ? error.message.split('. ') : [];
    throw new UsageError(reason.charAt(0).toLowerCase() + reason.slice(1), command);
  }
}

/** Options with one value each, such as --config FILE, and words. @throws {UsageError} */
export function parseOptions(
  command: string,
  args: readonly string[],
  names: readonly string[],
): ParsedOptions {
  const options: ParseArgsOptionsConfig = Object.fromEntries(
    names.map((name) => [name, { type: 'string', multiple: true }] as const),
  );
  const { tokens } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const positionals: string[] = [];
  const values: Record<string, string> = {};
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    if (!names.includes(token.name)) {
      throw new UsageError(`unknown option ${token.rawName}`, command);
    }
    if (token.value === undefined || (!token.inlineValue && token.value.startsWith('-'))) {
      throw new UsageError(`option ${token.rawName} needs a value`, command);
    }
    if (values[token.name] !== undefined)
      throw new UsageError(`option ${token.rawName} is given twice`, command);
    values[token.name] = token.value;
  }
  return { positionals, values };
}

/** @throws {UsageError} */
export async function parseRun(args: readonly string[]): Promise<RunArguments> {
  const { positionals, values } = parseOptions('run', args, ['config', 'admin']);
  for (const word of positionals) {
    if (!DAEMONS.some((name) => name === word)) {
      throw new UsageError(`no daemon is named "${word}"; there are ${DAEMONS.join(', ')}`, 'run');
    }
  }
  const daemons = positionals.length === 0 ? DAEMONS : DAEMONS.filter((name) => positionals.includes(name));
  return { daemons, config: values['config'] ?? null, admin: await parseAdmin(values['admin']) };
}

async function parseAdmin(text: string | undefined): Promise<RunArguments['admin']> {
  if (text === undefined) return null;
  if (text === 'none') return 'none';
  // Loaded only now: the module brings the schema library, which --help and --version do without.
  const { parseSocketAddress } = await import('../config/values.ts');
  const address = parseSocketAddress(text);
  if (address === null) {
    throw new UsageError(`--admin ${text}: expected "host:port", "unix:/absolute/path" or "none"`, 'run');
  }
  return address;
}
