import { resolve } from 'node:path';

import { backUp } from '../adapters/sqlite-backup.ts';
import { databasePath, STORE_SCHEMA } from '../adapters/sqlite-schema.ts';
import { STATE_SCHEMA } from '../adapters/sqlite-state-schema.ts';
import { sizeText } from '../checks/quota-room.ts';
import type { Config } from '../config/config.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { describeHealth, faultsOf, healthJson, storeHealth } from './store-check.ts';
import { copyState, kindTable, type CopyResult, type Existing } from './store-copy.ts';
import { endOf, isSameEnd, openEnd, usedEnd, type StateEnd } from './store-ends.ts';

const HELP = `Usage: postern store copy --from END --to END [--merge | --replace] [--config FILE]
       postern store check [--json] [--config FILE]
       postern store backup state|history FILE [--config FILE]

copy    Takes over the state (counters of limits, greylisting, quota reservations, accounts) with what is left of its
        time, between SQLite and Redis, or between two of a kind. An END is
          sqlite  the file in the state folder of the configuration
          redis   the Redis of [state.redis] in the configuration
          FILE    another configuration: where that has the state
        The daemons may run meanwhile; what they count after it was copied is missing. Copying again takes that over.
        Does nothing, and says why, when the target holds newer state, or some that the source does not have:
          --merge    keep that, and add the rest
          --replace  remove that: the target becomes the same as the source
        The history is not copied.
check   Looks at the stores of the configuration: integrity, version, size and what is in them; of Redis its role, memory
        policy and persistence. "wrong" is for you to mend, a "warning" to think about.
          --json  one JSON object on each line
backup  Copies the file of the state, or of the history, as of one moment, while the daemons write. FILE must not exist.
        To restore, see docs/state.md.

Run it as the user of the daemons, so that files it makes are theirs.
Exit status: 0 done, or all in order; 1 not done, or something is wrong; 64 wrong use; 78 configuration not usable.
`;

type StoreArguments = { readonly config: string | null } & (
  | { readonly command: 'copy'; readonly from: string; readonly to: string; readonly existing: Existing }
  | { readonly command: 'check'; readonly json: boolean }
  | { readonly command: 'backup'; readonly of: 'state' | 'history'; readonly file: string }
);

/** `postern store` */
export async function store(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseStore(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const { config } = loaded;
  switch (wanted.command) {
    case 'copy':
      return await copy(config, wanted);
    case 'check':
      return await check(config, wanted.json);
    case 'backup':
      return await backup(config, wanted.of, wanted.file);
  }
}

const COMMANDS = ['copy', 'check', 'backup'] as const;

const OPTIONS = {
  from: { type: 'string' },
  to: { type: 'string' },
  merge: { type: 'boolean' },
  replace: { type: 'boolean' },
  json: { type: 'boolean' },
  config: { type: 'string' },
} as const;

/** Options besides --config. */
const ALLOWED: Readonly<Record<(typeof COMMANDS)[number], readonly (keyof typeof OPTIONS)[]>> = {
  copy: ['from', 'to', 'merge', 'replace'],
  check: ['json'],
  backup: [],
};

/** @throws {UsageError} */
export function parseStore(args: readonly string[]): StoreArguments {
  const { positionals, values } = readArguments('store', args, OPTIONS);
  const [word, ...words] = positionals;
  const command = COMMANDS.find((known) => known === word);
  if (command === undefined) throw usage(`which? There are ${COMMANDS.join(', ')}`);
  for (const name of Object.keys(values)) {
    if (name !== 'config' && !ALLOWED[command].some((known) => known === name))
      throw usage(`--${name} is not for ${command}`);
  }
  const [surplus] = command === 'backup' ? words.slice(2) : words;
  if (surplus !== undefined) throw usage(`"${surplus}" is not expected here`);
  const { from, to, merge = false, replace = false, json = false, config = null } = values;
  switch (command) {
    case 'copy':
      if (from === undefined || to === undefined)
        throw usage('copy needs --from and --to: sqlite, redis, or a configuration');
      if (merge && replace) throw usage('--merge or --replace, not both');
      return { command, from, to, existing: merge ? 'merge' : replace ? 'replace' : 'refuse', config };
    case 'check':
      return { command, json, config };
    case 'backup': {
      const [of, file] = words;
      if (of !== 'state' && of !== 'history') throw usage('backup of what: state or history?');
      if (file === undefined || file === '') throw usage('backup to which file?');
      return { command, of, file, config };
    }
  }
}

async function copy(
  config: Config,
  { from, to, existing }: Extract<StoreArguments, { command: 'copy' }>,
): Promise<number> {
  const source = await endOf(from, config);
  const target = source === null ? null : await endOf(to, config);
  if (source === null || target === null) return EXIT.config;
  if (isSameEnd(source, target)) throw usage('--from and --to are the same');
  await using here = await openEnd(source, false);
  await using there = await openEnd(target, true);
  const apart = Math.abs((await here.now()) - (await there.now()));
  if (apart > APART_MS) {
    process.stderr.write(
      `postern: note: the clocks of the two differ by ${Math.round(apart / 1000)} s; what is copied lapses by that much too early or too late\n`,
    );
  }
  return report(await copyState(here, there, existing), source, target);
}

/** Clocks that differ by less do no harm. */
const APART_MS = 2000;

function report(result: CopyResult, source: StateEnd, target: StateEnd): number {
  switch (result.kind) {
    case 'copied': {
      const { made, changed, same, kept, removed } = result;
      const lines = kindTable([
        ['new', made],
        ['changed', changed],
        ['as before', same],
        ['newer, kept', kept],
        ['removed', removed],
      ]);
      process.stdout.write(`from ${source.words}\nto   ${target.words}\n${lines.join('\n')}\n`);
      return EXIT.ok;
    }
    case 'refused': {
      const lines = kindTable([
        ['newer there', result.newer],
        ['only there', result.others],
      ]);
      process.stderr.write(
        `postern: nothing was copied: ${target.words} holds state that ${source.words} does not have\n${lines.join('\n')}\n` +
          'To keep it and add the rest: --merge. To remove it: --replace.\n',
      );
      return EXIT.failed;
    }
  }
}

async function check(config: Config, json: boolean): Promise<number> {
  const found = await storeHealth(config);
  for (const health of found) {
    const text = json ? JSON.stringify(healthJson(health)) : describeHealth(health).join('\n');
    process.stdout.write(`${text}\n`);
  }
  return found.some((health) => faultsOf(health).length > 0) ? EXIT.failed : EXIT.ok;
}

async function backup(config: Config, of: 'state' | 'history', file: string): Promise<number> {
  const used = usedEnd(config);
  if (used.kind === 'redis') {
    process.stderr.write(
      `postern: state and history are in ${used.words}, whose own means make a backup of it; of the state, "postern store copy --from redis --to sqlite" makes a file\n`,
    );
    return EXIT.failed;
  }
  const schema = of === 'state' ? STATE_SCHEMA : STORE_SCHEMA;
  const target = resolve(file);
  const made = await backUp(used.folder, schema, target);
  if (made === null) {
    process.stderr.write(`postern: there is no ${databasePath(used.folder, schema)} yet\n`);
    return EXIT.failed;
  }
  process.stdout.write(`${target}: ${sizeText(made.octets)}\n`);
  return EXIT.ok;
}

function usage(message: string): UsageError {
  return new UsageError(message, 'store');
}
