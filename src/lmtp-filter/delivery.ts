import type { Body } from '../mail/message.ts';
import { forFolder } from './detail.ts';
import { mailLine, rcptLine, type PathCommand } from './envelope-lines.ts';
import { isFull } from './full-mailbox.ts';
import { CanonicalLines } from './lines.ts';
import { relayed, SAY, traced, upstreamFailure } from './render.ts';
import type { UpstreamReply } from './reply-decoder.ts';
import type { Statuses } from './statuses.ts';
import type { UpstreamConnection } from './upstream-connection.ts';
import { UpstreamError } from './upstream-error.ts';
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
  /** Folder that Dovecot is to file it in, as the detail of each recipient; null: none is named. */
  readonly folder: string | null;
}

export interface DeliveryInput {
  readonly sender: PathCommand;
  /** Accepted recipients in their order. */
  readonly recipients: readonly PathCommand[];
  readonly statuses: Statuses;
  /** What stands between a user name and its detail. */
  readonly delimiter: string;
  /** Which Dovecot has accepted the recipient of that position, and delivers to it. */
  readonly poolOf: (position: number) => UpstreamPool;
  /** The transactions opened at RCPT time, with all recipients of each in it; those that were lost are not there. */
  readonly connections: ReadonlyMap<UpstreamPool, UpstreamConnection>;
  /** What is said to a recipient whose mailbox is full. */
  readonly fullReply: (position: number, reply: UpstreamReply) => Promise<UpstreamReply>;
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
 * Delivers each group in a transaction of its own, those of one Dovecot one after the other, so that a session never needs a second
 * connection to it. A failure is that group's alone. Every position of the groups has its status in the end.
 */
export async function deliver(groups: readonly Group[], input: DeliveryInput): Promise<DeliveryReport> {
  const shares = new Map<UpstreamPool, Group[]>();
  for (const group of groups) {
    for (const [pool, positions] of byPool(group.positions, input)) {
      const share = { ...group, positions };
      const known = shares.get(pool);
      if (known === undefined) shares.set(pool, [share]);
      else known.push(share);
    }
  }
  // Opened for recipients who get nothing now.
  for (const pool of input.connections.keys()) if (!shares.has(pool)) shares.set(pool, []);
  const reports = await Promise.all(Array.from(shares, ([pool, share]) => delivered(pool, share, input)));
  return {
    untold: reports.flatMap(({ untold }) => untold),
    errors: reports.flatMap(({ errors }) => errors),
  };
}

async function delivered(
  pool: UpstreamPool,
  groups: readonly Group[],
  input: DeliveryInput,
): Promise<DeliveryReport> {
  const delivery = new Delivery(pool, input);
  for (const group of groups) await delivery.group(group);
  return delivery.finish();
}

function byPool(positions: readonly number[], { poolOf }: DeliveryInput): Map<UpstreamPool, number[]> {
  const split = new Map<UpstreamPool, number[]>();
  for (const position of positions) {
    const pool = poolOf(position);
    const known = split.get(pool);
    if (known === undefined) split.set(pool, [position]);
    else known.push(position);
  }
  return split;
}

/** To one Dovecot. */
class Delivery {
  readonly #pool: UpstreamPool;
  readonly #input: DeliveryInput;
  /** Recipients of the transaction that RCPT opened. */
  readonly #own: number;
  #connection: UpstreamConnection | null;
  /** Whether the transaction is the one that RCPT opened. */
  #opened = true;
  /** Whether the connection has no transaction. */
  #clean = false;
  readonly #untold: number[] = [];
  readonly #errors: unknown[] = [];

  constructor(pool: UpstreamPool, input: DeliveryInput) {
    this.#pool = pool;
    this.#input = input;
    this.#connection = input.connections.get(pool) ?? null;
    this.#own = input.recipients.reduce((own, _, at) => (input.poolOf(at) === pool ? own + 1 : own), 0);
  }

