import { CheckRun } from '../checks/runner.ts';
import type { CheckTools, MailFacts } from '../checks/check.ts';
import type { Config } from '../config/config.ts';
import { parseForwardPath, parseReversePath } from '../mail/address.ts';
import type { Client, Direction, Envelope, Recipient } from '../mail/envelope.ts';
import { HeaderList, type HeaderField } from '../mail/header.ts';
import type { Body } from '../mail/message.ts';
import type { SigningKeys } from '../ports/signing-keys.ts';
import type { Quarantine } from '../ports/quarantine.ts';
import type { Store } from '../ports/store.ts';
import { Spool } from '../runtime/spool.ts';
import type { Log } from '../runtime/telemetry.ts';
import { ArcFinisher } from './arc-finisher.ts';
import { Budget } from './budget.ts';
import { DkimFinisher } from './dkim-finisher.ts';
import { BrokenKey, type Finisher } from './finisher.ts';
import { leavesAgain } from './forwarded.ts';
import type { MilterMetrics } from './metrics.ts';
import type { Terms } from './negotiate.ts';
import {
  headersTooLarge,
  NOT_SPOOLED,
  tooLarge,
  tooManyRecipients,
  UNSIGNED,
  type Refusal,
} from './refusal.ts';
import { mayBeKept } from './quarantine.ts';
import { chooseKeys } from './signing.ts';
import { ProtocolError, type CommandKind } from './command.ts';

/** Fields of one message. Postfix has no limit of its own but the message size. */
export const FIELD_LIMIT = 10_000;
/** Octets of the header section. */
export const HEADER_OCTETS_LIMIT = 4 * 1024 * 1024;
/** Recipients of one message; smtpd_recipient_limit is 1,000, sendmail(1) has none. */
export const RECIPIENT_LIMIT = 20_000;
/** Octets of all paths and ESMTP parameters. */
export const ENVELOPE_OCTETS_LIMIT = 4 * 1024 * 1024;

/** What a message needs of its surroundings. */
export interface MessageContext {
  readonly config: Config;
  readonly terms: Terms;
  readonly checks: CheckTools;
  readonly keys: SigningKeys;
  readonly quarantine: Quarantine;
  readonly store: Store;
  readonly log: Log;
  readonly metrics: MilterMetrics;
}

/** What MAIL FROM begins with. */
export interface Origin {
  readonly client: Client;
  readonly direction: Direction;
  /** Whether it came from sendmail(1) or Postfix itself. */
  readonly nonSmtp: boolean;
}

type Phase = 'envelope' | 'headers' | 'body';

/** One message from MAIL to its end, as it is gathered. Everything that grows has a limit; what passes one is refused at the end. */
export class Transaction {
  readonly #context: MessageContext;
  readonly facts: MailFacts;
  readonly run: CheckRun;
  /** Of what the checks may make the MTA wait. */
  readonly budget: Budget;
  #overrunBy: readonly string[] = [];
  readonly #senderParameters: readonly string[];
  readonly #recipients: Recipient[] = [];
  #envelopeOctets = 0;
  readonly #fields: HeaderField[] = [];
  #headerOctets = 0;
  #headers: HeaderList | null = null;
  /** null: nobody reads the body again. */
  readonly spool: Spool | null;
  #bodyOctets = 0;
  #finisher: Finisher | null = null;
  #phase: Phase = 'envelope';
  #refusal: Refusal | null = null;
  #gone = false;

  constructor(context: MessageContext, origin: Origin, path: string, parameters: readonly string[]) {
    this.#context = context;
    const { client, direction, nonSmtp } = origin;
    const sender = parseReversePath(path);
    this.facts = { client, direction, sender };
    this.#senderParameters = parameters;
    this.#countEnvelope(path, parameters);
    const { config, checks, metrics } = context;
    // MILTER_README: Postfix's own notifications are never to be refused. They are signed, and not looked at.
    const wanted = nonSmtp && sender.kind === 'null' ? [] : config.checks;
    this.run = new CheckRun(wanted, checks, direction, metrics.outcome);
    const { max_message_size: limit, memory_per_message: memory, deadline } = config.file.milter;
    this.budget = new Budget(deadline, checks.clock, () => {
      this.#overrunBy = this.run.expire();
    });
    const bodyIsRead = wanted.some(
      (check) =>
        check.stage === 'message' &&
        check.read === undefined &&
        check.headersOnly !== true &&
        check.directions.includes(direction),
    );
    const isKept = bodyIsRead || mayBeKept(config, direction);
    this.spool = isKept ? new Spool({ memory, limit, folder: config.file.state.folder }) : null;
    this.run.startMail(this.facts);
  }

