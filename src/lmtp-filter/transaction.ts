import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { parseForwardPath, parseReversePath, type ReversePath } from '../mail/address.ts';
import type { Recipient } from '../mail/envelope.ts';
import type { Message } from '../mail/message.ts';
import type { Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { parameterText } from './command.ts';
import {
  mailLine,
  mailProblem,
  rcptLine,
  rcptProblem,
  wantsSmtputf8,
  type PathCommand,
} from './envelope-lines.ts';
import { relayed, SAY, upstreamFailure } from './render.ts';
import type { LmtpMetrics } from './metrics.ts';
import type { UpstreamReply } from './reply-decoder.ts';
import { UpstreamError, type UpstreamConnection } from './upstream-connection.ts';
import type { UpstreamPool } from './upstream.ts';
import type { Forwarded } from './xforward.ts';

/** RFC 5321 §4.5.3.1.8 wants 100 at least; Postfix sends 50 by default. */
export const RECIPIENT_LIMIT = 1000;

export interface TransactionTools {
  readonly config: Config;
  readonly pool: UpstreamPool;
  readonly store: Store;
  readonly checks: CheckTools;
  readonly metrics: LmtpMetrics;
  readonly log: Log;
}

/** Takes one reply, without its line end. */
export type Say = (reply: string) => void;

interface Planned {
  readonly recipient: PathCommand;
  /** null: Dovecot is asked. */
  readonly problem: string | null;
}

/**
 * One mail transaction from MAIL to DATA. Dovecot is asked in step, so that its refusals of recipients are given at RCPT, where
 * Postfix has them before the message is sent.
 */
export class Transaction {
  readonly #tools: TransactionTools;
  readonly #forwarded: Forwarded;
  readonly #sender: PathCommand;
  readonly #accepted: PathCommand[] = [];
  #connection: UpstreamConnection | null = null;
  #begun = false;
  /** Why no recipient can be taken any more. */
  #refusal: string | null = null;

  constructor(sender: PathCommand, forwarded: Forwarded, tools: TransactionTools) {
    this.#sender = sender;
    this.#forwarded = forwarded;
    this.#tools = tools;
  }

  /** Whether MAIL was accepted. */
  get begun(): boolean {
    return this.#begun;
  }

  get forwarded(): Forwarded {
    return this.#forwarded;
  }

  get sender(): PathCommand {
    return this.#sender;
  }

  get reversePath(): ReversePath {
    return parseReversePath(this.#sender.path);
  }

  /** Recipients that were accepted, by us and by Dovecot, in their order; one that was given twice stands here twice. */
  get accepted(): readonly PathCommand[] {
    return this.#accepted;
  }

  get recipients(): readonly Recipient[] {
    return this.#accepted.map(({ path, parameters }) => ({
      address: parseForwardPath(path),
      parameters: parameters.map(parameterText),
    }));
  }

  /** The message's envelope, as far as Postfix told it. */
  envelope(direction: Message['envelope']['direction'], queueId: string | null): Message['envelope'] {
    return {
      client: this.#forwarded.client,
      direction,
      sender: this.reversePath,
      senderParameters: this.#sender.parameters.map(parameterText),
      recipients: this.recipients,
      queueId,
    };
  }

  /** The connection with the transaction on it; it is the caller's from now on. null: it was lost. */
  takeConnection(): UpstreamConnection | null {
    const connection = this.#connection;
    this.#connection = null;
    return connection?.usable === true ? connection : null;
  }

  /** MAIL, and the RCPTs that came with it: one reply for each, in their order. Where MAIL is refused, so are they. */
  async mail(recipients: readonly PathCommand[], say: Say): Promise<void> {
    this.#refusal = mailProblem(this.#sender, this.#tools.config.file['lmtp-filter'].max_message_size);
    const plan = this.#plan(recipients);
    let more: readonly Promise<UpstreamReply>[] = [];
    if (this.#refusal === null) {
      const begun = await this.#begin(plan);
      say(begun.reply);
      more = begun.more;
    } else {
      say(this.#refusal);
    }
    await this.#answer(plan, more, say);
  }

  /** RCPTs that came together: one reply for each, in their order. */
  async rcpt(recipients: readonly PathCommand[], say: Say): Promise<void> {
    const plan = this.#plan(recipients);
    const { capabilities } = this.#connection ?? { capabilities: new Set() };
    await this.#answer(plan, this.#connection?.pipeline(linesOf(plan, capabilities)) ?? [], say);
  }

  /** RSET, or the client is gone. */
  async abandon(): Promise<void> {
    const connection = this.takeConnection();
    if (connection !== null) await this.#tools.pool.reset(connection);
  }

  /** What is wrong with each recipient before Dovecot is asked. */
  #plan(recipients: readonly PathCommand[]): readonly Planned[] {
    const smtputf8 = wantsSmtputf8(this.#sender);
    let room = RECIPIENT_LIMIT - this.#accepted.length;
    return recipients.map((recipient) => {
      const problem = rcptProblem(recipient, smtputf8) ?? (room <= 0 ? SAY.tooManyRecipients : null);
      if (problem === null) room -= 1;
      return { recipient, problem };
    });
  }

  async #begin(
    plan: readonly Planned[],
  ): Promise<{ reply: string; more: readonly Promise<UpstreamReply>[] }> {
    let able = true;
    try {
      const { connection, reply, more } = await this.#tools.pool.begin((capabilities) => {
        able = !wantsSmtputf8(this.#sender) || capabilities.has('SMTPUTF8');
        // A command that changes nothing, so that the connection is none the worse for it.
        return able ? [mailLine(this.#sender, capabilities), ...linesOf(plan, capabilities)] : ['NOOP'];
      });
      if (able && reply.code < 300) {
        this.#connection = connection;
        this.#begun = true;
        return { reply: relayed(reply), more };
      }
      if (reply.code >= 300 && reply.code < 400) {
        connection.destroy();
        throw new UpstreamError('protocol', `MAIL answered with ${reply.code}`);
      }
      this.#tools.pool.release(connection);
      this.#refusal = able ? relayed(reply) : SAY.noSmtputf8;
      return { reply: this.#refusal, more: [] };
    } catch (error) {
      return { reply: this.#lost(error), more: [] };
    }
  }

  /** Gives each recipient its reply; those that Dovecot was asked about take theirs from `replies`. */
  async #answer(
    plan: readonly Planned[],
    replies: readonly Promise<UpstreamReply>[],
    say: Say,
  ): Promise<void> {
    let asked = 0;
    for (const { recipient, problem } of plan) {
      if (this.#refusal === null && problem === null) say(await this.#accept(recipient, replies[asked++]));
      else say(this.#refusal ?? problem ?? SAY.internal);
    }
  }

  async #accept(recipient: PathCommand, answer: Promise<UpstreamReply> | undefined): Promise<string> {
    try {
      const reply = await answer;
      if (reply === undefined) throw new UpstreamError('lost', 'the connection was lost before RCPT');
      if (reply.code >= 300 && reply.code < 400) {
        throw new UpstreamError('protocol', `RCPT answered with ${reply.code}`);
      }
      if (reply.code < 300) this.#accepted.push(recipient);
      return relayed(reply);
    } catch (error) {
      // Recipients accepted before are tried again on another connection after the dot.
      return this.#lost(error);
    }
  }

  #lost(error: unknown): string {
    if (!(error instanceof UpstreamError)) throw error;
    this.#connection?.destroy();
    this.#connection = null;
    this.#tools.metrics.upstream.failed(error);
    this.#tools.log.warn(
      { daemon: 'lmtp-filter', qid: this.#forwarded.queueId, err: error },
      'upstream failed',
    );
    this.#refusal = upstreamFailure(error);
    return this.#refusal;
  }
}

function linesOf(plan: readonly Planned[], capabilities: ReadonlySet<string>): string[] {
  return plan.flatMap(({ recipient, problem }) =>
    problem === null ? [rcptLine(recipient, capabilities)] : [],
  );
}
