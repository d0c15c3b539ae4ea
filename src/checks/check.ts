import { z } from 'zod';

import type { Client, Direction, Recipient } from '../mail/envelope.ts';
import type { HeaderList } from '../mail/header.ts';
import type { Message } from '../mail/message.ts';
import type { Address, ReversePath } from '../mail/address.ts';
import type { Clock } from '../ports/clock.ts';
import type { ContentScanner } from '../ports/content-scanner.ts';
import type { Directory } from '../ports/directory.ts';
import type { ListHealth } from '../ports/list-health.ts';
import type { MailAuth } from '../ports/mail-auth.ts';
import type { Notifier } from '../ports/notifier.ts';
import type { QuotaSource } from '../ports/quota.ts';
import type { Resolver } from '../ports/resolver.ts';
import type { SpamScanner } from '../ports/scanner.ts';
import type { State } from '../ports/state.ts';
import type { VirusScanner } from '../ports/virus-scanner.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';

/** Known once MAIL FROM was given. */
export interface MailFacts {
  readonly client: Client;
  readonly direction: Direction;
  readonly sender: ReversePath;
}

/** One message to policyd: the same object in all its requests, so that a check can remember what it did for it (in a WeakMap). */
export interface MessageIdentity {
  /** Names the message to the other daemons. */
  readonly trace: string;
}

/** Known at RCPT TO, of one recipient. policyd only. */
export interface RcptFacts extends MailFacts {
  readonly recipient: Address;
  /** Octets as declared with SIZE=; null: nothing was declared. */
  readonly size: number | null;
  readonly identity: MessageIdentity;
  /** Recipients of this message that were accepted before this one. */
  readonly accepted: readonly Address[];
}

/** Known at DATA and at the end of the message, of the whole message. policyd only, which never sees content. */
export interface EndFacts extends MailFacts {
  readonly moment: 'data' | 'end';
  /** Octets: at the end the real size, at DATA as declared; null: nothing was declared. */
  readonly size: number | null;
  readonly identity: MessageIdentity;
  /** Recipients that policyd accepted; some may have been refused by others since. */
  readonly accepted: readonly Address[];
  /** How many recipients the message really has. */
  readonly recipientCount: number;
}

/** Known once the header section has ended. */
export interface HeadFacts extends MailFacts {
  readonly recipients: readonly Recipient[];
  readonly headers: HeaderList;
}

/** Known once the whole message is there. */
export interface MessageFacts extends MailFacts {
  readonly message: Message;
}

/**
 * What is known by when. A check gets the facts of its own stage.
 *
 * `mail` is made once per message, `rcpt` once per recipient, `end` at DATA and END-OF-MESSAGE. `admission` is made per recipient, one check
 * after another, once nothing else stands against the recipient: these checks count and reserve, and what they took is given back
 * when a later one refuses.
 */
export interface Facts {
  readonly mail: MailFacts;
  readonly rcpt: RcptFacts;
  readonly admission: RcptFacts;
  readonly end: EndFacts;
  readonly message: MessageFacts;
}

export type Stage = keyof Facts;

/** The world, as far as checks need it. */
export interface CheckTools {
  readonly clock: Clock;
  readonly resolver: Resolver;
  readonly mailAuth: MailAuth;
  /** null when no scanner was configured and none answers at its usual address. */
  readonly scanner: SpamScanner | null;
  /** null when none was configured and none answers at its usual address. */
  readonly virusScanner: VirusScanner | null;
  /** null in processes that see no messages. */
  readonly contentScanner: ContentScanner | null;
  readonly state: State;
  readonly directory: Directory;
  /** null when nothing was configured that could tell. */
  readonly quota: QuotaSource | null;
  readonly notifier: Notifier;
  readonly blockLists: ListHealth;
  /** Host name that trace fields written for scanners bear. */
  readonly hostname: string;
  /** Postfix's recipient_delimiter: what stands between a user name and its extension; empty: there are none. */
  readonly delimiter: string;
}

