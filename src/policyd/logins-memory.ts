import { networkSighting } from '../checks/account.ts';
import { hourOf, tallySubject } from '../checks/account-hours.ts';
import { networkOf } from '../checks/networks.ts';
import type { Config } from '../config/config.ts';
import type { Sighting } from '../ports/accounts.ts';
import type { Hit } from '../ports/limits.ts';
import type { State } from '../ports/state.ts';
import type { LoginCode, LoginFinding } from '../verdict/login.ts';
import { nameKey, pairKey } from './logins-keys.ts';
import type { Attempt } from './logins-request.ts';

export type LoginsOptions = Config['file']['logins'];

/** Codes whose facts are counted. Each is the name of its counter as well. */
export const COUNTED = [
  'login.net-failures',
  'login.spraying',
  'login.pair-failures',
  'login.failures',
] as const satisfies readonly LoginCode[];

export type CountedCode = (typeof COUNTED)[number];

/** The counter of successes by login and network, which makes a network a known one. */
const KNOWN_NETWORK = 'login.known-network';
/** Nobody is ever over it: it only says that there was a success. */
const WITHOUT_LIMIT = 1_000_000_000;

/** Whom an attempt is counted under. */
export interface Subject {
  readonly login: string;
  /** null: the address of the client is not known, or its network is exempt. */
  readonly network: string | null;
}

/** A counter went over its limit with this failure. */
export interface Excess {
  readonly code: CountedCode;
  readonly key: string;
  readonly used: number;
}

export interface FailureNews {
  /** The same wrong password again, which is no further guess. */
  readonly repeated: boolean;
  readonly excesses: readonly Excess[];
}

export interface SuccessNews {
  /** Not seen with this login before, though others were. */
  readonly newNetwork: boolean;
  readonly newDevice: boolean;
  /** Wrong passwords that this success may have been guessed by; 0: none. */
  readonly guesses: number;
  /** Far-apart networks of the login within the period, this one included. */
  readonly farNetworks: number;
}

const NO_SUCCESS_NEWS: SuccessNews = { newNetwork: false, newDevice: false, guesses: 0, farNetworks: 0 };

/** What the state knows of logins: how often they failed, from where, and where they succeed. Every call rejects when the state can't be asked. */
export class LoginMemory {
  readonly #state: State;
  readonly #options: LoginsOptions;

  constructor(state: State, options: LoginsOptions) {
    this.#state = state;
    this.#options = options;
  }

  subjectOf({ login, remote }: Attempt): Subject {
    const { exempt_networks: exempt, prefix_ipv4: ipv4, prefix_ipv6: ipv6 } = this.#options;
    const network = exempt.has(remote) ? null : networkOf(remote, { ipv4, ipv6 });
    return { login: nameKey(login), network };
  }

  isExempt({ remote }: Attempt): boolean {
    return this.#options.exempt_networks.has(remote);
  }

