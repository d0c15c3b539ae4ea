import type { Body } from '../mail/message.ts';
import { mailLine, rcptLine, type PathCommand } from './envelope-lines.ts';
import { CanonicalLines } from './lines.ts';
import { relayed, SAY, traced, upstreamFailure } from './render.ts';
import type { UpstreamReply } from './reply-decoder.ts';
import type { Statuses } from './statuses.ts';
import { UpstreamError, type UpstreamConnection } from './upstream-connection.ts';
import type { UpstreamPool } from './upstream.ts';

/**
 * From the dot to the last reply Postfix waits 600 s (lmtp_data_done_timeout, for each reply); what is not delivered after this
 * is answered with 451.
 */
export const DELIVERY_BUDGET_MS = 540_000;

/** What recipients get who get the same. */
export interface Content {
  /** Header section with what separates it from the body; one character per octet. */
  readonly head: string;
  readonly body: Body;
}

/** Recipients who get the same content; positions are those of the accepted RCPTs. */
export interface Group {
  readonly positions: readonly number[];
  readonly content: Content;
}

export interface DeliveryInput {
  readonly pool: UpstreamPool;
  readonly sender: PathCommand;
  /** Accepted recipients in their order. */
  readonly recipients: readonly PathCommand[];
  readonly statuses: Statuses;
  /** The transaction opened at RCPT time, with all recipients in it; null when it was lost. */
  readonly connection: UpstreamConnection | null;
  /** Shown in what we say ourselves. */
  readonly trace: string;
  /** Milliseconds left of DELIVERY_BUDGET_MS. */
  readonly remaining: () => number;
  /** What to answer when there is no sense in going on (the client left, or this process is to end now); null as long as there is. */
  readonly givenUp: () => string | null;
}

export interface DeliveryReport {
  /** Positions whose content was sent with its dot, and whose reply did not come or came too late: Dovecot may have it. */
  readonly untold: readonly number[];
  /** What went wrong, beyond Dovecot's refusals. */
  readonly errors: readonly unknown[];
}

/**
 * Delivers each group in a transaction of its own, one after the other, so that a session never needs a second connection. A failure
 * is that group's alone. Every position of the groups has its status in the end.
 */
export async function deliver(groups: readonly Group[], input: DeliveryInput): Promise<DeliveryReport> {
  const delivery = new Delivery(input);
  for (const group of groups) await delivery.group(group);
  return delivery.finish();
}

class Delivery {
  readonly #input: DeliveryInput;
  #connection: UpstreamConnection | null;
  /** Whether the transaction is the one that RCPT opened. */
  #opened = true;
  /** Whether the connection has no transaction. */
  #clean = false;
  readonly #untold: number[] = [];
  readonly #errors: unknown[] = [];

  constructor(input: DeliveryInput) {
    this.#input = input;
    this.#connection = input.connection;
  }