/** Thrown by a check that can't say anything without an outcome that is unavailable. */
export class UnmetNeed extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UnmetNeed';
  }
}

/** One finding code of a check: what it means, and what is done about it when the operator says nothing. */
export interface CodeInfo {
  readonly meaning: string;
  readonly action: 'ignore' | 'tag' | 'junk' | 'quarantine' | 'defer' | 'reject' | 'discard' | 'allow';
  /** Decided, recorded and counted, never acted on; when the operator says nothing. */
  readonly shadow?: boolean;
  /** Words for a refusal in place of ours. */
  readonly text?: string;
  /** Who gets a copy of a message that goes on though it was found. */
  readonly copyTo?: readonly string[];
}

interface CheckInfo<S extends Stage> {
  /** One lower-case word; finding codes start with it. */
  readonly name: string;
  readonly stage: S;
  /** One sentence for the manual. */
  readonly summary: string;
  /** Mail in these directions is checked. */
  readonly directions: readonly Direction[];
  /** Names of checks whose outcomes `run` wants to see; they come earlier in the list. */
  readonly needs: readonly string[];
  /** It is whole without them; what they say is an addition. */
  readonly needsLittle?: boolean;
  /** Every code it can find. */
  readonly codes: Readonly<Record<string, CodeInfo>>;
  /** What it means when it can't be made, if the operator says nothing. */
  readonly unavailable: 'ignore' | 'defer';
  /** Default for the longest time it may take, as a duration of the configuration. */
  readonly deadline: string;
  /** Made by policyd only, though its stage is known elsewhere too. */
  readonly policyOnly?: boolean;
  /** A finding with the action `allow` sets the findings of this check aside. */
  readonly waivable?: boolean;
  /** Off unless the operator says `enabled = true`. */
  readonly optIn?: boolean;
  /** Goes on with the work of this check at another stage: has no table of its own, and is on with that one, with its options. */
  readonly partOf?: string;
  /** Of a message it reads the header section alone: its body need not be kept for it. */
  readonly headersOnly?: boolean;
}

/** What one check says of itself: everything but its name in the list. */
export interface CheckSpec<S extends Stage, Shape extends z.ZodRawShape> extends CheckInfo<S> {
  /** Its configuration keys. */
  readonly options: Shape;
  /** Codes that depend on the options, besides `codes`; they start with the check's name too. */
  codesOf?(options: z.output<z.ZodObject<Shape>>): Readonly<Record<string, CodeInfo>>;
  /** Where the options say in which directions mail is checked: in place of `directions`. */
  directionsOf?(options: z.output<z.ZodObject<Shape>>): readonly Direction[];
  /** Whether a finding may bring a new body for the message (`SpamScan.rewriting`): the milter must be allowed to replace it. */
  replacesBody?(options: z.output<z.ZodObject<Shape>>): boolean;
  /** false: it has nothing to ask (a neighbour that is not there), or nothing to do; it is left out and no outcome is made. */
  ready?(tools: CheckTools, options: z.output<z.ZodObject<Shape>>): boolean;
  /**
   * Gathers the facts; at once where it can, without a promise, which costs a fraction. May throw: the runner turns that, a missed deadline, or an
   * outcome it needs and can't have, into `unavailable`. Ends when `signal` aborts.
   */
  run(
    context: CheckContext<S, z.output<z.ZodObject<Shape>>>,
  ): Promise<readonly Finding[]> | readonly Finding[];
  /** Whether what was found about a message at an earlier stage holds for these facts as well; left out: it does. */
  serves?(kept: Outcome, context: ServedContext<z.output<z.ZodObject<Shape>>>): boolean;
  /** `admission` only: gives back what `run` took for this recipient, because a later check refused it. Must not throw. */
  undo?(context: CheckContext<S, z.output<z.ZodObject<Shape>>>): void;
}

