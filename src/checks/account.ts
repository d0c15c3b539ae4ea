import { z } from 'zod';

import { settingsKey } from '../mail/address.ts';
import {
  STANDINGS,
  type Sighting,
  type SightingResult,
  type Standing,
  type StandingKind,
} from '../ports/accounts.ts';
import type { HitResult } from '../ports/limits.ts';
import type { State } from '../ports/state.ts';
import type { Finding } from '../verdict/finding.ts';
import {
  baselineOf,
  signalsOf,
  stageFor,
  type Activity,
  type Baseline,
  type Signal,
} from './account-baseline.ts';
import { activityOf, HOUR_MS, hourOf, tallySubject } from './account-hours.ts';
import { accountKey } from './account-key.ts';
import { countSlow, giveBackSlow } from './account-slow.ts';
import { admissionCheck, endCheck, type CheckTools, type RcptFacts } from './check.ts';
import { networkOf } from './networks.ts';
import { duration } from './options.ts';
import { shellWord } from './shell-word.ts';

const DAY_MS = 24 * HOUR_MS;
/** How far back a login's habits go. */
const PAST_MS = 30 * DAY_MS;
/** Logins whose baseline is remembered. */
const BASELINE_LIMIT = 10_000;

const floor = (usual: number, what: string): z.ZodDefault<z.ZodInt> =>
  z
    .int()
    .min(1)
    .max(1_000_000)
    .default(usual)
    .describe(`So many ${what} are never unusual, whatever the login's past.`)
    .meta({ title: 'number' });

const stage = z
  .union([z.int().min(1).max(5), z.literal(false)], 'expected a number from 1 to 5, or false')
  .meta({
    title: 'number or false',
  });

const OPTIONS = {
  factor: z
    .number()
    .min(1)
    .max(1000)
    .default(3)
    .describe("So many times as much as in the login's busiest ordinary hour of the last 30 days is unusual.")
    .meta({ title: 'number' }),
  recipients: floor(50, 'different recipients in an hour'),
  domains: floor(30, 'different recipient domains in an hour'),
  new_recipients: floor(25, 'recipients in an hour to whom the login has not written for 30 days'),
  refusals: floor(10, 'refused recipients in an hour'),
  networks: floor(5, 'different client networks (/24, /64) in a day'),
  observe: stage.default(1).describe('So many signals at once: the login is observed, and somebody is told.'),
  slow: stage.default(2).describe('So many signals at once: the login may write to slow_recipients an hour.'),
  hold: stage.default(3).describe('So many signals at once: what it sends is put on hold.'),
  block: stage
    .default(false)
    .describe('So many signals at once: it may send nothing. false: only an operator blocks.'),
  slow_recipients: z
    .int()
    .min(1)
    .max(100_000)
    .default(20)
    .describe('Recipients that a login in the stage "slow" may write to in an hour.')
    .meta({ title: 'number' }),
  lasts: duration()
    .prefault('24h')
    .describe(
      'How long "observe" and "slow" last by themselves. "hold" and "block" last until somebody releases the login.',
    ),
} satisfies z.ZodRawShape;

type Options = z.output<z.ZodObject<typeof OPTIONS>>;

/** Logins that suddenly behave unlike themselves: somebody else has the password. */
export const accountCheck = admissionCheck({
  name: 'account',
  stage: 'admission',
  summary:
    'Compromised accounts: whether a login writes to far more recipients, domains or strangers than it ever does, is refused more often, or comes from more networks. What it may still do is "observe", "slow", "hold" or "block"; see "postern sender".',
  directions: ['out'],
  needs: [],
  codes: {
    'account.observe': {
      meaning: 'The login behaves unlike itself; or somebody wants an eye kept on it.',
      action: 'ignore',
    },
    'account.slow': {
      meaning: 'The login has used up what it may send while it is slowed down.',
      action: 'defer',
    },
    'account.hold': { meaning: 'What the login sends is to be looked at first.', action: 'quarantine' },
    'account.block': { meaning: 'The login may not send.', action: 'reject' },
  },
  unavailable: 'ignore',
  deadline: '2s',
  optIn: true,
  options: OPTIONS,
  run({ facts, tools, options }) {
    const { login } = facts.client;
    return login === null ? [] : judge(accountKey(login), facts, tools, options);
  },
  undo({ facts, tools }) {
    giveBackSlow(facts, tools);
  },
});

/** Recipients that were refused after all, by Postfix or by a later check: who sends to addresses that do not exist has bought a list. */
export const accountEndCheck = endCheck({
  name: 'account-end',
  stage: 'end',
  partOf: 'account',
  summary: 'Counts the refused recipients of logins.',
  directions: ['out'],
  needs: [],
  codes: {},
  unavailable: 'ignore',
  deadline: '2s',
  optIn: true,
  options: OPTIONS,
  async run({ facts, tools }) {
    const { login } = facts.client;
    const refused = facts.accepted.length - facts.recipientCount;
    // DATA and the end of the message tell of the same.
    if (login === null || refused <= 0 || facts.moment === 'data') return [];
    const entry = {
      subject: tallySubject(accountKey(login)),
      hour: hourOf(tools.clock.now()),
      counts: { refusals: refused },
    };
    await tools.state.tally([entry]);
    return [];
  },
});

