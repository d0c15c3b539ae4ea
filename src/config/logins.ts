import { z } from 'zod';

import { networkSet } from '../checks/networks.ts';
import { duration } from '../checks/options.ts';
import type { LoginAction } from '../verdict/login.ts';
import { formatSocketAddress, printable, type SocketAddress } from './values.ts';

/**
 * The keys of `[logins]` that say what is counted and what is done about it. Where it listens is in the schema with the other sockets.
 */

/** Dovecot waits for as long as it is told to; a client of IMAP gives up after a minute or so. */
const LONGEST_DELAY_S = 30;

const DELAY = /^delay ([1-9]\d?)s$/;
const DELAY_FORM = `"delay Ns" with 1 to ${LONGEST_DELAY_S} seconds`;

/** `"ignore"`, `"delay 4s"`, and where allowed `"refuse"`. */
function action(refuses: boolean): z.ZodType<LoginAction, string> {
  const form = `expected "ignore"${refuses ? ', "refuse"' : ''} or ${DELAY_FORM}`;
  return z
    .string(form)
    .transform((text, context): LoginAction => {
      if (text === 'ignore') return { kind: 'ignore' };
      if (refuses && text === 'refuse') return { kind: 'refuse' };
      const most = Number(DELAY.exec(text)?.[1] ?? 0);
      if (most >= 1 && most <= LONGEST_DELAY_S) return { kind: 'delay', most };
      context.addIssue({ code: 'custom', message: form });
      return z.NEVER;
    })
    .meta({ title: refuses ? 'login action' : 'login delay' });
}

const shadow = z.boolean().default(false).describe('true: decided, logged and counted, never acted on.');

const text = printable(1, 200)
  .optional()
  .describe('What the client is told in place of our words, without inner details.')
  .meta({ examples: ['Please call 555 0100'], defaultText: 'our own words' });

const LONGEST_PERIOD = 7 * 86_400_000;

function period(usual: string): z.ZodPrefault<z.ZodType<number, string>> {
  return duration()
    .refine((ms) => ms >= 1000 && ms <= LONGEST_PERIOD, 'expected a duration from "1s" to "7d"')
    .meta({ title: 'duration' })
    .prefault(usual)
    .describe('Within this time, as a sliding window.');
}

function limit(usual: number, what: string): z.ZodDefault<z.ZodInt> {
  return z
    .int()
    .min(1)
    .max(100_000)
    .default(usual)
    .describe(`${what} are let pass; one more is too many.`)
    .meta({ title: 'number' });
}

function notify(usual: boolean, when: string): z.ZodDefault<z.ZodBoolean> {
  return z.boolean().default(usual).describe(`Whether a notice is sent ${when}.`);
}

function prefix(longest: number, usual: number, what: string): z.ZodDefault<z.ZodInt> {
  return z.int().min(8).max(longest).default(usual).describe(what).meta({ title: 'number' });
}