/** What a check that reads the body while it comes says of itself. */
export interface BodyCheckSpec<Shape extends z.ZodRawShape> extends Omit<
  CheckSpec<'message', Shape>,
  'run' | 'undo'
> {
  /**
   * Begins with a message whose header section has ended. May throw, as `run`. Where the whole message is there at once the runner gives it piece by
   * piece all the same. `signal` aborts when nobody wants to know any more.
   */
  read(context: ReadContext<z.output<z.ZodObject<Shape>>>): BodyReader;
}

/** Facts of a message, for whoever already has an outcome. */
export interface ServedContext<O> {
  readonly facts: MessageFacts;
  readonly tools: CheckTools;
  readonly options: O;
}

export interface ReadContext<O> {
  readonly facts: HeadFacts;
  readonly tools: CheckTools;
  readonly options: O;
  readonly signal: AbortSignal;
  /** Milliseconds that the check may make others wait: all writes together, and once more at the end. */
  readonly deadlineMs: number;
}

/** A check at work on a body that is still coming. */
export interface BodyReader {
  /** false: it can say what it found without the body, which need not be fetched for it. */
  readonly needsBody?: boolean;
  /**
   * The next octets, which stay as they are. A promise: nothing more is given until it is kept. May throw, or reject: it is given no more then, and
   * the outcome is made of the error.
   */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** The body has ended: what was found. */
  end(
    context: Omit<CheckContext<'message', never>, 'options'>,
  ): Promise<readonly Finding[]> | readonly Finding[];
}

export interface CheckContext<S extends Stage, O> {
  readonly facts: Facts[S];
  readonly tools: CheckTools;
  readonly options: O;
  /** Outcomes of the checks named in `needs` that took part. */
  readonly prior: ReadonlyMap<string, Outcome>;
  readonly signal: AbortSignal;
  /** Milliseconds after which `signal` aborts: what a check can't know in time it may report itself, a little before. */
  readonly deadlineMs: number;
}

/** A check with its options, ready to run. */
export interface BoundCheck<S extends Stage> extends CheckInfo<S> {
  /** Milliseconds. */
  readonly deadlineMs: number;
  readonly replacesBody?: boolean;
  ready(tools: CheckTools): boolean;
  run(
    context: Omit<CheckContext<S, never>, 'options' | 'deadlineMs'>,
  ): Promise<readonly Finding[]> | readonly Finding[];
  undo?(context: Omit<CheckContext<S, never>, 'options' | 'deadlineMs'>): void;
  /** Whether what was found about a message at an earlier stage holds for these facts as well. */
  serves?(kept: Outcome, facts: MessageFacts, tools: CheckTools): boolean;
  /** Stage `message` only: it can read the body while it comes; `run` reads it afterwards. */
  read?(context: Omit<ReadContext<never>, 'options' | 'deadlineMs'>): BodyReader;
}

export type AnyBoundCheck = { [S in Stage]: BoundCheck<S> }[Stage];

/** A check as the list holds it: its options' schema, and a way to bind options the schema has accepted. */
export interface CheckDefinition extends CheckInfo<Stage> {
  readonly options: z.ZodRawShape;
  /** Whether there are codes that depend on the options. */
  readonly openCodes: boolean;
  /** The bound check's `codes` are complete. @throws {z.ZodError} when the options are not what the schema wants */
  bind(options: unknown, deadlineMs: number): AnyBoundCheck;
}

/** A check of what is known at MAIL FROM. */
export function mailCheck<Shape extends z.ZodRawShape>(spec: CheckSpec<'mail', Shape>): CheckDefinition {
  return { ...spec, openCodes: spec.codesOf !== undefined, bind: binder(spec) };
}

/** A check of one recipient. */
export function rcptCheck<Shape extends z.ZodRawShape>(spec: CheckSpec<'rcpt', Shape>): CheckDefinition {
  return { ...spec, openCodes: spec.codesOf !== undefined, bind: binder(spec) };
}