  async finish(): Promise<DeliveryReport> {
    const { pool } = this.#input;
    if (this.#connection !== null) {
      if (this.#clean) pool.release(this.#connection);
      else await pool.reset(this.#connection);
    }
    return { untold: this.#untold, errors: this.#errors };
  }

  async group(group: Group): Promise<void> {
    const { givenUp, remaining } = this.#input;
    const why = givenUp();
    if (why !== null) return this.#fill(group, why);
    if (remaining() <= 0) return this.#fill(group, SAY.slow);
    try {
      const accepted = await this.#begin(group);
      if (accepted.length > 0) await this.#transfer(group, accepted);
    } catch (error) {
      // Whatever was half done is undone by closing.
      this.#connection?.destroy();
      this.#connection = null;
      this.#errors.push(error);
      this.#fill(group, error instanceof UpstreamError ? upstreamFailure(error) : SAY.internal);
    }
  }

  /** A transaction with this group's recipients and no other; the positions that Dovecot accepts. */
  async #begin({ positions }: Group): Promise<readonly number[]> {
    const { recipients, pool, sender } = this.#input;
    if (this.#opened && positions.length === recipients.length && this.#connection?.usable) {
      this.#opened = false;
      this.#connection.setPatience(this.#patience());
      return positions;
    }
    // Two waits before DATA (for a connection, for MAIL), and Postfix's patience must outlast what comes after them.
    const spare = Math.min(2 * pool.options.timeoutMs, DELIVERY_BUDGET_MS / 2);
    if (this.#input.remaining() < spare) throw new UpstreamError('timeout', 'no time is left for this group');
    // Given back in the middle of a transaction: `begin` takes it out again at once, and starts with RSET.
    if (this.#connection !== null) pool.release(this.#connection);
    this.#connection = null;
    this.#opened = false;
    this.#clean = false;
    const { connection, reply, more } = await pool.begin((capabilities) => [
      mailLine(sender, capabilities),
      ...positions.map((position) => rcptLine(this.#recipient(position), capabilities)),
    ]);
    this.#connection = connection;
    connection.setPatience(this.#patience());
    if (!isPositive(reply)) {
      for (const position of positions) this.#refuse(position, reply);
      return [];
    }
    const answers = await Promise.all(more);
    return positions.filter((position, i) => {
      const answer = answers[i];
      if (answer === undefined || isPositive(answer)) return answer !== undefined;
      this.#refuse(position, answer);
      return false;
    });
  }

  #recipient(position: number): PathCommand {
    const recipient = this.#input.recipients[position];
    if (recipient === undefined) throw new Error(`no recipient has position ${position}`);
    return recipient;
  }

  async #transfer(group: Group, accepted: readonly number[]): Promise<void> {
    const connection = this.#connection;
    if (connection === null) throw new Error('no transaction is open');
    const go = await connection.command('DATA');
    if (go.code !== 354) {
      if (isPositive(go)) throw surprise('DATA', go);
      for (const position of accepted) this.#refuse(position, go);
      return;
    }
    await this.#send(connection, group.content);
    connection.setPatience(this.#patience());
    await this.#answers(connection, accepted);
    this.#clean = true;
  }

  /** One reply for each position. What does not fit in there makes all that come after it somebody else's. */
  async #answers(connection: UpstreamConnection, accepted: readonly number[]): Promise<void> {
    // All are asked for before the first can come: Dovecot sends several in one segment.
    const replies = accepted.map((position) => ({ position, reply: connection.expect() }));
    for (const { reply } of replies) reply.catch(() => {}); // each is awaited below, unless one before it fails
    const open = new Set(accepted);
    try {
      for (const { position, reply } of replies) {
        const answer = await reply;
        if (answer.code >= 300 && answer.code < 400) throw surprise('the message', answer);
        const told = this.#input.statuses.settle(position, relayed(answer));
        // When it was not told, the client had its answer before: this process is to end now.
        if (told || !isPositive(answer)) open.delete(position);
      }
    } finally {
      this.#untold.push(...open);
    }
  }

  async #send(connection: UpstreamConnection, { head, body }: Content): Promise<void> {
    const lines = new CanonicalLines({ stuffing: true });
    connection.cork();
    try {
      await connection.send(lines.encode(Buffer.from(head, 'latin1')));
      for await (const chunk of body.chunks()) {
        const full = connection.send(lines.encode(chunk));
        if (full !== undefined) await full;
      }
      connection.sendLast(lines.ended ? '.\r\n' : '\r\n.\r\n');
    } finally {
      connection.uncork();
    }
  }

  /** A refusal of one recipient before the message was sent. */
  #refuse(position: number, reply: UpstreamReply): void {
    if (reply.code < 400) throw surprise('a command', reply);
    this.#input.statuses.settle(position, relayed(reply));
  }

  #fill({ positions }: Group, reply: string): void {
    const { statuses, trace } = this.#input;
    for (const position of positions) statuses.settle(position, traced(reply, trace));
  }

  #patience(): number {
    const { pool, remaining } = this.#input;
    return Math.max(1, Math.min(pool.options.timeoutMs, remaining()));
  }
}

function isPositive({ code }: UpstreamReply): boolean {
  return code >= 200 && code < 300;
}

function surprise(what: string, { code }: UpstreamReply): UpstreamError {
  return new UpstreamError('protocol', `${what} answered with ${code}`);
}
