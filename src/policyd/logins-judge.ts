import { shellWord } from '../checks/shell-word.ts';
import { observeAccount } from '../checks/suspicion.ts';
import type { Config } from '../config/config.ts';
import type { Clock } from '../ports/clock.ts';
import type { Notifier } from '../ports/notifier.ts';
import type { State } from '../ports/state.ts';
import { withinDeadline } from '../runtime/deadline.ts';
import { decideLogin, type LoginOutcome, type LoginRules, type LoginVerdict } from '../verdict/login.ts';
import {
  LoginMemory,
  settingsOf,
  type Excess,
  type FailureNews,
  type LoginsOptions,
} from './logins-memory.ts';
import { pairOf } from './logins-keys.ts';
import type { Attempt, LoginProtocol } from './logins-request.ts';

export interface LoginsTools {
  readonly state: State;
  readonly notifier: Notifier;
  readonly clock: Clock;
}

/** What was made of a report. */
export type ReportNews =
  | { readonly kind: 'counted'; readonly notes: readonly string[] }
  /** The state could not be told in time. */
  | { readonly kind: 'unavailable'; readonly detail: string };

/**
 * Postfix waits 10 s for Dovecot's answer about a login (xsasl_dovecot_server.c, AUTH_TIMEOUT) and calls it a failure then. Dovecot may ask twice,
 * before and after the password, and wait each time.
 */
const LONGEST_SMTP_DELAY_S = 4;

/** How long an account stays under observation for what its logins showed. */
const OBSERVE_MS = 7 * 86_400_000;

/** Judges logins by one configuration. */
export class LoginJudge {
  readonly #tools: LoginsTools;
  readonly #options: LoginsOptions;
  readonly #rules: LoginRules;
  readonly #memory: LoginMemory;

  constructor(config: Config, tools: LoginsTools) {
    this.#tools = tools;
    this.#options = config.file.logins;
    this.#rules = loginRules(this.#options);
    this.#memory = new LoginMemory(tools.state, this.#options);
  }

  async judge(attempt: Attempt): Promise<LoginVerdict> {
    const outcome = await this.#outcome(attempt);
    return decideLogin(outcome, this.#rules, longestDelay(attempt.protocol));
  }

  async failed(attempt: Attempt): Promise<ReportNews> {
    return this.#report(async () => {
      const news = await this.#memory.failed(attempt);
      for (const excess of news.excesses) this.#tell(excess, attempt);
      return failureNotes(news);
    });
  }

  async succeeded(attempt: Attempt): Promise<ReportNews> {
    const { guessed, 'many-networks': many, 'new-network': place, 'new-device': device } = this.#options;
    return this.#report(async () => {
      const notes: string[] = [];
      const { login } = this.#memory.subjectOf(attempt);
      const news = await this.#memory.succeeded(attempt, this.#tools.clock.now());
      if (news.newNetwork) {
        notes.push('login.new-network');
        if (place.notify)
          this.#notify(attempt, login, `${login} logged in from ${attempt.remote}, a new network`);
      }
      if (news.newDevice) {
        notes.push('login.new-device');
        if (device.notify) this.#notify(attempt, login, `${login} logged in with a new device`);
      }
      if (news.guesses > 0) {
        notes.push('login.guessed');
        const why = `a login from ${attempt.remote} succeeded after ${Math.ceil(news.guesses)} wrong passwords`;
        await this.#suspect(guessed, attempt, login, why);
      }
      if (news.farNetworks > many.limit) {
        notes.push('login.many-networks');
        const why = `logins succeeded from ${news.farNetworks} far-apart networks within ${many.period / 60_000} minutes`;
        await this.#suspect(many, attempt, login, why);
      }
      return notes;
    });
  }

  async #outcome(attempt: Attempt): Promise<LoginOutcome> {
    try {
      const findings = this.#memory.findings(attempt);
      return { kind: 'found', findings: await withinDeadline(findings, this.#options.deadline, 'the state') };
    } catch (error) {
      return { kind: 'unavailable', detail: reasonOf(error) };
    }
  }

  /** What comes late is counted all the same; Dovecot is not kept waiting for it. */
  async #report(work: () => Promise<readonly string[]>): Promise<ReportNews> {
    try {
      return { kind: 'counted', notes: await withinDeadline(work(), this.#options.deadline, 'the state') };
    } catch (error) {
      return { kind: 'unavailable', detail: reasonOf(error) };
    }
  }

  async #suspect(
    { observe, notify }: { readonly observe: boolean; readonly notify: boolean },
    attempt: Attempt,
    login: string,
    why: string,
  ): Promise<void> {
    if (observe) {
      await observeAccount(this.#tools, { login, why, facts: factsOf(attempt), forMs: OBSERVE_MS, notify });
    } else if (notify) {
      this.#notify(attempt, login, `${login}: ${why}`);
    }
  }

  #notify(attempt: Attempt, subject: string, text: string): void {
    const advice = ['When it was not the owner, change the password, then end the open sessions.'];
    this.#tools.notifier.notify({
      event: 'login',
      time: this.#tools.clock.now(),
      subject,
      text,
      advice,
      facts: factsOf(attempt),
    });
  }

  #tell({ code, key, used }: Excess, attempt: Attempt): void {
    const { limit, notify } = settingsOf(this.#options, code);
    if (!notify) return;
    // Somebody who guesses chooses what login that is.
    const word = shellWord(code === 'login.pair-failures' ? pairOf(key).login : key);
    this.#tools.notifier.notify({
      event: 'login',
      time: this.#tools.clock.now(),
      subject: key,
      text: `${code}: ${key} is over its limit, ${Math.ceil(used)} of ${limit}`,
      advice: ['postern logins list', ...(word === null ? [] : [`postern logins release ${word}`])],
      facts: { ...factsOf(attempt), code, limit },
    });
  }
}

function factsOf({ login, remote, protocol }: Attempt): Record<string, string> {
  return { login, remote, protocol };
}

function failureNotes({ repeated, excesses }: FailureNews): readonly string[] {
  return [...(repeated ? ['repeated'] : []), ...excesses.map(({ code }) => code)];
}

function longestDelay(protocol: LoginProtocol): number {
  switch (protocol) {
    case 'imap':
    case 'pop3':
    case 'sieve':
      return Number.POSITIVE_INFINITY;
    case 'smtp':
    case 'other':
      return LONGEST_SMTP_DELAY_S;
  }
}

/** The operator's will, as decideLogin wants it. */
function loginRules(options: LoginsOptions): LoginRules {
  const {
    'account-blocked': blocked,
    'net-failures': net,
    'pair-failures': pair,
    spraying,
    failures,
  } = options;
  return {
    findings: {
      'login.account-blocked': { action: blocked.action, mode: modeOf(blocked.shadow), text: blocked.text },
      'login.net-failures': { action: net.action, mode: modeOf(net.shadow), text: net.text },
      'login.spraying': { action: spraying.action, mode: modeOf(spraying.shadow), text: spraying.text },
      'login.pair-failures': { action: pair.action, mode: modeOf(pair.shadow), text: pair.text },
      'login.failures': { action: failures.action, mode: modeOf(failures.shadow) },
    },
    unavailable: { action: options.unavailable, mode: 'enforce' },
  };
}

function modeOf(shadow: boolean): 'shadow' | 'enforce' {
  return shadow ? 'shadow' : 'enforce';
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown error';
}
