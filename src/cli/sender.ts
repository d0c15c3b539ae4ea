import { releaseAccount } from '../checks/account-hours.ts';
import { accountKeyOfText } from '../checks/account-key.ts';
import { duration } from '../checks/options.ts';
import { printable } from '../mail/reply.ts';
import type { Standing, StandingKind } from '../ports/accounts.ts';
import { EXIT, readArguments, UsageError } from './arguments.ts';
import { readConfig } from './config-file.ts';
import { openState } from './open-state.ts';
import { timeText } from './time-text.ts';

const HELP = `Usage: postern sender list [--json] [--config FILE]
       postern sender release LOGIN... [--config FILE]
       postern sender block LOGIN... [--stage S] [--for T] [--why TEXT] [--config FILE]

What logins may send, when they behave unlike themselves or somebody says so; see [checks.account].

list     Logins that something stands against.
release  They may send again as before: this hour is not held against them. Mail that Postfix holds is let go with "postsuper -H".
block    They may send nothing.

  --stage S   a milder stage: observe, slow or hold
  --for T     for so long: "2h", "7d"; without it until the release
  --why TEXT  for the list and the log
  --json      one JSON object on each line

Works while policyd runs, and without it; all hosts that share the state see it.
Exit status: 0 also when there is nothing, 64 wrong use, 78 configuration not usable, 1 anything else.
`;

type Blocking = Exclude<StandingKind, 'free'>;

interface SenderArguments {
  readonly command: 'list' | 'release' | 'block';
  readonly logins: readonly string[];
  readonly stage: Blocking;
  /** Milliseconds; null: until the release. */
  readonly lasts: number | null;
  readonly why: string;
  readonly json: boolean;
  readonly config: string | null;
}

/** `postern sender` */
export async function sender(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const wanted = parseSender(args);
  const loaded = await readConfig(wanted.config);
  if (loaded === null) return EXIT.config;
  await using state = await openState(loaded.config);
  switch (wanted.command) {
    case 'list':
      printList(await state.standings(), wanted.json);
      break;
    case 'release':
      for (const login of wanted.logins) {
        const held = await releaseAccount(state, accountKeyOfText(login), Date.now());
        const said = held === null ? 'nothing stands against' : `released (it was: ${held.kind})`;
        process.stdout.write(`${said} ${printable(login, 320)}\n`);
      }
      break;
    case 'block':
      for (const login of wanted.logins) {
        await state.setStanding(standingFor(login, wanted, Date.now()));
        process.stdout.write(`${wanted.stage}: ${printable(login, 320)}\n`);
      }
      break;
  }
  return EXIT.ok;
}

function standingFor(login: string, { stage, lasts, why }: SenderArguments, now: number): Standing {
  return {
    login: accountKeyOfText(login),
    kind: stage,
    why,
    by: 'operator',
    since: now,
    until: lasts === null ? null : now + lasts,
  };
}

const STAGES = ['observe', 'slow', 'hold', 'block'] as const satisfies readonly Blocking[];
const WHY_LIMIT = 200;

/** @throws {UsageError} */
export function parseSender(args: readonly string[]): SenderArguments {
  const { values, positionals } = readArguments('sender', args, OPTIONS);
  const [command, ...logins] = positionals;
  if (command === undefined) throw usage('which? There are list, release and block');
  if (command !== 'list' && command !== 'release' && command !== 'block')
    throw usage(`there is no "${command}"; there are list, release and block`);
  if (command === 'list' && logins.length > 0) throw usage(`"${logins[0] ?? ''}" is not expected here`);
  if (command !== 'list' && logins.length === 0) throw usage(`${command} whom: a login?`);
  if (command !== 'block' && (values.stage ?? values.for ?? values.why) !== undefined)
    throw usage('--stage, --for and --why are for block');
  if (command !== 'list' && values.json === true) throw usage('--json is for list');
  const stage = STAGES.find((known) => known === (values.stage ?? 'block'));
  if (stage === undefined)
    throw usage(`--stage ${values.stage ?? ''}: expected observe, slow, hold or block`);
  const lasts = values.for === undefined ? null : duration().safeParse(values.for);
  if (lasts?.success === false)
    throw usage(`--for ${values.for ?? ''}: expected a duration such as "2h" or "7d"`);
  return {
    command,
    logins,
    stage,
    lasts: lasts?.data ?? null,
    why: printable(values.why ?? 'an operator said so', WHY_LIMIT),
    json: values.json ?? false,
    config: values.config ?? null,
  };
}

function printList(standings: readonly Standing[], json: boolean): void {
  if (json) {
    for (const standing of standings) {
      const times = {
        since: new Date(standing.since).toISOString(),
        until: standing.until === null ? null : new Date(standing.until).toISOString(),
      };
      // One character for each octet, until here.
      const login = Buffer.from(standing.login, 'latin1').toString('utf8');
      process.stdout.write(`${JSON.stringify({ ...standing, login, ...times })}\n`);
    }
    return;
  }
  if (standings.length === 0) {
    process.stderr.write('postern: nothing stands against any login\n');
    return;
  }
  for (const { login, kind, why, by, since, until } of standings) {
    const end = until === null ? 'until released' : `until ${timeText(until)}`;
    process.stdout.write(
      `${timeText(since)}  ${kind.padEnd(7)}  ${printable(login, 320)}  ${end}  by ${by}: ${printable(why, 320)}\n`,
    );
  }
}

const OPTIONS = {
  config: { type: 'string' },
  stage: { type: 'string' },
  for: { type: 'string' },
  why: { type: 'string' },
  json: { type: 'boolean' },
} as const;

function usage(message: string): UsageError {
  return new UsageError(message, 'sender');
}