  /** What stands against an attempt. Counts nothing: Dovecot asks twice for one login. */
  async findings(attempt: Attempt): Promise<readonly LoginFinding[]> {
    const subject = this.subjectOf(attempt);
    const [used, standing] = await Promise.all([
      this.isExempt(attempt) ? NOTHING_USED : this.#used(subject),
      this.#state.standing(subject.login),
    ]);
    const findings: LoginFinding[] = [];
    if (standing?.kind === 'block') {
      const detail = `${subject.login} is blocked (by ${standing.by}): ${standing.why}`;
      findings.push({ code: 'login.account-blocked', detail, excess: 1 });
    }
    for (const code of COUNTED) {
      // A network where the login is at home is not made to pay for its neighbours, nor the login for strangers.
      if (code !== 'login.pair-failures' && used.known) continue;
      const { limit } = settingsOf(this.#options, code);
      const count = used.counts[code];
      if (count <= limit) continue;
      findings.push({ code, detail: detailOf(code, count, limit, subject), excess: count - limit });
    }
    return findings;
  }

  /** A wrong password. */
  async failed(attempt: Attempt): Promise<FailureNews> {
    if (this.isExempt(attempt)) return { repeated: false, excesses: [] };
    const { login, network } = this.subjectOf(attempt);
    const { passwordMark } = attempt;
    const sightings: Sighting[] = [];
    if (network !== null) {
      const windowMs = settingsOf(this.#options, 'login.spraying').period;
      sightings.push({ kind: 'failed-login', subject: network, value: login, windowMs });
    }
    if (passwordMark !== null) {
      const windowMs = settingsOf(this.#options, 'login.failures').period;
      sightings.push({ kind: 'failed-password', subject: login, value: passwordMark, windowMs });
    }
    const seen = sightings.length === 0 ? [] : await this.#state.seen(sightings);
    const fresh = new Map(sightings.map(({ kind }, index) => [kind, seen[index]?.fresh ?? true]));
    // A forgotten device tries its old password for ever; whoever guesses does not try one twice.
    const repeated = fresh.get('failed-password') === false;
    const counted = COUNTED.flatMap((code): [CountedCode, Hit][] => {
      if (code === 'login.spraying' ? fresh.get('failed-login') !== true : repeated) return [];
      const hit = this.#hit(code, { login, network }, 1);
      return hit === null ? [] : [[code, hit]];
    });
    if (counted.length === 0) return { repeated, excesses: [] };
    const results = await this.#state.hit(counted.map(([, hit]) => hit));
    const excesses = counted.flatMap(([code, { key }], index): Excess[] => {
      const result = results[index];
      return result?.first === true ? [{ code, key, used: result.used }] : [];
    });
    return { repeated, excesses };
  }

  /** The right password. */
  async succeeded(attempt: Attempt, now: number): Promise<SuccessNews> {
    const { login, network } = this.subjectOf(attempt);
    if (network === null) return NO_SUCCESS_NEWS;
    const { 'many-networks': many, guessed, known_network_age: age } = this.#options;
    const wide = networkOf(attempt.remote, { ipv4: many.prefix_ipv4, ipv6: many.prefix_ipv6 }) ?? network;
    const sightings: Sighting[] = [
      { kind: 'login-network', subject: login, value: network, windowMs: age },
      // What the check of accounts watches as well: a login that sends and reads mail in one place was in one.
      networkSighting(login, attempt.remote),
      { kind: 'login-far-network', subject: login, value: wide, windowMs: many.period },
    ];
    if (attempt.device !== '') {
      sightings.push({ kind: 'login-device', subject: login, value: nameKey(attempt.device), windowMs: age });
    }
    const [used, [place, today, far, device]] = await Promise.all([
      this.#used({ login, network }),
      this.#state.seen(sightings),
    ]);
    const newNetwork = place?.fresh === true && place.distinct > 1;
    // Its own mistypes follow a user; those of all the world only count against a success in a new place.
    const guesses = Math.max(
      used.counts['login.pair-failures'],
      place?.fresh === true ? used.counts['login.failures'] : 0,
    );
    const pair = pairKey(login, network);
    await Promise.all([
      this.#state.hit([this.#knownHit(login, network, 1)]),
      this.#state.tally([
        {
          subject: tallySubject(login),
          hour: hourOf(now),
          counts: { logins: 1, networks: today?.fresh === true ? 1 : 0 },
        },
      ]),
      used.counts['login.pair-failures'] > 0
        ? this.#state.resetCounters({ limit: 'login.pair-failures', key: pair })
        : 0,
    ]);
    return {
      newNetwork,
      newDevice: device?.fresh === true && device.distinct > 1,
      guesses: guesses > guessed.limit ? guesses : 0,
      farNetworks: far?.distinct ?? 1,
    };
  }

  /** How full the counters are now. */
  async #used(subject: Subject): Promise<Used> {
    const { login, network } = subject;
    const asked = COUNTED.flatMap((code): [CountedCode, Hit][] => {
      const hit = this.#hit(code, subject, 0);
      return hit === null ? [] : [[code, hit]];
    });
    const hits = asked.map(([, hit]) => hit);
    if (network !== null) hits.push(this.#knownHit(login, network, 0));
    const results = await this.#state.hit(hits);
    const counts = { ...NOTHING_USED.counts };
    for (const [index, [code]] of asked.entries()) counts[code] = results[index]?.used ?? 0;
    return { counts, known: network !== null && (results[asked.length]?.used ?? 0) > 0 };
  }

  #hit(code: CountedCode, subject: Subject, cost: 0 | 1): Hit | null {
    const key = keyOf(code, subject);
    if (key === null) return null;
    return counterHit(this.#options, code, key, cost);
  }

  #knownHit(login: string, network: string, cost: 0 | 1): Hit {
    return {
      limit: KNOWN_NETWORK,
      key: pairKey(login, network),
      algorithm: 'window',
      most: WITHOUT_LIMIT,
      periodMs: this.#options.known_network_age,
      cost,
      enforced: false,
    };
  }
}

/** The table of a code. */
export function settingsOf(
  options: LoginsOptions,
  code: CountedCode,
): LoginsOptions['net-failures' | 'spraying' | 'pair-failures' | 'failures'] {
  switch (code) {
    case 'login.net-failures':
      return options['net-failures'];
    case 'login.spraying':
      return options.spraying;
    case 'login.pair-failures':
      return options['pair-failures'];
    case 'login.failures':
      return options.failures;
  }
}

/** Counted whatever comes of it; with cost 0 it only says how full the counter is. */
export function counterHit(options: LoginsOptions, code: CountedCode, key: string, cost: 0 | 1): Hit {
  const { limit: most, period: periodMs } = settingsOf(options, code);
  return { limit: code, key, algorithm: 'window', most, periodMs, cost, enforced: false };
}

interface Used {
  readonly counts: Readonly<Record<CountedCode, number>>;
  readonly known: boolean;
}

const NOTHING_USED: Used = {
  counts: { 'login.net-failures': 0, 'login.spraying': 0, 'login.pair-failures': 0, 'login.failures': 0 },
  known: false,
};

function keyOf(code: CountedCode, { login, network }: Subject): string | null {
  switch (code) {
    case 'login.failures':
      return login;
    case 'login.net-failures':
    case 'login.spraying':
      return network;
    case 'login.pair-failures':
      return network === null ? null : pairKey(login, network);
  }
}

function detailOf(code: CountedCode, count: number, limit: number, { login, network }: Subject): string {
  const many = Math.ceil(count);
  switch (code) {
    case 'login.net-failures':
      return `${many} wrong passwords from ${network} (limit ${limit})`;
    case 'login.spraying':
      return `wrong passwords for ${many} logins from ${network} (limit ${limit})`;
    case 'login.pair-failures':
      return `${many} wrong passwords for ${login} from ${network} (limit ${limit})`;
    case 'login.failures':
      return `${many} wrong passwords for ${login} (limit ${limit})`;
  }
}
