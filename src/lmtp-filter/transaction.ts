import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { parseForwardPath, parseReversePath, type Address, type ReversePath } from '../mail/address.ts';
import type { Recipient } from '../mail/envelope.ts';
import type { Message } from '../mail/message.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';
import { parameterText } from './command.ts';
import { isBackscatter } from './backscatter.ts';
import { mailProblem, rcptProblem, wantsSmtputf8, type PathCommand } from './envelope-lines.ts';
import { fullMailboxReply, isFull } from './full-mailbox.ts';
import { Leg } from './leg.ts';
import { mailboxOf } from './mailbox.ts';
import { relayed, SAY } from './render.ts';
import type { LmtpMetrics } from './metrics.ts';
import type { UpstreamReply } from './reply-decoder.ts';
import type { UpstreamConnection } from './upstream-connection.ts';
import type { UpstreamPool } from './upstream.ts';
import type { Upstreams } from './upstreams.ts';
import type { Forwarded } from './xforward.ts';

/** RFC 5321 §4.5.3.1.8 wants 100 at least; Postfix sends 50 by default. */
export const RECIPIENT_LIMIT = 1000;

export interface TransactionTools {
  readonly config: Config;
  readonly upstreams: Upstreams;
  readonly store: Store;
  readonly checks: CheckTools;
  readonly quarantine: Quarantine;
  readonly metrics: LmtpMetrics;
  readonly log: Log;
}

/** Takes one reply, without its line end. */
export type Say = (reply: string) => void;

interface Planned {
  readonly recipient: PathCommand;
  /** null: Dovecot is asked. */
  readonly problem: string | null;
  /** The one that is asked; null: none is. */
  readonly pool: UpstreamPool | null;
}

/** A recipient that was refused at RCPT. */
export interface Refused {
  readonly recipient: Address;
  readonly reply: string;
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
  /** Of the accepted ones, position by position. */
  readonly #pools: UpstreamPool[] = [];
  readonly #refused: Refused[] = [];
  readonly #legs = new Map<UpstreamPool, Leg>();
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

  /** Connections with the transaction on them, of those Dovecots where it was not lost; they are the caller's from now on. */
  takeConnections(): Map<UpstreamPool, UpstreamConnection> {
    const taken = new Map<UpstreamPool, UpstreamConnection>();
    for (const [pool, leg] of this.#legs) {
      const connection = leg.take();
      if (connection !== null) taken.set(pool, connection);
    }
    return taken;
  }

  /** Which Dovecot has accepted the recipient of that position. */
  poolOf(position: number): UpstreamPool {
    const pool = this.#pools[position];
    if (pool === undefined) throw new Error(`no recipient has position ${position}`);
    return pool;
  }

  /** Recipients refused so far for good, or because their mailbox is full; each is given once. */
  takeRefused(): readonly Refused[] {
    return this.#refused.splice(0);
  }