/** A check that takes something for a recipient: a count, a place, room. */
export function admissionCheck<Shape extends z.ZodRawShape>(
  spec: CheckSpec<'admission', Shape>,
): CheckDefinition {
  return { ...spec, openCodes: spec.codesOf !== undefined, bind: binder(spec) };
}

/** A check of what policyd learns at DATA and at the end of the message. */
export function endCheck<Shape extends z.ZodRawShape>(spec: CheckSpec<'end', Shape>): CheckDefinition {
  return { ...spec, openCodes: spec.codesOf !== undefined, bind: binder(spec) };
}

/** A check of the whole message. */
export function messageCheck<Shape extends z.ZodRawShape>(
  spec: CheckSpec<'message', Shape>,
): CheckDefinition {
  return { ...spec, openCodes: spec.codesOf !== undefined, bind: binder(spec) };
}

/** A check of the whole message that reads the body while it comes: nothing has to be kept for it. */
export function bodyCheck<Shape extends z.ZodRawShape>(spec: BodyCheckSpec<Shape>): CheckDefinition {
  const schema = z.strictObject(spec.options);
  const bind = binder({
    ...spec,
    async run({ facts, tools, options, prior, signal, deadlineMs }) {
      const { message, ...known } = facts;
      const { headers, body, envelope } = message;
      const reader = spec.read({
        facts: { ...known, headers, recipients: envelope.recipients },
        tools,
        options,
        signal,
        deadlineMs,
      });
      if (reader.needsBody !== false) {
        for await (const chunk of body.chunks()) {
          signal.throwIfAborted();
          await reader.write(chunk);
        }
      }
      return reader.end({ facts, tools, prior, signal, deadlineMs });
    },
  });
  return {
    ...spec,
    openCodes: spec.codesOf !== undefined,
    bind: (options, deadlineMs) => {
      const parsed = schema.parse(options);
      return {
        ...bind(options, deadlineMs),
        read: (context) => spec.read({ ...context, options: parsed, deadlineMs }),
      };
    },
  };
}

type Given<S extends Stage> = Omit<CheckContext<S, never>, 'options' | 'deadlineMs'>;

/** With the options. A class: a literal with a getter costs as much as a small check. */
class BoundContext<S extends Stage, O> implements CheckContext<S, O> {
  readonly facts: Facts[S];
  readonly tools: CheckTools;
  readonly prior: ReadonlyMap<string, Outcome>;
  readonly options: O;
  readonly deadlineMs: number;
  readonly #given: Given<S>;

  constructor(given: Given<S>, options: O, deadlineMs: number) {
    this.facts = given.facts;
    this.tools = given.tools;
    this.prior = given.prior;
    this.options = options;
    this.deadlineMs = deadlineMs;
    this.#given = given;
  }

  /** Made when it is asked for: an AbortController costs more than most checks. */
  get signal(): AbortSignal {
    return this.#given.signal;
  }
}

function binder<S extends Stage, Shape extends z.ZodRawShape>(
  spec: CheckSpec<S, Shape>,
): (options: unknown, deadlineMs: number) => BoundCheck<S> {
  const schema = z.strictObject(spec.options);
  return (options, deadlineMs) => {
    const parsed = schema.parse(options);
    const bound = (given: Given<S>): CheckContext<S, typeof parsed> =>
      new BoundContext(given, parsed, deadlineMs);
    return {
      ...spec,
      codes: { ...spec.codes, ...spec.codesOf?.(parsed) },
      directions: spec.directionsOf?.(parsed) ?? spec.directions,
      replacesBody: spec.replacesBody?.(parsed) ?? false,
      deadlineMs,
      ready: (tools) => spec.ready?.(tools, parsed) ?? true,
      serves: (kept, facts, tools) => spec.serves?.(kept, { facts, tools, options: parsed }) ?? true,
      run: (context) => spec.run(bound(context)),
      undo: (context) => spec.undo?.(bound(context)),
    };
  };
}