  async finish(): Promise<DeliveryReport> {
    if (this.#connection !== null) {
      if (this.#clean) this.#pool.release(this.#connection);
      else await this.#pool.reset(this.#connection);
    }
    return { untold: this.#untold, errors: this.#errors };
  }

  async group(group: Group): Promise<void> {
    const { givenUp, remaining } = this.#input;
    const why = givenUp();
    if (why !== null) return this.#fill(group, why);
    if (remaining() <= 0) return this.#fill(group, SAY.slow);
    const folderless: number[] = [];
    try {
      const accepted = await this.#begin(group, folderless);
      if (accepted.length > 0) await this.#transfer(group, accepted);
    } catch (error) {
      // Whatever was half done is undone by closing.
      this.#connection?.destroy();
      this.#connection = null;
      this.#errors.push(error);
      const reply = error instanceof UpstreamError ? upstreamFailure(error) : SAY.internal;
      this.#fill({ positions: group.positions.filter((position) => !folderless.includes(position)) }, reply);
    }
    if (folderless.length === 0) return;
    // The mailbox was accepted at RCPT: better in the inbox, with all marks, than in a bounce.
    this.#errors.push(new Error(`the upstream knows no recipients with "${group.folder}" for their detail`));
    await this.group({ ...group, positions: folderless, folder: null });
  }

  /** A transaction with this group's recipients and no other; the positions that Dovecot accepts. @param folderless takes those it refuses with a folder */
  async #begin({ positions, folder }: Group, folderless: number[]): Promise<readonly number[]> {
    const pool = this.#pool;
    const { sender } = this.#input;
    // RCPT came without the folder.
    if (folder === null && this.#opened && positions.length === this.#own && this.#connection?.usable) {
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
      ...positions.map((position) => rcptLine(this.#recipient(position, folder), capabilities)),
    ]);
    this.#connection = connection;
    connection.setPatience(this.#patience());
    if (!isPositive(reply)) {
      for (const position of positions) await this.#refuse(position, reply);
      return [];
    }
    const answers = await Promise.all(more);
    const accepted: number[] = [];
    for (const [i, position] of positions.entries()) {
      const answer = answers[i];
      if (answer === undefined) throw new UpstreamError('protocol', 'RCPT without an answer');
      if (isPositive(answer)) accepted.push(position);
      else if (folder !== null && answer.code >= 500) folderless.push(position);
      else await this.#refuse(position, answer);
    }
    return accepted;
  }

  #recipient(position: number, folder: string | null): PathCommand {
    const recipient = this.#input.recipients[position];
    if (recipient === undefined) throw new Error(`no recipient has position ${position}`);
    return folder === null ? recipient : forFolder(recipient, folder, this.#input.delimiter);
  }

  async #transfer(group: Group, accepted: readonly number[]): Promise<void> {
    const connection = this.#connection;
    if (connection === null) throw new Error('no transaction is open');
    const go = await connection.command('DATA');
    if (go.code !== 354) {
      if (isPositive(go)) throw surprise('DATA', go);
      for (const position of accepted) await this.#refuse(position, go);
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
        const told = this.#input.statuses.settle(position, await this.#reply(position, answer));
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
  async #refuse(position: number, reply: UpstreamReply): Promise<void> {
    if (reply.code < 400) throw surprise('a command', reply);
    this.#input.statuses.settle(position, await this.#reply(position, reply));
  }

  async #reply(position: number, reply: UpstreamReply): Promise<string> {
    return relayed(isFull(reply) ? await this.#input.fullReply(position, reply) : reply);
  }

  #fill({ positions }: Pick<Group, 'positions'>, reply: string): void {
    const { statuses, trace } = this.#input;
    for (const position of positions) statuses.settle(position, traced(reply, trace));
  }

  #patience(): number {
    return Math.max(1, Math.min(this.#pool.options.timeoutMs, this.#input.remaining()));
  }
}

function isPositive({ code }: UpstreamReply): boolean {
  return code >= 200 && code < 300;
}

function surprise(what: string, { code }: UpstreamReply): UpstreamError {
  return new UpstreamError('protocol', `${what} answered with ${code}`);
}
