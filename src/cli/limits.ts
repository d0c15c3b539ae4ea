import { lowerAscii } from '../mail/address.ts';
import { limitCode, periodText } from '../checks/limit-options.ts';
import { printable } from '../mail/reply.ts';
import type { Config } from '../config/config.ts';
import type { Counter, LimitState } from '../ports/limits.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { openState } from './open-state.ts';
import { timeText } from './time-text.ts';

const HELP = `Usage: postern limits list [--limit NAME] [--key KEY] [--over] [--count N] [--json] [--config FILE]
       postern limits reset --limit NAME [--key KEY] [--config FILE]
       postern limits reset --key KEY [--config FILE]

list   How much of each limit is used, the fullest first.
reset  Forgets what was counted, so that there is room again.

  --limit NAME  one limit, by its name in [[checks.limits.limit]]
  --key KEY     one counter: a login, an address, a network, as the list shows it
  --over        only counters that went over their limit and have not come down to half of it since
  --count N     no more than N counters; 50 without it
  --json        one JSON object on each line

Works while policyd runs, and without it; all hosts that share the state see it.
Exit status: 0 also when there is nothing, 64 wrong use, 78 configuration not usable, 1 anything else.
`;

const USUAL_COUNT = 50;
const MAX_COUNT = 100_000;

interface LimitsArguments {
  readonly command: 'list' | 'reset';
  /** null: all of the configuration. */
  readonly limit: string | null;
  readonly key: string | null;
  readonly over: boolean;
  readonly count: number;
  readonly json: boolean;
  readonly config: string | null;
}

/** `postern limits` */
export async function limits(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseLimits(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  const codes = wanted.limit === null ? limitsOf(loaded.config) : [limitCode({ name: wanted.limit })];
  if (codes.length === 0) {
    process.stderr.write('postern: there is no [[checks.limits.limit]] in the configuration\n');
    return EXIT.ok;
  }
  await using state = await openState(loaded.config);
  switch (wanted.command) {
    case 'list':
      printCounters(await counters(state, codes, wanted), wanted.json);
      break;
    case 'reset':
      printReset(await reset(state, codes, wanted.key));
      break;
  }
  return EXIT.ok;
}

/** Names of the counters of all limits that are in the configuration. */
function limitsOf(config: Config): readonly string[] {
  const codes = [...config.views.values()].flatMap(({ checks }) =>
    checks.flatMap((check) => (check.name === 'limits' ? Object.keys(check.codes) : [])),
  );
  return [...new Set(codes)];
}

/** The fullest first. */
async function counters(
  state: LimitState,
  codes: readonly string[],
  { key, over, count }: LimitsArguments,
): Promise<readonly Counter[]> {
  const found: Counter[] = [];
  for (const limit of codes) {
    const filter = { limit, overOnly: over, count, ...(key === null ? {} : { key }) };
    found.push(...(await state.counters(filter)));
  }
  return found.toSorted((one, other) => shareOf(other) - shareOf(one)).slice(0, count);
}

function shareOf({ used, most }: Counter): number {
  return used / Math.max(1, most);
}

async function reset(state: LimitState, codes: readonly string[], key: string | null): Promise<number> {
  let removed = 0;
  for (const limit of codes) removed += await state.resetCounters(key === null ? { limit } : { limit, key });
  return removed;
}

/** @throws {UsageError} */
export function parseLimits(args: readonly string[]): LimitsArguments {
  const { values, positionals } = readArguments('limits', args, OPTIONS);
  const [command, surplus] = positionals;
  if (command === undefined) throw usage('which? There are list and reset');
  if (command !== 'list' && command !== 'reset')
    throw usage(`there is no "${command}"; there are list and reset`);
  if (surplus !== undefined) throw usage(`"${surplus}" is not expected here`);
  const { limit, key, over = false, count, json = false, config } = values;
  if (command === 'reset') {
    if (limit === undefined && key === undefined) throw usage('reset what: --limit, --key or both?');
    if (over || json || count !== undefined) throw usage('--over, --count and --json are for list');
  }
  const wanted = count === undefined ? USUAL_COUNT : /^\d{1,6}$/.test(count) ? Number(count) : 0;
  if (wanted < 1 || wanted > MAX_COUNT)
    throw usage(`--count ${count ?? ''}: expected a number from 1 to ${MAX_COUNT}`);
  return {
    command,
    limit: limit?.replace(/^limits\./, '') ?? null,
    // Counters are kept in lower case, one character for each octet.
    key: key === undefined ? null : lowerAscii(Buffer.from(key, 'utf8').toString('latin1')),
    over,
    count: wanted,
    json,
    config: config ?? null,
  };
}

function printCounters(found: readonly Counter[], json: boolean): void {
  if (json) {
    for (const { limit, key, algorithm, most, periodMs, used, overSince, time } of found) {
      const row = {
        limit: nameOf(limit),
        key,
        used,
        most,
        period: periodText(periodMs),
        algorithm,
        over_since: overSince === null ? null : new Date(overSince).toISOString(),
        last: new Date(time).toISOString(),
      };
      process.stdout.write(`${JSON.stringify(row)}\n`);
    }
    return;
  }
  if (found.length === 0) {
    process.stderr.write('postern: nothing is counted that fits\n');
    return;
  }
  const rows = found.map(({ limit, key, most, periodMs, used, overSince, time }) => [
    nameOf(limit),
    `${used}/${most}`,
    periodText(periodMs),
    timeText(time),
    overSince === null ? '-' : timeText(overSince),
    printable(key, 400),
  ]);
  for (const line of table([['LIMIT', 'USED', 'WITHIN', 'LAST', 'OVER SINCE', 'KEY'], ...rows]))
    process.stdout.write(`${line}\n`);
}

function printReset(removed: number): void {
  const words = removed === 1 ? '1 counter was forgotten' : `${removed} counters were forgotten`;
  process.stdout.write(`${words}\n`);
}

function nameOf(code: string): string {
  return code.replace(/^limits\./, '');
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

const OPTIONS = {
  config: { type: 'string' },
  limit: { type: 'string' },
  key: { type: 'string' },
  over: { type: 'boolean' },
  count: { type: 'string' },
  json: { type: 'boolean' },
} as const;

function usage(message: string): UsageError {
  return new UsageError(message, 'limits');
}