async function judge(
  login: string,
  facts: RcptFacts,
  tools: CheckTools,
  options: Options,
): Promise<readonly Finding[]> {
  const { state } = tools;
  const hour = hourOf(tools.clock.now());
  const [standing, seen, past] = await Promise.all([
    state.standing(login),
    state.seen(sightingsOf(login, facts, tools)),
    pastOf(login, hour, tools),
  ]);
  const subject = tallySubject(login);
  await state.tally([{ subject, hour, counts: countsOf(seen) }]);
  const [current] = await state.tallies(subject, hour);
  const signals = signalsOf(activityOf(current), past, floorsOf(options), options.factor);
  const raised = await raise(login, standing, signals, past, tools, options);
  return findings(raised ?? standing, login, facts, tools, options);
}

/** In the order in which `countsOf` reads them. */
function sightingsOf(login: string, facts: RcptFacts, { delimiter }: CheckTools): readonly Sighting[] {
  const { recipient, client } = facts;
  const mailbox = settingsKey(recipient, delimiter);
  return [
    { kind: 'hour-recipient', subject: login, value: mailbox, windowMs: HOUR_MS },
    { kind: 'hour-domain', subject: login, value: recipient.domain, windowMs: HOUR_MS },
    { kind: 'recipient', subject: login, value: mailbox, windowMs: PAST_MS },
    networkSighting(login, client.address),
  ];
}

/** Where a login was used, by mail or otherwise: what is fresh of it counts as one of the `networks`. */
export function networkSighting(login: string, address: string): Sighting {
  const value = networkOf(address, { ipv4: 24, ipv6: 64 }) ?? address;
  return { kind: 'day-network', subject: login, value, windowMs: DAY_MS };
}

function countsOf(seen: readonly SightingResult[]): Readonly<Record<string, number>> {
  const fresh = (index: number): number => (seen[index]?.fresh === true ? 1 : 0);
  return {
    recipients: fresh(0),
    domains: fresh(1),
    'new-recipients': fresh(2),
    networks: fresh(3),
  };
}

function floorsOf(options: Options): Activity {
  const { recipients, domains, new_recipients: strangers, refusals, networks } = options;
  return { recipients, domains, 'new-recipients': strangers, refusals, networks };
}

interface Remembered {
  readonly hour: number;
  readonly baseline: Baseline;
}

/** They belong to the process that judges, which has one state. */
const pasts = new WeakMap<State, Map<string, Remembered>>();

async function pastOf(login: string, hour: number, { state }: CheckTools): Promise<Baseline> {
  let known = pasts.get(state);
  if (known === undefined) pasts.set(state, (known = new Map<string, Remembered>()));
  const remembered = known.get(login);
  if (remembered?.hour === hour) return remembered.baseline;
  const hours = await state.tallies(tallySubject(login), hour - PAST_MS);
  const baseline = baselineOf(hours.filter((tally) => tally.hour < hour));
  known.delete(login);
  known.set(login, { hour, baseline });
  if (known.size > BASELINE_LIMIT) {
    const [oldest] = known.keys();
    if (oldest !== undefined) known.delete(oldest);
  }
  return baseline;
}

/** Sets the stage that the signals reach, when it is more severe than the login's; null: it stays as it is. */
async function raise(
  login: string,
  known: Standing | null,
  signals: readonly Signal[],
  past: Baseline,
  tools: CheckTools,
  options: Options,
): Promise<Standing | null> {
  const kind = stageFor(signals.length, options);
  if (kind === null || STANDINGS.indexOf(kind) <= STANDINGS.indexOf(known?.kind ?? 'free')) return null;
  const since = tools.clock.now();
  const lasting = kind === 'hold' || kind === 'block';
  const why = signals
    .map(({ measure, now, bound }) => `${now} ${measure} in this hour, more than ${Math.floor(bound)}`)
    .join('; ');
  const standing: Standing = {
    login,
    kind,
    why,
    by: 'postern',
    since,
    until: lasting ? null : since + options.lasts,
  };
  if (!(await tools.state.raiseStanding(standing))) return null;
  const word = shellWord(login);
  tools.notifier.notify({
    event: 'account',
    time: since,
    subject: login,
    text: `${login} behaves unlike itself (${why}); its stage is "${kind}" now: ${MEANT[kind]}`,
    advice: [
      'Ask its owner. When somebody else has the password: change it, then end the sessions.',
      'postern sender list',
      ...(word === null ? [] : [`postern sender release ${word}`, `postern sender block ${word}`]),
    ],
    facts: { login, stage: kind, signals: signals.length, hours_known: past.hours },
  });
  return standing;
}

/** What the stages are for; what is done is the operator's rule for `account.STAGE`. */
const MEANT: Readonly<Record<Exclude<StandingKind, 'free'>, string>> = {
  observe: 'it may send as before',
  slow: 'it may send a little in each hour',
  hold: 'what it sends is put on hold',
  block: 'it may send nothing',
};

async function findings(
  standing: Standing | null,
  login: string,
  facts: RcptFacts,
  tools: CheckTools,
  options: Options,
): Promise<readonly Finding[]> {
  if (standing === null) return [];
  const detail = `${login}: ${standing.why}`;
  switch (standing.kind) {
    case 'free':
      return [];
    case 'observe':
      return [{ code: 'account.observe', detail }];
    case 'hold':
      return [{ code: 'account.hold', detail }];
    case 'block':
      return [{ code: 'account.block', detail }];
    case 'slow':
      return [slowFinding(await countSlow(login, options.slow_recipients, facts, tools), detail, options)];
  }
}

function slowFinding(result: HitResult | null, detail: string, { slow_recipients: most }: Options): Finding {
  return result?.within === false
    ? {
        code: 'account.slow',
        detail: `${detail}; slow: ${Math.ceil(result.used)} of ${most} recipients used within 1h`,
      }
    : { code: 'account.observe', detail };
}
