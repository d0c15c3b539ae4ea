import { networkOf, parseNetwork } from '../checks/networks.ts';
import type { Config } from '../config/config.ts';
import { printable } from '../mail/reply.ts';
import { COUNTED, counterHit, settingsOf, type CountedCode } from '../policyd/logins-memory.ts';
import { nameKey, pairOf } from '../policyd/logins-keys.ts';
import type { Counter } from '../ports/limits.ts';
import type { State } from '../ports/state.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { openState } from './open-state.ts';
import { timeText } from './time-text.ts';

const HELP = `Usage: postern logins list [--limit N] [--json] [--config FILE]
       postern logins release NETWORK|ADDRESS|LOGIN... [--config FILE]

list     Networks and logins with too many wrong passwords just now: what is delayed or refused, by [logins].
release  Forgets the wrong passwords of a network ("192.0.2.0/24", or an address in it), or of a login,
         and those of the pairs that it is part of.

  --limit N  no more than N of each kind; 100 without it
  --json     one JSON object on each line

Works while policyd runs, and without it; all hosts that share the state see a release.
Exit status: 0 also when there is nothing, 64 wrong use, 78 configuration not usable, 1 anything else.
`;

const USUAL_LIMIT = 100;
const MAX_LIMIT = 100_000;

/** Something that is over a limit now. */
export interface OverLimit {
  readonly code: CountedCode;
  /** null: wrong passwords of all logins. */
  readonly login: string | null;
  /** null: from everywhere. */
  readonly network: string | null;
  readonly used: number;
  readonly limit: number;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly last: number;
  /** As the rule says: `refuse`, `delay up to 4 s`, `ignore`; with `(shadow)` when it is never acted on. */
  readonly action: string;
}

interface LoginsArguments {
  readonly command: 'list' | 'release';
  readonly names: readonly string[];
  readonly limit: number;
  readonly json: boolean;
  readonly config: string | null;
}

/** `postern logins` */
export async function logins(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseLogins(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const { config } = loaded;
  await using state = await openState(config);
  switch (wanted.command) {
    case 'list':
      printList(await overLimit(state, config, wanted.limit), wanted.json);
      break;
    case 'release':
      for (const name of wanted.names) {
        const released = await release(state, config, name);
        process.stdout.write(
          `${released === 0 ? 'nothing was counted for' : 'released'} ${printable(name, 320)}\n`,
        );
      }
      break;
  }
  return EXIT.ok;
}

/** @throws {UsageError} */
export function parseLogins(args: readonly string[]): LoginsArguments {
  const { values, positionals } = readArguments('logins', args, OPTIONS);
  const [command, ...names] = positionals;
  if (command === undefined) throw usage('which? There are list and release');
  if (command !== 'list' && command !== 'release')
    throw usage(`there is no "${command}"; there are list and release`);
  if (command === 'list' && names.length > 0) throw usage(`"${names[0] ?? ''}" is not expected here`);
  if (command === 'release' && names.length === 0)
    throw usage('release whom: a network, an address or a login?');
  if (command === 'release' && (values.json === true || values.limit !== undefined))
    throw usage('--json and --limit are for list');
  const limit =
    values.limit === undefined ? USUAL_LIMIT : /^\d{1,6}$/.test(values.limit) ? Number(values.limit) : 0;
  if (limit < 1 || limit > MAX_LIMIT)
    throw usage(`--limit ${values.limit ?? ''}: expected a number from 1 to ${MAX_LIMIT}`);
  return { command, names, limit, json: values.json ?? false, config: values.config ?? null };
}

/** The fullest of each kind first. What is counted over a limit, and has slid back below it since, is not among them. */
export async function overLimit(state: State, config: Config, count: number): Promise<readonly OverLimit[]> {
  const over: OverLimit[] = [];
  for (const code of COUNTED) {
    const found = await state.counters({ limit: code, overOnly: true, count });
    if (found.length === 0) continue;
    const { limit, action } = rowOf(config, code);
    // A listing says what was used at the last hit; a hit that costs nothing says what is used now.
    const now = await state.hit(found.map(({ key }) => counterHit(config.file.logins, code, key, 0)));
    for (const [index, counter] of found.entries()) {
      const used = now[index]?.used ?? 0;
      if (used > limit) over.push({ code, ...whom(code, counter), used, limit, ...timesOf(counter), action });
    }
  }
  return over;
}

/** How many counters were forgotten. */
export async function release(state: State, config: Config, name: string): Promise<number> {
  const { prefix_ipv4: ipv4, prefix_ipv6: ipv6 } = config.file.logins;
  const [address = ''] = name.split('/', 1);
  const network = parseNetwork(name) === null ? null : networkOf(address, { ipv4, ipv6 });
  const login = network === null ? nameKey(name) : null;
  const codes: readonly CountedCode[] =
    network === null ? ['login.failures'] : ['login.net-failures', 'login.spraying'];
  let released = 0;
  for (const limit of codes) released += await state.resetCounters({ limit, key: network ?? login ?? '' });
  const pairs = await state.counters({ limit: 'login.pair-failures', count: MAX_LIMIT });
  for (const { key } of pairs) {
    const pair = pairOf(key);
    if (pair.network !== network && pair.login !== login) continue;
    released += await state.resetCounters({ limit: 'login.pair-failures', key });
  }
  return released;
}

function whom(code: CountedCode, { key }: Counter): Pick<OverLimit, 'login' | 'network'> {
  switch (code) {
    case 'login.net-failures':
    case 'login.spraying':
      return { login: null, network: key };
    case 'login.failures':
      return { login: key, network: null };
    case 'login.pair-failures':
      return pairOf(key);
  }
}

function timesOf({ overSince, time }: Counter): Pick<OverLimit, 'since' | 'last'> {
  return { since: overSince ?? time, last: time };
}

function rowOf({ file }: Config, code: CountedCode): { readonly limit: number; readonly action: string } {
  const { limit, action, shadow } = settingsOf(file.logins, code);
  const words = action.kind === 'delay' ? `delay up to ${action.most} s` : action.kind;
  return { limit, action: shadow ? `${words} (shadow)` : words };
}

function printList(over: readonly OverLimit[], json: boolean): void {
  if (json) {
    for (const row of over) {
      const times = { since: new Date(row.since).toISOString(), last: new Date(row.last).toISOString() };
      process.stdout.write(`${JSON.stringify({ ...row, ...times })}\n`);
    }
    return;
  }
  if (over.length === 0) {
    process.stderr.write('postern: nobody is over a limit\n');
    return;
  }
  for (const { code, login, network, used, limit, since, action } of over) {
    const who = [login, network].filter((part) => part !== null).join(' from ');
    process.stdout.write(
      `${timeText(since)}  ${printable(who, 320)}  ${used} of ${limit} (${code})  ${action}\n`,
    );
  }
}

const OPTIONS = {
  config: { type: 'string' },
  limit: { type: 'string' },
  json: { type: 'boolean' },
} as const;

function usage(message: string): UsageError {
  return new UsageError(message, 'logins');
}
