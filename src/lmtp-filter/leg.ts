import type { Log } from '../runtime/telemetry.ts';
import { mailLine, rcptLine, wantsSmtputf8, type PathCommand } from './envelope-lines.ts';
import type { LmtpMetrics } from './metrics.ts';
import { relayed, SAY, upstreamFailure } from './render.ts';
import type { UpstreamReply } from './reply-decoder.ts';
import type { UpstreamConnection } from './upstream-connection.ts';
import { UpstreamError } from './upstream-error.ts';
import type { UpstreamPool } from './upstream.ts';

export interface LegInput {
  readonly pool: UpstreamPool;
  readonly sender: PathCommand;
  readonly queueId: string | null;
  readonly metrics: LmtpMetrics;
  readonly log: Log;
}

/** What one Dovecot has of a transaction: MAIL, and the recipients whose mailboxes it delivers to. */
export class Leg {
  readonly #input: LegInput;
  #connection: UpstreamConnection | null = null;
  #refusal: string | null = null;

  constructor(input: LegInput) {
    this.#input = input;
  }

  get pool(): UpstreamPool {
    return this.#input.pool;
  }

  /** Why no recipient can be taken any more; null: they can. */
  get refusal(): string | null {
    return this.#refusal;
  }

  /** MAIL, with the recipients that are known already: the reply, and those to the recipients, which are none when it is a refusal. */
  async begin(
    recipients: readonly PathCommand[],
  ): Promise<{ readonly reply: string; readonly more: readonly Promise<UpstreamReply>[] }> {
    const { pool, sender } = this.#input;
    let able = true;
    try {
      const { connection, reply, more } = await pool.begin((capabilities) => {
        able = !wantsSmtputf8(sender) || capabilities.has('SMTPUTF8');
        // A command that changes nothing, so that the connection is none the worse for it.
        return able ? [mailLine(sender, capabilities), ...linesOf(recipients, capabilities)] : ['NOOP'];
      });
      if (able && reply.code < 300) {
        this.#connection = connection;
        return { reply: relayed(reply), more };
      }
      if (reply.code >= 300 && reply.code < 400) {
        connection.destroy();
        throw new UpstreamError('protocol', `MAIL answered with ${reply.code}`);
      }
      pool.release(connection);
      this.#refusal = able ? relayed(reply) : SAY.noSmtputf8;
      return { reply: this.#refusal, more: [] };
    } catch (error) {
      return { reply: this.#lost(error), more: [] };
    }
  }

  /** Further recipients: a reply to each; none when the transaction is lost. */
  more(recipients: readonly PathCommand[]): readonly Promise<UpstreamReply>[] {
    const connection = this.#connection;
    return connection?.pipeline(linesOf(recipients, connection.capabilities)) ?? [];
  }

  /** What RCPT came to: Dovecot's reply, or what is to be said in its place. */
  async outcome(answer: Promise<UpstreamReply> | undefined): Promise<UpstreamReply | string> {
    if (this.#refusal !== null) return this.#refusal;
    try {
      const reply = await answer;
      if (reply === undefined) throw new UpstreamError('lost', 'the connection was lost before RCPT');
      if (reply.code >= 300 && reply.code < 400) {
        throw new UpstreamError('protocol', `RCPT answered with ${reply.code}`);
      }
      return reply;
    } catch (error) {
      // Recipients accepted before are tried again on another connection after the dot.
      return this.#lost(error);
    }
  }

  /** The connection with the transaction on it; it is the caller's from now on. null: it was lost. */
  take(): UpstreamConnection | null {
    const connection = this.#connection;
    this.#connection = null;
    return connection?.usable === true ? connection : null;
  }

  /** RSET, or the client is gone. */
  async abandon(): Promise<void> {
    const connection = this.take();
    if (connection !== null) await this.pool.reset(connection);
  }

  #lost(error: unknown): string {
    if (!(error instanceof UpstreamError)) throw error;
    const { metrics, log, queueId, pool } = this.#input;
    this.#connection?.destroy();
    this.#connection = null;
    metrics.upstream.failed(error);
    log.warn({ daemon: 'lmtp-filter', qid: queueId, upstream: pool.name, err: error }, 'upstream failed');
    this.#refusal = upstreamFailure(error);
    return this.#refusal;
  }
}

function linesOf(recipients: readonly PathCommand[], capabilities: ReadonlySet<string>): string[] {
  return recipients.map((recipient) => rcptLine(recipient, capabilities));
}