  /** MAIL, and the RCPTs that came with it: one reply for each, in their order. Where MAIL is refused, so are they. */
  async mail(recipients: readonly PathCommand[], say: Say): Promise<void> {
    const { config, upstreams } = this.#tools;
    this.#refusal = mailProblem(this.#sender, config.file['lmtp-filter'].max_message_size);
    const plan = await this.#plan(recipients);
    const { single } = upstreams;
    if (this.#refusal !== null) {
      say(this.#refusal);
      return this.#answer(plan, new Map(), say);
    }
    if (single === null) {
      // Which of them is concerned, the recipients tell.
      this.#begun = true;
      say(SAY.sender);
      return this.#ask(plan, say);
    }
    const leg = this.#newLeg(single);
    const { reply, more } = await leg.begin(askedOf(plan, single));
    this.#refusal = leg.refusal;
    this.#begun = leg.refusal === null;
    say(reply);
    return this.#answer(plan, new Map([[single, more]]), say);
  }

  /** RCPTs that came together: one reply for each, in their order. */
  async rcpt(recipients: readonly PathCommand[], say: Say): Promise<void> {
    await this.#ask(await this.#plan(recipients), say);
  }

  /** RSET, or the client is gone. */
  async abandon(): Promise<void> {
    await Promise.all(Array.from(this.#legs.values(), (leg) => leg.abandon()));
  }

  /** What is wrong with each recipient before Dovecot is asked. */
  #plan(recipients: readonly PathCommand[]): Planned[] | Promise<Planned[]> {
    const smtputf8 = wantsSmtputf8(this.#sender);
    const { single } = this.#tools.upstreams;
    let room = RECIPIENT_LIMIT - this.#accepted.length;
    const plan = recipients.map((recipient) => {
      const problem = rcptProblem(recipient, smtputf8) ?? (room <= 0 ? SAY.tooManyRecipients : null);
      if (problem === null) room -= 1;
      return { recipient, problem, pool: problem === null ? single : null };
    });
    return single === null ? Promise.all(plan.map((planned) => this.#placed(planned))) : plan;
  }

  /** With the Dovecot that delivers to the mailbox. */
  async #placed(planned: Planned): Promise<Planned> {
    if (planned.problem !== null) return planned;
    const { upstreams, checks, config, log } = this.#tools;
    const address = parseForwardPath(planned.recipient.path);
    try {
      const mailbox = await mailboxOf(address, checks.directory, config.file.site.recipient_delimiter);
      return { ...planned, pool: upstreams.poolFor(mailbox) };
    } catch (error) {
      log.warn(
        { daemon: 'lmtp-filter', qid: this.#forwarded.queueId, err: error },
        'no Dovecot could be chosen',
      );
      return { ...planned, problem: SAY.nowhere };
    }
  }

  /** RCPT to each of the Dovecots concerned, at once; with MAIL where that was not sent yet. */
  async #ask(plan: readonly Planned[], say: Say): Promise<void> {
    const pools = new Set(plan.flatMap(({ pool }) => (pool === null ? [] : [pool])));
    const asked = await Promise.all(
      Array.from(pools, async (pool) => {
        const recipients = askedOf(plan, pool);
        const leg = this.#legs.get(pool);
        const more =
          leg === undefined ? (await this.#newLeg(pool).begin(recipients)).more : leg.more(recipients);
        return [pool, more] as const;
      }),
    );
    await this.#answer(plan, new Map(asked), say);
  }

  #newLeg(pool: UpstreamPool): Leg {
    const { metrics, log } = this.#tools;
    const leg = new Leg({ pool, sender: this.#sender, queueId: this.#forwarded.queueId, metrics, log });
    this.#legs.set(pool, leg);
    return leg;
  }

  /** Gives each recipient its reply; those that Dovecot was asked about take theirs from `replies`. */
  async #answer(
    plan: readonly Planned[],
    replies: ReadonlyMap<UpstreamPool, readonly Promise<UpstreamReply>[]>,
    say: Say,
  ): Promise<void> {
    const next = new Map<UpstreamPool, number>();
    for (const { recipient, problem, pool } of plan) {
      const own = this.#refusal ?? problem;
      const leg = pool === null ? undefined : this.#legs.get(pool);
      if (own !== null || pool === null || leg === undefined) {
        this.#say(recipient, own ?? SAY.internal, say);
        continue;
      }
      const index = next.get(pool) ?? 0;
      next.set(pool, index + 1);
      const outcome = await leg.outcome(replies.get(pool)?.[index]);
      if (typeof outcome === 'string') this.#say(recipient, outcome, say);
      else await this.#take(recipient, outcome, pool, say);
    }
  }

  /** What Dovecot has answered to RCPT. */
  async #take(recipient: PathCommand, reply: UpstreamReply, pool: UpstreamPool, say: Say): Promise<void> {
    if (reply.code < 300) {
      this.#accepted.push(recipient);
      this.#pools.push(pool);
    }
    const said = isFull(reply) ? await this.#fullReply(recipient, reply) : reply;
    this.#say(recipient, relayed(said), say);
  }

  #fullReply({ path }: PathCommand, reply: UpstreamReply): Promise<UpstreamReply> {
    const { store, log, config, checks } = this.#tools;
    const mailbox = {
      queueId: this.#forwarded.queueId,
      recipient: parseForwardPath(path).raw,
      wait: config.file['lmtp-filter'].full_mailbox_wait,
    };
    return fullMailboxReply(reply, mailbox, { store, log, clock: checks.clock });
  }

  #say(recipient: PathCommand, reply: string, say: Say): void {
    if (isBackscatter(reply)) this.#refused.push({ recipient: parseForwardPath(recipient.path), reply });
    say(reply);
  }
}

function askedOf(plan: readonly Planned[], wanted: UpstreamPool): PathCommand[] {
  return plan.flatMap(({ recipient, pool }) => (pool === wanted ? [recipient] : []));
}
