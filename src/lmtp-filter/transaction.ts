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
  /** Why no recipient can be taken any more. */
  #refusal: string | null = null;

  private constructor(sender: PathCommand, forwarded: Forwarded, tools: TransactionTools) {
    this.#sender = sender;
    this.#forwarded = forwarded;
    this.#tools = tools;
  }

  /** MAIL. Without a transaction the reply is a refusal, which recipients pipelined behind MAIL are to get too. */
  static async begin(
    sender: PathCommand,
    forwarded: Forwarded,
    tools: TransactionTools,
  ): Promise<{ readonly transaction: Transaction | null; readonly reply: string }> {
    const problem = mailProblem(sender, tools.config.file['lmtp-filter'].max_message_size);
    if (problem !== null) return { transaction: null, reply: problem };
    const transaction = new Transaction(sender, forwarded, tools);
    const reply = await transaction.#mail();
    return { transaction: transaction.#connection === null ? null : transaction, reply };
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

  /** RCPT. */
  async rcpt(recipient: PathCommand): Promise<string> {
    if (this.#refusal !== null) return this.#refusal;
    const problem = rcptProblem(recipient, wantsSmtputf8(this.#sender));
    if (problem !== null) return problem;
    if (this.#accepted.length >= RECIPIENT_LIMIT) return SAY.tooManyRecipients;
    const connection = this.#connection;
    if (connection === null) return SAY.lost;
    try {
      const reply = await connection.command(rcptLine(recipient, connection.capabilities));
      if (reply.code < 300) this.#accepted.push(recipient);
      else if (reply.code < 400) throw new UpstreamError('protocol', `RCPT answered with ${reply.code}`);
      return relayed(reply);
    } catch (error) {
      // Recipients accepted before are tried again on another connection after the dot.
      return this.#lost(error);
    }
  }

  /** RSET, or the client is gone. */
  async abandon(): Promise<void> {
    const connection = this.takeConnection();
    if (connection !== null) await this.#tools.pool.reset(connection);
  }

  async #mail(): Promise<string> {
    try {
      let unwilling = false;
      const { connection, reply } = await this.#tools.pool.begin((capabilities) => {
        unwilling = wantsSmtputf8(this.#sender) && !capabilities.has('SMTPUTF8');
        // A command that changes nothing, so that the connection is none the worse for it.
        return unwilling ? 'NOOP' : mailLine(this.#sender, capabilities);
      });
      if (reply.code >= 300 && reply.code < 400) {
        connection.destroy();
        throw new UpstreamError('protocol', `MAIL answered with ${reply.code}`);
      }
      if (unwilling || reply.code >= 400) {
        this.#tools.pool.release(connection);
        return unwilling ? SAY.noSmtputf8 : relayed(reply);
      }
      this.#connection = connection;
      return relayed(reply);
    } catch (error) {
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