/** What is counted, and what comes of it: one table for each code of LOGIN_CODES, and what successes are watched for. */
export const loginRules = {
  prefix_ipv4: prefix(32, 24, 'Clients whose first so many bits agree count as one network.'),
  prefix_ipv6: prefix(128, 64, 'The same for IPv6.'),
  exempt_networks: networkSet()
    .prefault(['127.0.0.0/8', '::1/128'])
    .describe(
      'From here no failures are counted, and nothing is refused or delayed for them: webmail servers that log in for everybody, monitoring.',
    ),
  known_network_age: duration()
    .refine((ms) => ms >= 60_000 && ms <= 365 * 86_400_000, 'expected a duration from "1m" to "365d"')
    .meta({ title: 'duration' })
    .prefault('30d')
    .describe(
      'How long a network stays a known one of a login after a success. There, failures of others (net-failures, spraying, failures) are not held against it.',
    ),
  unavailable: action(true)
    .prefault('ignore')
    .describe(
      'What is done when the state can not be asked in time. "refuse" locks everybody out for as long.',
    ),
  'account-blocked': z
    .strictObject({ action: action(true).prefault('refuse').describe('What is done.'), shadow, text })
    .prefault({})
    .describe('The account is blocked (the standing "block"), by an operator or for what it sent.'),
  'net-failures': z
    .strictObject({
      limit: limit(30, 'So many wrong passwords from one network, for whatever logins,'),
      period: period('1h'),
      action: action(true).prefault('refuse').describe('What is done about further logins from the network.'),
      shadow,
      text,
      notify: notify(false, 'at the first excess'),
    })
    .prefault({})
    .describe('Many wrong passwords from one network.'),
  spraying: z
    .strictObject({
      limit: limit(8, 'So many different logins with a wrong password from one network'),
      period: period('1h'),
      action: action(true).prefault('refuse').describe('What is done about further logins from the network.'),
      shadow,
      text,
      notify: notify(false, 'at the first excess'),
    })
    .prefault({})
    .describe('Few guesses each at many logins, from one network.'),
  'pair-failures': z
    .strictObject({
      limit: limit(10, 'So many wrong passwords for one login from one network'),
      period: period('1h'),
      action: action(true)
        .prefault('refuse')
        .describe('What is done about this login from this network; from elsewhere it goes on.'),
      shadow,
      text,
      notify: notify(false, 'at the first excess'),
    })
    .prefault({})
    .describe('Many wrong passwords for one login from one network. A success forgets them.'),
  failures: z
    .strictObject({
      limit: limit(20, 'So many wrong passwords for one login, from anywhere,'),
      period: period('1h'),
      action: action(false)
        .prefault('delay 4s')
        .describe(
          'What is done about this login from networks where it is not known. Never a refusal: anybody could lock anybody out.',
        ),
      shadow,
      notify: notify(false, 'at the first excess'),
    })
    .prefault({})
    .describe('Many wrong passwords for one login from everywhere.'),
  guessed: z
    .strictObject({
      limit: limit(5, 'So many wrong passwords'),
      observe: z.boolean().default(true).describe('Whether the account is set to "observe".'),
      notify: notify(true, 'each time that sets it so'),
    })
    .prefault({})
    .describe(
      'A success that follows wrong passwords for this login: as many from the same network, or from anywhere when the network is new to the login.',
    ),
  'many-networks': z
    .strictObject({
      limit: limit(4, 'So many far-apart networks with a success of one login'),
      period: period('1h'),
      prefix_ipv4: prefix(32, 16, 'Networks whose first so many bits agree are not far apart.'),
      prefix_ipv6: prefix(128, 32, 'The same for IPv6.'),
      observe: z.boolean().default(true).describe('Whether the account is set to "observe".'),
      notify: notify(true, 'each time that sets it so'),
    })
    .prefault({})
    .describe('One login in many places at once.'),
  'new-network': z
    .strictObject({ notify: notify(false, 'at the first success from a network that is new to the login') })
    .prefault({})
    .describe(
      'A login succeeds from a network where it was not in known_network_age; its very first one is no news.',
    ),
  'new-device': z
    .strictObject({ notify: notify(false, 'at the first success with a device that is new to the login') })
    .prefault({})
    .describe(
      'The same for what the client calls itself (the ID command of IMAP), which it may choose freely. Dovecot keeps it with imap_id_retain = yes only.',
    ),
};

interface LoginSettings {
  readonly listen: SocketAddress;
  readonly unavailable: LoginAction;
  readonly 'pair-failures': {
    readonly limit: number;
    readonly action: LoginAction;
    readonly shadow: boolean;
  };
  readonly guessed: { readonly limit: number };
}

const LOOPBACK = /^(?:127\.|\[?::1\]?$|localhost$)/;

/** What works, and had better be changed. */
export function loginNotes({ listen, unavailable, guessed, 'pair-failures': pair }: LoginSettings): string[] {
  const notes: string[] = [];
  if (listen.kind === 'unix') {
    notes.push(
      'logins.listen is a unix socket: Dovecot 2.3 asks over TCP only, so a proxy has to stand between',
    );
  } else if (!LOOPBACK.test(listen.host)) {
    notes.push(
      `logins.listen is ${formatSocketAddress(listen)}: the secret and who logs in go over the network in clear; take a network that is yours alone, or a tunnel`,
    );
  }
  if (unavailable.kind === 'refuse') {
    notes.push('logins.unavailable is "refuse": nobody can log in while the state can not be reached');
  }
  if (pair.action.kind === 'refuse' && !pair.shadow && guessed.limit > pair.limit) {
    notes.push(
      'logins.guessed.limit is above logins.pair-failures.limit: by then further guesses from one network are refused',
    );
  }
  return notes;
}
