import { limitsEndCheck } from '../../../src/checks/limits-end.ts';
import { limitsCheck } from '../../../src/checks/limits.ts';
import type { CheckTools, MessageIdentity } from '../../../src/checks/check.ts';
import { CheckRun } from '../../../src/checks/runner.ts';
import { parseMailbox, parseReversePath, type Address } from '../../../src/mail/address.ts';
import type { Client, Direction } from '../../../src/mail/envelope.ts';
import type { Account, Directory } from '../../../src/ports/directory.ts';
import type { Notice } from '../../../src/ports/notifier.ts';
import type { Outcome } from '../../../src/verdict/finding.ts';
import { checkTools, NO_DIRECTORY } from '../../support/checks.ts';
import { CountingState } from '../../support/counting-state.ts';
import { FakeClock } from '../../support/decisions.ts';
import { client } from '../../support/mail.ts';

const NO_ACCOUNT: Account = { limits: new Map(), senders: [] };

export const NO_SETTINGS: Directory = { ...NO_DIRECTORY, account: () => NO_ACCOUNT };

interface MailValues {
  readonly client?: Partial<Client>;
  readonly direction?: Direction;
  readonly sender?: string;
  readonly size?: number | null;
  /** Of a message that was asked about before. */
  readonly identity?: MessageIdentity;
}

/** Limits over a state that tests can look into. */
export class LimitsRig {
  readonly counting = new CountingState();
  readonly clock = new FakeClock();
  readonly notices: Notice[] = [];
  readonly tools: CheckTools;
  readonly #options: unknown;

  constructor(limits: readonly object[], values: { directory?: Directory } & Record<string, unknown> = {}) {
    const { directory = NO_SETTINGS, ...options } = values;
    this.#options = { ...options, limit: limits };
    this.tools = checkTools({
      clock: this.clock,
      state: this.counting.state,
      directory,
      notifier: { notify: (notice) => void this.notices.push(notice) },
    });
  }

  mail(values: MailValues = {}): LimitedMail {
    return new LimitedMail(this.tools, this.#options, values);
  }
}

const NO_PRIOR = new Map<string, Outcome>();

/** One message, as policyd would ask about it. */
export class LimitedMail {
  readonly #tools: CheckTools;
  readonly #check: ReturnType<typeof limitsCheck.bind>;
  readonly #run: CheckRun;
  readonly #values: Required<Omit<MailValues, 'client' | 'identity'>> & { client: Client };
  readonly #accepted: Address[] = [];
  readonly identity: MessageIdentity;

  constructor(tools: CheckTools, options: unknown, { identity, ...values }: MailValues) {
    this.identity = identity ?? { trace: 'aaaabbbbccccdddd' };
    this.#tools = tools;
    this.#check = limitsCheck.bind(options, 5000);
    this.#values = {
      direction: 'out',
      sender: 'zeus@olimpus.example',
      size: 1000,
      ...values,
      client: client({ login: 'zeus@olimpus.example', ...values.client }),
    };
    const end = limitsEndCheck.bind(options, 5000);
    this.#run = new CheckRun([this.#check, end], tools, this.#values.direction);
  }

  #facts(recipient: string) {
    const { sender, ...facts } = this.#values;
    return {
      ...facts,
      sender: parseReversePath(sender),
      recipient: parseMailbox(recipient),
      identity: this.identity,
      accepted: [...this.#accepted],
    };
  }

  /** Codes that speak against this recipient; none: it is accepted. `refusing`: codes whose rule refuses. */
  async rcpt(recipient: string, refusing: readonly string[] = []): Promise<readonly string[]> {
    const outcome = await this.outcome(recipient);
    if (outcome === undefined || outcome.kind === 'unavailable') throw new Error(JSON.stringify(outcome));
    const codes = outcome.findings.map(({ code }) => code);
    if (!codes.some((code) => refusing.includes(code))) this.#accepted.push(parseMailbox(recipient));
    return codes;
  }

  async outcome(recipient: string): Promise<Outcome | undefined> {
    const outcomes = await this.#run.admit(this.#facts(recipient), [], () => false);
    return outcomes[0];
  }

  /** A later check refuses this recipient. */
  undo(recipient: string): void {
    const at = this.#accepted.findIndex(({ raw }) => raw === recipient);
    if (at !== -1) this.#accepted.splice(at, 1);
    if (this.#check.stage !== 'admission') throw new Error('limits are counted at another stage');
    this.#check.undo?.({
      facts: this.#facts(recipient),
      tools: this.#tools,
      prior: NO_PRIOR,
      signal: new AbortController().signal,
    });
  }

  async end(
    moment: 'data' | 'end',
    { size = this.#values.size, refused = 0 }: { size?: number | null; refused?: number } = {},
  ): Promise<readonly string[]> {
    const { sender, ...facts } = this.#values;
    const outcomes = await this.#run.end({
      ...facts,
      sender: parseReversePath(sender),
      identity: this.identity,
      accepted: [...this.#accepted],
      recipientCount: this.#accepted.length - refused,
      moment,
      size,
    });
    return outcomes.flatMap((outcome) => {
      if (outcome.kind === 'unavailable') throw new Error(outcome.detail);
      return outcome.findings.map(({ code }) => code);
    });
  }
}
