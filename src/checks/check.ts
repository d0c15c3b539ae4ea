import { z } from 'zod';

import type { Client, Direction } from '../mail/envelope.ts';
import type { Message } from '../mail/message.ts';
import type { ReversePath } from '../mail/address.ts';
import type { Clock } from '../ports/clock.ts';
import type { MailAuth } from '../ports/mail-auth.ts';
import type { Resolver } from '../ports/resolver.ts';
import type { SpamScanner } from '../ports/scanner.ts';
import type { Finding, Outcome } from '../verdict/finding.ts';

/** Known once MAIL FROM was given. */
export interface MailFacts {
  readonly client: Client;
  readonly direction: Direction;
  readonly sender: ReversePath;
}

/** Known once the whole message is there. */
export interface MessageFacts extends MailFacts {
  readonly message: Message;
}

/** What is known by when. A check gets the facts of its own stage. */
export interface Facts {
  readonly mail: MailFacts;
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
  /** Host name that trace fields written for scanners bear. */
  readonly hostname: string;
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
  readonly action: 'ignore' | 'tag' | 'junk' | 'quarantine' | 'defer' | 'reject' | 'discard';
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
  /** Every code it can find. */
  readonly codes: Readonly<Record<string, CodeInfo>>;
  /** What it means when it can't be made, if the operator says nothing. */
  readonly unavailable: 'ignore' | 'defer';
  /** Default for the longest time it may take, as a duration of the configuration. */
  readonly deadline: string;
}

/** What one check says of itself: everything but its name in the list. */
export interface CheckSpec<S extends Stage, Shape extends z.ZodRawShape> extends CheckInfo<S> {
  /** Its configuration keys. */
  readonly options: Shape;
  /** false: it has nothing to ask (a neighbour that is not there); it is left out and no outcome is made. */
  ready?(tools: CheckTools): boolean;
  /**
   * Gathers the facts. May throw: the runner turns that, a missed deadline, or an outcome it needs and can't have, into
   * `unavailable`. Ends when `signal` aborts.
   */
  run(context: CheckContext<S, z.output<z.ZodObject<Shape>>>): Promise<readonly Finding[]>;
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
  ready(tools: CheckTools): boolean;
  run(context: Omit<CheckContext<S, never>, 'options' | 'deadlineMs'>): Promise<readonly Finding[]>;
}

export type AnyBoundCheck = { [S in Stage]: BoundCheck<S> }[Stage];

/** A check as the list holds it: its options' schema, and a way to bind options the schema has accepted. */
export interface CheckDefinition extends CheckInfo<Stage> {
  readonly options: z.ZodRawShape;
  /** @throws {z.ZodError} when the options are not what the schema wants */
  bind(options: unknown, deadlineMs: number): AnyBoundCheck;
}

/** A check of what is known at MAIL FROM. */
export function mailCheck<Shape extends z.ZodRawShape>(spec: CheckSpec<'mail', Shape>): CheckDefinition {
  return { ...spec, bind: binder(spec) };
}

/** A check of the whole message. */
export function messageCheck<Shape extends z.ZodRawShape>(
  spec: CheckSpec<'message', Shape>,
): CheckDefinition {
  return { ...spec, bind: binder(spec) };
}

function binder<S extends Stage, Shape extends z.ZodRawShape>(
  spec: CheckSpec<S, Shape>,
): (options: unknown, deadlineMs: number) => BoundCheck<S> {
  const schema = z.strictObject(spec.options);
  return (options, deadlineMs) => {
    const parsed = schema.parse(options);
    return {
      ...spec,
      deadlineMs,
      ready: (tools) => spec.ready?.(tools) ?? true,
      run: (context) => spec.run({ ...context, options: parsed, deadlineMs }),
    };
  };
}
