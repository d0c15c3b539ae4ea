import { logText } from '../mail/reply.ts';
import type { Config } from '../config/config.ts';
import type { Log } from '../runtime/telemetry.ts';
import type { LoginVerdict } from '../verdict/login.ts';
import { LoginJudge, type LoginsTools, type ReportNews } from './logins-judge.ts';
import type { LoginsMetrics } from './logins-metrics.ts';
import type { Attempt, LoginRequest, LoginResult } from './logins-request.ts';

/** Dovecot: auth-policy.c. 0 goes on, -1 refuses with `msg`, N waits N seconds and goes on. */
export interface LoginAnswer {
  readonly status: number;
  readonly msg: string;
}

export interface ResponderTools extends LoginsTools {
  readonly log: Log;
  readonly metrics: LoginsMetrics;
}

/** Answers questions about logins, and writes down what was answered. */
export class LoginsResponder {
  readonly #tools: ResponderTools;
  #judge: LoginJudge;

  constructor(config: Config, tools: ResponderTools) {
    this.#tools = tools;
    this.#judge = new LoginJudge(config, tools);
  }

  reload(config: Config): void {
    this.#judge = new LoginJudge(config, this.#tools);
  }

  async answer(request: LoginRequest): Promise<LoginAnswer> {
    const { clock, metrics } = this.#tools;
    const { attempt } = request;
    const begin = clock.elapsed();
    switch (request.command) {
      case 'allow': {
        const verdict = await this.#judge.judge(attempt);
        const elapsed = clock.elapsed() - begin;
        metrics.allowed(attempt.protocol, verdict, elapsed);
        this.#logVerdict(attempt, verdict, elapsed);
        return answerOf(verdict);
      }
      case 'report': {
        const news = await this.#reported(attempt, request.result);
        const elapsed = clock.elapsed() - begin;
        const [rule, notes] =
          news.kind === 'counted' ? (['none', news.notes] as const) : (['unavailable', []] as const);
        metrics.reported(attempt.protocol, request.result, rule, notes, elapsed);
        this.#logReport(attempt, request.result, news, elapsed);
        return { status: 0, msg: '' };
      }
    }
  }

  async #reported(attempt: Attempt, result: LoginResult): Promise<ReportNews> {
    switch (result) {
      case 'success':
        return this.#judge.succeeded(attempt);
      case 'failure':
        return this.#judge.failed(attempt);
      case 'refused':
        // No password was looked at.
        return { kind: 'counted', notes: [] };
    }
  }

  #logVerdict(attempt: Attempt, verdict: LoginVerdict, elapsed: number): void {
    const { log } = this.#tools;
    const dull = verdict.kind === 'allow' && verdict.shadow.length === 0;
    const level = verdict.rule === 'unavailable' ? 'warn' : dull ? 'debug' : 'info';
    log[level](
      {
        ...attemptFields(attempt),
        verdict: verdict.kind,
        rule: verdict.rule,
        why: logText(verdict.why),
        ...(verdict.kind === 'delay' ? { seconds: verdict.seconds } : {}),
        shadow: verdict.shadow.map(({ rule, kind }) => `${rule} ${kind}`),
        elapsed_ms: Math.round(elapsed),
      },
      VERDICT_MESSAGES[verdict.kind],
    );
  }

  #logReport(attempt: Attempt, result: LoginResult, news: ReportNews, elapsed: number): void {
    const fields = { ...attemptFields(attempt), result, elapsed_ms: Math.round(elapsed) };
    switch (news.kind) {
      case 'unavailable':
        this.#tools.log.warn({ ...fields, why: logText(news.detail) }, 'login not counted in time');
        break;
      case 'counted': {
        const dull = result !== 'failure' && news.notes.length === 0;
        this.#tools.log[dull ? 'debug' : 'info']({ ...fields, notes: news.notes }, REPORT_MESSAGES[result]);
        break;
      }
    }
  }
}

const VERDICT_MESSAGES: Readonly<Record<LoginVerdict['kind'], string>> = {
  allow: 'login may go on',
  delay: 'login delayed',
  refuse: 'login refused',
};

const REPORT_MESSAGES: Readonly<Record<LoginResult, string>> = {
  success: 'login succeeded',
  failure: 'login failed',
  refused: 'login was refused',
};

function answerOf(verdict: LoginVerdict): LoginAnswer {
  switch (verdict.kind) {
    case 'allow':
      return { status: 0, msg: '' };
    case 'delay':
      return { status: verdict.seconds, msg: '' };
    case 'refuse':
      return { status: -1, msg: verdict.text };
  }
}

/** What a client chose is made printable. Neither the password nor its hash is among it. */
function attemptFields({ login, remote, protocol, session }: Attempt): Record<string, unknown> {
  return { daemon: 'logins', login: logText(login), client: remote, protocol, session: logText(session) };
}
