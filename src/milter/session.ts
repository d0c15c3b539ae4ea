import type { MilterMetrics } from './metrics.ts';
import { clientOf, directionOf, peerOf, type Peer } from './client.ts';
import { conclude } from './conclusion.ts';
import { Macros } from './macros.ts';
import { expectsReply, negotiate, type SilentEvent } from './negotiate.ts';
import { decisionOf, logFields } from './record.ts';
import { CONTINUE, encodeAnswer, TEMPFAIL } from './responses.ts';
import { settleQuota } from './settle.ts';
import { Transaction, type MessageContext } from './transaction.ts';
import { ProtocolError, type Command, type Connect, type Offer } from './command.ts';
import type { CheckTools } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import type { SigningKeys } from '../ports/signing-keys.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import type { Log } from '../runtime/telemetry.ts';

/** `HELO` of RFC 5321 §4.5.3.1.5 has 512 octets at most, a command line of Postfix 2,048. */
const NAME_LIMIT = 2048;

export interface SessionTools {
  readonly checks: CheckTools;
  readonly keys: SigningKeys;
  readonly quarantine: Quarantine;
  readonly store: Store;
  readonly log: Log;
  readonly metrics: MilterMetrics;
}

/** What goes back to the MTA; null: nothing. A promise when it takes its time; it does not reject. */
export type Reply = Buffer | null | Promise<Buffer | null>;

/**
 * The protocol of one connection, which is one SMTP session: events in, answers out. Knows no socket.
 *
 * Messages are objects of their own, so that whatever comes of one that was given up finds nobody who listens.
 */
export class Session {
  readonly #config: Config;
  readonly #tools: SessionTools;
  readonly #macros = new Macros();
  /** null before the negotiation. */
  #context: MessageContext | null = null;
  #peer: Peer | null = null;
  #helo: string | null = null;
  #message: Transaction | null = null;

  /** The configuration is the session's to its end. */
  constructor(config: Config, tools: SessionTools) {
    this.#config = config;
    this.#tools = tools;
  }

  /** Whether a message has begun and has no verdict yet. */
  get messageOpen(): boolean {
    return this.#message !== null;
  }

  /**
   * One event. Called again only when the answer to the one before is there.
   *
   * @throws {ProtocolError} when nothing that follows can be understood
   */
  handle(command: Exclude<Command, { kind: 'quit' }>): Reply {
    switch (command.kind) {
      case 'optneg':
        return this.#negotiate(command);
      case 'macros':
        this.#agreed('macros');
        // Those of MAIL come before it: what is left of an earlier message must not mix with them.
        if (command.stage === 'M') this.abort();
        this.#macros.set(command.stage, command.macros);
        return null;
      case 'connect':
        return this.#begin(command);
      case 'helo':
        this.#connected(command.kind);
        this.abort();
        if (command.name.length > NAME_LIMIT)
          throw new ProtocolError('malformed', 'a HELO name that is too long');
        this.#helo = command.name;
        return this.#answer('helo');
      case 'mail': {
        const peer = this.#connected(command.kind);
        if (this.#message !== null) this.abort();
        this.#message = this.#open(peer, command.path, command.parameters);
        return this.#answer('mail');
      }
      case 'rcpt':
        this.#current(command.kind).addRecipient(command.path, command.parameters);
        return this.#answer('rcpt');
      case 'data':
        this.#current(command.kind).data();
        return CONTINUE;
      case 'header':
        this.#current(command.kind).addField(command.name, command.value);
        return this.#answer('header');
      case 'end-of-headers':
        this.#current(command.kind).endHeaders();
        return this.#answer('end-of-headers');
      case 'body': {
        const written = this.#current(command.kind).body(command.chunk);
        return written === undefined ? this.#answer('body') : written.then(() => this.#answer('body'));
      }
      case 'end-of-message':
        return this.#end(this.#current(command.kind), command.chunk);
      case 'unknown':
        this.#connected(command.kind);
        return CONTINUE;
      case 'abort':
        // Sent after every message, often twice, and never answered.
        this.abort();
        return null;
      case 'quit-nc':
        this.abort();
        this.#macros.forgetConnection();
        this.#peer = null;
        this.#helo = null;
        return null;
    }
  }

  /** Gives up the message, if there is one; connection and HELO stay. */
  abort(): void {
    const message = this.#message;
    this.#message = null;
    this.#macros.forgetMessage();
    if (message === null) return;
    message.abort();
    this.#tools.metrics.message(message.facts.direction, 'aborted');
  }

  #negotiate(offer: Offer): Buffer {
    if (this.#context !== null) throw new ProtocolError('out-of-order', 'a second negotiation');
    const { checks: made, policy, outgoingPolicy } = this.#config;
    const terms = negotiate(offer, {
      replacesBody: made.some(({ replacesBody }) => replacesBody === true),
      addsRecipients: policy.site.copies !== undefined || outgoingPolicy.site.copies !== undefined,
    });
    const { checks, keys, quarantine, store, log, metrics } = this.#tools;
    this.#context = { config: this.#config, terms, checks, keys, quarantine, store, log, metrics };
    return encodeAnswer(terms.answer);
  }

  #begin(connect: Connect): Reply {
    this.#agreed(connect.kind);
    this.abort();
    if (connect.host.length > NAME_LIMIT)
      throw new ProtocolError('malformed', 'a host name that is too long');
    this.#peer = peerOf(connect, this.#config.file.site.own_networks);
    this.#helo = null;
    return this.#answer('connect');
  }