  /** Whether the MTA has given it up: nothing that comes of it counts any more. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Why it can't be taken; null when it can. */
  get refusal(): Refusal | null {
    return this.#refusal;
  }

  /** Checks that were waited for when the time for the whole message was used up. */
  get overrunBy(): readonly string[] {
    return this.#overrunBy;
  }

  /** What signs or seals it, with the whole body; null when nothing does. */
  get finisher(): Finisher | null {
    return this.#finisher;
  }

  /** The header section; complete once it has ended. */
  get headers(): HeaderList {
    return this.#headers ?? new HeaderList(this.#fields);
  }

  /** For the checks; when it was not kept, those that run want no more than the header section. */
  get keptBody(): Body {
    return this.spool ?? { size: this.#bodyOctets, chunks: notKept };
  }

  /** Octets of the message as it came, without the Received field that the MTA does not show. */
  get size(): number {
    return this.#headerOctets + 2 + this.#bodyOctets;
  }

  envelope(queueId: string | null): Envelope {
    return {
      ...this.facts,
      senderParameters: this.#senderParameters,
      recipients: this.#recipients,
      queueId,
    };
  }

  addRecipient(path: string, parameters: readonly string[]): void {
    this.#enter('rcpt', 'envelope');
    if (this.#recipients.length >= RECIPIENT_LIMIT) {
      this.refuse(tooManyRecipients(`more than ${RECIPIENT_LIMIT} recipients`));
    } else if (this.#countEnvelope(path, parameters)) {
      this.#recipients.push({ address: parseForwardPath(path), parameters });
    }
  }

  data(): void {
    this.#enter('data', 'envelope');
  }

  addField(name: string, value: string): void {
    this.#enter('header', 'headers');
    const field = fieldOf(name, value, this.#context.terms.leadingSpace);
    this.#headerOctets += name.length + 1 + field.value.length + 2;
    if (this.#fields.length >= FIELD_LIMIT) {
      this.refuse(headersTooLarge(`more than ${FIELD_LIMIT} header fields`));
    } else if (this.#headerOctets > HEADER_OCTETS_LIMIT) {
      this.refuse(headersTooLarge(`more than ${HEADER_OCTETS_LIMIT} octets of header fields`));
    } else {
      this.#fields.push(field);
    }
  }

  endHeaders(): void {
    this.#enter('end-of-headers', 'headers');
    this.#phase = 'body';
    this.#headers = new HeaderList(this.#fields);
    this.#chooseFinisher(this.#headers);
    if (this.#refusal === null) {
      this.run.startBody({ ...this.facts, recipients: this.#recipients, headers: this.#headers });
    }
  }

  /** Takes the chunk over. A promise is to be awaited before more is given; it does not reject. */
  body(chunk: Buffer): Promise<void> | undefined {
    this.#enter('body', 'body');
    this.#bodyOctets += chunk.length;
    const limit = this.#context.config.file.milter.max_message_size;
    if (this.#bodyOctets > limit) this.refuse(tooLarge(limit));
    if (this.#refusal !== null || chunk.length === 0) return undefined;
    this.#feedFinisher(chunk);
    const read = this.run.body(chunk);
    const written = this.spool?.write(chunk);
    if (read === undefined) return written === undefined ? undefined : this.#spilled(written);
    const taken = this.budget.during(read);
    return written === undefined ? taken : Promise.all([taken, this.#spilled(written)]).then(() => undefined);
  }

  /** No more will come; also when the MTA left out what may be left out. */
  end(): void {
    if (this.#phase !== 'body') this.endHeaders();
  }

  /** The first reason stands. Nobody waits for the checks any more, nor needs the body. */
  refuse(refusal: Refusal): void {
    if (this.#refusal !== null) return;
    this.#refusal = refusal;
    this.run.abort();
    this.release();
  }

  /** It could not be signed or sealed: what the operator wants then is done, and counted. */
  failFinish(error: unknown): void {
    const { metrics, log } = this.#context;
    // A broken key was told of when it was found: thousands of messages may be waiting for it.
    if (!(error instanceof BrokenKey)) {
      metrics.fault('signing');
      log.error({ daemon: 'milter', err: error }, 'message could not be signed');
    }
    const finisher = this.#finisher;
    this.#finisher = null;
    finisher?.failed();
    if (finisher?.withoutKey !== 'skip') this.refuse(UNSIGNED);
  }

  /** The MTA gave it up. May be called again, and after the end. */
  abort(): void {
    this.#gone = true;
    this.run.abort();
    this.release();
  }

  /** Gives back memory and spool file. */
  release(): void {
    const { metrics, log } = this.#context;
    this.spool?.[Symbol.asyncDispose]().catch((error: unknown) => {
      metrics.fault('spool');
      log.error({ daemon: 'milter', err: error }, 'spool file could not be closed');
    });
  }

  /** Envelope, header section and body come in this order; later phases do not go back. */
  #enter(event: CommandKind, phase: Phase): void {
    const late =
      this.#phase === 'body' ? phase !== 'body' : this.#phase === 'headers' && phase === 'envelope';
    const early = phase === 'body' && this.#phase !== 'body';
    if (late || early) throw new ProtocolError('out-of-order', `${event} in the ${this.#phase} of a message`);
    this.#phase = phase;
  }

  #countEnvelope(path: string, parameters: readonly string[]): boolean {
    this.#envelopeOctets += path.length;
    for (const parameter of parameters) this.#envelopeOctets += parameter.length;
    if (this.#envelopeOctets <= ENVELOPE_OCTETS_LIMIT) return true;
    this.refuse(tooManyRecipients(`more than ${ENVELOPE_OCTETS_LIMIT} octets of addresses`));
    return false;
  }

  #chooseFinisher(headers: HeaderList): void {
    const { config, checks, keys, metrics, terms } = this.#context;
    const { signing, sealing } = config;
    switch (this.facts.direction) {
      case 'out':
        if (!signing.enabled) return;
        // Without SMFIP_HDR_LEADSPC the white space after the colon is not known, and `simple` would sign it (RFC 6376 §3.4.1).
        this.#finisher = new DkimFinisher(
          terms.leadingSpace ? signing : { ...signing, headerCanonicalization: 'relaxed' },
          chooseKeys(signing, this.facts, headers, keys, checks.directory),
          metrics,
        );
        return;
      case 'in': {
        if (sealing === null) return;
        const wanted =
          sealing.seal === 'incoming'
            ? Promise.resolve(true)
            : leavesAgain(this.#recipients, checks.directory);
        this.#finisher = new ArcFinisher(sealing, config.authservId, wanted, keys, metrics);
      }
    }
  }

  #feedFinisher(chunk: Buffer): void {
    try {
      this.#finisher?.body(chunk);
    } catch (error) {
      this.failFinish(error);
    }
  }

  async #spilled(written: Promise<void>): Promise<void> {
    try {
      await written;
    } catch (error) {
      if (this.#gone) return;
      const { metrics, log } = this.#context;
      metrics.fault('spool');
      log.error({ daemon: 'milter', err: error }, 'spool file could not be written');
      this.refuse(NOT_SPOOLED);
    }
  }
}

function notKept(): never {
  throw new Error('the body was not kept: no check that reads it was to be made');
}

/** From the wire's form to the message's: CRLF folds, the space that the MTA took away, no white space in the name. */
function fieldOf(rawName: string, rawValue: string, leadingSpace: boolean): HeaderField {
  const spaced = leadingSpace ? rawValue : ` ${rawValue}`;
  // A line break that is no fold would begin a field of its own; Postfix puts a tab there too.
  const value = spaced.includes('\n')
    ? spaced.replaceAll(/\n(?![ \t])/g, '\n\t').replaceAll('\n', '\r\n')
    : spaced;
  let end = rawName.length;
  while (end > 0 && (rawName[end - 1] === ' ' || rawName[end - 1] === '\t')) end--;
  if (end === rawName.length) return { name: rawName, value };
  return { name: rawName.slice(0, end), gap: rawName.slice(end), value };
}