  #open(peer: Peer, path: string, parameters: readonly string[]): Transaction {
    const client = clientOf(peer, this.#helo, this.#macros);
    const origin = { client, direction: directionOf(peer, this.#macros), nonSmtp: peer.nonSmtp };
    return new Transaction(this.#agreed('mail'), origin, path, parameters);
  }

  /** The end of the message: checks, verdict, edits, signature. Nothing that goes wrong here lets the message pass. */
  async #end(message: Transaction, lastChunk: Buffer): Promise<Buffer | null> {
    const { clock } = this.#tools.checks;
    const begun = clock.elapsed();
    try {
      message.end();
      await message.body(lastChunk);
      const envelope = message.envelope(this.#macros.queueId);
      const conclusion = await conclude(message, envelope, this.#agreed('end-of-message'));
      if (conclusion === null) return null;
      const elapsed = clock.elapsed() - begun;
      const decision = decisionOf(conclusion, { size: message.size, time: clock.now(), elapsed });
      this.#tools.store.record(decision);
      void settleQuota(conclusion, this.#tools);
      this.#tools.log.info(logFields(decision), 'message judged');
      this.#tools.metrics.endOfMessage(elapsed);
      this.#tools.metrics.message(message.facts.direction, decision.verdict);
      return conclusion.rendered.bytes;
    } catch (error) {
      if (message.gone) return null;
      this.#tools.metrics.fault('internal');
      this.#tools.metrics.message(message.facts.direction, 'defer');
      this.#tools.log.error({ daemon: 'milter', err: error }, 'message could not be judged');
      return TEMPFAIL;
    } finally {
      // The MTA's ABORT may come much later.
      message.release();
      if (this.#message === message) {
        this.#message = null;
        this.#macros.forgetMessage();
      }
    }
  }

  #answer(event: SilentEvent): Buffer | null {
    return expectsReply(this.#agreed(event).terms, event) ? CONTINUE : null;
  }

  #agreed(event: string): MessageContext {
    if (this.#context === null) throw new ProtocolError('out-of-order', `${event} before the negotiation`);
    return this.#context;
  }

  #connected(event: string): Peer {
    if (this.#peer === null) throw new ProtocolError('out-of-order', `${event} before a connection`);
    return this.#peer;
  }

  #current(event: string): Transaction {
    if (this.#message === null) throw new ProtocolError('out-of-order', `${event} without MAIL`);
    return this.#message;
  }
}
